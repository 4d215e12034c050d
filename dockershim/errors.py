"""dockershim's own errors: what can be wrong with a call, in the words of CRI.

Each class stands for one gRPC code; `interceptor.py` holds the table. Must know neither grpc nor Docker: Docker's
errors are translated into these once, in `engine/errors.py`. Upstream counterpart: the gRPC codes that the kubelet and
critest depend on. Deliberate difference to cri-dockerd: nothing that we understand leaves as Unknown.

ShimError                  Unknown: nobody foresaw it
├── NotFound               the sandbox, container or image does not exist
├── InvalidArgument        the request cannot be honoured as written; names the field
├── AlreadyExists          somebody else has the name, and is alive
│   └── NameConflict       ... as Docker says it, with the holder's id
├── FailedPrecondition     the object is in the wrong state for this
│   ├── NotRunning         ... because it does not run
│   └── InUse              ... because something else needs it
├── Aborted                another call works on the same object; try again
├── ResourceExhausted      a limit of ours or of the machine
├── DeadlineExceeded       it took too long
├── Unimplemented          we do not have this, with the reason
├── Unavailable            Docker does not answer, or we are not ready
├── EngineFailed           Docker answered and could not do it
└── ConfigError            what the operator gave cannot be used; exit code 1
"""


class ShimError(Exception):
    """Root of the tree."""


class NotFound(ShimError):
    """The sandbox, container or image does not exist."""

    def __init__(self, kind: str, reference: str, why: str = "") -> None:
        super().__init__(f"{kind} {reference!r} not found{': ' if why else ''}{why}")
        self.kind = kind
        self.reference = reference


class InvalidArgument(ShimError):
    """A field of the request cannot be honoured. `field` is its path in the request."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field


class AlreadyExists(ShimError):
    """The name is taken by something alive."""


class NameConflict(AlreadyExists):
    """Docker refuses the name; `holder` is the id of the container that has it, empty when Docker did not say."""

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class FailedPrecondition(ShimError):
    """The object is in the wrong state for this."""


class NotRunning(FailedPrecondition):
    """The container does not run."""


class InUse(FailedPrecondition):
    """Something else needs the object."""


class Aborted(ShimError):
    """Another call works on the same object."""


class ResourceExhausted(ShimError):
    """A limit was reached."""


class DeadlineExceeded(ShimError):
    """It took too long."""


class Unimplemented(ShimError):
    """We do not have this."""


class Unavailable(ShimError):
    """Docker does not answer, or dockershim has not caught up with it."""


class EngineFailed(ShimError):
    """Docker answered that it could not do it; `status` is its HTTP status."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


_FULL_DISK = (28, 122)  # ENOSPC, EDQUOT


def is_full_disk(error: OSError) -> bool:
    """Whether room is what is missing."""
    return error.errno in _FULL_DISK


def not_written(what: str, error: OSError) -> ShimError:
    """A file of ours that cannot be written: ResourceExhausted on a full disk, else EngineFailed."""
    kind = ResourceExhausted if is_full_disk(error) else EngineFailed
    return kind(f"cannot write {what}: {error.strerror}")


class ConfigError(ShimError):
    """What the operator gave cannot be used. `problems` holds one line for each thing wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
