"""What people can read of a message, however it is encoded; and that no mail is too broken to be looked at."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.folding import folded
from backupd.mail.text import text
from tests.support.corpus import messages
from tests.support.mail import nasty_octets


def message(kind: str, body: bytes, encoding: str = "8bit") -> bytes:
    head = f"From: a@example.com\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body


def has(raw: bytes, words: str) -> bool:
    return any(folded(words) in each for each in text([raw], len(words)))


@pytest.mark.parametrize(
    "raw",
    [
        message("text/plain; charset=utf-8", "für Jörg Meier".encode()),
        message("text/plain; charset=utf-8", base64.encodebytes("für Jörg Meier".encode()), "base64"),
        message("text/plain; charset=utf-8", b"f=C3=BCr J=C3=B6=\r\nrg Meier", "quoted-printable"),
        message("text/plain; charset=iso-8859-1", "für Jörg Meier".encode("latin-1")),
        message("text/plain; charset=utf-16", "für Jörg Meier".encode("utf-16")),
        message("text/plain; charset=no-such", "für Jörg Meier".encode("latin-1")),
        message("text/plain", "für Jörg\r\n\tMeier".encode()),
        message("text/html", b"<p>f&uuml;r <b>J&#246;</b>rg<br>Meier</p>"),
        message("text/html; charset=utf-8", base64.encodebytes("für<br/>Jörg Meier".encode()), "base64"),
        message("multipart/mixed; boundary=x", b"--x\r\n" + message("text/plain", "für Jörg Meier".encode())),
        message("message/rfc822", message("text/plain; charset=latin1", "für Jörg Meier".encode("latin-1"))),
        message("text/csv; name==?utf-8?Q?f=C3=BCr_J=C3=B6rg_Meier?=", b""),
        b"Subject: =?utf-8?B?" + base64.b64encode("für Jörg Meier".encode()) + b"?=\r\n\r\n",
        b"Subject: \xff broken\r\n\r\n" + "für Jörg Meier".encode("latin-1"),
        "für Jörg Meier".encode(),
    ],
)
def test_words_are_found_however_they_are_encoded(raw: bytes) -> None:
    assert has(raw, "für Jörg Meier")


def test_of_a_large_attachment_little_is_held() -> None:
    line = b"A" * 76 + b"\r\n"

    def chunks() -> Iterator[bytes]:
        yield b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        for _ in range(100):
            yield line * 5_000
        yield b"\r\n--x\r\n\r\nthe last words\r\n--x--\r\n"

    found = list(text(chunks()))
    assert any("the last words" in each for each in found)
    assert max(map(len, found)) < 4_000_000


@given(raw=st.one_of(st.binary(max_size=300), st.sampled_from(list(nasty_octets().values()))))
def test_no_message_is_too_broken(raw: bytes) -> None:
    for each in text([raw]):
        assert each.isascii() or each.encode("utf-8", "replace")


def test_parts_in_parts_without_end() -> None:
    raw = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (at, at) for at in range(3_000))
    assert has(raw + b"\r\ndeep down", "deep down")


def test_all_of_the_corpus_can_be_looked_at() -> None:
    for message_of_it in messages("nasty"):
        assert list(text([message_of_it.raw])) or not message_of_it.raw
