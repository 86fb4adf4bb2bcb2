"""Server answers of IMAP, from octets to values (RFC 3501, 9). No I/O: lines and literals come in, values go out.

An answer is given as parts: a line, a literal, a line, a literal, ..., a line; even places are lines, odd ones are
literals.
Lines are lenient where servers are known to be sloppy (spaces, unquoted 8-bit names), and strict where guessing could
put one message's bytes under another's name: brackets that do not match are a ProtocolError.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from backupd.errors import ProtocolError
from backupd.wire.spool import SpooledBody
from backupd.wire.stream import show

Value = bytes | SpooledBody | None | list["Value"]
"""An atom, number, quoted string or small literal as bytes; a large literal; NIL; or a parenthesised list."""

STATUS_KINDS = frozenset({b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"})
MAX_DEPTH = 64
MOST_DIGITS = 20
"""Of a number: MODSEQ has 63 bits (RFC 7162, 7), all others have 32."""

_TOKEN = re.compile(
    rb"""[ \t]*(?:
        (?P<open>\() | (?P<close>\)) |
        "(?P<quoted>(?:[^"\\]|\\.)*)" |
        (?P<atom>(?:[^\s()"\[]|\[[^\]]*\]|\[)+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_CODE = re.compile(rb'\[([^\s\]]+)(?: ((?:"(?:[^"\\]|\\.)*"|[^\]"])*))?\] ?')
_UNTAGGED = re.compile(rb"\* (?:(\d{1,20}) )?([^\s(\[]+) ?")
_LITERAL_AT_END = re.compile(rb"~?\{(-?\d{1,20})\+?\}\Z")


class Status(NamedTuple):
    """OK, NO, BAD, BYE or PREAUTH. code: the response code's word in upper case; arguments: its rest."""

    kind: bytes
    code: bytes
    arguments: list[Value]
    text: bytes


class Untagged(NamedTuple):
    """An answer that begins with `*`. number: of EXISTS, EXPUNGE, FETCH ...; status: for OK, NO, BAD, BYE, PREAUTH."""

    kind: bytes
    number: int | None
    values: list[Value]
    status: Status | None = None


class Tagged(NamedTuple):
    """The answer that ends a command."""

    tag: bytes
    status: Status


class Continuation(NamedTuple):
    """The server waits for more of a command."""

    text: bytes


Response = Untagged | Tagged | Continuation


def announced_literal(line: bytes) -> int | None:
    """The octets of the literal that a line without its line end announces, or None. Raises ProtocolError on {-1}."""
    if not line.endswith(b"}"):
        return None
    found = _LITERAL_AT_END.search(line)
    if not found or is_status(line):
        return None
    size = int(found[1])
    if size < 0:
        raise ProtocolError(f"a literal of {size} octets was announced", remedy="report this to the server's operator")
    return size


def without_announcement(line: bytes) -> bytes:
    """The line without the {octets} at its end."""
    return _LITERAL_AT_END.sub(b"", line)


def is_status(line: bytes) -> bool:
    """Whether human-readable text may end the line, in which braces mean nothing (RFC 3501, 7.1)."""
    if not line.startswith(b"* "):
        return True
    found = _UNTAGGED.match(line)
    return bool(found) and found[2].upper() in STATUS_KINDS  # type: ignore[index]


def parse_values(parts: Sequence[bytes | SpooledBody]) -> list[Value]:
    """All values of an answer's data. Raises ProtocolError."""
    top: list[Value] = []
    stack = [top]
    for number, part in enumerate(parts):
        if number % 2:
            stack[-1].append(part)
            continue
        assert isinstance(part, bytes)  # noqa: S101 by construction
        position, end = 0, len(part.rstrip())
        while position < end:
            token = _TOKEN.match(part, position, end)
            if not token:
                raise ProtocolError(f"an answer that cannot be read: {show(part[position:end])!r}")
            position = token.end()
            kind = token.lastgroup
            if kind == "open":
                inner: list[Value] = []
                stack[-1].append(inner)
                stack.append(inner)
                if len(stack) > MAX_DEPTH:
                    raise ProtocolError("an answer nested too deeply")
            elif kind == "close":
                stack.pop()
                if not stack:
                    raise ProtocolError(f"an answer with a bracket too many: {show(part)!r}")
            elif kind == "quoted":
                quoted = token["quoted"]
                stack[-1].append(_ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
            else:
                atom = token["atom"]
                stack[-1].append(None if atom.upper() == b"NIL" else atom)
    if len(stack) != 1:
        raise ProtocolError("an answer that ends within brackets")
    return top


def parse_status(kind: bytes, rest: bytes) -> Status:
    """What follows OK, NO, BAD, BYE or PREAUTH. A code that cannot be read is left in the text; never raises."""
    found = _CODE.match(rest)
    if not found:
        return Status(kind, b"", [], rest.strip())
    try:
        arguments = parse_values([found[2] or b""])
    except ProtocolError:
        arguments = []
    return Status(kind, found[1].upper(), arguments, rest[found.end() :].strip())


def parse_response(parts: Sequence[bytes | SpooledBody]) -> Response:
    """One whole answer. Raises ProtocolError."""
    line = parts[0]
    assert isinstance(line, bytes)  # noqa: S101 by construction
    if line.startswith(b"+"):
        return Continuation(line[1:].strip())
    if not line.startswith(b"* "):
        tag, _, rest = line.partition(b" ")
        kind, _, text = rest.partition(b" ")
        if not tag or kind.upper() not in (b"OK", b"NO", b"BAD"):
            raise ProtocolError(f"an answer that cannot be read: {show(line)!r}")
        return Tagged(tag, parse_status(kind.upper(), text))
    found = _UNTAGGED.match(line)
    if not found:
        raise ProtocolError(f"an answer that cannot be read: {show(line)!r}")
    kind = found[2].upper()
    number = int(found[1]) if found[1] else None
    if kind in STATUS_KINDS:
        return Untagged(kind, number, [], parse_status(kind, line[found.end() :]))
    return Untagged(kind, number, parse_values([line[found.end() :], *parts[1:]]))


def pairs(values: Value) -> dict[bytes, Value]:
    """A list such as (MESSAGES 3 UIDNEXT 4) as a dictionary with upper-case keys. Raises ProtocolError."""
    if not isinstance(values, list) or len(values) % 2:
        raise ProtocolError("an answer in which a value is missing")
    found: dict[bytes, Value] = {}
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, bytes):
            raise ProtocolError("an answer with a name that is no name")
        found[key.upper()] = value
    return found


def number_or_none(value: Value) -> int | None:
    """A number the server gave, or None where it gave none, NIL, or one below zero (some do)."""
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) <= MOST_DIGITS else None
