"""Queries: what they mean, and that whatever makes no sense is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import UsageError
from backupd.mail.query import Candidate, Query, parse
from backupd.repository.runs import Envelope

ENVELOPE = Envelope(
    date=b"Wed, 17 Jul 1996 02:44:25 -0700",
    from_=b"=?utf-8?Q?J=C3=B6rg?= Ann <Ann@Example.com>",
    to=b"Bob <bob@example.org>, list@lists.example.org",
    subject=b"The quarterly figures",
    message_id=b"<abc@example.com>",
    attachments=(b"figures.xlsx",),
)
CHUNKS = (
    b"From: =?utf-8?Q?J=C3=B6rg?= Ann <Ann@Example.com>\r\nTo: Bob <bob@example.org>\r\nSubject: Quarterly figures\r\n",
    b"CC: x@example.net,\r\n Eve <Eve@Example.net>\r\nReferences: <ref@host.example>\r\nContent-Type: text/plain\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\nThe account of J=C3=B6rg =\r\nMeier\r\nis   closed.\r\n",
)
MESSAGE = Candidate(
    b"\xab\xcd" * 16, "Work/2026", b"17-Jul-2026 02:44:25 +0200", 5000, lambda: ENVELOPE, lambda: CHUNKS
)


@pytest.mark.parametrize(
    "text",
    [
        "from:ann@example.com", "from:ANN@EXAMPLE.COM", "from:@example.com", "from:jörg", 'from:"jörg ann"',
        "to:bob@example.org", "to:list@lists.example.org", "subject:quarterly", 'subject:"the quarterly"',
        "attachment:.xlsx", "message-id:<abc@example.com>", "message-id:ABC@example.com", "figures", "bob",
        "in:Work", "in:work/2026", "in:W*", "id:abcd", "id:ABCDABCD", "larger:4k", "smaller:1M", "after:2026-07-17",
        "before:2026-07-18", "on:2026-07-17", "from:ann@example.com before:2027-01-01", "-from:bob@example.org",
        "from:nobody@x.org OR to:bob@example.org", "in:Junk OR in:Work subject:figures", "-in:Junk -bcc",
        "with:eve@example.net", "with:@example.org", "with:eve", "with:jörg", "text:jörg",
        'text:"jörg meier is closed"',
        "text:quarterly in:Work", "from:nobody@x.org OR with:x@example.net", "-with:nobody@example.com", "text:Meier",
    ],
)  # fmt: skip
def test_it_is_meant(text: str) -> None:
    assert parse(text).matches(MESSAGE)


@pytest.mark.parametrize(
    "text",
    [
        "from:nn@example.com", "from:ann@example.co", "from:ann@example.com.org", "from:@xample.com", "to:ann",
        "subject:figure5", "attachment:xlsx.", "message-id:abc", "in:2026", "in:Wor", "id:abce", "larger:5000",
        "smaller:5000", "after:2026-07-18", "before:2026-07-17", "on:2026-07-16", "-figures", "-in:Work",
        "from:ann@example.com before:2020-01-01", "from:x@y OR to:z@y", "in:Junk OR in:Work subject:nothing",
        "with:ve@example.net", "with:@host.example", "with:figures", "-with:eve@example.net", "text:jorg", "meier",
    ],
)  # fmt: skip
def test_it_is_not_meant(text: str) -> None:
    assert not parse(text).matches(MESSAGE)


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "form:ann@example.com", "from:", 'from:""', 'subject:"open', 'subject:"a"b', "OR a", "a OR",
        "a OR OR b", "before:yesterday", "larger:much", "id:abc", "id:xyzw", "before:2026-13-01", "larger:5 m",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str) -> None:
    if text == "larger:5 m":  # a size, and a word
        assert not parse(text).matches(MESSAGE._replace(envelope=Envelope))
        return
    with pytest.raises(UsageError):
        parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_query_or_an_error_a_user_can_read(text: str) -> None:
    with suppress(UsageError):
        parse(text).matches(MESSAGE)


def test_an_envelope_is_only_read_where_nothing_else_decides() -> None:
    def never() -> Envelope:
        raise AssertionError("it was read")

    assert not parse("figures from:ann@example.com in:Junk").matches(MESSAGE._replace(envelope=never))


def test_a_message_without_a_date_is_meant_by_no_day() -> None:
    undated = MESSAGE._replace(internaldate=b"")
    assert not any(parse(each).matches(undated) for each in ("before:2100-01-01", "after:1970-01-01", "on:2026-07-17"))


def test_a_message_is_read_only_where_nothing_else_decides_and_once() -> None:
    read = []

    def octets() -> tuple[bytes, ...]:
        read.append(1)
        return CHUNKS

    def meant(query: Query, mailbox: str = "Work") -> bool:
        return query.matches(MESSAGE._replace(message=octets, mailbox=mailbox))

    assert not meant(parse("text:meier in:Junk"))
    assert meant(parse("with:eve@example.net OR in:Work"))
    assert read == []
    query = parse("with:eve@example.net")
    assert meant(query)
    assert meant(query, "Sent")
    assert len(read) == 1
    assert not query.only_envelopes
    assert parse("from:a@b.c word").only_envelopes
