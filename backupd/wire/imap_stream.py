"""Octets from the server, as answers: one large buffer, few system calls, memory bounded whatever is sent.

What cannot be understood ends the connection. There is no way back into step: bytes of a literal whose size was a lie
look like answers, and a guess could store one message under the name of another (mail-quirks of real servers do occur).
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from backupd.errors import ConnectionLost, ProtocolError, ServerError
from backupd.turns import TURN
from backupd.wire.imap_parser import (
    Response,
    announced_literal,
    parse_response,
    show,
    without_announcement,
)
from backupd.wire.spool import Spool, SpooledBody

BUFFER_OCTETS = 1 << 20
SPOOL_ABOVE = 4 << 20
"""Literals larger than this go to a file."""
TURN_OCTETS = 16 << 20
"""After so many, others have their turn although more has come already: their servers must not wait for minutes."""
MAX_LINE = 32 << 20
"""A SEARCH answer of a million scattered UIDs has about 8 MB in one line; more than four times that is no answer."""
MAX_LITERAL = (1 << 32) - 1
"""RFC 3501, 9: a number has 32 bits."""


class ImapStream:
    """Reads and writes on a connected socket; not thread-safe.

    Args:
        sock: connected, with its time-out set, plain or TLS.
        address: host:port, for messages.
        spool_folder: where large literals go; None for the system's temporary folder.
    """

    def __init__(self, sock: socket.socket, address: str, *, spool_folder: Path | None = None) -> None:
        self._socket = sock
        self._address = address
        self._spool_folder = spool_folder
        self.buffer = bytearray(BUFFER_OCTETS)
        self.view = memoryview(self.buffer)
        self.start = 0
        """Where the octets not yet used begin in the buffer, and where they end."""
        self.end = 0
        self.octets_received = 0
        self.round_trips = 0
        """How often we waited after having sent something. Pipelined commands count once."""
        self._asked = False
        self._in_turn = 0
        self.closed = False

    @property
    def sock(self) -> socket.socket:
        """The socket in use."""
        return self._socket

    # -- raw -----------------------------------------------------------------------------------------------------------

    def switch(self, wrap: Callable[[socket.socket], socket.socket]) -> None:
        """Go on over another socket (STARTTLS).

        Octets that came before it are refused: somebody may have slipped them in to be taken for the server's answers
        after the handshake (CVE-2011-0411 and its relatives).
        """
        if self.start != self.end:
            raise ProtocolError(
                "octets were sent in the clear after STARTTLS",
                subject=self._address,
                remedy="somebody may be tampering with the connection; use tls: implicit",
            )
        self._socket = wrap(self._socket)

    def send(self, octets: bytes | bytearray | memoryview) -> None:
        """Send all octets. Raises ConnectionLost."""
        if self.closed:
            raise self.lost("the connection was closed before")
        self._asked = True
        try:
            self._socket.sendall(octets)
        except TimeoutError:
            raise self.lost("the server did not take a command in time") from None
        except OSError as error:
            raise self.lost(_reason(error)) from error

    def fill(self, wanted: int = 1) -> None:
        """Have at least `wanted` unread octets in the buffer (at most its size). Raises ConnectionLost."""
        if self.closed:
            raise self.lost("the connection was closed before")
        if BUFFER_OCTETS - self.start < wanted or self.start == self.end or self.end == BUFFER_OCTETS:
            unread = self.end - self.start
            self.buffer[:unread] = self.buffer[self.start : self.end]
            self.start, self.end = 0, unread
        while self.end - self.start < wanted:
            self.end += self._receive(self.view[self.end :])

    def _receive(self, room: memoryview) -> int:
        try:
            if self._may_go_on():
                got = self._socket.recv_into(room)
                self._in_turn += got
            else:
                with TURN.given_up():
                    got = self._socket.recv_into(room)
                self._in_turn = got
        except TimeoutError:
            raise self.lost("the server sent nothing for too long") from None
        except OSError as error:
            raise self.lost(_reason(error)) from error
        if not got:
            raise self.lost("the server closed the connection")
        self.octets_received += got
        self.round_trips += self._asked
        self._asked = False
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

    def lost(self, what: str) -> ConnectionLost:
        """Close, and make the error that says so."""
        self.close()
        return ConnectionLost(what, subject=self._address)

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

    # -- answers -------------------------------------------------------------------------------------------------------

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
                return whole[:-2] if whole.endswith(b"\r\n") else whole[:-1]
            self.fill()

    def literal(self, size: int, *, may_spool: bool) -> bytes | SpooledBody:
        """The next `size` octets."""
        if size > MAX_LITERAL or (size > SPOOL_ABOVE and not may_spool):
            raise self.broken(ProtocolError(f"a literal of {size} octets was announced, and that cannot be meant"))
        if size > SPOOL_ABOVE:
            return self._spooled(size)
        have = min(size, self.end - self.start)
        taken = bytes(self.view[self.start : self.start + have])
        self.start += have
        if have == size:
            return taken
        whole = bytearray(size)
        whole[:have] = taken
        room = memoryview(whole)[have:]
        while room:
            room = room[self._receive(room) :]
        return bytes(whole)

    def _spooled(self, size: int) -> SpooledBody:
        left = size
        try:
            spool = Spool(self._spool_folder)
            while left:
                if self.start == self.end:
                    self.fill()
                now = min(left, self.end - self.start)
                spool.write(self.view[self.start : self.start + now])
                self.start += now
                left -= now
        except BaseException:
            self.close()  # the rest of the literal is still to come, and nobody will read it
            raise
        return spool.finish()

    def response(self) -> Response:
        """The next answer, whole. Raises ConnectionLost or ProtocolError; the connection is of no use after either."""
        line = self.line()
        parts: list[bytes | SpooledBody] = []
        try:
            may_spool = b" FETCH " in line[:32].upper()
            while (size := announced_literal(line) if not parts else _inner_literal(line)) is not None:
                parts += [without_announcement(line), self.literal(size, may_spool=may_spool)]
                line = self.line()
            return parse_response([*parts, line])
        except ProtocolError as error:
            raise self.broken(error) from None


def _inner_literal(line: bytes) -> int | None:
    """As announced_literal, for a line that goes on after a literal (it does not begin with `*`)."""
    return announced_literal(b"* X " + line)


def _reason(error: OSError) -> str:
    return f"the connection broke: {show((error.strerror or str(error)).encode())}"
