"""A service manager's end of the notification socket (sd_notify(3))."""

from __future__ import annotations

import socket
from types import TracebackType

SECONDS = 60.0


class Manager:
    """Hears what a service says. address: as it stands in $NOTIFY_SOCKET; "@" begins an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(SECONDS)

    def raw(self) -> bytes:
        """The next datagram."""
        return self.socket.recv(65536)

    def heard(self) -> list[str]:
        """The lines of the next datagram."""
        return self.raw().decode().split("\n")

    def next(self, line: str) -> list[str]:
        """The lines of the next datagram that has this one."""
        while line not in (found := self.heard()):
            pass
        return found

    def nothing(self) -> bool:
        """Whether there is nothing more."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(SECONDS)
        return False

    def __enter__(self) -> Manager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
