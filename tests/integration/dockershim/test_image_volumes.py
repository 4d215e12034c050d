"""Images as volumes on real Docker: mounted by dockershim from the image's layers on 20.10, by Docker itself on 29."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.lab.lab import BUSYBOX, Lab

pytestmark = pytest.mark.lab

LAYERED = "registry.k8s.io/volume-layered:1"
SINGLE = "registry.k8s.io/volume-single:1"
# One layer over busybox: a file, a deleted file, a replaced directory, links that want to leave the image.
CHANGES = """
mkdir -p /data/inner /opt/replaced
echo first > /data/inner/file
echo old > /opt/replaced/old
"""
MORE_CHANGES = """
echo second > /data/inner/file
rm /etc/issue
rm -r /opt/replaced && mkdir /opt/replaced && echo new > /opt/replaced/new
ln -s /data /rooted
ln -s ../../../../../../../../data /climbing
ln -s /nowhere /dangling
"""


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Lab.start(docker=request.param) as lab:
        base = BUSYBOX
        for number, script in enumerate((CHANGES, MORE_CHANGES)):
            lab.docker.client("run", "--name", "build", base, "sh", "-ec", script)
            base = f"{LAYERED}" if number else "built:1"
            lab.docker.client("commit", "build", base)
            lab.docker.client("rm", "build")
        tree = lab.root / "single"
        (tree / "inner").mkdir(parents=True)
        (tree / "inner" / "file").write_text("single\n")
        script = f"tar -C {tree} -c . | docker --host unix://{lab.docker_socket} import - {SINGLE}"
        lab.run(["sh", "-ec", script])
        started = Shim(lab)
        yield started
        started.stop()


@pytest.fixture(autouse=True)
def no_pods(shim: Shim) -> Iterator[None]:
    yield
    shim.remove_all()
    assert mounted(shim) == []


def image_id(shim: Shim, name: str) -> str:
    spec = cri.ImageSpec(image=name)
    eventually(lambda: shim.images.ImageStatus(cri.ImageStatusRequest(image=spec)).HasField("image"))
    return str(shim.images.ImageStatus(cri.ImageStatusRequest(image=spec)).image.id)


def volume(shim: Shim, name: str = LAYERED, **fields: object) -> cri.Mount:
    """As the kubelet asks for it."""
    spec = cri.ImageSpec(image=image_id(shim, name), user_specified_image=name)
    mount = cri.Mount(container_path="/volume", readonly=True, image=spec)
    mount.MergeFrom(cri.Mount(**fields))  # type: ignore[arg-type]  # one field or the other
    return mount


def mounted(shim: Shim) -> list[str]:
    """The trees of images that dockershim has mounted in the lab."""
    lines = shim.lab.run(["cat", "/proc/self/mounts"]).stdout.splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(str(shim.root))]


def mounts_itself(shim: Shim) -> bool:
    return shim.lab.docker.version == "29"


def output(shim: Shim, container_id: str, script: str) -> str:
    answer = shim.exec(container_id, "sh", "-c", script)
    assert answer.exit_code == 0, answer.stderr
    return answer.stdout.decode()


def test_the_whole_image_is_there_and_cannot_be_written(shim: Shim) -> None:
    """Upper layers win, what they delete is gone, programs run, and the status names the image."""
    sandbox = shim.run_sandbox()
    container_id = shim.run(sandbox, "exec sleep 1000", mounts=[volume(shim)])
    assert output(shim, container_id, "cat /volume/data/inner/file") == "second\n"
    assert output(shim, container_id, "ls /volume/opt/replaced") == "new\n"
    assert shim.exec(container_id, "test", "-e", "/volume/etc/issue").exit_code == 1
    assert output(shim, container_id, "/volume/bin/busybox echo runs") == "runs\n"
    denied = shim.exec(container_id, "touch", "/volume/new")
    assert b"Read-only file system" in denied.stderr
    [shown] = shim.status(container_id).mounts
    identifier = image_id(shim, LAYERED)
    assert (shown.container_path, shown.host_path, shown.readonly) == ("/volume", "", True)
    assert shown.image == cri.ImageSpec(image=identifier, user_specified_image=LAYERED, image_ref=identifier)
    assert bool(mounted(shim)) is not mounts_itself(shim)


def test_an_image_of_a_single_layer(shim: Shim) -> None:
    """The same."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", mounts=[volume(shim, SINGLE)])
    assert output(shim, container_id, "cat /volume/inner/file") == "single\n"
    assert shim.exec(container_id, "touch", "/volume/new").exit_code == 1


def test_a_sub_path(shim: Shim) -> None:
    """Only it is there."""
    container_id = shim.run(shim.run_sandbox(), "exec sleep 1000", mounts=[volume(shim, image_sub_path="data/inner")])
    assert output(shim, container_id, "ls /volume") == "file\n"
    assert shim.status(container_id).mounts[0].image_sub_path == "data/inner"


def test_a_sub_path_that_goes_up_is_refused_before_anything_is_looked_at(shim: Shim) -> None:
    """Also when it comes back."""
    mounts = [volume(shim, image_sub_path="data/../data/inner/")]
    code, message = code_of(lambda: shim.create(shim.run_sandbox(), "true", mounts=mounts))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("ImageVolumeMountFailed: config.mounts[0].image_sub_path")


@pytest.mark.parametrize("sub_path", ["rooted", "climbing"])
def test_a_link_that_leads_out_stays_in_the_image_or_is_refused(shim: Shim, sub_path: str) -> None:
    """Never the host's directory. Docker follows no link out of the image; dockershim takes it as the image's own."""
    sandbox = shim.run_sandbox()
    mounts = [volume(shim, image_sub_path=sub_path)]
    if mounts_itself(shim):
        code, message = code_of(lambda: shim.create(sandbox, "true", mounts=mounts))
        assert (code, message[:23]) == (grpc.StatusCode.INVALID_ARGUMENT, "ImageVolumeMountFailed:")
        return
    container_id = shim.run(sandbox, "exec sleep 1000", mounts=mounts)
    assert output(shim, container_id, "cat /volume/inner/file") == "second\n"


