"""Telling systemd the limits of a container's scope, over D-Bus.

Owns the call. A connection for each, since there is one for each start of a container and none while nothing happens.
jeepney speaks D-Bus; it is imported with the first call, since a node whose Docker has the cgroupfs driver needs none
of it. Must not know what a container is. Upstream counterpart: none; see `translate.scope_properties`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dockershim.errors import EngineFailed
from dockershim.translate.scope_properties import Property

CALL_SECONDS = 25.0


async def set_unit_properties(unit: str, properties: Sequence[Property]) -> None:
    """SetUnitProperties, until the unit ends. EngineFailed when systemd refuses or nobody answers."""
    await asyncio.to_thread(_set_unit_properties, unit, properties)


def _set_unit_properties(unit: str, properties: Sequence[Property]) -> None:
    from jeepney import DBusAddress, MessageType, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    manager = DBusAddress("/org/freedesktop/systemd1", "org.freedesktop.systemd1", "org.freedesktop.systemd1.Manager")
    message = new_method_call(manager, "SetUnitProperties", "sba(sv)", (unit, True, list(properties)))
    try:
        with open_dbus_connection("SYSTEM") as connection:
            reply = connection.send_and_get_reply(message, timeout=CALL_SECONDS)
    except (OSError, EOFError, TimeoutError) as error:
        raise EngineFailed(f"systemd cannot be told the limits of {unit} over D-Bus: {error}") from error
    if reply.header.message_type == MessageType.error:
        raise EngineFailed(f"systemd refuses the limits of {unit}: {' '.join(map(str, reply.body))}")
