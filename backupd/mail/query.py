"""Queries: which messages are meant, by what lists show of them, or by all of the message.

    from:ann@example.com subject:"quarterly figures" -in:Junk before:2026-05-01

Terms are separated by spaces, and all of them must hold; `OR` between two stands for either, and binds closer; `-`
before a term is "not". A word alone is looked for in sender, recipients, subject and names of attachments. `with:` and
`text:` read each message that the other terms leave.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from backupd.errors import UsageError
from backupd.mail import dates, people
from backupd.mail import text as whole
from backupd.mail.folding import folded
from backupd.mail.headers import LONGEST_VALUE, readable
from backupd.repository.runs import Envelope

KEYS: Final = (
    "from", "to", "with", "subject", "attachment", "text", "message-id", "in", "id", "after", "before", "on", "larger",
    "smaller",
)  # fmt: skip
_TERM = re.compile(r'(?P<no>-?)(?:(?P<key>[A-Za-z-]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))(?=\s|\Z)')
_CUT = LONGEST_VALUE - 3
"""Octets of a field of an envelope that may have been cut; a character is never cut in two."""
_UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3}
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]{0,2})\Z")


class Candidate(NamedTuple):
    """A message that may be meant. mailbox: its readable path. internaldate: as the server wrote it. envelope, message
    (its octets): asked for only where a term needs them."""

    id: bytes
    mailbox: str
    internaldate: bytes
    size: int
    envelope: Callable[[], Envelope]
    message: Callable[[], Iterable[bytes]]


Test = Callable[[Candidate], bool]


class Cost(IntEnum):
    """What a test has to read: the row of a list, an envelope, the whole message."""

    ROW = 0
    ENVELOPE = 1
    MESSAGE = 2


@dataclass(frozen=True)
class Query:
    """A query that makes sense. Made by `parse`."""

    text: str
    tests: Sequence[Sequence[Test]]
    """Of each group one must hold; those that cost least come first."""
    only_envelopes: bool
    """Whether envelopes alone decide."""

    def matches(self, candidate: Candidate) -> bool:
        """Whether this message is meant."""
        return all(any(test(candidate) for test in group) for group in self.tests)

    def shows(self, envelope: Envelope, header: bytes = b"") -> bool:
        """Whether whatever has this envelope is meant; never where more than that decides. header: where it is known;
        without it, what is cut of a field is not looked at."""
        return self.only_envelopes and self.matches(Candidate(b"", "", b"", 0, lambda: envelope, lambda: [header]))


def parse(text: str) -> Query:
    """Read a query. Raises UsageError for one that makes no sense, or is empty: it would mean all mail."""
    groups: list[list[tuple[Test, Cost]]] = []
    at, joined = 0, False
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TERM.match(text, at)
        if found is None:
            raise _wrong(text[at:], "close the quotes, and put a space between terms")
        at = found.end()
        if found[0] == "OR":
            if joined or not groups:
                raise _wrong(text, "OR stands between two terms")
            joined = True
            continue
        test = _test(found)
        if joined:
            groups[-1].append(test)
        else:
            groups.append([test])
        joined = False
    if joined or not groups:
        raise _wrong(text, "write at least one term, such as from:ann@example.com")
    for group in groups:
        group.sort(key=lambda each: each[1])
    groups.sort(key=lambda group: group[-1][1])
    only_envelopes = all(cost is Cost.ENVELOPE for group in groups for _, cost in group)
    return Query(text, [[test for test, _ in group] for group in groups], only_envelopes)


def _wrong(subject: str, remedy: str) -> UsageError:
    return UsageError("this is no query", subject=subject or "--query", remedy=remedy)


def _test(term: re.Match[str]) -> tuple[Test, Cost]:
    """A term as a test, and what that costs."""
    key, value = (term["key"] or "").lower(), term["quoted"] if term["quoted"] is not None else term["plain"]
    if not value.strip():
        raise _wrong(term[0], "a term needs a value")
    if (key and key not in KEYS) or (not key and term["quoted"] is None and ":" in value):
        raise _wrong(term[0], f"there are {', '.join(f'{each}:' for each in KEYS)}; quote a word that has a colon")
    wanted = folded(value)
    if not wanted or not wanted.strip("@"):
        raise _wrong(term[0], "a term needs a value")
    if (test := _of_envelope(key, wanted)) is not None:
        cost = Cost.ENVELOPE
    elif (test := _of_message(key, wanted)) is not None:
        cost = Cost.MESSAGE
    else:
        test, cost = _of_row(key, value, term[0]), Cost.ROW
    chosen = test
    return (chosen if not term["no"] else lambda candidate: not chosen(candidate)), cost


def _of_envelope(key: str, value: str) -> Test | None:
    if key in ("from", "to"):
        names = people.named(value)
        return lambda candidate: names(_field(candidate, key))
    if key == "subject":
        return lambda candidate: _has(_field(candidate, key), value)
    if key == "attachment":
        return lambda candidate: any(value in each for each in _attachments(candidate))
    if key == "message-id":
        wanted = value.strip("<>")
        return lambda candidate: folded(readable(candidate.envelope().message_id)).strip("<> ") == wanted
    if not key:
        return lambda candidate: _anywhere(candidate, value)
    return None


def _of_message(key: str, value: str) -> Test | None:
    """A test that reads all of a message. It does so once, wherever the message is listed."""
    known: dict[bytes, bool] = {}

    def remembered(test: Callable[[Iterable[bytes]], bool]) -> Test:
        def holds(candidate: Candidate) -> bool:
            if candidate.id not in known:
                known[candidate.id] = test(candidate.message())
            return known[candidate.id]

        return holds

    if key == "with":
        names = people.named(value)
        return remembered(lambda chunks: names(people.sought_in(people.header(chunks, value), value)))
    if key == "text":
        return remembered(lambda chunks: any(value in each for each in whole.text(chunks, len(value))))
    return None


def _field(candidate: Candidate, name: str) -> Iterator[bytes]:
    """A field of the envelope, raw; and where it was cut, all fields of that name in the message's header."""
    value: bytes = getattr(candidate.envelope(), "from_" if name == "from" else name)
    yield value
    if len(value) >= _CUT:
        yield from people.fields_of(people.header(candidate.message(), ""), name.encode("ascii"))


