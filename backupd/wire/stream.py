"""Octets from a server through one large buffer: few system calls, memory bounded whatever is sent."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from backupd.errors import ConnectionFailed, ConnectionLost, ProtocolError, ServerError
from backupd.turns import TURN
from backupd.wire.bandwidth import Flow
from backupd.wire.patience import TIMEOUTS, Patience

BUFFER_OCTETS = 1 << 20
SPOOL_ABOVE = 4 << 20
"""Messages larger than this go to a file."""
TURN_OCTETS = 16 << 20
"""After so many, others have their turn although more has come already: their servers must not wait for minutes."""
MAX_LINE = 32 << 20
"""A SEARCH answer of a million scattered UIDs has about 8 MB in one line; more than four times that is no answer."""
_SENT_AT_ONCE = 1 << 18
"""A server must take so much within the time-out: 35 kbit/s with the default."""
_GOODBYE_SECONDS = 5.0
_KEEPALIVE = {"TCP_KEEPIDLE": 120, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 4}
"""Seconds of silence before the kernel asks, between its questions, and how many go unanswered: four minutes in all."""


class Stream:
    """Reads and writes on a connected socket; not thread-safe.

    Args:
        sock: connected, with its time-out set, plain or TLS.
        address: host:port, for messages.
        spool_folder: where large messages go; None for the system's temporary folder.
        timeout: seconds the server may be silent, as set on the socket; None where nothing bounds how slow it may be.
        flow: is told of all octets, and may hold them up.
        buffer_octets: how much is read at once.
    """

    upgrade = "STARTTLS"
    """The command after which a handshake comes, for messages."""

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        *,
        spool_folder: Path | None = None,
        timeout: float | None = None,
        flow: Flow | None = None,
        buffer_octets: int = BUFFER_OCTETS,
    ) -> None:
        self._socket = sock
        self._address = address
        self._spool_folder = spool_folder
        self._patience = Patience(timeout) if timeout else None
        self._flow = flow
        self.room = buffer_octets
        self.buffer = bytearray(buffer_octets)
        self.view = memoryview(self.buffer)
        self.start = 0
        """Where the octets not yet used begin in the buffer, and where they end."""
        self.end = 0
        self.octets_received = 0
        self.round_trips = 0
        """How often we waited after having sent something. Pipelined commands count once."""
        self.bare = False
        """Whether the last line ended with LF alone."""
        self._asked = False
        self._in_turn = 0
        self.closed = False

    @property
    def sock(self) -> socket.socket:
        """The socket in use."""
        return self._socket

    def switch(self, wrap: Callable[[socket.socket], socket.socket]) -> None:
        """Go on over another socket (STARTTLS).

        Octets that came before it are refused: somebody may have slipped them in to be taken for the server's answers
        after the handshake (CVE-2011-0411 and its relatives).
        """
        if self.start != self.end:
            raise ProtocolError(
                f"octets were sent in the clear after {self.upgrade}",
                subject=self._address,
                remedy="somebody may be tampering with the connection; use tls: implicit",
            )
        self._socket = wrap(self._socket)

    def logged_in(self) -> None:
        """The login is over: from now on each answer has its own time."""
        if self._patience:
            self._patience.logged_in()

    def hurry(self) -> None:
        """Nothing that is still to come is worth more than some seconds."""
        self._socket.settimeout(_GOODBYE_SECONDS)
        self._patience = Patience(_GOODBYE_SECONDS / TIMEOUTS)

    def send(self, octets: bytes | bytearray | memoryview) -> None:
        """Send all octets. Raises ConnectionLost."""
        if self.closed:
            raise self.lost("the connection was closed before")
        self._asked = True
        if self._patience:
            self._patience.asked()
        try:
            if len(octets) <= _SENT_AT_ONCE and self._flow is None:
                self._socket.sendall(octets)
            else:
                self._send_in_pieces(memoryview(octets))
        except TimeoutError:
            raise self.lost("the server did not take a command in time", waited=True) from None
        except OSError as error:
            raise self.lost(_reason(error)) from error

    def _send_in_pieces(self, octets: memoryview) -> None:
        most = min(_SENT_AT_ONCE, self._flow.most if self._flow else _SENT_AT_ONCE)
        for start in range(0, len(octets), most):
            piece = octets[start : start + most]
            self._socket.sendall(piece)
            if self._flow:
                self._flow.sent(len(piece))

    def fill(self, wanted: int = 1) -> None:
        """Have at least `wanted` unread octets in the buffer (at most its size). Raises ConnectionLost."""
        if self.closed:
            raise self.lost("the connection was closed before")
        if self.room - self.start < wanted or self.start == self.end or self.end == self.room:
            unread = self.end - self.start
            self.buffer[:unread] = self.buffer[self.start : self.end]
            self.start, self.end = 0, unread
        while self.end - self.start < wanted:
            self.end += self._receive(self.view[self.end :])

    def _receive(self, room: memoryview) -> int:
        waited = 0.0
        if self._flow is not None:
            room = room[: self._flow.most]
        try:
            got = self._take_what_came(room) if self._may_go_on() else None
            if got is not None:
                self._in_turn += got
            else:
                with TURN.given_up():
                    began = time.monotonic()
                    got = self._socket.recv_into(room)
                    waited = time.monotonic() - began
                self._in_turn = got
        except TimeoutError:
            raise self.lost("the server sent nothing for too long", waited=True) from None
        except OSError as error:
            raise self.lost(_reason(error)) from error
        if not got:
            raise self.lost("the server closed the connection")
        self.octets_received += got
        self.round_trips += self._asked
        self._asked = False
        if self._patience and not self._patience.waited(waited, got):
            raise self.lost("the server sends so little that nothing comes of it", waited=True)
        if self._flow is not None:
            self._flow.received(got)
        return got

    def _take_what_came(self, room: memoryview) -> int | None:
        """What has come already; None if that is less than it takes: of a TLS record, nothing can be had but the whole.
        Whoever drips the rest of one must not make others wait for their turn.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return self._socket.recv_into(room)
        timeout, got = self._socket.gettimeout(), 0
        self._socket.settimeout(0)
        try:
            while got < len(room):  # record by record
                more = self._socket.recv_into(room[got:])
                if not more:
                    return got
                got += more
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return got or None
        except OSError:
            if not got:
                raise  # else it is met again by whoever wants more
        finally:
            self._socket.settimeout(timeout)
        return got

    def _may_go_on(self) -> bool:
        """Whether to keep the turn: something has come already, and this has not lasted too long."""
        if not TURN.is_mine or self._in_turn >= TURN_OCTETS:
            return False
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        poll = select.poll()  # as select.select, with no limit to the number of the socket
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def lost(self, what: str, *, waited: bool = False) -> ConnectionLost:
        """Close, and make the error that says so."""
        self.close()
        return ConnectionLost(what, subject=self._address, waited=waited)

    def broken(self, error: ServerError) -> ServerError:
        """Close after an answer that could not be understood; gives the error its address."""
        self.close()
        error.subject = error.subject or self._address
        return error

    def close(self) -> None:
        """Close the socket at once; never raises."""
        if not self.closed:
            self.closed = True
            try:
                self._socket.close()
            except OSError:
                return

    def line(self) -> bytes:
        """The next line without its line end (CRLF, or LF from sloppy servers)."""
        pieces: list[bytes] = []
        octets = 0
        while True:
            found = self.buffer.find(b"\n", self.start, self.end)
            stop = found + 1 if found >= 0 else self.end
            pieces.append(bytes(self.view[self.start : stop]))
            octets += stop - self.start
            self.start = stop
            if octets > MAX_LINE:
                raise self.broken(ProtocolError(f"a line longer than {MAX_LINE >> 20} MiB"))
            if found >= 0:
                whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self.bare = not whole.endswith(b"\r\n")
                return whole[:-1] if self.bare else whole[:-2]
            self.fill()


def connect(host: str, port: int, timeout: float, address: str) -> socket.socket:
    """A connection. timeout: seconds to wait for it, and afterwards for each answer. Raises ConnectionFailed."""
    try:
        sock = socket.create_connection((host, port), timeout=timeout)
    except OSError as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise ConnectionFailed(
            f"cannot connect: {reason}",
            subject=address,
            remedy="check host and port, and whether the server and the network are up",
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A connection on which nothing is said may have ended without a word. So the kernel asks, and routers remember it.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def show(octets: bytes, limit: int = 200) -> str:
    """Octets of a server for an error message: one line, no control characters, not too long."""
    text = octets[:limit].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text).strip()


def without(octets: bytes, secrets: Iterable[bytes]) -> bytes:
    """The octets with every secret in them hidden. To be done before `show`, which may cut one in the middle."""
    for secret in filter(None, secrets):
        octets = octets.replace(secret, b"***")
    return octets


def _reason(error: OSError) -> str:
    return f"the connection broke: {show((error.strerror or str(error)).encode())}"
