"""Images on real Docker, pulled from the lab's registries."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from cri_proto import runtime_v1 as cri
from tests.integration.dockershim.harness import Shim, code_of, eventually
from tests.integration.dockershim.token_registry import ISSUED
from tests.lab import registry
from tests.lab.images.catalog import CRI_TOOLS
from tests.lab.lab import BUSYBOX, PAUSE, Lab
from tests.lab.sandbox import REPOSITORY

pytestmark = pytest.mark.lab

ONE = f"{CRI_TOOLS}/test-image-1:latest"
TAGS = [f"{CRI_TOOLS}/test-image-tags:{number}" for number in (1, 2, 3)]
BY_USER = f"{CRI_TOOLS}/test-image-user-username:latest"


@pytest.fixture(scope="module", params=["20.10", "29"])
def shim(request: pytest.FixtureRequest) -> Iterator[Shim]:
    with Lab.start(docker=request.param, registry=[PAUSE, BUSYBOX, ONE, *TAGS, BY_USER], images=(PAUSE,)) as lab:
        started = Shim(lab)
        yield started
        started.stop()


def spec(name: str) -> cri.ImageSpec:
    return cri.ImageSpec(image=name)


def pull(shim: Shim, name: str, auth: cri.AuthConfig | None = None) -> str:
    return str(shim.images.PullImage(cri.PullImageRequest(image=spec(name), auth=auth), timeout=60).image_ref)


def find(shim: Shim, name: str) -> cri.Image | None:
    response: cri.ImageStatusResponse = shim.images.ImageStatus(cri.ImageStatusRequest(image=spec(name)))
    return response.image if response.HasField("image") else None


def remove(shim: Shim, name: str) -> None:
    shim.images.RemoveImage(cri.RemoveImageRequest(image=spec(name)), timeout=60)


def test_one_id_everywhere(shim: Shim) -> None:
    """The answer of the pull, the image's id, and both ids of a container and its status are the same."""
    ref = pull(shim, BUSYBOX)
    image = find(shim, BUSYBOX)
    assert image is not None
    assert image.id == ref
    assert image.size > 0
    assert BUSYBOX in image.repo_tags
    sandbox = shim.run_sandbox()
    container_id = shim.create(sandbox, "true")
    listed = shim.runtime.ListContainers(cri.ListContainersRequest()).containers[0]
    status = shim.status(container_id)
    assert {listed.image_id, listed.image_ref, status.image_id, status.image_ref} == {ref}
    shim.remove_all()


def test_an_image_is_found_in_every_spelling(shim: Shim) -> None:
    """By tag, id, id without its algorithm, digest, and as the only one of a filtered list."""
    ref = pull(shim, ONE)
    image = find(shim, ONE)
    assert image is not None
    for name in (ref, ref.removeprefix("sha256:"), ref[:20], image.repo_digests[0], ONE.removesuffix(":latest")):
        found = find(shim, name)
        assert found is not None, name
        assert found.id == ref
    listed = shim.images.ListImages(cri.ListImagesRequest(filter=cri.ImageFilter(image=spec(ONE)))).images
    assert [one.id for one in listed] == [ref]
    assert pull(shim, image.repo_digests[0]) == ref


