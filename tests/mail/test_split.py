"""A message split and joined again is the same message, byte for byte, whatever it is."""

from __future__ import annotations

import base64
import os
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.mail import split as splitting
from backupd.mail.base64lines import Encoder, Wrapping, encode
from backupd.mail.split import Event, Literal, PartEnd, PartStart, Piece, has_base64, split
from tests.support import corpus
from tests.support.mail import Attachment, base64_lines, message, messages, nasty_mail, nasty_octets, noise


def join(events: list[Event]) -> bytes:
    joined: list[bytes] = []
    encoder: Encoder | None = None
    for event in events:
        match event:
            case Literal(data):
                assert encoder is None, "a literal within a part"
                joined.append(data)
            case PartStart(wrapping):
                encoder = Encoder(wrapping)
            case Piece(octets):
                assert encoder
                joined.append(encoder.encode(octets))
            case PartEnd(padding):
                assert encoder
                joined.append(encoder.end(padding))
                encoder = None
    assert encoder is None
    return b"".join(joined)


def parts(raw: bytes) -> list[bytes]:
    found, octets = [], b""
    for event in split([raw]):
        if isinstance(event, Piece):
            octets += event.octets
        elif isinstance(event, PartEnd):
            found.append(octets)
            octets = b""
    return found


@given(messages(), st.integers(1, 5000))
@settings(max_examples=200)
def test_any_message_comes_back_however_it_arrives(raw: bytes, step: int) -> None:
    assert join(list(split([raw]))) == raw
    assert join(list(split(raw[at : at + step] for at in range(0, len(raw), step)))) == raw


@given(
    st.binary(max_size=400),
    st.binary(min_size=1, max_size=8000),
    st.sampled_from([4, 8, 60, 64, 72, 76, 1000]),
    st.sampled_from([b"\r\n", b"\n"]),
    st.binary(max_size=300),
    st.sampled_from([b"", b"=", b"==", b"==="]),
)
def test_base64_between_any_bytes_comes_back(
    before: bytes, octets: bytes, length: int, line_end: bytes, after: bytes, extra: bytes
) -> None:
    text = base64_lines(octets, length, line_end=line_end).rstrip(b"=\r\n") + extra
    raw = before + b"base64" + line_end * 2 + text + after

    assert join(list(split([raw]))) == raw


@pytest.mark.parametrize("name", sorted({**nasty_mail(), **nasty_octets()}))
def test_nasty_mail_comes_back(name: str) -> None:
    raw = {**nasty_mail(), **nasty_octets()}[name]
    assert join(list(split([raw]))) == raw


@pytest.mark.parametrize("kind", ["bulk", "nasty"])
def test_real_mail_comes_back(kind: corpus.Kind) -> None:
    for each in corpus.spread(kind, 1500):
        for raw in (each.raw, corpus.crlf(each.raw)):
            assert join(list(split([raw]))) == raw, each.name


@pytest.mark.parametrize("length", [60, 64, 72, 76, 988])
@pytest.mark.parametrize("size", [30_000, 30_001, 30_002, 57 * 600, 54 * 600])
def test_an_attachment_is_found_whoever_wrapped_it(length: int, size: int) -> None:
    file = noise("file", size)
    assert parts(message("with a file", attachments=[Attachment("a.bin", file, line_length=length)])) == [file]


@pytest.mark.parametrize("spelling", [b"base64", b"Base64", b"BASE64"])
def test_base64_is_found_however_it_is_announced(spelling: bytes) -> None:
    file = noise("file", 30_000)
    raw = message("a file", attachments=[Attachment("a.bin", file)]).replace(b"base64", spelling)
    assert has_base64(raw)
    assert parts(raw) == [file]


@pytest.mark.parametrize("behind", [b"--boundary--\r\n", b"-", b"\r\n--", b"- not base64, and long" * 100])
@pytest.mark.parametrize("lines", [100, 13_442, 13_443, 13_444, 30_000])
def test_a_part_ends_where_something_else_stands_wherever_that_is(lines: int, behind: bytes) -> None:
    file = noise("file", 57 * lines)  # 13,443 lines are a window and a little more
    raw = b"Content-Transfer-Encoding: base64\r\n\r\n" + base64_lines(file, 76) + behind
    assert parts(raw) == [file]
    assert join(list(split([raw]))) == raw


def test_text_after_the_base64_stays_text() -> None:
    raw = nasty_mail()["base64-then-text"]
    assert parts(raw) == [noise("footer", 30_000)]


def test_several_parts_and_the_text_between_them() -> None:
    files = [noise(n, 5_000 + n) for n in range(5)]
    raw = message("files", attachments=[Attachment(f"{n}.bin", file) for n, file in enumerate(files)])
    assert parts(raw) == files


def test_a_part_larger_than_a_piece_is_cut_at_the_same_places_however_it_is_wrapped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(splitting, "PIECE", 3 * 7_000)
    monkeypatch.setattr(splitting, "_WINDOW", 20_000)
    file = noise("large", 100_000)
    cuts = []
    for length in (60, 76):
        raw = message("large", attachments=[Attachment("large.bin", file, line_length=length)])
        events = list(split(raw[at : at + 777] for at in range(0, len(raw), 777)))
        assert join(events) == raw
        cuts.append([event.octets for event in events if isinstance(event, Piece)])
    assert cuts[0] == cuts[1]
    assert [len(cut) for cut in cuts[0]] == [21_000] * 4 + [16_000]


@given(st.lists(st.binary(max_size=50), max_size=10), st.sampled_from([0, 4, 8, 76]), st.sampled_from([b"\r\n", b"\n"]))
def test_encoding_does_not_depend_on_how_the_octets_are_cut(pieces: list[bytes], length: int, line_end: bytes) -> None:
    octets = b"".join(pieces)
    wrapping = Wrapping(length, line_end)
    text = base64.b64encode(octets)
    lines = [text[at : at + length] for at in range(0, len(text), length)] if length else [text]

    assert b"".join(encode(pieces, wrapping, -len(octets) % 3)) == line_end.join(lines)


def test_a_message_without_base64_is_one_literal() -> None:
    raw = os.urandom(100_000).replace(b"base64", b"")
    assert list(split([raw])) == [Literal(raw)]


def test_literals_next_to_each_other_come_as_one() -> None:
    raw = b"".join(b"Content-Transfer-Encoding: base64\r\n\r\nnone here %d\r\n" % number for number in range(50))
    assert list(split(raw[at : at + 100] for at in range(0, len(raw), 100))) == [Literal(raw)]


def test_a_literal_larger_than_a_piece_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "PIECE", 30_000)
    raw = noise("plain", 100_000)
    events = list(split([raw]))
    assert [len(event.data) for event in events if isinstance(event, Literal)] == [30_000, 30_000, 30_000, 10_000]
    assert join(events) == raw


def test_memory_does_not_depend_on_the_size_of_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitting, "PIECE", 3 * 256 * 1024)
    line = base64.b64encode(noise("line", 57)) + b"\r\n"
    head = b"Content-Transfer-Encoding: base64\r\n\r\n"

    def chunks() -> Iterator[bytes]:
        yield head
        for _ in range(48):
            yield line * 13_000

    tracemalloc.start()
    try:
        octets = sum(len(event.octets) for event in split(chunks()) if isinstance(event, Piece))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert octets == 48 * 13_000 * 57
    assert peak < 12 << 20
