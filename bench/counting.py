"""A door before a server that counts what goes through it: octets each way, and round trips.

A round trip is counted when a client sends something after it has heard something new: the times it would wait if the
server were far away. It runs on threads of the harness, which does nothing else meanwhile.
"""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import NamedTuple

_OCTETS = 1 << 20


class Traffic(NamedTuple):
    """received and sent: octets, as the client sees them. lines: those it sent; where it sends no mail, a command each.
    """

    received: int
    sent: int
    lines: int
    round_trips: int


class Door:
    """Listens on a free port of loopback and passes everything on to the server's, while it lasts."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._lock = threading.Lock()
        self._received = self._sent = self._lines = self._round_trips = 0

    def __enter__(self) -> Door:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def traffic(self) -> Traffic:
        """What went through since this was last asked."""
        with self._lock:
            counted = Traffic(self._received, self._sent, self._lines, self._round_trips)
            self._received = self._sent = self._lines = self._round_trips = 0
        return counted

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            heard = threading.Event()
            threading.Thread(target=self._pass, args=(server, client, heard, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(client, server, heard, False), daemon=True).start()

    def _pass(self, come: socket.socket, go: socket.socket, heard: threading.Event, down: bool) -> None:
        """Pass on what one side sends until it ends, then tell the other. down: to the client."""
        room = memoryview(bytearray(_OCTETS))
        try:
            while size := come.recv_into(room):
                if down:
                    self._came_down(size, heard)
                else:
                    self._went_up(room[:size], heard)
                go.sendall(room[:size])
            go.shutdown(socket.SHUT_WR)
        except OSError:  # one of them hung up: both are told
            come.close()
            go.close()

    def _came_down(self, size: int, heard: threading.Event) -> None:
        with self._lock:
            self._received += size
        heard.set()

    def _went_up(self, data: memoryview, heard: threading.Event) -> None:
        with self._lock:
            self._sent += len(data)
            self._lines += bytes(data).count(b"\n")
            if heard.is_set():
                heard.clear()
                self._round_trips += 1
