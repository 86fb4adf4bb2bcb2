"""Messages of any size in pieces that fit in memory, for whoever searches them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

SIZE = 1 << 20
"""Octets that are looked at together."""

OVERLAP = 64 * 1024
"""Octets of a piece that are looked at with the next one again, so that what stands at its end is seen whole."""

_BLOCK = 256 * 1024


class Blocks:
    """Octets as they come, in pieces of whole lines; a line that is much longer is cut. A line that begins with "--" is
    in one piece with the next line, which tells whether it parts a message."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The pieces that are complete by now."""
        for start in range(0, len(chunk), _BLOCK):
            self._rest += chunk[start : start + _BLOCK]
            if len(self._rest) >= _BLOCK and (cut := self._cut()):
                yield bytes(self._rest[:cut])
                del self._rest[:cut]

    def _cut(self) -> int:
        cut = self._rest.rfind(b"\n") + 1
        last = self._rest.rfind(b"\n", 0, max(cut - 1, 0)) + 1
        if last and self._rest.startswith(b"--", last):
            return last
        if not cut and len(self._rest) >= 4 * _BLOCK:
            # Not before an end of line, or the next piece would begin with an empty one.
            return max(len(self._rest.rstrip(b"\r")) - 1, 0) or len(self._rest)
        return cut

    def end(self) -> bytes:
        """What is left."""
        return bytes(self._rest)


def blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same of chunks."""
    pieces = Blocks()
    for chunk in chunks:
        yield from pieces.feed(chunk)
    if rest := pieces.end():
        yield rest


def tail(window: bytes | bytearray, octets: int) -> int:
    """Where the end of a window begins that is looked at again: at the start of a line, if there is one near."""
    start = max(len(window) - octets, 0)
    line = window.rfind(b"\n", max(start - octets, 0), start) + 1
    return line or start
