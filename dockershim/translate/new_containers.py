"""What Docker would show of a container that it has just made, from what it was asked: the store need not look.

Pure. Owns how Docker writes down what it was told: paths cleaned, the image's stop signal where the request has none.
What Docker alone knows (the directory of the writable layer, the file of its log) is left out, and so is what it says
in a warning it will not do: who gets a warning looks. Upstream counterpart: none; cri-dockerd asks Docker each time.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from dockershim.translate.image_views import ImageFacts


def as_inspected(container_id: str, name: str, body: Mapping[str, Any], image: ImageFacts) -> dict[str, Any]:
    """The part of an inspect answer that `container_view` reads. `body` is what the container was made with."""
    host_config = body["HostConfig"]
    return {
        "Id": container_id,
        "Name": f"/{name}",
        "Image": body["Image"],
        "Config": {
            "Image": body["Image"],
            "Labels": body["Labels"],
            "Tty": body.get("Tty", False),
            "StdinOnce": body.get("StdinOnce", False),
            "User": body.get("User", ""),
            "StopSignal": body.get("StopSignal") or image.stop_signal,
        },
        "HostConfig": host_config,
        "Mounts": [*_mounts(host_config), *_binds(host_config)],
        "State": {},
    }


def _mounts(host_config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for wanted in host_config.get("Mounts") or ():
        if wanted["Type"] == "bind":
            yield {
                "Type": "bind",
                "Source": _clean(wanted["Source"]),
                "Destination": _clean(wanted["Target"]),
                "RW": not wanted.get("ReadOnly", False),
                "Propagation": (wanted.get("BindOptions") or {}).get("Propagation", ""),
            }


def _binds(host_config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for text in host_config.get("Binds") or ():
        source, target, words = text.split(":")
        options = words.split(",")
        yield {
            "Type": "bind",
            "Source": _clean(source),
            "Destination": _clean(target),
            "RW": "ro" not in options,
            "Propagation": next((word for word in options if word.endswith(("slave", "shared", "private"))), ""),
        }


def _clean(path: str) -> str:
    """As Go cleans it: posixpath keeps two slashes at the beginning."""
    return posixpath.normpath("/" + path.lstrip("/"))