@pytest.mark.parametrize("sub_path", ["not-there", "data/inner/file/below", "dangling"])
def test_a_sub_path_that_is_not_there(shim: Shim, sub_path: str) -> None:
    """Refused when the container is made, with the word that the kubelet knows, and nothing stays."""
    sandbox = shim.run_sandbox()
    code, message = code_of(lambda: shim.create(sandbox, "true", mounts=[volume(shim, image_sub_path=sub_path)]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith(f"ImageVolumeMountFailed: '{sub_path}' does not exist in image")
    assert shim.docker_ids() == [sandbox[0]]
    assert mounted(shim) == []


def test_what_cannot_be_had(shim: Shim) -> None:
    """A writable image, and one that is not on the node."""
    sandbox = shim.run_sandbox()
    writable = volume(shim)
    writable.readonly = False
    missing = volume(shim)
    missing.image.image = "registry.k8s.io/none:1"
    for mount, wanted in (
        (writable, grpc.StatusCode.INVALID_ARGUMENT),
        (missing, grpc.StatusCode.FAILED_PRECONDITION),
    ):
        code, message = code_of(lambda mount=mount: shim.create(sandbox, "true", mounts=[mount]))  # type: ignore[misc]  # mypy#15459
        assert (code, message[:23]) == (wanted, "ImageVolumeMountFailed:")


def test_containers_share_one_tree_which_goes_with_the_last(shim: Shim) -> None:
    """And as long as one of them is there the image cannot be removed."""
    sandbox = shim.run_sandbox()
    ids = [
        shim.create(sandbox, "true", metadata=cri.ContainerMetadata(name=f"c{number}"), mounts=[volume(shim)])
        for number in range(2)
    ]
    expected = 0 if mounts_itself(shim) else 1
    assert len(mounted(shim)) == expected
    shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=ids[0]), timeout=60)
    assert len(mounted(shim)) == expected
    remove = cri.RemoveImageRequest(image=cri.ImageSpec(image=LAYERED))
    code, message = code_of(lambda: shim.images.RemoveImage(remove, timeout=60))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "as a volume" in message
    shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=ids[1]), timeout=60)
    assert mounted(shim) == []


def test_kill_9_and_what_happens_meanwhile(shim: Shim) -> None:
    """A running container keeps its files, and one that was only made gets them; what nobody uses goes."""
    sandbox = shim.run_sandbox()
    running = shim.run(sandbox, "exec sleep 1000", mounts=[volume(shim)])
    later = shim.create(
        sandbox, "exec sleep 1000", metadata=cri.ContainerMetadata(name="later"), mounts=[volume(shim, SINGLE)]
    )
    shim.kill()
    for path in mounted(shim):
        shim.lab.run(["umount", path])  # as after a restart of the machine
    shim.start()
    assert output(shim, running, "cat /volume/data/inner/file") == "second\n"
    shim.start_container(later)
    assert output(shim, later, "cat /volume/inner/file") == "single\n"
    shim.kill()
    shim.lab.docker.client("rm", "-f", running, later)
    shim.start()
    eventually(lambda: mounted(shim) == [])


def test_kill_9_while_containers_with_volumes_are_made(shim: Shim) -> None:
    """Whatever step each of them was at, their trees go with them."""
    sandbox = shim.run_sandbox()
    mounts = [volume(shim), volume(shim, SINGLE, container_path="/single", image_sub_path="inner")]
    for answered in (0, 1, 3):
        calls = []
        for number in range(5):
            config = cri.ContainerConfig(
                metadata=cri.ContainerMetadata(name=f"c{number}", attempt=answered),
                image=cri.ImageSpec(image=BUSYBOX),
                mounts=mounts,
            )
            request = cri.CreateContainerRequest(pod_sandbox_id=sandbox[0], config=config, sandbox_config=sandbox[1])
            calls.append(shim.runtime.CreateContainer.future(request))
        for call in calls[:answered]:
            code_of(lambda call=call: call.result(timeout=30))  # type: ignore[misc]  # mypy#15459
        shim.kill()
        for call in calls:
            code_of(lambda call=call: call.result(timeout=30))  # type: ignore[misc]  # mypy#15459
        shim.start()

        def the_sandbox_is_left() -> bool:
            """What Docker was still making when it was listed comes a moment later."""
            for item in shim.runtime.ListContainers(cri.ListContainersRequest()).containers:
                shim.runtime.RemoveContainer(cri.RemoveContainerRequest(container_id=item.id), timeout=60)
            return shim.docker_ids() == [sandbox[0]]

        eventually(the_sandbox_is_left)
        eventually(lambda: mounted(shim) == [])


def test_a_dockershim_whose_mounts_docker_cannot_see_refuses(shim: Shim) -> None:
    """In a mount namespace of its own, the container would get an empty directory in silence."""
    apart = Shim(shim.lab, "shim-apart", wrapper=("unshare", "--mount"))
    sandbox = apart.run_sandbox()
    code, message = code_of(lambda: apart.create(sandbox, "true", mounts=[volume(apart)]))
    if mounts_itself(shim):  # nothing of dockershim's is mounted
        assert code is grpc.StatusCode.OK
    else:
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert message.startswith("ImageVolumeMountFailed: ")
        assert "mount namespace" in message
        assert shim.docker_ids() == [sandbox[0]]
    apart.remove_sandbox(sandbox[0])
    apart.stop()
