"""Files of configMap, secret, downwardAPI and token volumes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelet_py.api import codec, core_v1, quantity
from kubelet_py.core import volume_payload as payload
from kubelet_py.core.volume_payload import NodeFacts, PayloadError, ProjectedFile

POD = codec.from_builtins(
    core_v1.Pod,
    {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u-1",
            "labels": {"b": "2", "a": "one"},
            "annotations": {"note": 'say "hi"\nand\ttab \\ \x01 é 😀'},
        },
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": "x",
                    "resources": {
                        "limits": {"cpu": "1250m", "memory": "64Mi"},
                        "requests": {"cpu": "250m", "ephemeral-storage": "1500"},
                    },
                },
                {"name": "bare", "image": "x"},
                {"name": "zero", "image": "x", "resources": {"limits": {"cpu": "0"}}},
            ]
        },
    },
)
NODE = NodeFacts(
    "node-1",
    (),
    {name: quantity.parse(text) for name, text in (("cpu", "4"), ("memory", "8Gi"), ("hugepages-2Mi", "1Gi"))},
)


def keys(*items: tuple[str, str, int | None]) -> list[core_v1.KeyToPath]:
    return [core_v1.KeyToPath(key=key, path=path, mode=mode) for key, path, mode in items]


def test_a_config_map_gives_all_keys_or_those_that_are_mapped() -> None:
    source = core_v1.ConfigMap(data={"a": "1"}, binaryData={"b": "AAE="})
    everything = payload.config_map_files(source, None, 0o644, optional=False)
    assert everything == {"a": ProjectedFile(b"1", 0o644), "b": ProjectedFile(b"\x00\x01", 0o644)}
    mapped = payload.config_map_files(source, keys(("a", "x/./y", 0o400)), 0o644, optional=False)
    assert mapped == {"x/y": ProjectedFile(b"1", 0o400)}


def test_a_key_that_is_missing_is_named_unless_it_is_optional() -> None:
    wanted = keys(("zz", "p", None))
    with pytest.raises(PayloadError, match=r"^configmap references non-existent config key: zz$"):
        payload.config_map_files(core_v1.ConfigMap(data={"a": "1"}), wanted, 0o644, optional=False)
    with pytest.raises(PayloadError, match=r"^references non-existent secret key: zz$"):
        payload.secret_files(core_v1.Secret(), wanted, 0o644, optional=False)
    assert payload.secret_files(core_v1.Secret(), wanted, 0o644, optional=True) == {}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels", 'a="one"\nb="2"'),
        ("metadata.labels['a']", "one"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations", 'note="say \\"hi\\"\\nand\\ttab \\\\ \\x01 é 😀"'),
    ],
)
def test_fields_of_the_pod(path: str, text: str) -> None:
    item = core_v1.DownwardAPIVolumeFile(path="f", fieldRef=core_v1.ObjectFieldSelector(fieldPath=path))
    assert payload.downward_api_files(POD, [item], 0o644, NODE) == {"f": ProjectedFile(text.encode(), 0o644)}


@pytest.mark.parametrize("path", ["status.podIP", "spec.nodeName", "metadata.name['x']", "metadata.labels['x"])
def test_a_field_that_a_volume_cannot_show_is_refused(path: str) -> None:
    with pytest.raises(PayloadError, match="unsupported fieldPath"):
        payload.field_text(POD, path)


@pytest.mark.parametrize(
    ("container", "resource", "divisor", "text"),
    [
        ("main", "limits.cpu", None, "2"),
        ("main", "limits.cpu", "1m", "1250"),
        ("main", "limits.memory", "1Mi", "64"),
        ("main", "limits.memory", "0", "67108864"),
        ("main", "requests.cpu", "1m", "250"),
        ("main", "requests.ephemeral-storage", "1k", "2"),
        ("bare", "limits.cpu", None, "4"),
        ("bare", "limits.memory", "1Gi", "8"),
        ("bare", "requests.cpu", None, "0"),
        ("bare", "limits.hugepages-2Mi", None, "0"),
        ("zero", "limits.cpu", None, "4"),
    ],
)
def test_resources_are_divided_and_rounded_up_and_a_missing_limit_is_the_nodes(
    container: str, resource: str, divisor: str | None, text: str
) -> None:
    selector = core_v1.ResourceFieldSelector(containerName=container, resource=resource, divisor=divisor)
    assert payload.resource_text(POD, selector, NODE) == text


@pytest.mark.parametrize(
    ("container", "resource", "divisor", "complaint"),
    [
        ("nobody", "limits.cpu", None, 'container "nobody" not found'),
        ("main", "cpu", None, "unsupported container resource: cpu"),
        ("main", "limits.cpu", "much", "limits.cpu of container main: 'much' is no quantity"),
    ],
)
def test_a_resource_that_cannot_be_shown_is_named(
    container: str, resource: str, divisor: str | None, complaint: str
) -> None:
    selector = core_v1.ResourceFieldSelector(containerName=container, resource=resource, divisor=divisor)
    with pytest.raises(PayloadError, match=complaint):
        payload.resource_text(POD, selector, NODE)
    assert payload.resource_text(POD, core_v1.ResourceFieldSelector("limits.cpu", "bare"), NodeFacts()) == "0"


def test_an_item_must_say_what_it_shows() -> None:
    with pytest.raises(PayloadError, match="neither fieldRef nor resourceFieldRef"):
        payload.downward_api_files(POD, [core_v1.DownwardAPIVolumeFile(path="f")], 0o644, NODE)


@pytest.mark.parametrize(
    ("owner", "group", "mode"), [(None, None, 0o644), (1000, None, 0o600), (None, 2000, 0o600), (1000, 2000, 0o600)]
)
def test_a_token_is_for_its_reader_alone(owner: int | None, group: int | None, mode: int) -> None:
    assert payload.owned_file(b"t", 0o644, owner, group) == ProjectedFile(b"t", mode, owner)


@pytest.mark.parametrize("path", ["/abs", "a/../b", "..", "..data", "..x/y", "", ".", "x" * 5000])
def test_a_path_that_could_lead_out_is_refused(path: str) -> None:
    with pytest.raises(PayloadError, match="invalid path"):
        payload.checked_path(path)


@given(st.text(alphabet="./ab", max_size=12))
def test_an_accepted_path_stays_inside_and_off_the_writers_own_names(path: str) -> None:
    try:
        clean = payload.checked_path(path)
    except PayloadError:
        return
    parts = clean.split("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert not parts[0].startswith("..")


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a b", '"a b"'), ("\x7f", '"\\x7f"'), ("\u200b", '"\\u200b"'), ("\U000e0001", '"\\U000e0001"'), ("é😀", '"é😀"')],
)
def test_quoting_escapes_what_cannot_be_seen(text: str, quoted: str) -> None:
    assert payload.go_quoted(text) == quoted


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("/abs", "must be relative"), ("", "must not be empty"), ("..data", "must not start with"), ("a/..", "contain")],
)
def test_the_complaint_about_a_path_says_what_is_wrong(path: str, complaint: str) -> None:
    with pytest.raises(PayloadError, match=complaint):
        payload.checked_path(path)


def test_an_item_may_show_a_resource_and_a_subscript_needs_its_bracket() -> None:
    selector = core_v1.ResourceFieldSelector(containerName="main", resource="limits.cpu", divisor="1m")
    item = core_v1.DownwardAPIVolumeFile(path="f", resourceFieldRef=selector)
    assert payload.downward_api_files(POD, [item], 0o640, NODE) == {"f": ProjectedFile(b"1250", 0o640)}
    with pytest.raises(PayloadError, match="unsupported fieldPath"):
        payload.field_text(POD, "metadata.labels']")


@pytest.mark.parametrize(("named", "mode"), [(None, 0o644), (0, 0), (0o400, 0o400)])
def test_the_mode_of_files_that_name_none(named: int | None, mode: int) -> None:
    assert payload.default_mode_of(named) == mode
