"""The bytes of messages on their way out, and the headers of those that are there already."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from backupd.errors import Damaged, ObjectMissing
from backupd.mail.headers import header_of
from backupd.targets.base import Outcome, Outgoing

_HEADER_OCTETS = 16 * 1024
_BATCH_OCTETS = 32 << 20
_BATCH_SECONDS = 5.0

UNREADABLE = (Damaged, ObjectMissing)
"""What reading a body may raise that concerns this message alone."""


def chunks_of(message: Outgoing) -> Iterator[bytes]:
    """The bytes of a message in order. Raises Damaged when they are fewer or more than its size."""
    octets = 0
    for chunk in (message.body,) if isinstance(message.body, bytes) else message.body.chunks():
        octets += len(chunk)
        yield chunk
    if octets != message.size:
        raise Damaged(
            f"the message has {octets} octets where {message.size} were archived", subject=f"UID {message.uid}"
        )


def unreadable(message: Outgoing, error: Exception) -> Outcome:
    """The outcome for a message whose bytes the archive could not give."""
    return Outcome(message, "unreadable", str(error))


def outcome(message: Outgoing, remark: str = "") -> Outcome:
    """The outcome for a message that is there now; a remark says what is other than it was."""
    return Outcome(message, "altered" if remark else "written", remark)


def batches(
    messages: Iterable[Outgoing], most: int, clock: Callable[[], float] = time.monotonic
) -> Iterator[Iterator[Outgoing]]:
    """Runs of messages that are made durable together, as lazy iterators; each must be used up before the next.

    A run ends after `most` messages, after 32 MiB, or after five seconds: what a kill undoes stays little, and slow
    messages are told of soon.
    """
    iterator = iter(messages)
    for first in iterator:
        yield _run(first, iterator, most, clock)


def _run(first: Outgoing, iterator: Iterator[Outgoing], most: int, clock: Callable[[], float]) -> Iterator[Outgoing]:
    until = clock() + _BATCH_SECONDS
    yield first
    count, octets = 1, first.size
    while count < most and octets < _BATCH_OCTETS and clock() < until:
        message = next(iterator, None)
        if message is None:
            return
        yield message
        count += 1
        octets += message.size


def read_header(file: BinaryIO) -> bytes:
    """The header of the message in a file, reading no more of it than needed."""
    return header_by(file.read)


def header_by(read: Callable[[int], bytes]) -> bytes:
    """As read_header, by a function that gives the next octets, at most so many."""
    taken = read(_HEADER_OCTETS)
    while True:
        header = header_of(taken)
        if len(header) < len(taken):
            return header
        more = read(len(taken) or 1)
        if not more:
            return header
        taken += more
