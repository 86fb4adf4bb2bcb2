"""The raw wire of POP3: read all mail of an account and throw it away. No backup can beat it by much.

    python -m bench.pop3_drain HOST PORT USERNAME     (password in $BENCH_PASSWORD)

One connection, every RETR sent without waiting for an answer (RFC 2449, 6.6), and in what arrives only the ends of
messages are counted. Nothing is deleted. Standard library only, so that starting costs next to nothing.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

_BUFFER_OCTETS = 1 << 20
_END = b"\r\n.\r\n"
"""What ends a message; within one, a line that begins with "." is sent with two (RFC 1939, 3)."""


class Drain:
    """A connection that is logged in."""

    def __init__(self, host: str, port: int, username: str, password: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=300)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line()
        self.command(f"USER {username}")
        self.command(f"PASS {password}")

    def command(self, words: str) -> str:
        """Send, and return the line that answers. RuntimeError when it is not +OK."""
        self._socket.sendall(f"{words}\r\n".encode())
        return self._line()

    def _line(self) -> str:
        received = b""
        while not received.endswith(b"\r\n"):
            octets = self._socket.recv(4096)
            if not octets:
                raise ConnectionError("the server closed the connection")
            received += octets
        if not received.startswith(b"+OK"):
            raise RuntimeError(f"the server said {received!r}")
        return received.decode()

    def messages(self, count: int) -> int:
        """Read messages 1 to count, then QUIT. Returns the octets that came. RuntimeError when there were fewer."""
        commands = b"".join(b"RETR %d\r\n" % number for number in range(1, count + 1)) + b"QUIT\r\n"
        # Whoever sends all before reading anything waits for a server that waits for him.
        sender = threading.Thread(target=self._socket.sendall, args=(commands,), daemon=True)
        sender.start()
        buffer = memoryview(bytearray(_BUFFER_OCTETS))
        octets = ended = 0
        kept = b""
        while received := self._socket.recv_into(buffer):
            octets += received
            chunk = kept + bytes(buffer[:received])
            ended += chunk.count(_END)
            kept = b"" if chunk.endswith(_END) else chunk[-len(_END) + 1 :]
        if ended != count:
            raise RuntimeError(f"{ended} messages of {count} came")
        return octets


def drain(host: str, port: int, username: str, password: str) -> int:
    """Read all mail of an account. Returns the octets that came."""
    connection = Drain(host, port, username, password)
    return connection.messages(int(connection.command("STAT").split()[1]))


if __name__ == "__main__":
    host, port, username = sys.argv[1:]
    print(drain(host, int(port), username, os.environ["BENCH_PASSWORD"]))
