"""What is written is what is read, for every encoding of docs/format.md; all other bytes are damage, and said to be."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Damaged
from backupd.model import Mailbox, MailboxStatus, MessageState, Problem
from backupd.repository import block, index, keys, names, payload, recipe, runs, snapshots
from backupd.repository.block import Kind
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.payload import BlobKind
from backupd.repository.runs import Envelope, MessageRow
from backupd.repository.segments import Segment
from backupd.repository.snapshots import FORMAT, Loss, MailboxRecord, Origin, Snapshot

SECRETS = keys.generate(bytes(range(16)), os.urandom)

ids = st.binary(min_size=32, max_size=32)
uids = st.lists(st.integers(1, 2**32 - 1), max_size=20, unique=True).map(sorted)
small = st.binary(max_size=30)


@given(st.sampled_from(list(Kind)), st.binary(max_size=3000), st.sampled_from([1, 5, 19]))
def test_blocks(kind: Kind, data: bytes, level: int) -> None:
    sealed = block.seal(kind, data, SECRETS, os.urandom, level=level)
    assert block.unseal(sealed, SECRETS, "x", expect=kind) == data
    assert block.parse_header(sealed, "x").total == len(sealed)


@given(st.binary(min_size=1, max_size=400), st.data())
def test_a_changed_bit_anywhere_in_a_block_is_damage(data: bytes, draw: st.DataObject) -> None:
    kind = draw.draw(st.sampled_from(list(Kind)))
    sealed = bytearray(block.seal(kind, data, SECRETS, os.urandom, level=3))
    place = draw.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(Damaged, match="object"):
        block.unseal(bytes(sealed), SECRETS, "object")


def test_two_blocks_of_the_same_bytes_share_no_key_and_no_bytes() -> None:
    one, two = (block.seal(Kind.METADATA, b"same" * 100, SECRETS, os.urandom, level=3) for _ in range(2))
    assert one[16:] != two[16:]


def test_a_block_of_another_kind_is_not_taken() -> None:
    sealed = block.seal(Kind.METADATA, b"x", SECRETS, os.urandom, level=3)
    with pytest.raises(Damaged, match="METADATA stands where INDEX"):
        block.unseal(sealed, SECRETS, "x", expect=Kind.INDEX)


@given(st.lists(st.tuples(st.sampled_from(list(BlobKind)), st.binary(max_size=100)), max_size=20))
def test_payloads(blobs: list[tuple[BlobKind, bytes]]) -> None:
    made = payload.join(bytes(kind for kind, _ in blobs), [data for _, data in blobs])
    assert [(kind, bytes(data)) for kind, data in payload.parse(made, "x")] == blobs


pieces = st.one_of(
    st.builds(recipe.Literal, small),
    st.builds(recipe.Part, st.lists(ids, max_size=3)),
    st.builds(recipe.Base64Part, st.lists(ids, max_size=3), st.integers(0, 1000), small, st.integers(0, 2)),
)


@given(st.lists(pieces, max_size=8))
def test_recipes(made: list[recipe.Piece]) -> None:
    assert recipe.decode(recipe.encode(made), "x") == made


@st.composite
def packs(draw: st.DrawFn) -> PackEntry:
    counts = draw(st.lists(st.integers(0, 3), max_size=4))
    blobs = sum(counts)
    blocks = [BlockEntry(8 + 100 * number, 90, 1, 50, count) for number, count in enumerate(counts)]
    lengths = draw(st.lists(st.integers(0, block.MAXIMUM_PAYLOAD), min_size=blobs, max_size=blobs))
    return PackEntry(draw(ids), 8 + 100 * len(counts), blocks, os.urandom(32 * blobs), bytes(blobs), lengths)


@given(st.lists(packs(), max_size=4))
def test_indexes(entries: list[PackEntry]) -> None:
    assert index.unseal(index.seal(entries, SECRETS, os.urandom), SECRETS, "x") == entries


@given(st.lists(packs(), max_size=8), st.integers(1, 12))
def test_indexes_are_cut_where_they_would_grow_too_large(entries: list[PackEntry], most: int) -> None:
    pieces = list(index.cut(entries, most=most))
    assert [entry for piece in pieces for entry in piece] == entries
    assert all(len(piece) == 1 or sum(len(entry.lengths) for entry in piece) <= most for piece in pieces)


def test_the_largest_index_fits_a_block() -> None:
    most = 2 * index.MOST_BLOBS  # a pack that has nearly as many may get as many again with its last block
    entry = PackEntry(bytes(32), 100, [BlockEntry(8, 90, 1, 50, most)], bytes(32 * most), bytes(most), [2**25] * most)
    assert index.unseal(index.seal([entry], SECRETS, os.urandom), SECRETS, "x") == [entry]


@given(uids)
def test_uids_of_runs(some: list[int]) -> None:
    packed = runs.pack_uids(some)
    assert runs.unpack_uids(packed) == some
    assert [uid for first, last in runs.unpack_uid_ranges(packed) for uid in range(first, last + 1)] == some


@st.composite
def rows(draw: st.DrawFn) -> list[MessageRow]:
    fingerprint = st.binary(min_size=16, max_size=16)
    return [
        MessageRow(
            uid, draw(ids), draw(small), draw(st.integers(0, 2**40)), draw(fingerprint),
            draw(st.sampled_from([None, b"EMAILID:x"])),
            draw(st.sampled_from([b"a" * 32, b"b" * 32])), draw(st.integers(0, 5000)),
        )
        for uid in draw(uids)
    ]  # fmt: skip


@given(rows())
def test_membership_runs(some: list[MessageRow]) -> None:
    encoded = runs.encode_membership(some)
    assert runs.decode_membership(encoded, "x") == some
    assert runs.sizes(encoded, "x") == {row.uid: row.size for row in some}
    found = runs.references(encoded, "x")
    assert found.messages == b"".join(row.message for row in some)
    assert [found.runs[number] for number in found.run] == [row.envelopes for row in some]
    at = {first + place: row + place for first, last, row in found.stretches for place in range(last - first + 1)}
    assert at == {row.uid: number for number, row in enumerate(some)}


@given(uids, st.data())
def test_state_runs(some: list[int], draw: st.DataObject) -> None:
    sets = st.sampled_from([(), (b"\\Seen",), (b"$Label1", b"\\Seen")])
    modseq = st.none() | st.integers(0, 2**63)
    labels = st.sampled_from([(), (b"Work",)])
    states = [MessageState(uid, draw.draw(sets), draw.draw(labels), draw.draw(modseq)) for uid in some]
    encoded = runs.encode_state(states)
    assert runs.decode_state(encoded, "x") == states
    assert runs.state_uids(encoded, "x") == some
    assert [uid for first, last in runs.state_uid_ranges(encoded, "x") for uid in range(first, last + 1)] == some


@given(st.lists(st.builds(Envelope, small, small, small, small, small, st.lists(small, max_size=3).map(tuple))))
def test_envelope_runs(some: list[Envelope]) -> None:
    assert runs.decode_envelopes(runs.encode_envelopes(some), "x") == some


def example() -> Snapshot:
    mailbox = Mailbox(b"\xff&AGE-", "shown", b"/", (b"\\HasNoChildren",), (b"\\Sent",), True)
    record = MailboxRecord(
        mailbox,
        MailboxStatus(3, 9, 77, None, b"id"),
        [Segment(1, 8, 4, 3, 900, b"m" * 32, b"s" * 32)],
        3,
        900,
        [8],
    )
    return Snapshot(
        format=FORMAT,
        account="alice",
        parent="20261101T120000000Z-00000000",
        started="2026-11-02T12:00:00.123Z",
        ended="2026-11-02T12:00:09.000Z",
        origin=Origin("imap", "mail.example.com", 993, "Server 1", ("IMAP4REV1",)),
        complete=False,
        checkpoint=True,
        messages=3,
        octets=900,
        mailboxes=[record],
        problems=[Problem("shown", 8, "refused")],
        losses=[Loss(None, "", 90, 60, "20261101T120000000Z-00000000")],
        notes=["a note"],
    )


def test_snapshots() -> None:
    ref, data = snapshots.seal(example(), SECRETS, os.urandom)
    assert snapshots.unseal(data, ref, SECRETS) == example()
    assert ref.time == datetime(2026, 11, 2, 12, 0, 0, 123_000, tzinfo=UTC)
    assert names.parse_snapshot(ref.name) == (ref.tag, ref.id)


def test_a_snapshot_in_anothers_place_is_damage() -> None:
    ref, data = snapshots.seal(example(), SECRETS, os.urandom)
    moved = snapshots.SnapshotRef(ref.id, "0" * 16)
    with pytest.raises(Damaged, match="another's place"):
        snapshots.unseal(data, moved, SECRETS)


READERS: list[Callable[[bytes], object]] = [
    lambda data: block.unseal(data, SECRETS, "x"),
    lambda data: payload.parse(data, "x"),
    lambda data: recipe.decode(data, "x"),
    lambda data: index.unseal(data, SECRETS, "x"),
    lambda data: runs.decode_membership(data, "x"),
    lambda data: runs.sizes(data, "x"),
    lambda data: runs.references(data, "x"),
    lambda data: runs.decode_state(data, "x"),
    lambda data: runs.state_uids(data, "x"),
    lambda data: runs.state_uid_ranges(data, "x"),
    lambda data: runs.decode_envelopes(data, "x"),
]


@given(st.binary(max_size=200), st.sampled_from(range(len(READERS))))
def test_any_bytes_give_a_value_or_damage(data: bytes, reader: int) -> None:
    with contextlib.suppress(Damaged):
        READERS[reader](data)


@given(st.binary(max_size=300), st.sampled_from(["packs", "index"]))
def test_an_auditor_tells_good_objects_by_name_alone(data: bytes, kind: str) -> None:
    digest = names.sha256([data])
    name = names.pack(digest) if kind == "packs" else names.index(digest)
    assert names.proves(name, [data]) is True
    assert names.proves(name, [data + b"x"]) is False
    assert names.proves("repository.json", [data]) is None
