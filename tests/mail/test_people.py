"""Whoever asks for erasure is found in each spelling of an address and a name, and nobody else is."""

from __future__ import annotations

import unicodedata

import pytest

from backupd.mail.headers import envelope, header_of
from backupd.mail.query import Candidate, parse

ANN = "with:ann@example.com"
LEE = 'with:"ann lee"'
JÜRGEN = 'with:"jürgen"'


def meant(query: str, raw: bytes) -> bool:
    chunks = [raw[start : start + 50_000] for start in range(0, len(raw), 50_000)]
    candidate = Candidate(b"id", "", b"", len(raw), lambda: envelope(header_of(raw)), lambda: chunks)
    return parse(query).matches(candidate)


def cc(value: bytes | str) -> bytes:
    octets = value if isinstance(value, bytes) else value.encode()
    return b"From: x@y.example\r\nSubject: s\r\nCc: " + octets + b"\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (ANN, b'Ann <"ann"@example.com>'), (ANN, b"ann(c)@example.com"), (ANN, b"ann@(x)example.com"),
        (ANN, b"ann @ example.com"), (ANN, b"Ann <ann@\r\n example.com>"), (ANN, b"ann@example . com"),
        (ANN, b"ann@example.com."), (ANN, b"[ann@example.com]"), (ANN, b"Ann [mailto:ann@example.com]"),
        (ANN, b"friends:ann@example.com,bob@example.com;"), (ANN, b"=?utf-8?q?ann=40example=2Ecom?="),
        (ANN, b"=?utf-8?q?ann?=@example.com"), (ANN, b"'Ann' <100%x@example.com>, ann@example.com"),
        (ANN, b"Hi there. ann@example.com"), (ANN, b"ann@exam\0ple.com"), ("with:@example.com", b'"x y"@Example.COM'),
        ("with:ann@müller.example", b"<ann@xn--mller-kva.example>"),
        ("with:ann@xn--mller-kva.example", "<ann@müller.example>"),
        ("with:@müller.example", b"<ann@xn--mller-kva.example>"),
        ("with:jürgen@example.com", unicodedata.normalize("NFD", "<jürgen@example.com>")),
        ("with:ISTANBUL", "İstanbul <a@example.com>"), ("with:STRASSE", "Straße <a@example.com>"),
        ("with:jurgen", "Jur\u00adgen <a@example.com>"), (LEE, b'"Ann  Lee" <a@b>'), (LEE, b'"Ann\r\n\t Lee" <a@b>'),
        (LEE, b'"Ann\\ Lee" <a@b>'), (LEE, "Ann\u00a0Lee <a@b>"), (LEE, b'"Lee, Ann" <a@b>'),
        (LEE, b"=?utf-8?q?Ann Lee?= <a@b>"), (LEE, b"=?x-unknown?q?Ann_Lee?= <a@b>"),
        (LEE, b'"=?utf-8?b?QW5u?=" "=?utf-8?b?TGVl?=" <a@b>'), ('with:"o\'neil"', "O’Neil <a@b>"),
        (JÜRGEN, "Jürgen <a@b>".encode() + b", \xfcx <d@e>"), (JÜRGEN, b"=?us-ascii?q?J=C3=BCrgen?= <a@b>"),
    ],
)  # fmt: skip
def test_a_person_is_found_in_each_spelling(query: str, field: bytes | str) -> None:
    assert meant(query, cc(field))


@pytest.mark.parametrize(
    "field",
    [
        b"joann@example.com", b"ann@example.com.org", b"ann@example.community", b"ann+x@example.com",
        b"jo.ann@example.com", b"o'ann@example.com", b"ann@sub.example.com", b"r&ann@example.com",
    ],
)  # fmt: skip
def test_another_address_is_another_person(field: bytes) -> None:
    assert not meant(ANN, cc(field))


@pytest.mark.parametrize(
    "name",
    [
        "X-Envelope-To", "X-Delivered-To", "X-Forwarded-For", "Mail-Followup-To", "Return-Receipt-To", "Author",
        "X-Sender", "X-Failed-Recipients", "Original-Recipient", "Final-Recipient", "Cc ",
    ],
)  # fmt: skip
def test_a_name_is_looked_for_in_each_field_for_people(name: str) -> None:
    assert meant(LEE, f"From: x@y\r\n{name}: Ann Lee <a@b>\r\n\r\n".encode())
    assert not meant(LEE, b"X-Other: Ann Lee\r\n\r\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"Received: from x by y for <ann@example.com>; Mon\r\n\r\n",
        b"\r\nFrom: x@y\r\nCc: ann@example.com\r\n\r\nbody",
        b"Received: foo\rFrom: x@y\rCc: ann@example.com\r\rbody", b"A: b\r\r\nCc: ann@example.com\r\r\n\r\r\nbody",
        b"From x@y Mon Jan 1\r\nCc: ann@example.com\r\n\r\n", b"no colon\r\nX-MS-Any: ann@example.com\r\n\r\n",
    ],
)  # fmt: skip
def test_an_address_is_looked_for_in_all_of_the_header(raw: bytes) -> None:
    assert meant(ANN, raw)


def test_an_address_in_the_body_alone_is_not_in_the_header() -> None:
    assert not meant(ANN, b"From: x@y\r\n\r\nann@example.com")


def test_a_server_that_gave_an_id_is_no_person_of_its_domain() -> None:
    assert not meant("with:@example.com", b"From: x@y\r\nReferences: <a@example.com>,\r\n <b@example.com>\r\n\r\n")


def test_where_what_lists_keep_of_a_field_is_cut_the_header_decides() -> None:
    many = b"To: " + b",\r\n ".join(b"u%d@example.com" % number for number in range(300))
    assert meant("to:ann@example.com", many + b",\r\n ann@example.com\r\n\r\n")
    assert not meant("-to:ann@example.com", many + b",\r\n ann@example.com\r\n\r\n")
    assert meant("subject:figures", b"Subject: " + b"x " * 1200 + b"figures\r\n\r\n")
    assert meant("figures", b"Subject: " + b"x " * 1200 + b"figures\r\n\r\n")


@pytest.mark.parametrize("query", [ANN, LEE])
@pytest.mark.parametrize(
    ("unit", "times"), [(b"a b \r\n ", 200_000), (b"a", 1_500_000), (b"=?utf-8?q?a", 100_000), (b"\r\na: b", 300_000)]
)
def test_a_header_of_any_size_and_form_is_read_in_all(query: str, unit: bytes, times: int) -> None:
    """Regular expressions that look for addresses would not end here."""
    assert meant(query, b"From: x@y\r\nA: b\r\nX:" + unit * times + b"\r\nCc: Ann Lee <ann@example.com>\r\n\r\n")
    assert meant(query, b"Cc: x@y" + b",\r\n x@y" * 200_000 + b",\r\n Ann Lee <ann@example.com>\r\n\r\n")
