"""The values of all flags as /flagz shows them: Go's spelling of lists, maps and durations, no secrets.

Owns the way back from values to the text of flags. Pure.

Upstream counterpart: the String methods of github.com/spf13/pflag and k8s.io/component-base/cli/flag, and the reader in
apiserver's pkg/server/flagz. Deliberate difference: the headers of --manifest-url-header and the password in
--manifest-url are not shown.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from kubelet_py.api.durations import format_duration
from kubelet_py.config.flags import FLAGS, Flag
from kubelet_py.config.model import KubeletConfiguration
from kubelet_py.config.node_flags import NodeFlags
from kubelet_py.config.shapes import Shape, fields_of, leaves_of, value_at

CLASSIFIED: Final = "CLASSIFIED"
"""Stands where a value is secret, as upstream writes it for other programs."""
_USER_IN_URL: Final = re.compile(r"^([a-zA-Z]*://)[^/?#]*@")


def flag_texts(config: KubeletConfiguration, flags: NodeFlags) -> dict[str, str]:
    """Each flag's value by name. `config` is what the command line says, with the defaults of what it leaves out."""
    shapes: dict[str, Shape] = dict(leaves_of(KubeletConfiguration))
    node_shapes = fields_of(NodeFlags)
    texts = {"help": "false", "version": "false"}
    for flag in FLAGS.values():
        if flag.node_local:
            texts[flag.name] = _text(flag, node_shapes[flag.path], getattr(flags, flag.path))
        else:
            texts[flag.name] = _text(flag, shapes[flag.path], value_at(config, flag.path))
    return texts


def _text(flag: Flag, shape: Shape, value: Any) -> str:
    own = _OWN_WRITERS.get(flag.name)
    return own(value) if own is not None else _plain(shape, value)


def _plain(shape: Shape, value: Any) -> str:
    if value is None:
        return ""
    if shape.base is tuple:
        return f"[{','.join(_plain(shape.items, item) for item in value)}]"
    if shape.base is dict:
        return _pairs({key: _plain(shape.items, item) for key, item in value.items()}, "=")
    if shape.base is bool:
        return "true" if value else "false"
    return format_duration(value) if shape.is_duration else str(value)


def _pairs(values: Mapping[str, Any], separator: str) -> str:
    return ",".join(f"{key}{separator}{value}" for key, value in sorted(values.items()))


def _thresholds(value: Mapping[str, str]) -> str:
    return _pairs(value, "<")


def _headers(value: Mapping[str, Any]) -> str:
    return CLASSIFIED if value else ""


def _url(value: str) -> str:
    return _USER_IN_URL.sub(rf"\1{CLASSIFIED}@", value)


def _taints(value: Any) -> str:
    return ",".join(f"{taint.key}={taint.value or ''}:{taint.effect}" for taint in value)


def _reservations(value: Any) -> str:
    return ",".join(f"{item.numaNode}:{_pairs(item.limits, '=')}" for item in value)


def _modules(value: Any) -> str:
    return ",".join(f"{item.filePattern}={item.verbosity}" for item in value)


_OWN_WRITERS: Final[Mapping[str, Callable[[Any], str]]] = {
    "eviction-hard": _thresholds,
    "eviction-soft": _thresholds,
    "manifest-url": _url,
    "manifest-url-header": _headers,
    "register-with-taints": _taints,
    "reserved-memory": _reservations,
    "vmodule": _modules,
}
