"""An HTTP server of one answer, which need not be one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Behaviour = Callable[[socket.socket, bytes], None]


def says(data: bytes) -> Behaviour:
    """Send this, and end the connection."""
    return lambda sock, asked: sock.sendall(data)


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@contextmanager
def odd_server(behaviour: Behaviour) -> Iterator[str]:
    """Its address, http://127.0.0.1:PORT. behaviour: gets each connection, and the head of what was asked."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                data = b""
                while b"\r\n\r\n" not in data and (piece := sock.recv(65536)):
                    data += piece
                behaviour(sock, data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
