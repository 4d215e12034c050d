"""Docker's messages, as recorded from Docker 20.10 and 29, and what becomes of them."""

from __future__ import annotations

import pytest

from dockershim import errors
from dockershim.engine import errors as engine_errors

ID = "5a40d946f5d79a34c5c38f61073ed07dfeda9e3cd73a23591f814098b7b73532"

RECORDED: list[tuple[int, str, type[errors.ShimError]]] = [
    (404, f"No such container: {ID}", errors.NotFound),
    (404, "No such image: registry.k8s.io/none:1", errors.NotFound),
    (404, f"No such exec instance: {ID}", errors.NotFound),
    (404, "network dockershim not found", errors.NotFound),
    (404, "page not found", errors.NotFound),
    (
        409,
        (
            f'Conflict. The container name "/k8s_POD_a_b_c_0" is already in use by container "{ID}". You have to '
            "remove (or rename) that container to be able to reuse that name."
        ),
        errors.NameConflict,
    ),
    (409, f"removal of container {ID} is already in progress", engine_errors.RemovalInProgress),
    (409, f"Container {ID} is not running", errors.NotRunning),
    (409, f"Container {ID} is paused, unpause the container before exec", errors.NotRunning),
    (
        409,
        "conflict: unable to delete 4d2b68a22110 (cannot be forced) - image is being used by running container 5a40d9",
        errors.InUse,
    ),
    (
        409,
        (
            'conflict: unable to remove repository reference "a:1" (must force) - container 5a40d9 is using its '
            "referenced image 4d2b68a22110"
        ),
        errors.InUse,
    ),
    (
        409,
        "You cannot remove a running container 5a40. Stop the container before attempting removal or force remove",
        errors.EngineFailed,
    ),
    (400, "invalid reference format", errors.InvalidArgument),
    (
        501,
        (
            "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order "
            "to enable it."
        ),
        errors.Unimplemented,
    ),
    (400, "checkpoint is only supported in experimental mode", errors.Unimplemented),
    (
        500,
        (
            "Cannot checkpoint container pod: runc did not terminate successfully: exit status 1: CRIU version check "
            f'failed: exec: "criu": executable file not found in $PATH path= /run/moby/{ID}/criu-dump.log: unknown'
        ),
        errors.Unimplemented,
    ),
    (500, "Container plain not running", errors.NotRunning),
    (500, f"Cannot checkpoint container {ID}: content sha256:{ID}: already exists", errors.Aborted),
    (500, f"Cannot kill container: {ID}: Container {ID} is not running", errors.NotRunning),
    (
        400,
        (
            "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
            'process: exec: "/no/such": stat /no/such: no such file or directory: unknown'
        ),
        errors.InvalidArgument,
    ),
    (
        500,
        (
            'OCI runtime create failed: container_linux.go:380: starting container process caused: exec: "nope": '
            "executable file not found in $PATH: unknown"
        ),
        engine_errors.CannotStart,
    ),
    (
        500,
        "linux spec user: unable to find user nobody2: no matching entries in passwd",
        engine_errors.CannotStart,
    ),
    (500, f"unrecognized image ID sha256:{ID}", errors.NotFound),
    (503, "daemon is shutting down", errors.Unavailable),
    (
        500,
        (
            'connection error: desc = "transport: Error while dialing dial unix /run/docker-containerd.sock: connect: '
            'connection refused": unavailable'
        ),
        engine_errors.ContainerdAway,
    ),
    (
        503,
        (
            'Unavailable: connection error: desc = "transport: Error while dialing: dial unix '
            '/run/docker-containerd.sock: connect: connection refused"'
        ),
        engine_errors.ContainerdAway,
    ),
    (500, "write /var/lib/docker/tmp/x: no space left on device", errors.ResourceExhausted),
    (500, "something nobody has seen", errors.EngineFailed),
]


@pytest.mark.parametrize(("status", "message", "kind"), RECORDED, ids=[message[:40] for _, message, _ in RECORDED])
def test_recorded_messages(status: int, message: str, kind: type[errors.ShimError]) -> None:
    """Each becomes exactly the error that the callers tell apart."""
    assert type(engine_errors.from_response(status, message, "ref")) is kind


