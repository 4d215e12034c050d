"""A forwarded port passes bytes both ways, ends with either side, and closes with its owner."""

from __future__ import annotations

import socket

import pytest

from tests.lab.forward import Forward


def test_bytes_pass_both_ways_and_the_end_of_one_side_reaches_the_other() -> None:
    inside, server = socket.socketpair()
    with inside, Forward(lambda: server) as forward, socket.create_connection(("127.0.0.1", forward.port), 5) as client:
        inside.settimeout(5)
        client.sendall(b"ping")
        assert inside.recv(4) == b"ping"
        inside.sendall(b"pong")
        inside.shutdown(socket.SHUT_WR)
        assert client.recv(4) == b"pong"
        assert client.recv(1) == b""
        client.shutdown(socket.SHUT_WR)
        assert inside.recv(1) == b""


def test_a_port_inside_that_refuses_ends_the_connection() -> None:
    def refuse() -> socket.socket:
        raise ConnectionRefusedError

    with Forward(refuse) as forward, socket.create_connection(("127.0.0.1", forward.port), 5) as client:
        assert client.recv(1) == b""


def test_closing_frees_the_port() -> None:
    def refuse() -> socket.socket:
        raise ConnectionRefusedError

    forward = Forward(refuse)
    forward.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", forward.port), 5):
        pass
