"""What --help and --version print. Pure."""

from kubelet_py.config.encode import to_document
from kubelet_py.config.flags import FLAGS, Flag
from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import value_at

KUBERNETES_VERSION = "v1.37.2"
"""The Kubernetes release whose kubelet this agent stands in for."""


def version_text(asked: str) -> str:
    """The line that provisioning tools parse; `--version=v1.2.3` overrides the number as upstream allows."""
    return f"Kubernetes {asked if asked.startswith('v') else KUBERNETES_VERSION}"


def help_text() -> str:
    """Every flag with its default and the configuration field behind it."""
    shown = to_document(KubeletConfiguration())
    lines = [
        "kubelet-py runs the pods of one node, from files, a URL and the Kubernetes API server, on any CRI runtime.",
        "",
        "Usage: kubelet-py [flags]",
        "",
        "Flags (a field after -> is the KubeletConfiguration field that the flag overrides):",
    ]
    lines += [_line(flag, shown) for flag in sorted(FLAGS.values(), key=lambda flag: flag.name)]
    lines += ["  --version", "  -h, --help"]
    return "\n".join(lines)


def _line(flag: Flag, document: dict[str, object]) -> str:
    name = f"-{flag.name}, --{flag.name}" if len(flag.name) == 1 else f"--{flag.name}"
    if flag.node_local:
        default: object = getattr(NodeFlags(), flag.path)
        return f"  {name} (default {default!r})" if default not in ("", {}) else f"  {name}"
    default = document.get(flag.path, "") if "." not in flag.path else value_at(KubeletConfiguration(), flag.path)
    end = f" (default {default!r})" if default not in ("", (), {}) else ""
    return f"  {name} -> {flag.path}{end}"
