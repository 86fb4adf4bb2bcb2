"""The bytes of a message in a file: in memory where they are few, else as a Body that reads the file when it is asked.

Line ends are decided by the whole message (mail.line_ends), so a large one is read once more than a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backupd.errors import Damaged
from backupd.mail.line_ends import canonical, is_turned, with_crlf
from backupd.model import Body
from backupd.sources.local.base import IN_MEMORY

Chunks = Callable[[], Iterator[bytes]]
"""Gives the octets of a message from their beginning, each time it is called."""


class LargeBody:
    """A large message in a file; a `backupd.model.Body`.

    Args:
        chunks: gives its octets.
        size: octets, counted with the line ends that are given out.
        lf_only: whether to turn LF into CRLF again.
    """

    def __init__(self, chunks: Chunks, size: int, *, lf_only: bool = False) -> None:
        self._chunks, self._size, self._lf_only = chunks, size, lf_only

    @property
    def size(self) -> int:
        """Octets."""
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, in chunks of a few MiB. May be called again.

        Raises Damaged where the file cannot be read or has changed since it was opened.
        """
        octets = 0
        try:
            for chunk in with_crlf(self._chunks()) if self._lf_only else self._chunks():
                octets += len(chunk)
                yield chunk
        except OSError as error:
            raise Damaged(f"the file cannot be read: {error.strerror or error}") from error
        if octets != self._size:
            raise Damaged(f"the file changed while it was read: {octets} octets where {self._size} were found")


def body_of(chunks: Chunks, *, exact: bool, size: int | None = None) -> bytes | Body:
    """The body of a message.

    Args:
        chunks: gives its octets.
        exact: keep line ends as they are.
        size: octets, if known; spares a second reading of what is large and exact.
    """
    if exact and size is not None and size > IN_MEMORY:
        return LargeBody(chunks, size)
    held: list[bytes] = []
    octets = bare = 0
    turned: bool | None = None
    last = b""
    for chunk in chunks():
        if turned is None and b"\n" in chunk:
            turned = is_turned(last + chunk)
        octets += len(chunk)
        bare += chunk.count(b"\n") - (last + chunk).count(b"\r\n")
        last = chunk[-1:] or last
        if octets <= IN_MEMORY:
            held.append(chunk)
        else:
            held.clear()
    if octets <= IN_MEMORY:
        whole = b"".join(held)
        return whole if exact else canonical(whole)
    if exact or not turned:
        return LargeBody(chunks, octets)
    return LargeBody(chunks, octets + bare, lf_only=True)
