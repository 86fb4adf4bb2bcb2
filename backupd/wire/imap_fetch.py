"""The hot path: FETCH answers straight from the buffer.

A server sends the items of all messages of one command in the same order, so the first answer (read by the general
parser) tells the pattern for the rest: one regular expression and one copy per message. What does not fit the pattern
goes to the general parser, so the fast way never decides what is right.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from backupd.errors import ProtocolError
from backupd.mail.flags import normalise
from backupd.model import Flags
from backupd.wire.imap_parser import Untagged, Value, number_or_none, pairs, parse_values
from backupd.wire.imap_stream import ImapStream
from backupd.wire.spool import SpooledBody
from backupd.wire.stream import show


class Fetch(msgspec.Struct, frozen=True):
    """One FETCH answer. None for what it did not hold, or as NIL.

    has_body tells a body that is NIL from one that is not there at all.
    """

    uid: int | None = None
    flags: Flags | None = None
    internaldate: bytes | None = None
    size: int | None = None
    modseq: int | None = None
    server_id: bytes | None = None
    labels: tuple[bytes, ...] | None = None
    body: bytes | SpooledBody | None = None
    has_body: bool = False


_ITEMS = {
    b"UID": rb"UID (?P<uid>\d{1,20})",
    b"FLAGS": rb'FLAGS \((?P<flags>[^()"{\r\n]*)\)',
    b"INTERNALDATE": rb'INTERNALDATE "(?P<date>[^"\\\r\n]*)"',
    b"RFC822.SIZE": rb"RFC822\.SIZE (?P<size>\d{1,20})",
    b"MODSEQ": rb"MODSEQ \((?P<modseq>\d{1,20})\)",
    b"EMAILID": rb"EMAILID \((?P<emailid>[^()\"{\s]+)\)",
    b"X-GM-MSGID": rb"X-GM-MSGID (?P<gmail>\d{1,20})",
    b"X-GM-LABELS": rb'X-GM-LABELS \((?P<labels>(?:"(?:[^"\\\r\n]|\\.)*"|[^()"{\r\n])*)\)',
}
_NAME = re.compile(
    rb"(?:UID|FLAGS|INTERNALDATE|RFC822\.SIZE|MODSEQ|EMAILID|THREADID|ENVELOPE|SAVEDATE|PREVIEW|SNIPPET|ANNOTATION"
    rb"|BODYSTRUCTURE|BODY(?:\[.*)?|RFC822\.TEXT|BINARY(?:\.SIZE)?\[.*|X-[A-Z0-9-]+)\Z"
)
_BODY = re.compile(rb"(?:BODY\[(?:HEADER)?\]|RFC822|RFC822\.HEADER)\Z")


@functools.lru_cache(maxsize=4096)
def _flags(raw: bytes) -> Flags:
    return normalise(raw.split())


@functools.lru_cache(maxsize=4096)
def _labels(raw: bytes) -> tuple[bytes, ...]:
    return _sorted(parse_values([raw]))


def _sorted(values: list[Value]) -> tuple[bytes, ...]:
    return tuple(sorted({value for value in values if isinstance(value, bytes)}))


class _Shape(NamedTuple):
    """The expression for answers with the same items in the same order; groups: their numbers in the order of _GROUPS.
    """

    pattern: re.Pattern[bytes]
    groups: tuple[int, ...]
    with_body: bool


_GROUPS = ("uid", "flags", "date", "size", "modseq", "emailid", "gmail", "labels", "octets")


@functools.lru_cache(maxsize=64)
def _shape(names: tuple[bytes, ...]) -> _Shape | None:
    """The shape of answers with these items in this order, a literal at the end or none; None if there is no shape.

    Beside these items nothing is accepted, so that an unknown one always meets the general parser.
    """
    if b"UID" not in names or len(set(names)) != len(names):
        return None
    with_body = bool(_BODY.match(names[-1]))
    items = [_ITEMS.get(name) for name in (names[:-1] if with_body else names)]
    if None in items:
        return None
    if with_body:
        items.append(re.escape(names[-1]) + rb" \{(?P<octets>\d{1,20})\}\r\n")
    text = rb"\* \d{1,20} FETCH \(" + b" ".join(item for item in items if item)
    # Every pattern has all groups; those of items that are not there can never match.
    absent = b"".join(b"(?P<%s>(?!))?" % name.encode() for name in _GROUPS if b"(?P<%s>" % name.encode() not in text)
    pattern = re.compile(text + absent + (b"" if with_body else rb"\)\r\n"))
    return _Shape(pattern, tuple(pattern.groupindex[name] for name in _GROUPS), with_body)


class FetchReader:
    """Reads runs of FETCH answers from a stream's buffer as long as they have the shape of the ones before."""

    def __init__(self, stream: ImapStream) -> None:
        self._stream = stream
        self._shape: _Shape | None = None

    def learn(self, response: Untagged) -> None:
        """Take the shape of an answer as that of the next ones."""
        values = response.values[0] if response.values else None
        if isinstance(values, list):
            self._shape = _shape(tuple(name.upper() for name in values[::2] if isinstance(name, bytes)))

    def run(self) -> Iterator[Fetch]:
        """Answers while they fit; ends before the first that does not, which is left for the general parser."""
        if self._shape is None:
            return
        pattern, groups, with_body = self._shape
        match = pattern.match
        stream, buffer, view = self._stream, self._stream.buffer, self._stream.view
        while True:
            found = match(buffer, stream.start, stream.end)
            if found is None:
                unread = stream.end - stream.start
                if buffer.find(b"\n", stream.start, stream.end) >= 0 or unread > min(65536, stream.room // 2):
                    return
                stream.fill(unread + 1)
                continue
            uid, flags, date, size, modseq, emailid, gmail, labels, octets = found.group(*groups)
            body = None
            if with_body:
                head, length = found.end() - stream.start, int(octets)
                whole = head + length + 3
                if whole > stream.room:
                    return
                if stream.end - stream.start < whole:
                    stream.fill(whole)
                first = stream.start + head
                if not buffer.startswith(b")\r\n", first + length):
                    return
                body = bytes(view[first : first + length])
                stream.start += whole
            else:
                stream.start = found.end()
            yield Fetch(
                int(uid),
                None if flags is None else _flags(flags),
                date,
                None if size is None else int(size),
                None if modseq is None else int(modseq),
                b"EMAILID:" + emailid if emailid else b"X-GM-MSGID:" + gmail if gmail else None,
                None if labels is None else _labels(labels),
                body,
                with_body,
            )


def _first(value: Value) -> Value:
    return value[0] if isinstance(value, list) and value else value


def from_untagged(response: Untagged) -> Fetch:
    """A FETCH answer read by the general parser. Raises ProtocolError."""
    if not response.values:
        raise ProtocolError("a FETCH answer without data")
    values = response.values[0]
    items = pairs(values)
    if isinstance(values, list) and sum(isinstance(name, bytes) and name.upper() == b"UID" for name in values[::2]) > 1:
        raise ProtocolError("a FETCH answer for two UIDs at once")
    body: Value = None
    has_body = False
    for name, value in items.items():
        if _BODY.match(name):
            if isinstance(value, list):
                raise ProtocolError("a FETCH answer with a list in place of a message")
            body, has_body = value, True
        elif not _NAME.match(name):  # text of a message, most likely, behind a literal that was announced too short
            raise ProtocolError(f"a FETCH answer with an item that is none: {show(name)}")
    flags, date, labels = items.get(b"FLAGS"), items.get(b"INTERNALDATE"), items.get(b"X-GM-LABELS")
    emailid, gmail = _first(items.get(b"EMAILID")), items.get(b"X-GM-MSGID")
    server_id = None
    if isinstance(emailid, bytes) and emailid:
        server_id = b"EMAILID:" + emailid
    elif isinstance(gmail, bytes):
        server_id = b"X-GM-MSGID:" + gmail
    assert not isinstance(body, list)  # noqa: S101 refused above
    return Fetch(
        uid=number_or_none(items.get(b"UID")),
        flags=normalise([one for one in flags if isinstance(one, bytes)]) if isinstance(flags, list) else None,
        internaldate=date if isinstance(date, bytes) else None,
        size=number_or_none(items.get(b"RFC822.SIZE")),
        modseq=number_or_none(_first(items.get(b"MODSEQ"))),
        server_id=server_id,
        labels=_sorted(labels) if isinstance(labels, list) else None,
        body=body,
        has_body=has_body,
    )
