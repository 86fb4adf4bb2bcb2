"""Texts of a POP3 server come out octet for octet, however the network cuts them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backupd.errors import ConnectionLost, ProtocolError
from backupd.wire import pop3_stream, stream
from backupd.wire.pop3_stream import Pop3Stream
from backupd.wire.spool import SpooledBody
from tests.support.scripted_pop3 import stuffed

_BITS = [b".", b"..", b"\r\n", b"\r", b"\n", b"\r\n.", b"\r\n..", b"a", b"\0", b"\xff", b"x" * 70]
OCTETS = st.lists(st.sampled_from(_BITS), max_size=60).map(b"".join)


def pieces(octets: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The octets in pieces of these sizes, again and again."""
    position, turn = 0, 0
    while position < len(octets):
        size = cuts[turn % len(cuts)]
        yield octets[position : position + size]
        position, turn = position + size, turn + 1


class OneByOne(socket.socket):
    """A socket that gives what it is told to, piece by piece."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks, self._rest = chunks, b""

    def recv_into(self, buffer, nbytes: int = 0, flags: int = 0) -> int:  # type: ignore[no-untyped-def]
        self._rest = self._rest or next(self._chunks, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def read(octets: bytes, cuts: list[int]) -> tuple[list[bytes], Pop3Stream]:
    """All replies with their texts."""
    with OneByOne(pieces(octets, cuts)) as sock:
        stream = Pop3Stream(sock, "pop.example.com:995")
        found = []
        for _ in range(octets.count(b"+OK here")):
            assert stream.reply().text == "here"
            text = stream.text()
            found.append(text if isinstance(text, bytes) else b"".join(text.chunks()))
        return found, stream


@given(st.lists(OCTETS, min_size=1, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=4))
@example([b".\r\n.", b"", b"..", b"\r\n"], [1])
def test_texts_come_out_as_they_went_in(texts: list[bytes], cuts: list[int]) -> None:
    sent = b"".join(b"+OK here\r\n" + stuffed(text) for text in texts)

    found, _ = read(sent, cuts)

    assert found == [text if not text or text.endswith(b"\r\n") else text + b"\r\n" for text in texts]


@given(st.data())
def test_large_texts_come_out_as_they_went_in(data: st.DataObject) -> None:
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(pop3_stream, "SPOOL_ABOVE", 100)
        patched.setattr(pop3_stream, "_PIECE_OCTETS", data.draw(st.integers(1, 20)))
        text = data.draw(OCTETS) + b"\r\n"
        found, _ = read(b"+OK here\r\n" + stuffed(text), data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
        assert found == [text]


def test_a_text_larger_than_memory_allows_goes_to_a_file() -> None:
    line = b".hidden dots and a long line " * 40 + b"\r\n"
    text = line * (2 * stream.SPOOL_ABOVE // len(line))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=theirs.sendall, args=(b"+OK\r\n" + stuffed(text) + b"+OK next\r\n",))
        sender.start()
        reading = Pop3Stream(ours, "pop.example.com:995")
        reading.reply()
        found = reading.text()
        assert isinstance(found, SpooledBody)
        assert b"".join(found.chunks()) == text
        assert reading.reply().text == "next"
        sender.join()


def test_a_dot_after_a_bare_line_feed_ends_nothing() -> None:
    text = b"one\n.\r\ntwo\n..\r\n"

    assert read(b"+OK here\r\n" + text + b".\r\n", [1000])[0] == [text]


def test_a_server_that_knows_no_crlf_is_understood() -> None:
    assert read(b"+OK here\none\n..two\n.\n", [3])[0] == [b"one\n.two\n"]


def test_a_line_of_any_length_is_taken() -> None:
    text = b"x" * 3_000_000 + b"\r\n"

    assert read(b"+OK here\r\n" + stuffed(text), [100_000])[0] == [text]


def test_a_text_that_is_cut_off_is_an_error() -> None:
    with pytest.raises(ConnectionLost):
        read(b"+OK here\r\nhalf a mess", [5])


@pytest.mark.parametrize("octets", [b"HTTP/1.1 200 OK\r\n", b"* OK IMAP\r\n", b"+OK " + b"x" * 9000 + b"\r\n"])
def test_what_is_no_status_line_ends_the_connection(octets: bytes) -> None:
    with OneByOne(iter([octets])) as sock:
        reading = Pop3Stream(sock, "pop.example.com:995")
        with pytest.raises(ProtocolError):
            reading.reply()
        assert reading.closed


def test_response_codes_are_told_apart_from_text() -> None:
    with OneByOne(iter([b"-ERR [in-use] somebody is there\r\n-ERR no [code]\r\n"])) as sock:
        reading = Pop3Stream(sock, "pop.example.com:995")
        first, second = reading.reply(), reading.reply()
    assert (first.ok, first.code) == (False, "IN-USE")
    assert (second.code, second.text) == ("", "no [code]")
