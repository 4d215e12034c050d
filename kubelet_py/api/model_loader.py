"""Lets the Kubernetes models load without the HTTP client they are shipped with.

`lightkube.models` lives in a package whose `__init__` imports lightkube's own API client and with it an HTTP library,
a YAML parser and a second set of models: 4.5 MiB of resident memory that this agent never uses (docs/adr/0001). Before
the first model is imported, bare parents `lightkube` and `lightkube.core` are put in place: they know where their
submodules are and nothing else. Where the real package is loaded already (a test that wants its client), it stays.

Must not know: which models are used. No upstream counterpart.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


def install_bare_parents() -> None:
    """Put the bare parents into sys.modules, once."""
    if "lightkube" in sys.modules:
        return
    spec = PathFinder.find_spec("lightkube")
    if spec is None or not spec.submodule_search_locations:
        return  # the import that follows says that lightkube is missing
    root = next(iter(spec.submodule_search_locations))
    _install("lightkube", root)
    sys.modules["lightkube"].core = _install("lightkube.core", f"{root}/core")  # type: ignore[attr-defined] # a module


def _install(name: str, location: str) -> ModuleType:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [location]
    module = ModuleType(name)
    module.__spec__ = spec
    module.__path__ = [location]
    sys.modules[name] = module
    return module
