"""Cgroups that are systemd's slices: it makes, limits and removes them, asked over D-Bus.

Owns the connection and what systemd is asked for. Looks like a CgroupTree to those who keep cgroups: files that systemd
has no property for, and exact values, are written after it. Blocking; calls of several threads take turns.

Upstream counterpart: libcontainer's cgroups/systemd, as the Go kubelet uses it. jeepney speaks D-Bus; it is imported
with the first slice, since a node with the cgroupfs driver needs none of it.
"""

import contextlib
import errno
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kubelet_py.core.cgroup_rules import CgroupLimits
from kubelet_py.core.slice_rules import Property, creation_properties, limit_properties, unit_name
from kubelet_py.host.cgroups import CgroupTree

if TYPE_CHECKING:
    from jeepney.io.blocking import DBusConnection

CALL_SECONDS: Final = 25.0
START_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.005
_UNIT_EXISTS: Final = "org.freedesktop.systemd1.UnitExists"
_NO_SUCH_UNIT: Final = "org.freedesktop.systemd1.NoSuchUnit"
_NOT_OURS: Final = (_NO_SUCH_UNIT, "org.freedesktop.DBus.Error.InvalidArgs")
"""What systemd says of a name that it does not know, or that is no unit's."""


class SystemdError(OSError):
    """Systemd refused, or nobody answered."""

    def __init__(self, message: str, name: str = "") -> None:
        super().__init__(errno.EIO, message)
        self.name = name


class SystemdManager:
    """org.freedesktop.systemd1.Manager on the system bus. Connects when it is needed, and anew after a failure."""

    def __init__(self) -> None:
        self._connection: DBusConnection | None = None
        self._lock = threading.Lock()

    def start_slice(self, unit: str, properties: Iterable[Property]) -> None:
        """StartTransientUnit; SystemdError when it exists already."""
        self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", list(properties), [])

    def set_properties(self, unit: str, properties: Iterable[Property]) -> None:
        """SetUnitProperties, until the unit ends."""
        self._call("SetUnitProperties", "sba(sv)", unit, True, list(properties))

    def stop(self, unit: str) -> None:
        """StopUnit."""
        self._call("StopUnit", "ss", unit, "replace")

    def _call(self, method: str, signature: str, *arguments: Any) -> None:
        from jeepney import DBusAddress, MessageType, new_method_call
        from jeepney.io.blocking import open_dbus_connection

        manager = DBusAddress(
            "/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager"
        )
        message = new_method_call(manager, method, signature, arguments)
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = open_dbus_connection("SYSTEM")
                reply = self._connection.send_and_get_reply(message, timeout=CALL_SECONDS)
            except (OSError, EOFError, TimeoutError) as error:
                self._drop()
                raise SystemdError(
                    f"systemd cannot be asked for {method} over D-Bus ({error}): cgroupDriver systemd needs it"
                ) from error
        if reply.header.message_type == MessageType.error:
            name = next((str(value) for key, value in reply.header.fields.items() if key.name == "error_name"), "")
            detail = reply.body[0] if reply.body else name
            raise SystemdError(f"systemd refused {method} of {arguments[0]}: {detail}", name)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


class SliceTree:
    """Slices as a tree of cgroups; paths end with a unit's name."""

    def __init__(self, files: CgroupTree, manager: SystemdManager) -> None:
        self._files = files
        self._manager = manager

    def ensure(self, path: str, limits: CgroupLimits | None = None) -> None:
        """The slice exists with these limits; what is None there is left as it is. OSError says what was refused."""
        unit = unit_name(path)
        properties = limit_properties(limits, unified=self._files.is_unified) if limits is not None else ()
        try:
            self._manager.start_slice(unit, (*creation_properties(unit), *properties))
        except SystemdError as error:
            if error.name != _UNIT_EXISTS:
                raise
            if properties:
                self._manager.set_properties(unit, properties)
        self._wait_until_made(path)
        self._files.ensure(path, limits)

    def update(self, path: str, limits: CgroupLimits) -> None:
        """The limits of a unit that somebody else made; of a cgroup that is none of systemd's, the files alone."""
        try:
            self._manager.set_properties(unit_name(path), limit_properties(limits, unified=self._files.is_unified))
        except SystemdError as error:
            if error.name not in _NOT_OURS:
                raise
        self._files.update(path, limits)

    def remove(self, path: str) -> None:
        """The slice ends, with what still runs in it. Absent is fine."""
        try:
            self._manager.stop(unit_name(path))
        except SystemdError as error:
            if error.name != _NO_SUCH_UNIT:
                raise
        self._files.remove(path)

    def children(self, path: str) -> list[str]:
        """The names of the cgroups right beneath."""
        return self._files.children(path)

    def limits(self, path: str) -> CgroupLimits | None:
        """CPU and memory as the kernel has them; None where there is no such cgroup."""
        return self._files.limits(path)

    def memory_usage_bytes(self, path: str) -> int | None:
        """How much memory is in use in the cgroup and beneath; None where nobody counts it."""
        return self._files.memory_usage_bytes(path)

    def _wait_until_made(self, path: str) -> None:
        """The job is done when the cgroup is there; where systemd makes it on one hierarchy only, one is enough."""
        deadline = time.monotonic() + START_SECONDS
        while not any(directory.is_dir() for directory in self._directories(path)):
            if time.monotonic() > deadline:
                raise SystemdError(f"systemd did not start {unit_name(path)} within {START_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _directories(self, path: str) -> Iterator[Path]:
        return self._files.directories(path)
