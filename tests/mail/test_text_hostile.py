"""No part of a message hides another one, no false declaration hides a word, and no message takes without end."""

from __future__ import annotations

import base64
import binascii

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged
from backupd.mail.folding import folded
from backupd.mail.outline import outline
from backupd.mail.text import text

WORDS = "Hello Jürgen Müller ok"
UTF_8 = "text/plain; charset=utf-8"
B64 = base64.encodebytes(WORDS.encode())
DIGITS = B64.replace(b"\n", b"")


def part(body: bytes, kind: str = UTF_8, encoding: str = "") -> bytes:
    head = f"From: x@y.example\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n"
    return (head + (f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else "") + "\r\n").encode() + body


def coded(words: str, charset: str, declared: str) -> bytes:
    return part(base64.encodebytes(words.encode(charset)), f"text/plain; charset={declared}", "base64")


def beside(other: bytes) -> bytes:
    """A message whose second part has the words."""
    return part(
        b"--x\r\n" + other + b"\r\n--x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + B64 + b"\r\n--x--",
        "multipart/mixed; boundary=x",
    )


def has(raw: bytes, words: str = "jürgen müller") -> bool:
    chunks = (raw[start : start + 64 * 1024] for start in range(0, len(raw), 64 * 1024))
    return any(folded(words) in each for each in text(chunks, len(words)))


@pytest.mark.parametrize(
    "raw",
    [
        beside(b"Content-Type: text/html\r\n\r\n&#" + b"9" * 5000 + b";"),
        beside(b"Content-Type: message/rfc822\r\n\r\n" * 3000 + b"hi"),
        beside(b"Content-Type: text/plain; charset=undefined\r\n\r\nfoo"),
        beside(b"Content-Type: text/plain; charset=idna\r\n\r\n" + b"foo" * 300 + b"\xff.."),
        beside(b"Content-Type: text/plain" + b";a" * 100_000 + b"\r\n\r\nhi"),
        part(base64.encodebytes(b"<p>J&uuml;rgen M&uuml;ller &#" + b"9" * 5000), "text/html", "base64"),
    ],
    ids=str.split("entity nested undefined idna parameters itself"),
)
def test_one_part_hides_no_other(raw: bytes) -> None:
    assert has(raw)


@pytest.mark.parametrize(
    ("charset", "declared", "words"),
    [
        ("utf-8", "us-ascii", WORDS), ("utf-8", "iso-8859-1", WORDS), ("utf-8", "gb2312", WORDS),
        ("latin-1", "utf-8", WORDS), ("utf-16-le", "utf-16", WORDS), ("utf-16-be", "utf-16", WORDS),
        ("utf-16", "utf-8", WORDS), ("utf-8-sig", "utf-8", WORDS), ("utf-8", "x-no-such", WORDS),
        ("mac-roman", "x-mac-roman", WORDS), ("iso-8859-8", "iso-8859-8-i", "שלום"), ("gbk", "gb2312", "朱镕基"),
        ("gbk", "x-gbk", "朱镕基"), ("cp932", "x-sjis", "田中"), ("cp874", "windows-874", "กา"),
        ("utf-7", "unicode-1-1-utf-7", WORDS), ("utf-8", "us-ascii'en'x", WORDS),
    ],
)  # fmt: skip
def test_no_charset_hides_a_word(charset: str, declared: str, words: str) -> None:
    assert has(coded(words, charset, declared), words)