def test_a_missing_image_is_an_empty_answer(shim: Shim) -> None:
    """No error; and removing it is a success."""
    assert find(shim, "registry.k8s.io/none:1") is None
    assert find(shim, "sha256:" + "0" * 64) is None
    remove(shim, "registry.k8s.io/none:1")
    assert code_of(lambda: pull(shim, "registry.k8s.io/none:1"))[0] is grpc.StatusCode.NOT_FOUND
    assert code_of(lambda: pull(shim, "Not A Name"))[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_removing_by_one_tag_removes_the_image(shim: Shim) -> None:
    """All tags go; the second time is a success too."""
    ids = {pull(shim, name) for name in TAGS}
    assert len(ids) == 1
    remove(shim, TAGS[1])
    assert [find(shim, name) for name in TAGS] == [None, None, None]
    remove(shim, TAGS[1])


def test_what_docker_pulls_and_removes_by_itself_is_known(shim: Shim) -> None:
    """The store follows Docker's image events."""
    shim.lab.docker.client("pull", TAGS[0])
    eventually(lambda: find(shim, TAGS[0]) is not None)
    shim.lab.docker.client("rmi", TAGS[0])
    eventually(lambda: find(shim, TAGS[0]) is None)


def test_the_user_of_an_image(shim: Shim) -> None:
    """A name is a name, a number a uid."""
    pull(shim, BY_USER)
    image = find(shim, BY_USER)
    pause = find(shim, PAUSE)
    assert image is not None
    assert pause is not None
    assert (image.username, image.HasField("uid")) == ("www-data", False)
    assert pause.uid.value == 65535
    assert pause.pinned
    assert not image.pinned


def test_many_pulls_of_one_image(shim: Shim) -> None:
    """All get the same answer."""
    remove(shim, ONE)
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(pull(shim, ONE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(set(answers)) == 1


def test_credentials_in_every_form(shim: Shim) -> None:
    """User and password apart, or together in `auth`; without them the pull fails."""
    private = ONE.replace("gcr.io", registry.PRIVATE_NAME)
    assert code_of(lambda: pull(shim, private))[0] is not grpc.StatusCode.OK
    both = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
    for auth in (
        cri.AuthConfig(username=registry.USER, password=registry.PASSWORD),
        cri.AuthConfig(auth=both),
    ):
        pull(shim, private, auth)
        remove(shim, private)
    assert code_of(lambda: pull(shim, private, cri.AuthConfig(auth="not base64!")))[0] is (
        grpc.StatusCode.INVALID_ARGUMENT
    )


@pytest.fixture
def asked(shim: Shim) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """A registry that wants tokens, and has nothing else to give; what it was asked, and with what."""
    seen = shim.lab.root / "tokens-seen"
    seen.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tests.integration.dockershim.token_registry", "5997", str(seen)]
    process = shim.lab.popen(program, log="token-registry", environment={"PYTHONPATH": str(REPOSITORY)})
    eventually(seen.exists)
    yield lambda: [json.loads(line) for line in seen.read_text().splitlines()]
    process.stop()


def test_tokens_reach_the_registry(shim: Shim, asked: Callable[[], list[dict[str, str]]]) -> None:
    """A registry's token as it is; an identity token is what the token server is asked with."""
    wanted = "127.0.0.1:5997/private:1"
    bearer, issued = "Bearer of-the-registry", f"Bearer {ISSUED}"
    for auth, expected in (
        (cri.AuthConfig(registry_token="of-the-registry"), bearer),
        (cri.AuthConfig(identity_token="of-the-user"), issued),
    ):
        before = len(asked())
        assert code_of(lambda auth=auth: pull(shim, wanted, auth))[0] is grpc.StatusCode.NOT_FOUND  # type: ignore[misc]  # mypy#15459
        news = asked()[before:]
        manifests = [line["authorization"] for line in news if "/manifests/" in line["asked"]]
        assert manifests
        assert set(manifests) == {expected}
        refreshed = [line["refresh_token"] for line in news if "refresh_token" in line]
        assert set(refreshed) == ({"of-the-user"} if auth.identity_token else set())


def test_an_image_in_use_stays(shim: Shim) -> None:
    """A running container keeps its image."""
    pull(shim, BUSYBOX)
    sandbox = shim.run_sandbox()
    shim.run(sandbox, "exec sleep 1000")
    assert code_of(lambda: remove(shim, BUSYBOX))[0] is grpc.StatusCode.FAILED_PRECONDITION
    assert find(shim, BUSYBOX) is not None
    shim.remove_all()


def test_the_image_file_system(shim: Shim) -> None:
    """One image file system with a size, a mount point and inodes, as soon as they have been counted."""

    def usage() -> cri.FilesystemUsage:
        [found] = shim.images.ImageFsInfo(cri.ImageFsInfoRequest()).image_filesystems
        assert isinstance(found, cri.FilesystemUsage)
        return found

    shim.run_sandbox()  # where the containerd image store keeps layers is seen by the first container
    eventually(lambda: usage().inodes_used.value > 0)
    assert usage().fs_id.mountpoint.startswith("/var/lib/docker/")
    assert usage().used_bytes.value > 0
    assert usage().timestamp > 10**18
    shim.remove_all()


STALLING = "127.0.0.1:5999/stalls:1"
TRICKLING = "127.0.0.1:5999/trickles:1"


@pytest.fixture
def stalling(shim: Shim) -> Iterator[Path]:
    """A registry that sends a part of a layer and then nothing; the file of what it saw."""
    seen = shim.lab.root / "stalling-seen"
    seen.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tests.integration.dockershim.stalling_registry", "5999", str(seen)]
    process = shim.lab.popen(program, log="stalling", environment={"PYTHONPATH": str(REPOSITORY)})
    eventually(seen.exists)
    yield seen
    process.stop()


def test_a_pull_that_stands_still_is_given_up_with_the_last_that_was_heard(shim: Shim, stalling: Path) -> None:
    """By bytes: the registry holds the connection and sends nothing."""
    quick = Shim(shim.lab, "shim-quick", None, "--image-pull-progress-deadline=10s")
    code, message = code_of(lambda: pull(quick, STALLING))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no progress for 10 s" in message
    assert "Downloading" in message
    quick.stop()


def test_a_client_that_goes_away_ends_the_pull_when_nobody_else_wants_it(shim: Shim, stalling: Path) -> None:
    """The registry sees the connection go when the last one has gone, and not before."""
    request = cri.PullImageRequest(image=spec(TRICKLING))
    first, second = shim.images.PullImage.future(request), shim.images.PullImage.future(request)
    eventually(lambda: "stalls" in stalling.read_text())
    first.cancel()
    with pytest.raises(grpc.FutureTimeoutError):
        second.result(timeout=1.5)
    assert "hung up" not in stalling.read_text()
    assert stalling.read_text().count("stalls") == 1
    second.cancel()
    eventually(lambda: "hung up" in stalling.read_text())


def test_a_registry_that_is_not_there_has_the_kubelets_prefix(shim: Shim) -> None:
    """Nobody listens on this port."""
    code, message = code_of(lambda: pull(shim, "127.0.0.1:5998/none:1"))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert message.startswith("RegistryUnavailable: ")


POLICY_REGISTRY = "127.0.0.1:5997"
POLICY_PLUGIN = "signed-only"


@pytest.fixture
def signature_policies(shim: Shim) -> Iterator[None]:
    """A registry, and an authorization plugin of this Docker, that let signed images only be pulled."""
    lab = shim.lab
    socket = lab.root / "run" / f"{POLICY_PLUGIN}.sock"
    socket.unlink(missing_ok=True)
    program = [sys.executable, "-m", "tests.integration.dockershim.signature_policies", "5997", str(socket)]
    process = lab.popen(program, log="signature-policies", environment={"PYTHONPATH": str(REPOSITORY)})
    eventually(lambda: lab.accepts(socket))
    spec_file = f"/etc/docker/plugins/{POLICY_PLUGIN}.spec"
    lab.run(["sh", "-ec", 'mkdir -p "${1%/*}"; echo "unix://$2" > "$1"', "sh", spec_file, str(socket)])
    lab.docker.reload({"authorization-plugins": [POLICY_PLUGIN]})
    yield
    lab.docker.reload({"authorization-plugins": []})
    process.stop()


def test_a_pull_that_a_plugin_for_signatures_refuses_has_the_kubelets_prefix(
    shim: Shim, signature_policies: None
) -> None:
    """The engine's own policy; a signed image comes from the lab's registry all the same."""
    code, message = code_of(lambda: pull(shim, f"{CRI_TOOLS}/unsigned:1"))
    assert code is grpc.StatusCode.UNKNOWN
    assert message.startswith("SignatureValidationFailed: authorization denied by plugin")
    assert "no valid signature of unsigned was found" in message
    assert pull(shim, ONE)
    remove(shim, ONE)


def test_a_registry_that_lets_signed_images_only_be_pulled_is_told_as_far_as_docker_tells_it(
    shim: Shim, signature_policies: None
) -> None:
    """Docker 20.10 hands its reason on. Docker 29 asks with HEAD, whose answer holds none: only the status is known."""
    code, message = code_of(lambda: pull(shim, f"{POLICY_REGISTRY}/library/anything:1"))
    assert code is grpc.StatusCode.UNKNOWN
    if shim.lab.docker.version == "20.10":
        assert message.startswith("SignatureValidationFailed: ")
        assert "The image is not signed by cosign" in message
    else:
        assert "412 Precondition Failed" in message
        assert not message.startswith("SignatureValidationFailed")


def test_pause_comes_with_the_hosts_own_credentials(shim: Shim) -> None:
    """From the Docker configuration of whom dockershim runs as; without them the pod says why it cannot be."""
    private = PAUSE.replace("registry.k8s.io", registry.PRIVATE_NAME)
    directory = shim.lab.root / "docker-config"
    directory.mkdir()
    both = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
    flag = f"--pod-infra-container-image={private}"
    other = Shim(shim.lab, "shim-private", None, flag, environment={"DOCKER_CONFIG": str(directory)})
    code, message = code_of(lambda: other.run_sandbox())
    assert code is grpc.StatusCode.UNKNOWN
    assert private in message
    (directory / "config.json").write_text(json.dumps({"auths": {registry.PRIVATE_NAME: {"auth": both}}}))
    sandbox_id, _ = other.run_sandbox()
    found = find(other, private)
    assert found is not None
    assert found.pinned
    other.remove_sandbox(sandbox_id)
    other.stop()
