"""What each word of an instruction changes in an OCI configuration, and what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockershim.oci import instructions as words
from dockershim.oci.capabilities import CAPABILITIES, bounding_set
from dockershim.oci.spec import BadInstruction, edit, keep_capabilities, take_instruction, user_namespace_path

MAP = [[0, 200000, 65536]]


def configuration(**sysctls: str) -> dict[str, Any]:
    return {
        "process": {
            "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 50000]},
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE"], "effective": ["CAP_SYS_RESOURCE"]},
        },
        "mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rprivate"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/77/ns/net"}],
            "sysctl": {"net.ipv4.ping_group_range": "0 2147483647", **sysctls},
        },
    }


def edited(**instruction: Any) -> dict[str, Any]:
    spec = configuration()
    edit(spec, {words.VERSION: words.CURRENT_VERSION, **instruction})
    return spec


def test_without_an_instruction_nothing_is_taken() -> None:
    """Nor where there are no sysctls at all."""
    specs: tuple[dict[str, Any], ...] = (configuration(), {"linux": {}}, {})
    for spec in specs:
        before = copy.deepcopy(spec)
        assert take_instruction(spec) is None
        assert spec == before


def test_the_instruction_goes_and_other_sysctls_stay() -> None:
    said = {words.VERSION: words.CURRENT_VERSION, words.STRICT_GROUPS: [7]}
    spec = configuration(**{words.KEY: json.dumps(said)})
    assert take_instruction(spec) == said
    assert spec == configuration()
    alone: dict[str, Any] = {"linux": {"sysctl": {words.KEY: json.dumps(said)}}}
    take_instruction(alone)
    assert alone == {"linux": {}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON"),
        ("[1]", "no JSON object"),
        ("{}", "version None"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1, "later": true}', "with later"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_so(text: str, problem: str) -> None:
    with pytest.raises(BadInstruction, match=problem):
        take_instruction(configuration(**{words.KEY: text}))


@given(st.text())
def test_any_text_is_an_instruction_or_an_error(text: str) -> None:
    try:
        found = take_instruction(configuration(**{words.KEY: text}))
    except BadInstruction:
        return
    assert found is not None


def test_strict_groups_are_the_primary_one_and_those_of_the_request() -> None:
    assert edited(strict_groups=[1234, 1000])["process"]["user"]["additionalGids"] == [1000, 1234]


def test_recursive_read_only_takes_the_place_of_read_only() -> None:
    assert edited(recursive_read_only=["/data"])["mounts"][1]["options"] == ["rbind", "rprivate", "rro"]
    with pytest.raises(BadInstruction, match="/other"):
        edited(recursive_read_only=["/other"])


def test_ambient_capabilities_are_in_every_set() -> None:
    """The kernel keeps no ambient capability that is not permitted and inheritable."""
    sets = edited(ambient_capabilities=["CAP_CHOWN"])["process"]["capabilities"]
    assert all("CAP_CHOWN" in sets[name] for name in ("bounding", "effective", "permitted", "inheritable", "ambient"))
    assert sets["bounding"].count("CAP_CHOWN") == 1


def test_capabilities_outside_the_bounding_set_go() -> None:
    """Names that nobody knows are left to the runtime to refuse."""
    process = {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_SYS_RESOURCE", "CAP_NEWER"], "ambient": None}}
    keep_capabilities(process, ~(1 << CAPABILITIES.index("SYS_RESOURCE")))
    assert process["capabilities"] == {"bounding": ["CAP_CHOWN", "CAP_NEWER"], "ambient": []}
    without: dict[str, Any] = {}
    keep_capabilities(without, 0)
    assert without == {}


def test_the_bounding_set_is_read_from_status() -> None:
    assert bounding_set("Name:\tx\nCapBnd:\t00000000000000ff\n") == 0xFF
    assert bounding_set("Name:\tx\n") == -1


def userns(**fields: Any) -> dict[str, Any]:
    return {words.UIDS: MAP, words.GIDS: MAP, words.JOINS: False, words.UNMAPPED_MOUNTS: [], **fields}


def test_a_new_user_namespace() -> None:
    """With its maps, and with groups of pings that exist in there."""
    spec = edited(user_namespace=userns())
    assert spec["linux"]["namespaces"][-1] == {"type": "user"}
    mapping = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    assert (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) == (mapping, mapping)
    assert spec["linux"]["sysctl"]["net.ipv4.ping_group_range"] == "0 65535"
    assert user_namespace_path(spec) == ""


def test_the_sandboxs_user_namespace_is_beside_its_network() -> None:
    assert user_namespace_path(edited(user_namespace=userns(joins=True))) == "/proc/77/ns/user"
    spec = configuration()
    spec["linux"]["namespaces"] = [{"type": "mount"}]
    with pytest.raises(BadInstruction, match="no namespace of a sandbox"):
        edit(spec, {words.USER_NAMESPACE: userns(joins=True)})


def test_dockers_own_user_namespace_is_in_the_way() -> None:
    spec = configuration()
    spec["linux"]["namespaces"].append({"type": "user"})
    with pytest.raises(BadInstruction, match="userns-remap"):
        edit(spec, {words.USER_NAMESPACE: userns()})


def test_cdi_devices_are_all_that_their_edits_say() -> None:
    """What is there under the same name gives way; nodes belong to the user unless somebody is named."""
    node = {"path": "/dev/x", "hostPath": "/dev/y", "type": "c", "major": 1, "minor": 3, "permissions": "r"}
    mount = {"destination": "/data", "source": "/lib/x", "type": "bind", "options": ["bind"]}
    edits = {
        "deviceNodes": [node, {"path": "/dev/p", "type": "p", "uid": 0, "fileMode": 384}],
        "mounts": [mount],
        "hooks": [{"hookName": "prestart", "path": "/h", "args": ["h"]}, {"hookName": "prestart", "path": "/i"}],
    }
    spec = edited(**{words.CDI: edits})
    assert spec["linux"]["devices"] == [
        {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": 1000, "gid": 1000},
        {"path": "/dev/p", "type": "p", "fileMode": 384, "gid": 1000},
    ]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": True, "type": "c", "access": "r", "major": 1, "minor": 3}
    ]
    assert [one["destination"] for one in spec["mounts"]] == ["/proc", "/data"]
    assert spec["mounts"][1] == mount
    assert spec["hooks"] == {"prestart": [{"path": "/h", "args": ["h"]}, {"path": "/i"}]}


def test_mounts_of_cdi_devices_keep_their_owners_in_a_user_namespace() -> None:
    """They are the host's drivers, which every pod has."""
    userns = {words.UIDS: MAP, words.GIDS: MAP, words.JOINS: False, words.UNMAPPED_MOUNTS: ["/data"]}
    mount = {"destination": "/lib/x", "source": "/lib/x", "type": "bind", "options": ["bind"]}
    instruction = {words.VERSION: 1, words.CDI: {"mounts": [mount]}, words.USER_NAMESPACE: userns}
    edit(configuration(), instruction)
    assert userns[words.UNMAPPED_MOUNTS] == ["/data", "/lib/x"]
