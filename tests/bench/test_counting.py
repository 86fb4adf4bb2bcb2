"""The door before a server: everything goes through, and is counted."""

from __future__ import annotations

import socket
import threading

from bench.counting import Door


def _echo(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    while octets := peer.recv(4096):
        peer.sendall(octets * 2)
    peer.close()


def test_octets_and_round_trips_are_those_the_client_sees() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        with Door(listener.getsockname()[1]) as door, socket.create_connection(("127.0.0.1", door.port)) as client:
            reader = client.makefile("rb")
            for said in (b"one\n", b"three\n"):
                client.sendall(said)
                assert reader.readline() == said
                assert reader.readline() == said
            client.shutdown(socket.SHUT_WR)
            assert reader.read() == b""
            counted = door.traffic()
            assert (counted.received, counted.sent, counted.lines, counted.round_trips) == (20, 10, 2, 1)
            assert door.traffic() == (0, 0, 0, 0)
