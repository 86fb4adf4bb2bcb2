"""Segments: a mailbox's messages cut by UID range, so that a change costs what changed.

A segment is a membership run and a state run. A flag rewrites one state run, new mail adds a small segment, and small
neighbouring segments at the end are merged when they have grown alike, as in a log-structured merge tree: a mailbox of
a million messages has some 250 segments, and a message is rewritten a handful of times in its life.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import msgspec

from backupd.model import MessageState
from backupd.repository import runs
from backupd.repository.payload import BlobKind
from backupd.repository.runs import MessageRow

ROWS = 4096
"""Messages in a full segment. At about 70 octets a message a full membership run is some 280 kB before compression."""


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A stretch of UIDs. rows: messages in the membership run; messages: how many of them are still there."""

    first: int
    last: int
    rows: int
    messages: int
    octets: int
    membership: bytes
    state: bytes


class RunStore(Protocol):
    """Where runs are written to and read from."""

    def put_run(self, kind: BlobKind, data: bytes) -> bytes:
        """Store a run unless it is there, and give its blob id."""
        ...

    def get_run(self, blob_id: bytes, kind: BlobKind) -> bytes | memoryview: ...


class Uids(Protocol):
    """A set of UIDs; ranges: its (first, last) stretches, ascending."""

    @property
    def ranges(self) -> Sequence[tuple[int, int]]: ...

    def __contains__(self, uid: int, /) -> bool: ...


def write(store: RunStore, rows: Sequence[MessageRow], states: Sequence[MessageState]) -> list[Segment]:
    """Store messages as segments. rows and states: the same ascending UIDs."""
    segments = []
    for start in range(0, len(rows), ROWS):
        some_rows, some_states = rows[start : start + ROWS], states[start : start + ROWS]
        segments.append(
            Segment(
                first=some_rows[0].uid,
                last=some_rows[-1].uid,
                rows=len(some_rows),
                messages=len(some_rows),
                octets=sum(row.size for row in some_rows),
                membership=store.put_run(BlobKind.MEMBERSHIP, runs.encode_membership(some_rows)),
                state=store.put_run(BlobKind.STATE, runs.encode_state(some_states)),
            )
        )
    return segments


def read(store: RunStore, segment: Segment) -> Iterator[tuple[MessageRow, MessageState]]:
    """The messages of a segment, by ascending UID."""
    states = {state.uid: state for state in _states(store, segment)}
    for row in _rows(store, segment):
        if state := states.get(row.uid):
            yield row, state


def states_of(store: RunStore, segments: Iterable[Segment]) -> Iterator[MessageState]:
    """Only the states, by ascending UID."""
    for segment in segments:
        yield from _states(store, segment)


def uid_ranges(store: RunStore, segments: Iterable[Segment]) -> Iterator[tuple[int, int]]:
    """(first, last) of the stretches of UIDs the segments hold."""
    for segment in segments:
        yield from runs.state_uid_ranges(store.get_run(segment.state, BlobKind.STATE), _subject(segment))


def update(
    store: RunStore,
    segments: Sequence[Segment],
    *,
    vanished: Uids | None = None,
    changed: Mapping[int, MessageState] | None = None,
    added: Sequence[tuple[MessageRow, MessageState]] = (),
) -> list[Segment]:
    """The segments after a change; those it does not touch are kept as they are.

    Args:
        vanished: UIDs that are gone.
        changed: new states of messages that are there.
        added: messages with new UIDs, anywhere (some servers insert in the middle), ascending.
    """
    changed = changed or {}
    result: list[Segment] = []
    pending = list(added)
    changed_uids = sorted(changed)
    for segment in segments:
        inserted, pending = _take(pending, segment.last)
        touched = _overlaps(vanished, segment) or _any_within(changed_uids, segment)
        if not touched and not inserted:
            result.append(segment)
            continue
        states = [
            changed.get(state.uid, state)
            for state in _states(store, segment)
            if not (vanished and state.uid in vanished)
        ]
        result += _rewrite(store, segment, states, inserted)
    if pending:
        result += write(store, [row for row, _ in pending], [state for _, state in pending])
    return merge_tail(store, result)


def merge_tail(store: RunStore, segments: Sequence[Segment]) -> list[Segment]:
    """Merge small segments at the end while the one before is at most twice as large."""
    kept = list(segments)
    while len(kept) > 1 and kept[-2].rows <= 2 * kept[-1].rows and kept[-2].rows + kept[-1].rows <= ROWS:
        last, before = kept.pop(), kept.pop()
        both = [*read(store, before), *read(store, last)]
        kept += write(store, [row for row, _ in both], [state for _, state in both])
    return kept


def _rewrite(
    store: RunStore,
    segment: Segment,
    states: list[MessageState],
    inserted: list[tuple[MessageRow, MessageState]],
) -> list[Segment]:
    if not inserted and len(states) * 2 >= segment.rows and states:
        return [_with_states(store, segment, states)]
    alive = {state.uid: state for state in states}
    both = [(row, alive[row.uid]) for row in _rows(store, segment) if row.uid in alive]
    new = {row.uid for row, _ in inserted}
    both = sorted([pair for pair in both if pair[0].uid not in new] + inserted, key=lambda pair: pair[0].uid)
    return write(store, [row for row, _ in both], [state for _, state in both])


def _with_states(store: RunStore, segment: Segment, states: list[MessageState]) -> Segment:
    octets = segment.octets
    if len(states) != segment.messages:
        alive = {state.uid for state in states}
        octets = sum(row.size for row in _rows(store, segment) if row.uid in alive)
    return msgspec.structs.replace(
        segment,
        messages=len(states),
        octets=octets,
        state=store.put_run(BlobKind.STATE, runs.encode_state(states)),
    )


def _take(
    pending: list[tuple[MessageRow, MessageState]], last: int
) -> tuple[list[tuple[MessageRow, MessageState]], list[tuple[MessageRow, MessageState]]]:
    count = next((i for i, (row, _) in enumerate(pending) if row.uid > last), len(pending))
    return pending[:count], pending[count:]


def _overlaps(uids: Uids | None, segment: Segment) -> bool:
    if not uids:
        return False
    position = bisect_left(uids.ranges, segment.first, key=lambda stretch: stretch[1])
    return position < len(uids.ranges) and uids.ranges[position][0] <= segment.last


def _any_within(uids: Sequence[int], segment: Segment) -> bool:
    position = bisect_left(uids, segment.first)
    return position < len(uids) and uids[position] <= segment.last


def _rows(store: RunStore, segment: Segment) -> list[MessageRow]:
    return runs.decode_membership(store.get_run(segment.membership, BlobKind.MEMBERSHIP), _subject(segment))


def _states(store: RunStore, segment: Segment) -> list[MessageState]:
    return runs.decode_state(store.get_run(segment.state, BlobKind.STATE), _subject(segment))


def _subject(segment: Segment) -> str:
    return f"UIDs {segment.first} to {segment.last}"
