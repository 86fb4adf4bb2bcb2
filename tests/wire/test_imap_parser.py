"""Octets to values: whatever was meant arrives, and whatever was not meant is a ProtocolError and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backupd.errors import ProtocolError
from backupd.wire.imap_commands import Literal, string
from backupd.wire.imap_parser import (
    Continuation,
    Tagged,
    Untagged,
    Value,
    announced_literal,
    pairs,
    parse_response,
    parse_values,
)
from backupd.wire.stream import show

ATOMS = st.from_regex(rb"[A-Za-z0-9\\$.+&_=-]{1,12}", fullmatch=True).filter(lambda atom: atom.upper() != b"NIL")
VALUES: st.SearchStrategy[Value] = st.recursive(
    st.one_of(st.none(), ATOMS, st.binary(max_size=40)), lambda inner: st.lists(inner, max_size=5), max_leaves=25
)


def encoded(value: Value) -> list[bytes]:
    """A value as parts: lines at even places, literals at odd ones."""
    if value is None:
        return [b"NIL"]
    if isinstance(value, list):
        parts = [b"("]
        for number, inner in enumerate(value):
            first, *rest = encoded(inner)
            parts[-1] += (b" " if number else b"") + first
            parts += rest
        parts[-1] += b")"
        return parts
    assert isinstance(value, bytes)
    quoted = string(value)
    return [b"", value, b""] if isinstance(quoted, Literal) else [quoted]


@given(VALUES)
def test_what_is_written_is_read(value: Value) -> None:
    assert parse_values(encoded(value)) == [value]


@given(st.binary(max_size=200))
@example(b"* 1 FETCH (UID 1 BODY[] {3}")
@example(b"* " + b"(" * 100)
@example(b"* OK [")
@example(b"* 1")
@example(b"* " + b"9" * 5_000 + b" EXISTS")
@example(b"* 1 FETCH (UID " + b"9" * 5_000 + b")")
def test_any_octets_are_read_or_refused(octets: bytes) -> None:
    try:
        response = parse_response([octets.replace(b"\n", b"")])
    except ProtocolError:
        return
    assert isinstance(response, Untagged | Tagged | Continuation)


@given(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")))
def test_literal_announcements_are_found_at_the_end_alone(line: bytes) -> None:
    assert announced_literal(b"* 1 FETCH " + line + b" {17}") == 17
    assert announced_literal(b"* 1 FETCH " + line + b" {17} ") is None


@pytest.mark.parametrize("line", [b"* OK text {5}", b"b1 NO text {5}", b"+ go {5}", b"* BYE {5}"])
def test_braces_in_text_announce_nothing(line: bytes) -> None:
    assert announced_literal(line) is None


def test_a_literal_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(ProtocolError):
        announced_literal(b"* 1 FETCH (BODY[] {-3}")


@pytest.mark.parametrize(
    ("line", "code", "arguments", "text"),
    [
        (b"* OK [UIDNEXT 12] next", b"UIDNEXT", [b"12"], b"next"),
        (b"* OK [highestmodseq 5]", b"HIGHESTMODSEQ", [b"5"], b""),
        (b"* OK [PERMANENTFLAGS (\\Seen \\*)] flags", b"PERMANENTFLAGS", [[b"\\Seen", b"\\*"]], b"flags"),
        (b'* NO [BADURL "a]b"] x', b"BADURL", [b"a]b"], b"x"),
        (b"* OK [ unusual", b"", [], b"[ unusual"),
        (b"* OK", b"", [], b""),
        (b"* NO [ALERT] disk", b"ALERT", [], b"disk"),
    ],
)
def test_response_codes_are_read(line: bytes, code: bytes, arguments: list[Value], text: bytes) -> None:
    response = parse_response([line])
    assert isinstance(response, Untagged)
    assert response.status is not None
    assert (response.status.code, response.status.arguments, response.status.text) == (code, arguments, text)


@pytest.mark.parametrize(
    "line", [b"", b"hello", b"b1 MAYBE", b"* ", b"* 1 FETCH (UID 1", b"* 1 FETCH UID 1)", b'* LIST () "/']
)
def test_what_is_no_answer_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_response([line])


@pytest.mark.parametrize("values", [None, b"x", [b"UID"], [[b"x"], b"1"]])
def test_pairs_are_pairs(values: Value) -> None:
    with pytest.raises(ProtocolError):
        pairs(values)


@given(st.binary(max_size=400))
def test_what_is_shown_is_one_printable_line(octets: bytes) -> None:
    assert show(octets).isprintable()
    assert len(show(octets)) <= 200


@given(st.binary(max_size=700))
def test_strings_are_quoted_only_where_that_can_hold_them(octets: bytes) -> None:
    written = string(octets)
    if isinstance(written, Literal):
        assert written.octets == octets
    else:
        assert parse_values([written]) == [octets]