@pytest.mark.parametrize(
    "raw",
    [
        part(b"J=C3=BCrgen=20M=C3= \r\n=BCller", UTF_8, "quoted-printable"),
        part(b"J=C3=BCrgen=20M=C3=BCller", UTF_8, "Quoted-Printable (yes)"),
        part(B64, UTF_8, "base64 (x)"),
        part(B64, UTF_8, '"base64"'),
        part(b"\r".join(DIGITS[at : at + 7] for at in range(0, len(DIGITS), 7)), UTF_8, "base64"),
        part(DIGITS + b"\r\n\r\n-- \r\nthis list rocks :)\r\n", UTF_8, "base64"),
        part(b"!!! hello.\r\n" + DIGITS, UTF_8, "base64"),
        part(b"hello\r\n" + DIGITS, UTF_8, "base64"),
        part(base64.encodebytes(b"Hello J") + base64.encodebytes("ürgen Müller".encode()), UTF_8, "base64"),
        part(DIGITS.rstrip(b"=") + b"A", UTF_8, "base64"),
        part(b"begin 644 a\n" + binascii.b2a_uu(WORDS.encode()) + b" \nend\n"),
        part(B64, UTF_8, "7bit\r\nContent-Transfer-Encoding: base64"),
        part(b"--x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + B64 + b"\r\n--x--", "multipart/mixed"),
        part(b"--x\r\nContent-Transfer-Encoding: base64\r\n\r\n" + B64, "multipart/mixed; boundary=other"),
        part(base64.encodebytes(b"--x\r\n\r\n" + WORDS.encode()), "multipart/mixed; boundary=x", "base64"),
        b"From: a@b\r\nContent-Transfer-Encoding: base64\r\n" + B64,
        part(base64.encodebytes(part(B64, UTF_8, "base64")), "message/rfc822", "base64"),
        part(base64.encodebytes(part(B64, UTF_8, "base64")), "message/global", "base64"),
        part(part(B64, UTF_8, "base64").replace(b"=", b"=3D"), "message/rfc822", "quoted-printable"),
        part(base64.encodebytes(part(B64, UTF_8, "base64")), "application/octet-stream; name=x.eml", "base64"),
        part(part(B64, UTF_8, "base64"), "message/rfc822", "base64"),
        part(B64, '"text/plain"', "base64"),
        part(b"--x\r\n\r\nContent-Transfer-Encoding: base64\r\n\r\n" + B64, "multipart/digest; boundary=x"),
    ],
)
def test_no_transfer_encoding_hides_a_word(raw: bytes) -> None:
    assert has(raw)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/html", "J&uuml;r&shy;gen M&uuml;<st1:personname>ll</st1:personname>er"),
        ("text/html", "Jürgen Mü<!-- a > b -->ller"), ("text/html", 'Jürgen <span title="a>b">Müller</span>'),
        ("text/html", "if 3 < 4 Jürgen Müller > x"), ("text/html", "<td>Jürgen</td><td>Müller</td>"),
        ("text/html", "<p>J<b>ür</b>gen<br>Müller"), ("text/html", '<img alt="Jürgen Müller">'),
        ("text/html", '<a href="mailto:J%C3%BCrgen%20M%C3%BCller">'), ("application/xhtml+xml", "Jürgen <b>Mü</b>ller"),
        ("text/calendar", "BEGIN:VCALENDAR\r\nATTENDEE;CN=Jürgen Mü\r\n ller:x"),
        ("text/plain; format=flowed", "> foo Jürgen \r\n> Müller"),
        ("text/plain", "Ann wrote:\r\n> > Jürgen\r\n>> Müller"),
        ("text/plain; format=flowed; delsp=yes", "foo Jür \r\ngen Müller"), ("text/plain", "Ju\u0308rgen Mü\u200bller"),
        ("text/plain; name*=UTF-8''J%C3%BCrgen%20M%C3%BCller", ""), ("text/plain", "=?latin1?q?J=FCrgen_M=FCller?="),
        ("text/plain; name*0*=UTF-8''J%C3;\r\n name*1*=%BCrgen%20; name*2*=M%C3%BCller", ""),
    ],
)  # fmt: skip
def test_no_form_of_a_text_hides_a_word(kind: str, body: str) -> None:
    assert has(part(body.encode(), kind))


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        (b"<", 600_000), (b"<a ", 150_000), (b"<!--", 100_000), (b"&#1", 150_000), (b"0", 600_000), (b"a", 1_500_000),
        (b"=?utf-8?q?a", 80_000), (b"=", 600_000), (b"\r", 600_000), (b" ", 600_000), (bytes(range(256)), 4_000),
        ("\u0300\u0323".encode(), 60_000), (b"--x\r\n\r\na\r\n", 10_000), (b"A" * 76 + b"\r\n", 20_000),
    ],
)  # fmt: skip
def test_time_and_memory_have_bounds_and_what_comes_after_is_found(unit: bytes, times: int) -> None:
    """With expressions that look back, or a tree of parts, this would not end."""
    raw = part(b"&#" + unit * times + b"\r\n\r\nJ\xc3\xbcrgen M\xc3\xbcller\r\n", "text/html")
    assert has(raw)
    assert max(len(each) for each in text([raw])) < 8_000_000


def test_a_header_line_without_a_colon_takes_no_time_in_an_outline() -> None:
    assert outline([b"From: x@y\r\n" + b"a" * 500_000 + b"\r\n\r\nhi"]).header == [(b"From", b"x@y")]


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(Damaged):
        has(b"A: b\r\n" * 900_000 + b"\r\n")
    raw = part(b"hi")
    for _ in range(22):
        raw = part(base64.encodebytes(raw), "message/rfc822", "base64")
    with pytest.raises(Damaged):
        has(raw)


_PIECES = [
    b"--x\r\n", b"--x--\r\n", b"\r\n", b"\n", b"\r", b"Content-Type: message/rfc822\r\n",
    b"Content-Type: text/html\r\n",
    b"Content-Type: multipart/digest; boundary=x\r\n", b"Content-Transfer-Encoding: base64\r\n", b"QUJD", b"=",
    b"=?utf-16?q?",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"\xff\xfe", b"\0", b"<a", b"&#x", b"begin 644 a\n",
    b"%ff", b"charset=utf-7",
]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=5)).map(b"".join))
def test_no_octets_raise(raw: bytes) -> None:
    for each in text([raw]):
        assert each == " ".join(each.split())
