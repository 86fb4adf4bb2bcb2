"""The reader under the hot path: however the octets are cut into packets, the same messages come out."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import ConnectionLost, ProtocolError, StorageError
from backupd.wire import imap_stream, spool, stream
from backupd.wire.imap_connection import ImapConnection
from backupd.wire.imap_fetch import Fetch
from backupd.wire.imap_parser import Tagged, Untagged
from backupd.wire.imap_stream import ImapStream
from backupd.wire.spool import Spool, SpooledBody


class Packets:
    """A socket that gives octets in pieces of the wished sizes, and then ends."""

    def __init__(self, octets: bytes, sizes: list[int]) -> None:
        self.octets, self.sizes, self.sent = octets, sizes or [1 << 20], b""
        self.closed = False

    def recv_into(self, room: memoryview) -> int:
        size = self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0]
        piece, self.octets = self.octets[: min(size, len(room))], self.octets[min(size, len(room)) :]
        room[: len(piece)] = piece
        return len(piece)

    def sendall(self, octets: bytes) -> None:
        self.sent += octets

    def close(self) -> None:
        self.closed = True


def connection_of(octets: bytes, sizes: list[int] | None = None, folder: Path | None = None) -> ImapConnection:
    stream = ImapStream(cast("object", Packets(octets, sizes or [])), "test:1", spool_folder=folder)  # type: ignore[arg-type]
    return ImapConnection(stream, "test:1")


def fetched(connection: ImapConnection) -> list[Fetch]:
    answers = list(connection.fetches(connection.send(b"UID FETCH 1:*")))
    assert isinstance(answers[-1], Tagged)
    return [one for one in answers if isinstance(one, Fetch)]


def octets_of(one: Fetch) -> bytes | None:
    return b"".join(one.body.chunks()) if isinstance(one.body, SpooledBody) else one.body


ORDERS = st.permutations(["uid", "flags", "date", "size", "modseq", "body"])


def line(uid: int, body: bytes, order: list[str], *, end: bytes = b"\r\n") -> bytes:
    items = {
        "uid": b"UID %d" % uid, "flags": b"FLAGS (\\Seen $K%d)" % (uid % 3), "date": b'INTERNALDATE " 1-Jan-2001"',
        "size": b"RFC822.SIZE %d" % len(body), "modseq": b"MODSEQ (%d)" % (uid + 7),
        "body": b"BODY[] {%d}%s%s" % (len(body), end, body),
    }  # fmt: skip
    return b"* %d FETCH (%s)%s" % (uid, b" ".join(items[name] for name in order), end)


@given(
    bodies=st.lists(st.binary(max_size=300), max_size=20),
    orders=st.lists(ORDERS, min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=50),
    end=st.sampled_from([b"\r\n", b"\n"]),
)
def test_messages_come_whole_however_they_are_cut(
    bodies: list[bytes], orders: list[list[str]], sizes: list[int], end: bytes
) -> None:
    octets = b"".join(
        line(uid, body, orders[uid % len(orders)], end=end) + (b"* %d EXISTS\r\n" % uid if uid % 5 == 0 else b"")
        for uid, body in enumerate(bodies, 1)
    )
    got = fetched(connection_of(octets + b"b1 OK done\r\n", sizes))
    assert got == [
        Fetch(
            uid,
            tuple(sorted((b"$K%d" % (uid % 3), b"\\Seen"))),
            b" 1-Jan-2001",
            len(body),
            uid + 7,
            None,
            None,
            body,
            True,
        )
        for uid, body in enumerate(bodies, 1)
    ]


def test_messages_of_every_size_around_the_buffers_end_come_whole() -> None:
    chooser = random.Random(5)
    order = ["uid", "flags", "date", "size", "modseq", "body"]
    limit = stream.BUFFER_OCTETS
    bodies = [chooser.randbytes(size) for size in (10, limit - 200, limit - 60, limit, limit + 1, 3, 2 * limit, 0, 700)]
    octets = b"".join(line(uid, body, order) for uid, body in enumerate(bodies, 1)) + b"b1 OK done\r\n"
    got = fetched(connection_of(octets, [65536]))
    assert [octets_of(one) for one in got] == bodies


def test_large_literals_are_spooled_and_small_ones_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(imap_stream, "SPOOL_ABOVE", stream.BUFFER_OCTETS)
    small, large = b"s" * stream.BUFFER_OCTETS, random.Random(1).randbytes(stream.BUFFER_OCTETS + 1)
    octets = line(1, small, ["uid", "body"]) + line(2, large, ["body", "uid"]) + b"b1 OK done\r\n"
    one, two = fetched(connection_of(octets, [30_000], tmp_path))
    assert one.body == small
    assert isinstance(two.body, SpooledBody)
    assert octets_of(two) == large
    with two.body.buffer() as view:
        assert bytes(view) == large
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_hold_large_messages_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(imap_stream, "SPOOL_ABOVE", 10)
    connection = connection_of(line(1, b"x" * 2_000_000, ["uid", "body"]), folder=tmp_path / "missing")
    with pytest.raises(StorageError, match="missing"):
        fetched(connection)
    assert connection.closed


def test_a_large_literal_outside_fetch_is_refused() -> None:
    with pytest.raises(ProtocolError):
        fetched(connection_of(b'* LIST () "/" {%d}\r\nabc' % (imap_stream.SPOOL_ABOVE + 1)))


def test_a_line_without_end_is_refused_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_LINE", 3 << 20)
    with pytest.raises(ProtocolError, match="line longer"):
        fetched(connection_of(b"* SEARCH " + b"1 " * (4 << 20), [1 << 16]))


@given(cut=st.integers(0, 400), sizes=st.lists(st.integers(1, 100), min_size=1, max_size=9))
def test_a_connection_that_ends_anywhere_gives_whole_messages_only(cut: int, sizes: list[int]) -> None:
    bodies = [b"first message\r\n" * 3, b"second\r\n" * 9, b"third"]
    octets = b"".join(line(uid, body, ["uid", "flags", "size", "body"]) for uid, body in enumerate(bodies, 1))
    connection = connection_of(octets[: min(cut, len(octets))], sizes)
    got: list[Fetch | Untagged | Tagged] = []
    with pytest.raises(ConnectionLost):
        got.extend(connection.fetches(connection.send(b"UID FETCH 1:*")))
    assert [one.body for one in got if isinstance(one, Fetch)] == bodies[: len(got)]
    assert connection.closed


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("text", [b"abcdef ghi", b"abc UID 7", b"abc)", b"abc) x", b"abc\r\n", b"abc FLAGS (x"])
def test_a_literal_announced_too_short_gives_no_message(before: int, text: bytes) -> None:
    """Whether the answer is read by the general parser (the first ones) or by the fast one."""
    octets = b"".join(b"* %d FETCH (UID %d BODY[] {4}\r\ngood)\r\n" % (uid, uid) for uid in range(1, before + 1))
    connection = connection_of(octets + b"* 9 FETCH (UID 9 BODY[] {3}\r\n" + text + b")\r\nb1 OK done\r\n")
    got: list[Fetch | Untagged | Tagged] = []
    with pytest.raises(ProtocolError):
        got.extend(connection.fetches(connection.send(b"UID FETCH 1:*")))
    assert [one.body for one in got if isinstance(one, Fetch)] == [b"good"] * before


@given(st.binary(max_size=500), st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_garbage_ends_the_connection_and_nothing_else(octets: bytes, sizes: list[int]) -> None:
    connection = connection_of(octets, sizes)
    with pytest.raises((ConnectionLost, ProtocolError)):
        list(connection.fetches(connection.send(b"UID FETCH 1:*")))


@given(st.lists(st.binary(max_size=5_000), max_size=8))
def test_a_spooled_body_gives_back_what_was_written(pieces: list[bytes]) -> None:
    under_way = Spool(None)
    for piece in pieces:
        under_way.write(memoryview(piece))
    body = under_way.finish()
    whole = b"".join(pieces)
    assert body.size == len(body) == len(whole)
    assert b"".join(body.chunks()) == whole
    with body.buffer() as view:
        assert view == whole
    body.close()


def test_chunks_of_a_spooled_body_are_of_bounded_size() -> None:
    under_way = Spool(None)
    under_way.write(memoryview(bytes(5 * spool.CHUNK_OCTETS + 3)))
    assert max(len(chunk) for chunk in under_way.finish().chunks()) == spool.CHUNK_OCTETS