def _has(fields: Iterable[bytes], value: str) -> bool:
    return any(value in text for field in fields for text in people.shown(field))


def _attachments(candidate: Candidate) -> Iterator[str]:
    for name in candidate.envelope().attachments:
        yield folded(readable(name))
        yield from people.shown(name)


def _anywhere(candidate: Candidate, value: str) -> bool:
    if any(value in each for each in _attachments(candidate)):
        return True
    return people.named(value)((*_field(candidate, "from"), *_field(candidate, "to"))) or any(
        _has(_field(candidate, key), value) for key in ("from", "to", "subject")
    )


def _of_row(key: str, value: str, term: str) -> Test:
    if key == "in":
        pattern = value.casefold()
        return lambda candidate: _is_in(candidate.mailbox.casefold(), pattern)
    if key == "id":
        prefix = value.lower()
        if len(prefix) < 4 or prefix.strip("0123456789abcdef"):
            raise _wrong(term, "write at least 4 digits of a message's id, as `backupd ls` shows it")
        return lambda candidate: candidate.id.hex().startswith(prefix)
    if key in ("larger", "smaller"):
        octets = _octets(value, term)
        return (lambda candidate: candidate.size > octets) if key == "larger" else (lambda each: each.size < octets)
    first, last = _days(key, value, term)
    return lambda candidate: _arrived(candidate, first, last)


def _is_in(mailbox: str, pattern: str) -> bool:
    return mailbox == pattern or fnmatchcase(mailbox, pattern) or fnmatchcase(mailbox, f"{pattern}/*")


def _octets(value: str, term: str) -> int:
    found = _SIZE.match(value)
    if not found or found[2].lower() not in _UNITS:
        raise _wrong(term, "write a size such as 500k or 10M")
    return int(found[1]) * _UNITS[found[2].lower()]


def _days(key: str, value: str, term: str) -> tuple[datetime, datetime]:
    """From which moment on, and before which, in UTC."""
    try:
        day = datetime.combine(date.fromisoformat(value), datetime.min.time(), UTC)
    except ValueError:
        raise _wrong(term, "write a day such as 2026-11-01") from None
    earliest, latest = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    if key == "before":
        return earliest, day
    return day, (latest if key == "after" else min(latest, day + timedelta(days=1)))


def _arrived(candidate: Candidate, first: datetime, last: datetime) -> bool:
    moment = dates.parse(candidate.internaldate)
    return moment is not None and first <= moment < last