def test_a_name_conflict_carries_the_holder() -> None:
    """The id in the message."""
    conflict = engine_errors.from_response(409, RECORDED[5][1])
    assert isinstance(conflict, errors.NameConflict)
    assert conflict.holder == ID


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("manifest for registry.k8s.io/none:1 not found: manifest unknown: manifest unknown", errors.NotFound),
        ("received unexpected HTTP status: 503 Service Unavailable", engine_errors.RegistryUnavailable),
        ("error parsing HTTP 502 response body: invalid character '<'", engine_errors.RegistryUnavailable),
        (
            'Get "https://r/v2/": dial tcp: lookup r on 10.0.0.2:53: no such host',
            engine_errors.RegistryUnavailable,
        ),
        (
            'Get "http://r/v2/": dial tcp 10.200.0.2:80: connect: connection refused',
            engine_errors.RegistryUnavailable,
        ),
        (
            'Get "https://r/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded)',
            engine_errors.RegistryUnavailable,
        ),
        ("authorization denied by plugin policy: no valid signature for r/i:1", engine_errors.SignatureInvalid),
        ("unknown: The image is not signed by cosign.", engine_errors.SignatureInvalid),
        ("unknown: unexpected status from HEAD request to http://r/v2/i: 412 Precondition Failed", errors.EngineFailed),
        ("Get https://r/v2/: no basic auth credentials", errors.EngineFailed),
    ],
)
def test_pull_messages(message: str, kind: type[errors.ShimError]) -> None:
    """What a registry said."""
    assert type(engine_errors.from_pull_message(message, "r/i:1")) is kind


@pytest.mark.parametrize(
    ("message", "image", "kind"),
    [
        (
            "manifest for reg.example/app:build-503 not found: manifest unknown: manifest unknown",
            "reg.example/app:build-503",
            errors.NotFound,
        ),
        (
            (
                "pull access denied for acme/signature, repository does not exist or may require 'docker login': "
                "denied: requested access to the resource is denied"
            ),
            "acme/signature:1",
            errors.EngineFailed,
        ),
        (
            "pull access denied for signature, repository does not exist or may require 'docker login'",
            "signature:latest",
            errors.EngineFailed,
        ),
        (
            'failed to resolve reference "docker.io/acme/signature:1": docker.io/acme/signature:1: not found',
            "docker.io/acme/signature:1",
            errors.NotFound,
        ),
        (
            "unauthorized: unauthorized to access repository: acme/signature, action: pull",
            "reg.example/acme/signature:1",
            errors.EngineFailed,
        ),
        (
            "unexpected status from HEAD request to https://r.example/v2/signature/503/manifests/503: 403 Forbidden",
            "r.example/signature/503:503",
            errors.EngineFailed,
        ),
        (
            "unexpected status from HEAD request to https://r.example/v2/i/manifests/1: 503 Service Unavailable",
            "r.example/i:1",
            engine_errors.RegistryUnavailable,
        ),
        ("no valid signature for signature:1", "signature:1", engine_errors.SignatureInvalid),
        ("a signature for r.example/i:1 was not found", "r.example/i:1", engine_errors.SignatureInvalid),
    ],
)
def test_the_name_of_an_image_decides_nothing(message: str, image: str, kind: type[errors.ShimError]) -> None:
    """What its words seem to say is not why its pull failed; the message stays whole."""
    error = engine_errors.from_pull_message(message, image)
    assert type(error) is kind
    assert message in str(error)


def test_the_status_of_the_registrys_answer_counts_where_docker_tells_it() -> None:
    """Whatever the words are."""
    assert isinstance(engine_errors.from_pull_message("no", "i", 503), engine_errors.RegistryUnavailable)
    assert isinstance(engine_errors.from_pull_message("no", "i", 404), errors.NotFound)
    assert type(engine_errors.from_pull_message("no", "i", 401)) is errors.EngineFailed


def test_an_unavailable_registry_has_the_prefix_that_the_kubelet_parses() -> None:
    """RegistryUnavailable, at the beginning; and the other one that it knows."""
    assert str(engine_errors.from_pull_message("502 Bad Gateway", "i")).startswith("RegistryUnavailable: ")
    assert str(engine_errors.from_pull_message("bad signature", "i")).startswith("SignatureValidationFailed: ")
