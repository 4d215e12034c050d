"""Kinds of volumes, ownership, sizes, and volumeMounts as the container sees them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cri_proto import runtime_v1 as cri
from kubelet_py.api import codec, core_v1
from kubelet_py.core import volume_plan as plan
from kubelet_py.core.expansion import expand_strictly
from kubelet_py.core.volume_plan import MountContext, MountedVolume, PlanError, VolumeKind

DISK = MountedVolume("disk", "/host/disk", VolumeKind.EMPTY_DIR, relabel=True)
FILES = MountedVolume("files", "/host/files", VolumeKind.CONFIG_MAP, read_only=True)
MOUNTED = {volume.name: volume for volume in (DISK, FILES)}


def container(*mounts: dict[str, Any]) -> core_v1.Container:
    return codec.from_builtins(core_v1.Container, {"name": "main", "image": "x", "volumeMounts": list(mounts)})


def pod(spec: dict[str, Any]) -> core_v1.Pod:
    return codec.from_builtins(core_v1.Pod, {"metadata": {"name": "p"}, "spec": {"containers": [], **spec}})


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ({}, VolumeKind.EMPTY_DIR),
        ({"emptyDir": {}}, VolumeKind.EMPTY_DIR),
        ({"hostPath": {"path": "/x"}}, VolumeKind.HOST_PATH),
        ({"configMap": {"name": "x"}}, VolumeKind.CONFIG_MAP),
        ({"secret": {"secretName": "x"}}, VolumeKind.SECRET),
        ({"downwardAPI": {}}, VolumeKind.DOWNWARD_API),
        ({"projected": {}}, VolumeKind.PROJECTED),
        ({"image": {"reference": "x"}}, VolumeKind.IMAGE),
    ],
)
def test_the_kind_is_that_of_the_source(source: dict[str, Any], kind: VolumeKind) -> None:
    assert plan.kind_of(codec.from_builtins(core_v1.Volume, {"name": "v", **source})) is kind


def test_a_kind_that_is_not_served_is_named() -> None:
    volume = codec.from_builtins(core_v1.Volume, {"name": "v", "persistentVolumeClaim": {"claimName": "c"}})
    with pytest.raises(PlanError, match="volumes of type persistentVolumeClaim are not served"):
        plan.kind_of(volume)


def test_mounts_in_their_order_with_read_only_from_mount_or_volume() -> None:
    plans = plan.compute_mount_plans(
        container(
            {"name": "disk", "mountPath": "/a", "mountPropagation": "HostToContainer"},
            {"name": "disk", "mountPath": "b", "readOnly": True, "subPath": "./x//y/"},
            {"name": "files", "mountPath": "/c", "mountPropagation": "None"},
        ),
        MOUNTED,
        MountContext(),
    )
    assert [(p.container_path, p.sub_path, p.read_only, p.propagation) for p in plans] == [
        ("/a", "", False, cri.PROPAGATION_HOST_TO_CONTAINER),
        ("/b", "x/y", True, cri.PROPAGATION_PRIVATE),
        ("/c", "", True, cri.PROPAGATION_PRIVATE),
    ]
    assert [(p.index, p.volume.name) for p in plans] == [(0, "disk"), (1, "disk"), (2, "files")]


@pytest.mark.parametrize(
    ("mount", "complaint"),
    [
        ({"name": "nope", "mountPath": "/a"}, 'cannot find volume "nope" to mount into container "main"'),
        ({"name": "disk", "mountPath": "/a", "subPath": "/etc"}, "must not be an absolute path"),
        ({"name": "disk", "mountPath": "/a", "subPath": "a/../.."}, r"must not contain '\.\.'"),
        ({"name": "disk", "mountPath": "/a", "mountPropagation": "Sideways"}, "invalid mountPropagation"),
        ({"name": "disk", "mountPath": "/a", "recursiveReadOnly": "Enabled"}, "but it is not read-only"),
        (
            {"name": "disk", "mountPath": "/a", "readOnly": True, "recursiveReadOnly": "Enabled"},
            'volume "disk" requested recursive read-only mode, but it is not supported by the runtime',
        ),
        (
            {
                "name": "disk",
                "mountPath": "/a",
                "readOnly": True,
                "recursiveReadOnly": "IfPossible",
                "mountPropagation": "HostToContainer",
            },
            'not compatible with propagation "HostToContainer"',
        ),
        ({"name": "disk", "mountPath": "/a", "readOnly": True, "recursiveReadOnly": "Perhaps"}, "unknown recursive"),
    ],
)
def test_a_mount_that_cannot_be_is_refused(mount: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PlanError, match=complaint):
        plan.compute_mount_plans(container(mount), MOUNTED, MountContext())


@pytest.mark.parametrize(
    ("mode", "supported", "expected"),
    [("Disabled", True, False), ("IfPossible", False, False), ("IfPossible", True, True), ("Enabled", True, True)],
)
def test_recursive_read_only_where_the_runtime_has_it(mode: str, supported: bool, expected: bool) -> None:
    context = MountContext(recursive_read_only_supported=supported)
    for propagation in (None, "", "None"):
        mount = {
            "name": "disk",
            "mountPath": "/a",
            "readOnly": True,
            "recursiveReadOnly": mode,
            "mountPropagation": propagation,
        }
        assert plan.compute_mount_plans(container(mount), MOUNTED, context)[0].recursive_read_only is expected


@pytest.mark.parametrize(
    ("pod_user", "users", "expected"),
    [
        (None, [None, None], None),
        (5, [None, None], 5),
        (5, [None, 6], None),
        (None, [7, 7], 7),
        (None, [7, None], None),
    ],
)
def test_the_one_user_of_all_containers(pod_user: int | None, users: list[int | None], expected: int | None) -> None:
    containers = [
        {"name": f"c{i}", "image": "x", "securityContext": {} if user is None else {"runAsUser": user}}
        for i, user in enumerate(users)
    ]
    security = {} if pod_user is None else {"runAsUser": pod_user}
    assert plan.common_run_as_user(pod({"containers": containers, "securityContext": security})) == expected


def test_only_volumes_that_are_mounted_are_set_up_and_image_volumes_are_not() -> None:
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("a", "image")]
    spec = {
        "containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
        "initContainers": [{"name": "i", "image": "x", "volumeMounts": [{"name": "b", "mountPath": "/b"}]}],
        "volumes": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "image", "image": {"reference": "x"}}],
    }
    assert [volume.name for volume in plan.volumes_to_set_up(pod(spec))] == ["a", "b"]


def test_a_sub_path_is_expanded_and_what_cannot_be_is_an_error_of_the_mount() -> None:
    mount = container({"name": "disk", "mountPath": "/a", "subPathExpr": "of/$(POD)"})

    def expand(text: str) -> str:
        return expand_strictly(text, {"POD": "web"})

    (planned,) = plan.compute_mount_plans(mount, MOUNTED, MountContext(expand=expand))
    assert planned.sub_path == "of/web"
    with pytest.raises(PlanError, match='failed to expand subPath for volumeMount "disk": missing value for POD'):
        plan.compute_mount_plans(mount, MOUNTED, MountContext(expand=lambda text: expand_strictly(text, {})))


def test_an_image_volume_is_read_only_and_the_runtime_finds_its_sub_path() -> None:
    mount = {"name": "image", "mountPath": "/image", "subPath": "etc"}
    described = pod({"volumes": [{"name": "image", "image": {"reference": "x"}}, {"name": "disk"}]})
    assert list(plan.image_volumes_of(described, container(mount))) == ["image"]
    pulled = cri.ImageSpec(image="sha256:1", user_specified_image="x")
    (planned,) = plan.compute_mount_plans(container(mount), {}, MountContext(images={"image": pulled}))
    assert (planned.image, planned.sub_path, planned.read_only) == (pulled, "etc", True)
    assert planned.volume == MountedVolume("image", "", VolumeKind.IMAGE, read_only=True)
    assert list(plan.image_volumes_of(described, container({"name": "disk", "mountPath": "/d"}))) == []


@given(st.integers(0, 0o777), st.booleans(), st.booleans())
def test_fs_group_adds_bits_and_takes_none(mode: int, is_directory: bool, read_only: bool) -> None:
    wanted = plan.fs_group_mode(mode, is_directory=is_directory, read_only=read_only)
    assert wanted & mode == mode
    assert wanted & 0o440 == 0o440
    assert bool(wanted & 0o2000) == is_directory
    assert bool(wanted & ~mode & 0o220) <= (not read_only), "what is only read gets no right to write"
    assert read_only or wanted & 0o660 == 0o660
    assert plan.fs_group_mode(wanted, is_directory=is_directory, read_only=read_only) == wanted


@pytest.mark.parametrize(
    ("bounds", "size"),
    [((None, None, None), None), ((8, None, 64), 8), ((None, 4, 64), 4), ((0, None, 64), 64), ((99, 98, 64), 64)],
)
def test_memory_volumes_take_the_smallest_bound(bounds: tuple[int | None, int | None, int | None], size: int) -> None:
    assert plan.tmpfs_size_bytes(*bounds) == size


@pytest.mark.parametrize(
    ("wanted", "found", "problem"),
    [
        ("", "file", ""),
        ("Directory", "directory", ""),
        ("Directory", "file", "hostPath type check failed: /x is not a directory"),
        ("DirectoryOrCreate", "directory", ""),
        ("DirectoryOrCreate", "socket", "hostPath type check failed: /x is not a directory"),
        ("File", "file", ""),
        ("File", "directory", "hostPath type check failed: /x is not a file"),
        ("FileOrCreate", "file", ""),
        ("FileOrCreate", "char", "hostPath type check failed: /x is not a file"),
        ("Socket", "socket", ""),
        ("Socket", "", "hostPath type check failed: /x is not a socket file"),
        ("CharDevice", "char", ""),
        ("CharDevice", "block", "hostPath type check failed: /x is not a character device"),
        ("BlockDevice", "block", ""),
        ("BlockDevice", "char", "hostPath type check failed: /x is not a block device"),
        (
            "Folder",
            "directory",
            "hostPath.type 'Folder' is unknown; it may be Directory, DirectoryOrCreate, File, FileOrCreate, Socket",
        ),
    ],
)
def test_a_host_path_must_be_of_its_type(wanted: str, found: str, problem: str) -> None:
    found_problem = plan.host_path_type_problem("/x", wanted, found)
    assert found_problem.startswith(problem)
    assert bool(found_problem) is bool(problem)


def test_the_group_of_the_volumes_and_when_it_is_set() -> None:
    assert plan.fs_group_of(pod({})) is None
    assert plan.fs_group_on_root_mismatch(pod({})) is False
    security = {"securityContext": {"fsGroup": 7, "fsGroupChangePolicy": "OnRootMismatch"}}
    assert plan.fs_group_of(pod(security)) == 7
    assert plan.fs_group_on_root_mismatch(pod(security)) is True


def test_a_failed_set_up_names_the_volume() -> None:
    assert plan.setup_failure("data", "no space") == 'MountVolume.SetUp failed for volume "data" : no space'


def test_a_sub_path_that_cannot_be_expanded_is_refused() -> None:
    def refuse(text: str) -> str:
        raise ValueError(f"{text} is not set")

    mount = {"name": "disk", "mountPath": "/a", "subPathExpr": "$(NOPE)"}
    with pytest.raises(PlanError, match=r'failed to expand subPath for volumeMount "disk": \$\(NOPE\) is not set'):
        plan.compute_mount_plans(container(mount), MOUNTED, MountContext(expand=refuse))


def test_volumes_are_mounted_on_directories_of_others() -> None:
    """Of each container; what is deeper belongs to the volume that is mounted there."""
    mounts = [
        ("outer", "/etc/app/"),
        ("a", "/etc/app/nested"),
        ("b", "/etc/app/nested-too/deep"),
        ("c", "//etc/app/./nested/double"),
        ("d", "/etc/application"),
    ]
    one = {"name": "one", "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts]}
    late = {
        "name": "debug",
        "volumeMounts": [{"name": "outer", "mountPath": "/x"}, {"name": "a", "mountPath": "x/y"}],
    }
    found = pod({"containers": [one], "ephemeralContainers": [late]})
    assert plan.nested_mount_points(found, "outer") == ("nested", "nested-too/deep", "y")
    assert plan.nested_mount_points(found, "a") == ("double",)
    assert plan.nested_mount_points(found, "d") == ()


HUGE = {"requests": {"hugepages-2Mi": "4Mi", "cpu": "1"}}


@pytest.mark.parametrize(
    ("spec", "medium", "size"),
    [
        ({"containers": [{"name": "a", "resources": HUGE}, {"name": "b"}]}, "HugePages", 2 << 20),
        ({"containers": [{"name": "a"}], "resources": HUGE}, "HugePages", 2 << 20),
        (
            {
                "containers": [{"name": "a", "resources": HUGE}],
                "initContainers": [{"name": "i", "resources": {"requests": {"hugepages-1Gi": "1Gi"}}}],
            },
            "HugePages-1Gi",
            1 << 30,
        ),
    ],
)
def test_pages_of_a_volume_on_huge_pages_are_those_that_the_pod_requests(
    spec: dict[str, Any], medium: str, size: int
) -> None:
    assert plan.is_huge_page_medium(medium)
    assert plan.huge_page_size_bytes(pod(spec), medium) == size


def test_huge_pages_that_nobody_requests_or_that_are_ambiguous_are_refused() -> None:
    two = {"requests": {"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}}
    with pytest.raises(PlanError, match="medium: HugePages can't be used if container requests multiple huge page s"):
        plan.huge_page_size_bytes(pod({"containers": [{"name": "a", "resources": two}]}), "HugePages")
    with pytest.raises(PlanError, match="medium HugePages-1Gi: hugePages storage requested, but there is no resource"):
        plan.huge_page_size_bytes(pod({"containers": [{"name": "a", "resources": HUGE}]}), "HugePages-1Gi")
    assert not plan.is_huge_page_medium("Memory")


def test_paths_in_containers_are_absolute_and_clean() -> None:
    assert [plan.clean_container_path(path) for path in ("a", "//a//b/", "/a/../b", "/.")] == ["/a", "/a/b", "/b", "/"]
