"""Header fields are found and read in any bytes that call themselves a message."""

from __future__ import annotations

import time
from email.header import Header
from encodings.aliases import aliases
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.headers import (
    LONGEST_VALUE,
    MOST_ATTACHMENTS,
    attachment_names,
    envelope,
    header_of,
    readable,
)
from backupd.mail.names import UNSAFE
from backupd.repository.runs import Envelope
from tests.support import corpus
from tests.support.mail import Attachment, message, messages, nasty_mail, nasty_octets

visible = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), max_size=40).map(
    lambda drawn: " ".join(UNSAFE.sub("", drawn).split())
)


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore", b"A: 1\r\nB: 2\r\n\r\n"),
        (b"A: 1\nB: 2\n\nbody", b"A: 1\nB: 2\n\n"),
        (b"A: 1\r\nB: 2\n\r\nbody\n\n", b"A: 1\r\nB: 2\n\r\n"),
        (b"A: 1\r\n\nbody", b"A: 1\r\n\n"),
        (b"A: 1\r\n \r\nB: 2\r\n\r\n", b"A: 1\r\n \r\nB: 2\r\n\r\n"),
        (b"A: 1\r\n\r\r\nB: 2\r\n\r\n", b"A: 1\r\n\r\r\nB: 2\r\n\r\n"),
        (b"\r\nbody\r\n\r\n", b"\r\n"),
        (b"\nbody\n\n", b"\n"),
        (b"A: 1\r\nno end\r\n", b"A: 1\r\nno end\r\n"),
        (b"A: 1\r\rcr only\r", b"A: 1\r\rcr only\r"),
        (b"", b""),
    ],
)
def test_the_header_ends_with_the_first_empty_line(raw: bytes, header: bytes) -> None:
    assert header_of(raw) == header
    assert header_of(memoryview(raw)) == header


@given(messages())
def test_the_header_is_the_start_of_the_message_and_its_own_header(raw: bytes) -> None:
    header = header_of(raw)

    assert raw.startswith(header)
    assert header_of(header) == header
    assert header == raw or header.endswith(b"\n")


def test_an_envelope_holds_the_fields_raw_and_unfolded() -> None:
    header = (
        b"Received: from: x\r\n\tsubject: no\r\nSUBJECT: =?utf-8?q?a?=\r\n =?utf-8?q?b?=\r\nfrom:\r\n\tA\xfc <a@b>\r\n"
        b"To : c@d,\r\n e@f\r\nDate:Wed, 17 Jul 1996\r\nMessage-Id:  <1@x> \r\nSubject: second\r\nX-To: no\r\n\r\n"
    )

    assert envelope(header, [b"a.pdf"]) == Envelope(
        date=b"Wed, 17 Jul 1996",
        from_=b"A\xfc <a@b>",
        to=b"c@d, e@f",
        subject=b"=?utf-8?q?a?= =?utf-8?q?b?=",
        message_id=b"<1@x>",
        attachments=(b"a.pdf",),
    )


def test_an_envelope_reads_lines_ended_by_lf_and_the_first_and_last_line() -> None:
    assert envelope(b"Subject: one\n two\nTo: x") == Envelope(subject=b"one two", to=b"x")
    assert envelope(b"") == Envelope()


def test_an_envelope_is_bounded_and_cuts_no_character_in_two() -> None:
    long = envelope(b"Subject: x" + "é".encode() * 5_000 + b"\r\n", [b"n" * 5_000] * 100)

    assert LONGEST_VALUE - 4 < len(long.subject) <= LONGEST_VALUE
    assert readable(long.subject).strip("é") == "x"
    assert len(long.attachments) == MOST_ATTACHMENTS
    assert {len(name) for name in long.attachments} == {LONGEST_VALUE}


@given(st.lists(st.sampled_from(["Subject", "X-Subject", "subject"]), max_size=4), st.binary(max_size=40))
def test_the_first_field_of_a_name_counts(names: list[str], value: bytes) -> None:
    plain = value.translate(None, b"\r\n").strip()
    fields = [(name, plain if name.lower() == "subject" else b"other") for name in names]
    header = b"".join(b"%s: %s\r\n" % (name.encode(), content) for name, content in fields) + b"Subject: last\r\n\r\n"

    wanted = plain if any(name.lower() == "subject" for name in names) else b"last"
    assert envelope(header).subject == wanted


def test_attachments_are_named_once_a_part_in_their_order() -> None:
    raw = message(
        "files", attachments=[Attachment("b.pdf", b"1"), Attachment("a.pdf", b"2"), Attachment("b.pdf", b"3")]
    )

    assert attachment_names(raw) == (b"b.pdf", b"a.pdf")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (b'Content-Disposition: attachment; filename="a \\"b\\" c:\\d.txt"', 'a "b" c:\\d.txt'),
        (b"content-disposition:attachment;FILENAME=plain.txt;size=3", "plain.txt"),
        (b"Content-Disposition: attachment; filename=two words.txt", "two words.txt"),
        (b'Content-Disposition: attachment; filename="never closed', "never closed"),
        (b'Content-Type: x/y;\r\n\tname="=?utf-8?B?w6kucGRm?="', "é.pdf"),
        (
            b"Content-Type: x/y; name=type.txt\r\nContent-Disposition: inline; filename=disposition.txt",
            "disposition.txt",
        ),
        (b"Content-Disposition: inline; filename=plain; filename*=utf-8'de'%C3%A9%20.txt", "é .txt"),
        (b"Content-Disposition: inline; filename*1=\"b%\"; filename*0*=utf-8''%C3%A9", "éb%"),
        (b'Content-Disposition: inline; filename*0="long "; filename*1="name.txt"', "long name.txt"),
        (b"Content-Type: x/y; boundary=\"; name=no\"; name='yes'", "'yes'"),
        (b"Content-Disposition: attachment; filename=caf\xc3\xa9.txt", "café.txt"),
        (b"Content-Disposition: attachment; filename=caf\xe9.txt", "café.txt"),
    ],
)
def test_a_file_name_is_found_in_each_of_its_spellings(fields: bytes, name: str) -> None:
    for line_end in (b"\r\n", b"\n"):
        for before in (b"", b"--b\r\n"):
            raw = before + fields.replace(b"\r\n", line_end) + line_end * 2 + b"content"
            assert [readable(one) for one in attachment_names(raw)] == [name]


