r"""Answers of a POP3 server: status lines, and texts of many lines that end with a lone dot (RFC 1939, 3).

Nothing but CRLF "." CRLF ends a text, whatever sizes the server has told. A line that begins with a dot has one more on
the way, which is taken off. Servers that end their status lines with a bare LF are taken to end all lines so.

A text always ends with a line end, so POP3 cannot say whether a message did: see pop3_session in sources for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from backupd.errors import ProtocolError
from backupd.wire.spool import Spool, SpooledBody
from backupd.wire.stream import SPOOL_ABOVE, Stream, show, without

_LONGEST_STATUS = 8192
"""Octets: RFC 2449, 4 allows 512."""
_PIECE_OCTETS = 1 << 16
MOST_OCTETS = 4 << 30
"""Of one text, whose size nobody knows before its end: what is longer never ends, and would fill any disk."""


class Reply(NamedTuple):
    """A status line. ok: +OK and nothing else; what QUIT confirms hangs on it.

    code: the response code without brackets, upper case (RFC 2449, 8), such as "IN-USE".
    """

    ok: bool
    code: str
    text: str
    raw: bytes

    @property
    def asks(self) -> bool:
        """Whether it is no end, but a challenge (RFC 5034, 4)."""
        return not self.ok and self.raw[:1] == b"+"


class Pop3Stream(Stream):
    """Answers of a POP3 server."""

    upgrade = "STLS"
    secrets: tuple[bytes, ...] = ()
    """What no reply and no error may show, even where the server repeats it."""

    def reply(self) -> Reply:
        """The next status line. Raises ConnectionLost, or ProtocolError when it is none."""
        line = self.line()
        ok = line[:3].upper() == b"+OK"
        if not (ok or line[:4].upper() == b"-ERR" or line[:1] == b"+") or len(line) > _LONGEST_STATUS:
            raise self.broken(ProtocolError(f"an answer that cannot be read: {show(without(line, self.secrets))!r}"))
        rest = line[4:].strip() if ok else without(line[5:].strip(), self.secrets)
        text = show(rest)
        code = ""
        if rest.startswith(b"[") and b"]" in rest:
            code = show(rest[1 : rest.index(b"]")]).upper()
        return Reply(ok, code, text, line)

    def text(self, most: int = MOST_OCTETS) -> bytes | SpooledBody:
        """The lines that follow a status line, without the dot at their end, and without dot-stuffing. In a file when
        they are many. Raises ConnectionLost, or ProtocolError when they are more than so many octets."""
        end = b"\n" if self.bare else b"\r\n"
        found = self._at_once(end)
        if found is not None:
            return found
        held: list[bytes] = []
        octets = 0
        spool: Spool | None = None
        try:
            for piece in self._pieces(end):
                octets += len(piece)
                if octets > most:
                    raise self.broken(ProtocolError(f"an answer without an end: more than {most:,} octets"))
                if spool:
                    spool.write(memoryview(piece))
                    continue
                held.append(piece)
                if octets > SPOOL_ABOVE:
                    spool = Spool(self._spool_folder)
                    for each in held:
                        spool.write(memoryview(each))
                    held.clear()
        except BaseException:
            self.close()  # the rest is still to come, and nobody will read it
            raise
        return spool.finish() if spool else b"".join(held)

    def _at_once(self, end: bytes) -> bytes | None:
        """The text, if all of it is in the buffer."""
        last = end + b"." + end
        if self.buffer.startswith(last[len(end) :], self.start, self.end):
            self.start += 1 + len(end)
            return b""
        found = self.buffer.find(last, self.start, self.end)
        if found < 0:
            return None
        octets = bytes(self.view[self.start : found + len(end)])
        self.start = found + len(last)
        if octets.startswith(b".."):
            octets = octets[1:]
        return octets.replace(end + b"..", end + b".")

    def _pieces(self, end: bytes) -> Iterator[bytes]:
        """The text, piece by piece. No piece ends within what ends a text or stuffs a line."""
        last, stuffed, single = end + b"." + end, end + b"..", end + b"."
        while self.end - self.start < len(last) - len(end):
            self.fill(self.end - self.start + 1)
        if self.buffer.startswith(last[len(end) :], self.start, self.end):
            self.start += len(last) - len(end)
            return
        if self.buffer.startswith(b"..", self.start, self.end):
            self.start += 1
        seen = self.start
        while (found := self.buffer.find(last, seen, self.end)) < 0:
            # What may be the beginning of the end, or of a stuffed line, waits for what follows.
            mark = self.buffer.find(end[:1], max(self.start, self.end - len(last) + 1), self.end)
            stop = self.end if mark < 0 else mark
            if stop - self.start >= _PIECE_OCTETS:
                octets = bytes(self.view[self.start : stop])
                self.start = stop
                yield octets.replace(stuffed, single)
            kept = self.end - self.start
            self.fill(kept + 1)
            seen = self.start + max(0, kept - len(last) + 1)
        octets = bytes(self.view[self.start : found + len(end)])
        self.start = found + len(last)
        yield octets.replace(stuffed, single)
