"""The configuration back to the document that configz and the start-up log show.

Owns the outward spelling: durations as text, lists for tuples, absent optional fields left out. Pure.
"""

from typing import Any

from kubelet_py.api.durations import format_duration
from kubelet_py.config.model import API_VERSION, KIND, KubeletConfiguration
from kubelet_py.config.shapes import Shape, fields_of

MASK = "<masked>"


def to_document(config: KubeletConfiguration, *, mask_secrets: bool = True) -> dict[str, Any]:
    """The effective configuration as JSON-ready values, with apiVersion and kind; header values are masked."""
    document = {"apiVersion": API_VERSION, "kind": KIND, **_object(config)}
    if mask_secrets and config.staticPodURLHeader:
        document["staticPodURLHeader"] = {name: [MASK] for name in config.staticPodURLHeader}
    return document


def _object(value: Any) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, shape in fields_of(type(value)).items():
        current = getattr(value, name)
        if current is not None and not (current == () or current == {}):
            result[name] = _value(shape, current)
    return result


def _value(shape: Shape, value: Any) -> Any:
    if shape.base is tuple:
        return [_value(shape.items, item) for item in value]
    if shape.base is dict:
        return {key: _value(shape.items, item) for key, item in value.items()}
    if shape.is_object:
        return _object(value)
    return format_duration(value) if shape.is_duration else value
