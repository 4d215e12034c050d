"""Host ids for pods with user namespaces of their own."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from kubelet_py.core.user_namespaces import (
    IdRange,
    decode_mapping,
    default_range,
    encode_mapping,
    parse_subids,
    range_problem,
    to_cri_user_namespace,
)

BLOCK = 65536
RANGE = IdRange(BLOCK, 2 * BLOCK)


def test_blocks_are_given_from_the_lowest() -> None:
    assert RANGE.free_block(()) == BLOCK
    assert RANGE.free_block({(BLOCK, BLOCK)}) == 2 * BLOCK
    assert RANGE.free_block({(BLOCK, BLOCK), (2 * BLOCK, BLOCK)}) is None


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ((BLOCK - 1, 1), BLOCK),
        ((BLOCK - 1, 2), 2 * BLOCK),
        ((2 * BLOCK - 1, 1), 2 * BLOCK),
        ((2 * BLOCK, 1), BLOCK),
        ((2 * BLOCK - 1, 2), None),
        ((0, 9 * BLOCK), None),
    ],
)
def test_a_block_that_shares_an_id_with_another_pod_is_not_free(used: tuple[int, int], expected: int | None) -> None:
    """Pods of before may have ids of another range, or in blocks of another size."""
    assert RANGE.free_block([used]) == expected


@pytest.mark.parametrize(
    ("first", "length", "held"),
    [(BLOCK, BLOCK, True), (BLOCK, 1, False), (BLOCK + 1, BLOCK, False), (0, BLOCK, False), (3 * BLOCK, BLOCK, False)],
)
def test_a_mapping_is_one_of_the_blocks(first: int, length: int, held: bool) -> None:
    assert RANGE.holds(first, length) is held


def test_without_a_user_kubelet_all_but_the_hosts_own_ids_are_the_pods() -> None:
    assert default_range(BLOCK) == IdRange(BLOCK, 2**32 - BLOCK, BLOCK)
    assert default_range(2 * BLOCK).block == 2 * BLOCK
    assert range_problem(default_range(BLOCK), 110) == ""


def test_subordinate_ids_of_user_kubelet() -> None:
    line = "0: kubelet 65536 2147483648\n"
    assert parse_subids(line, line, BLOCK) == IdRange(65536, 2147483648, BLOCK)
    assert parse_subids(line, line, 2 * BLOCK).block == 2 * BLOCK
    with pytest.raises(ValueError, match="must agree"):
        parse_subids(line, "0: kubelet 131072 65536\n", BLOCK)
    with pytest.raises(ValueError, match="one range is expected"):
        parse_subids(line + line, line + line, BLOCK)


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (IdRange(BLOCK + 1, BLOCK), "multiples of 65536"),
        (IdRange(BLOCK, BLOCK + 1), "multiples of 65536"),
        (IdRange(0, 4 * BLOCK), "leave the first 65536"),
        (IdRange(BLOCK, 2 * BLOCK), "enough for 2 pods, and maxPods is 3"),
        (IdRange(BLOCK, 3 * BLOCK), ""),
    ],
)
def test_a_range_must_fit_the_pods(ids: IdRange, problem: str) -> None:
    assert problem in range_problem(ids, 3)
    assert bool(range_problem(ids, 3)) is bool(problem)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_a_mapping_reads_back(first: int, length: int) -> None:
    assert decode_mapping(encode_mapping(first, length)) == (first, length)


@pytest.mark.parametrize(
    "changes",
    [
        {"uidMappings": []},
        {"gidMappings": [{"hostId": 1, "containerId": 0, "length": 2}]},
        {key: [{"hostId": 1, "containerId": 1, "length": 2}] for key in ("uidMappings", "gidMappings")},
        {"uidMappings": None},
    ],
)
def test_what_no_kubelet_would_have_written_is_said(changes: dict[str, object]) -> None:
    content = json.loads(encode_mapping(BLOCK, BLOCK)) | changes
    with pytest.raises(ValueError, match=r"expected|Expected|must be mapped"):
        decode_mapping(json.dumps(content).encode())


def test_the_file_is_the_go_kubelets() -> None:
    """pkg/kubelet/userns writes it in this form, and either agent reads it."""
    mapping = '[{"hostId":65536,"containerId":0,"length":65536}]'
    assert encode_mapping(BLOCK, BLOCK).decode() == f'{{"uidMappings":{mapping},"gidMappings":{mapping}}}'


def test_the_runtime_gets_one_mapping_for_both() -> None:
    mapping = cri.IDMapping(host_id=BLOCK, container_id=0, length=BLOCK)
    assert to_cri_user_namespace(BLOCK, BLOCK) == cri.UserNamespace(mode=cri.POD, uids=[mapping], gids=[mapping])
