"""Octets from the server, as answers: one large buffer, few system calls, memory bounded whatever is sent.

What cannot be understood ends the connection. There is no way back into step: bytes of a literal whose size was a lie
look like answers, and a guess could store one message under the name of another (mail-quirks of real servers do occur).
"""

from __future__ import annotations

from backupd.errors import ProtocolError
from backupd.wire.imap_parser import (
    Response,
    announced_literal,
    parse_response,
    without_announcement,
)
from backupd.wire.spool import Spool, SpooledBody
from backupd.wire.stream import SPOOL_ABOVE, Stream

MAX_LITERAL = (1 << 32) - 1
"""RFC 3501, 9: a number has 32 bits."""


class ImapStream(Stream):
    """Answers of an IMAP server, with their literals."""

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