def test_what_only_looks_like_a_file_name_is_none() -> None:
    assert attachment_names(b'Subject: name="x"\r\n\r\n<input name="y">\r\nfilename=z\r\n') == ()
    assert attachment_names(b"Content-Type: text/plain; filename=\r\n\r\n") == ()


def test_the_number_of_names_is_bounded() -> None:
    part = b"Content-Type: x/y; name=%d\r\n\r\n"
    raw = b"".join(part % number for number in range(1_000))

    assert attachment_names(raw) == tuple(b"%d" % number for number in range(MOST_ATTACHMENTS))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"=?utf-8?Q?Gr=C3=BC=C3?=\r\n =?UTF-8?q?=9Fe?= and =?iso-8859-1*de?b?5A==?=.", "Grüße and ä."),
        (b"=?utf-8?q?a_b?= =?us-ascii?q?c?=", "a bc"),
        ("Grüße".encode(), "Grüße"),
        (b"Gr\xfc\xdfe", "Grüße"),
        (b"\x93quoted\x94", "“quoted”"),
        (b"\x81\x8d", ""),
        (b"=?utf-8?B?R3LDvMOf", "Grüß"),
        (b"=?utf-8?B?R3L*Dv M?=", "Grü"),
        (b"=?x-unknown?q?a?= b", "=?x-unknown?q?a?= b"),
        (b"=?hex?q?6161?=", "=?hex?q?6161?="),
        (b"=?idna?q?xn--?=", "=?idna?q?xn--?="),
        (b"=?unicode_escape?q?=5Cx?=", "=?unicode_escape?q?=5Cx?="),
        (b"=?a\0b?q?c?=", "=?ab?q?c?="),
        (b"iso-8859-1'en'na%EFve%20plan", "naïve plan"),
        (b"''na%C3%AFve", "naïve"),
        (b"''quoted''", "''quoted''"),
        (b"Rock'n'Roll 100%", "Rock'n'Roll 100%"),
        ("pay \u202egpj.exe".encode(), "pay gpj.exe"),
        (b"=?utf-8?q?=E2=80=AEgpj=1B[31m?=", "gpj[31m"),
        (b"a\r\n\tb\0", "a b"),
    ],
)
def test_a_value_is_read_as_people_meant_it(raw: bytes, text: str) -> None:
    assert readable(raw) == text


@given(visible, st.sampled_from(["utf-8", "utf-16-be", "gb18030"]), st.integers(30, 200))
def test_encoded_words_give_the_text_back(text: str, charset: str, line: int) -> None:
    encoded = Header(text, charset, maxlinelen=line).encode(linesep="\r\n").encode("ascii", "surrogateescape")

    assert readable(encoded) == text


@given(visible)
def test_extended_parameters_give_the_text_back(text: str) -> None:
    assert readable(b"utf-8''" + quote_from_bytes(text.encode(), safe="").encode()) == text


pieces = st.sampled_from(
    [b"=?", b"?=", b"?", b"b", b"q", b"utf-8", b"utf-7", b"utf-16", b"''", b"%", b"=E2", b" ", b"\n"]
)


@given(st.binary() | st.lists(pieces | st.binary(max_size=3)).map(b"".join))
def test_any_octets_are_readable(raw: bytes) -> None:
    text = readable(raw)

    assert not UNSAFE.search(text)
    text.encode()


@pytest.mark.parametrize("charset", sorted(set(aliases.values())))
def test_no_charset_makes_a_value_unreadable(charset: str) -> None:
    for octets in (b"abc", bytes(range(256)), b"\\x\\N{", b"xn--\xff"):
        encoded = "".join(f"={octet:02X}" for octet in octets).encode()
        assert not UNSAFE.search(readable(b"=?%s?q?%s?=" % (charset.encode(), encoded)))


@given(messages())
def test_every_message_has_an_envelope(raw: bytes) -> None:
    _look_at(raw)


def test_mail_that_breaks_parsers_has_an_envelope() -> None:
    for raw in (*nasty_mail().values(), *nasty_octets().values()):
        _look_at(raw)
    for found in corpus.spread("nasty", 400):
        _look_at(found.raw)


def _look_at(raw: bytes) -> None:
    found = envelope(header_of(raw), attachment_names(raw))
    for value in (found.date, found.from_, found.to, found.subject, found.message_id, *found.attachments):
        assert isinstance(value, bytes)
        assert b"\n" not in value
        assert len(value) <= LONGEST_VALUE
        assert not UNSAFE.search(readable(value))


@pytest.mark.parametrize(
    "unit", [b'Content-Type: x; name="', b"=?a?q?", b'\nContent-Type: x;name="\\', b"\n\r\n;name*0*="]
)
def test_time_grows_no_faster_than_the_hostile_input(unit: bytes) -> None:
    def seconds(raw: bytes) -> float:
        started = time.process_time()
        attachment_names(raw)
        envelope(raw)
        readable(raw)
        return time.process_time() - started

    short, long = unit * 2_000, unit * 16_000
    seconds(short)
    assert min(seconds(long) for _ in range(2)) < 32 * max(min(seconds(short) for _ in range(3)), 0.001)
