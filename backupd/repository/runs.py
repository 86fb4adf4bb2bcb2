"""Runs of mailbox state: columns over consecutive UIDs (docs/format.md, "Runs").

A membership run holds what is fixed about messages once they have a UID; a state run what may change. The messages of a
segment are those of its state run: a membership run may still name some that are gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import msgspec

from backupd.errors import Damaged
from backupd.model import Flags, MessageState
from backupd.repository.decoding import UNDECODABLE


class MessageRow(msgspec.Struct, frozen=True):
    """What is fixed about a message.

    message: its blob id. internaldate: as the server wrote it. size: RFC822.SIZE as the server said. fingerprint: keyed
    hash of its header. server_id: EMAILID, X-GM-MSGID, or UIDL with the size that POP3 lists it with. envelopes,
    envelope: the run its envelope is in, and its number there.
    """

    uid: int
    message: bytes
    internaldate: bytes
    size: int
    fingerprint: bytes
    server_id: bytes | None
    envelopes: bytes
    envelope: int


class _Membership(msgspec.Struct, frozen=True, omit_defaults=True):
    uids: list[int]
    messages: bytes
    dates: list[bytes]
    sizes: list[int]
    fingerprints: bytes
    envelope_runs: bytes
    envelope_run: list[int]
    envelope: list[int]
    server_ids: list[bytes | None] | None = None


class _Sizes(msgspec.Struct, frozen=True):
    uids: list[int]
    sizes: list[int]


class _References(msgspec.Struct, frozen=True):
    uids: list[int]
    messages: bytes
    envelope_runs: bytes
    envelope_run: list[int]


class _State(msgspec.Struct, frozen=True, omit_defaults=True):
    uids: list[int]
    flag_sets: list[list[bytes]]
    flags: list[int]
    modseqs: list[int | None] | None = None
    label_sets: list[list[bytes]] | None = None
    labels: list[int] | None = None
    gone: list[int] | None = None


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Header fields as they stand in the message, undecoded; attachments: raw file name parameters."""

    date: bytes = b""
    from_: bytes = b""
    to: bytes = b""
    subject: bytes = b""
    message_id: bytes = b""
    attachments: tuple[bytes, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode_membership = msgspec.msgpack.Decoder(_Membership).decode
_decode_sizes = msgspec.msgpack.Decoder(_Sizes).decode
_decode_references = msgspec.msgpack.Decoder(_References).decode
_decode_state = msgspec.msgpack.Decoder(_State).decode
_decode_envelopes = msgspec.msgpack.Decoder(list[Envelope]).decode
_WRONG = (IndexError, *UNDECODABLE)


def pack_uids(uids: Iterable[int]) -> list[int]:
    """Ascending UIDs as [first, count, gap, count, ...]; a gap is counted from the end of one stretch to the next."""
    packed: list[int] = []
    after = 0
    for uid in uids:
        if packed and uid == after:
            packed[-1] += 1
        else:
            packed += (uid - after, 1)
        after = uid + 1
    return packed


def unpack_uid_ranges(packed: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each stretch."""
    ranges, position = [], 0
    for gap, count in zip(packed[::2], packed[1::2], strict=True):
        first = position + gap
        position = first + count
        ranges.append((first, position - 1))
    return ranges


def unpack_uids(packed: Sequence[int]) -> list[int]:
    """The reverse of pack_uids."""
    uids: list[int] = []
    for first, last in unpack_uid_ranges(packed):
        uids += range(first, last + 1)
    return uids


def _unpack_some(packed: Sequence[int], count: int) -> list[int]:
    """The UIDs, if they are as many as the other columns have: a stretch of 2^60 would not fit any memory."""
    if sum(packed[1::2]) != count or min(packed, default=0) < 0:
        raise ValueError("there are not as many UIDs as other columns have rows")
    return unpack_uids(packed)


def encode_membership(rows: Sequence[MessageRow]) -> bytes:
    """rows: ascending UIDs."""
    table: dict[bytes, int] = {}
    for row in rows:
        table.setdefault(row.envelopes, len(table))
    server_ids = [row.server_id for row in rows]
    return _encode(
        _Membership(
            uids=pack_uids(row.uid for row in rows),
            messages=b"".join([row.message for row in rows]),
            dates=[row.internaldate for row in rows],
            sizes=[row.size for row in rows],
            fingerprints=b"".join([row.fingerprint for row in rows]),
            envelope_runs=b"".join(table),
            envelope_run=[table[row.envelopes] for row in rows],
            envelope=[row.envelope for row in rows],
            server_ids=server_ids if any(each is not None for each in server_ids) else None,
        )
    )


def decode_membership(data: bytes | memoryview, subject: str) -> list[MessageRow]:
    """Raises Damaged."""
    try:
        run = _decode_membership(data)
        uids = _unpack_some(run.uids, len(run.dates))
        table = _cut(run.envelope_runs, 32, len(run.envelope_runs) // 32)
        return [
            MessageRow(uid, message, date, size, fingerprint, server_id, table[run_number], number)
            for uid, message, date, size, fingerprint, server_id, run_number, number in zip(
                uids,
                _cut(run.messages, 32, len(uids)),
                run.dates,
                run.sizes,
                _cut(run.fingerprints, 16, len(uids)),
                run.server_ids or [None] * len(uids),
                run.envelope_run,
                run.envelope,
                strict=True,
            )
        ]
    except _WRONG as error:
        raise Damaged(f"a membership run makes no sense: {error}", subject=subject) from error


def sizes(data: bytes | memoryview, subject: str) -> dict[int, int]:
    """Octets of the messages of a membership run by UID, and nothing else of it. Raises Damaged."""
    try:
        run = _decode_sizes(data)
        return dict(zip(_unpack_some(run.uids, len(run.sizes)), run.sizes, strict=True))
    except _WRONG as error:
        raise Damaged(f"a membership run makes no sense: {error}", subject=subject) from error


class References(NamedTuple):
    """What a membership run refers to. stretches: (first UID, last UID, row of the first). messages: ids, 32 octets
    each. runs: ids of envelope runs; run: by row, the number of the one that its envelope is in."""

    stretches: list[tuple[int, int, int]]
    messages: bytes
    runs: list[bytes]
    run: list[int]


def references(data: bytes | memoryview, subject: str) -> References:
    """What a membership run refers to, and nothing else of it. Raises Damaged."""
    try:
        run = _decode_references(data)
        count = len(run.envelope_run)
        if len(run.messages) != 32 * count or sum(run.uids[1::2]) != count or min(run.uids, default=0) < 0:
            raise ValueError("its columns have different lengths")
        table = _cut(run.envelope_runs, 32, len(run.envelope_runs) // 32)
        if count and not 0 <= min(run.envelope_run) <= max(run.envelope_run) < len(table):
            raise ValueError("there is no such envelope run")
        stretches, row = [], 0
        for first, last in unpack_uid_ranges(run.uids):
            stretches.append((first, last, row))
            row += last - first + 1
        return References(stretches, run.messages, table, run.envelope_run)
    except _WRONG as error:
        raise Damaged(f"a membership run makes no sense: {error}", subject=subject) from error


def encode_state(states: Sequence[MessageState]) -> bytes:
    """states: ascending UIDs."""
    flag_sets: dict[Flags, int] = {}
    label_sets: dict[tuple[bytes, ...], int] = {}
    flags = [flag_sets.setdefault(state.flags, len(flag_sets)) for state in states]
    labels = [label_sets.setdefault(state.labels, len(label_sets)) for state in states]
    modseqs = [state.modseq for state in states]
    labelled = any(label_sets)
    return _encode(
        _State(
            uids=pack_uids(state.uid for state in states),
            flag_sets=[list(each) for each in flag_sets],
            flags=flags,
            modseqs=modseqs if any(each is not None for each in modseqs) else None,
            label_sets=[list(each) for each in label_sets] if labelled else None,
            labels=labels if labelled else None,
            gone=pack_uids(state.uid for state in states if state.gone) or None,
        )
    )


def decode_state(data: bytes | memoryview, subject: str) -> list[MessageState]:
    """Raises Damaged."""
    try:
        run, uids, gone = _state(data)
        flag_sets = [tuple(each) for each in run.flag_sets]
        label_sets = [tuple(each) for each in run.label_sets or [[]]]
        labels = run.labels or [0] * len(uids)
        modseqs = run.modseqs or [None] * len(uids)
        return [
            MessageState(uid, flag_sets[flag], label_sets[label], modseq, uid in gone)
            for uid, flag, label, modseq in zip(uids, run.flags, labels, modseqs, strict=True)
        ]
    except _WRONG as error:
        raise Damaged(f"a state run makes no sense: {error}", subject=subject) from error


def state_uids(data: bytes | memoryview, subject: str) -> list[int]:
    """The UIDs of a state run. The rest is looked at, and not made into anything. Raises Damaged."""
    try:
        return _state(data)[1]
    except _WRONG as error:
        raise Damaged(f"a state run makes no sense: {error}", subject=subject) from error


def _state(data: bytes | memoryview) -> tuple[_State, list[int], Collection[int]]:
    """A state run that makes sense, its UIDs, and those that are gone."""
    run = _decode_state(data)
    uids = _unpack_some(run.uids, len(run.flags))
    for column, sets in ((run.flags, run.flag_sets), (run.labels or [], run.label_sets or [[]])):
        if column and not 0 <= min(column) <= max(column) < len(sets):
            raise ValueError("there is no such set of flags or labels")
    if any(column and len(column) != len(uids) for column in (run.labels, run.modseqs)):
        raise ValueError("its columns have different lengths")
    if not run.gone:
        return run, uids, ()
    count = sum(run.gone[1::2])
    return run, uids, set(_unpack_some(run.gone, count)) if count <= len(uids) else ()


def state_uid_ranges(data: bytes | memoryview, subject: str) -> list[tuple[int, int]]:
    """Only the UIDs of a state run, as (first, last) ranges. Raises Damaged."""
    try:
        return unpack_uid_ranges(_decode_state(data).uids)
    except _WRONG as error:
        raise Damaged(f"a state run makes no sense: {error}", subject=subject) from error


def encode_envelopes(envelopes: Sequence[Envelope]) -> bytes:
    """In the order in which rows count them."""
    return _encode(envelopes)


def decode_envelopes(data: bytes | memoryview, subject: str) -> list[Envelope]:
    """Raises Damaged."""
    try:
        return _decode_envelopes(data)
    except _WRONG as error:
        raise Damaged(f"a run of envelopes makes no sense: {error}", subject=subject) from error


def _cut(column: bytes, width: int, count: int) -> list[bytes]:
    if len(column) != width * count:
        raise ValueError("a column has another length than the UIDs")
    return [column[i : i + width] for i in range(0, len(column), width)]
