"""The agent's own errors; foreign ones are translated into these at the adapters.

KubeletError
├── ConfigError            what the operator gave cannot be used; exit code 1
├── NodeAddressUnknown     the machine has no address, or not the one it should have; it may get it later
├── RuntimeCallError       a CRI call failed
│   ├── RuntimeNotFound    ... because the object does not exist
│   ├── RuntimeUnavailable ... because nobody answers
│   ├── RuntimeTimeout     ... because it took too long
│   └── RuntimeUnimplemented
├── ApiError               the API server said no (status, reason)
│   ├── ApiNotFound  ApiConflict  ApiAlreadyExists  ApiGone  ApiForbidden
│   └── ApiUnavailable     ... or cannot be reached
└── SyncError              a pod cannot go on now; carries the wire reason (ErrImagePull, CreateContainerError ...)
"""

from kubelet_py.text import to_valid_text


class KubeletError(Exception):
    """Root of the tree."""


class ConfigError(KubeletError):
    """What the operator gave cannot be used. `problems` holds one line for each thing wrong."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NodeAddressUnknown(KubeletError):
    """The machine has no address that could be the node's, or not the one it should have; it may get it later."""


class RuntimeCallError(KubeletError):
    """A CRI call failed; `call` is the RPC's name, `code` the gRPC code's name."""

    def __init__(self, call: str, code: str, detail: str) -> None:
        super().__init__(f"{call}: {detail} ({code})" if code else f"{call}: {detail}")
        self.call = call
        self.code = code
        self.detail = detail


class RuntimeNotFound(RuntimeCallError):
    """The sandbox, container or image does not exist."""


class RuntimeUnavailable(RuntimeCallError):
    """Nobody answers on the socket."""


class RuntimeTimeout(RuntimeCallError):
    """The call outlived its deadline."""


class RuntimeUnimplemented(RuntimeCallError):
    """The runtime does not have this RPC."""


class ApiError(KubeletError):
    """The API server refused a request; `status` is the HTTP code, `reason` the machine-readable reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{message} ({status} {reason})" if status else message)
        self.status = status
        self.reason = reason
        self.message = message


class ApiNotFound(ApiError):
    """404."""


class ApiConflict(ApiError):
    """409 Conflict: the object changed meanwhile, or a precondition (UID) does not hold."""


class ApiAlreadyExists(ApiError):
    """409 AlreadyExists."""


class ApiGone(ApiError):
    """410: the resource version is too old to resume from."""


class ApiForbidden(ApiError):
    """401 or 403."""


class ApiUnavailable(ApiError):
    """No connection, a 5xx or 429; worth trying again. `retry_after_seconds` when the server said so."""

    def __init__(self, status: int, reason: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(status, reason, message)
        self.retry_after_seconds = retry_after_seconds


class SyncError(KubeletError):
    """A step for a pod failed; `reason` is the wire spelling that status and events show."""

    def __init__(self, reason: str, message: str, container_name: str = "") -> None:
        self.message = to_valid_text(message)  # it may name a file, and a container can name files as it likes
        super().__init__(self.message)
        self.reason = reason
        self.container_name = container_name
