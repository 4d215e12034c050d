"""The Kubernetes types this agent works with: re-exports of lightkube's models under short module names.

`from kubelet_py.api import core_v1` gives the classes of the core group with the API's own field spelling (camelCase,
as the wire has it). JSON goes in and out by msgspec through `kubelet_py.api.codec`. Objects are shared between tasks
and must be treated as frozen: whoever wants a changed one makes it with `msgspec.structs.replace`.

The groups that only some parts need (leases, reviews, certificates) are imported when first asked for: each costs
memory.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kubelet_py.api.model_loader import install_bare_parents

install_bare_parents()

from lightkube.models import core_v1 as core_v1  # noqa: E402 # the bare parents must be there first
from lightkube.models import meta_v1 as meta_v1  # noqa: E402 # as above

if TYPE_CHECKING:
    from lightkube.models import authentication_v1 as authentication_v1
    from lightkube.models import authorization_v1 as authorization_v1
    from lightkube.models import certificates_v1 as certificates_v1
    from lightkube.models import coordination_v1 as coordination_v1
    from lightkube.models import node_v1 as node_v1
    from lightkube.models import storage_v1 as storage_v1

_LAZY = frozenset(
    {"authentication_v1", "authorization_v1", "certificates_v1", "coordination_v1", "node_v1", "storage_v1"}
)


if not TYPE_CHECKING:  # or the type checker would believe in every name

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = import_module(f"lightkube.models.{name}")
        globals()[name] = module
        return module
