"""Flags and keywords: one spelling of them, what a server will keep, and how Maildir and mbox write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from backupd.model import Flags

_SYSTEM = {flag.lower(): flag for flag in (b"\\Seen", b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Draft")}
_RECENT = b"\\recent"
_ANY_KEYWORD = b"\\*"

_MAILDIR = {
    b"\\Draft": "D",
    b"\\Flagged": "F",
    b"$Forwarded": "P",
    b"\\Answered": "R",
    b"\\Seen": "S",
    b"\\Deleted": "T",
}
_FROM_MAILDIR = {letter: flag for flag, letter in _MAILDIR.items()}
_KEYWORD_LETTERS = "abcdefghijklmnopqrstuvwxyz"

_X_STATUS = {b"\\Answered": b"A", b"\\Deleted": b"D", b"\\Flagged": b"F", b"\\Draft": b"T"}
_READ, _OLD = b"R", b"O"


def normalise(flags: Iterable[bytes]) -> Flags:
    """Sorted, each once, system flags spelled as RFC 3501 (2.3.2) does, keywords as they came.

    \\Recent goes: it belongs to a session, not to a message.
    """
    chosen = set()
    for flag in flags:
        if flag.startswith(b"\\"):
            lowered = flag.lower()
            if lowered == _RECENT:
                continue
            flag = _SYSTEM.get(lowered, flag)
        if flag:
            chosen.add(flag)
    return tuple(sorted(chosen))


def allowed(flags: Iterable[bytes], permanent: Collection[bytes] | None) -> tuple[Flags, Flags]:
    """(kept, refused) by a mailbox that answered PERMANENTFLAGS like this (RFC 3501, 7.1).

    Args:
        flags: what a message has.
        permanent: what the mailbox can store; "\\*" among it allows every keyword. None if it did not say: all may be.
    """
    wanted = normalise(flags)
    if permanent is None:
        return wanted, ()
    storable = {flag.lower() for flag in permanent}
    any_keyword = _ANY_KEYWORD in storable
    kept = tuple(
        flag for flag in wanted if flag.lower() in storable or (any_keyword and not flag.startswith(b"\\"))
    )  # fmt: skip
    return kept, tuple(flag for flag in wanted if flag not in kept)


def keyword_table(flag_sets: Iterable[Iterable[bytes]]) -> tuple[bytes, ...]:
    """The keywords of a Maildir that get the letters a, b, c ..., the most used of them first.

    There are 26 letters: rarer keywords are left out. `maildir_letters` and `from_maildir_letters` take this table.
    """
    uses = Counter(flag for flags in flag_sets for flag in flags if _is_spare(flag))
    by_use = sorted(uses, key=lambda keyword: (-uses[keyword], keyword))
    return tuple(by_use[: len(_KEYWORD_LETTERS)])


def _is_spare(flag: bytes) -> bool:
    """Whether it is a keyword that Maildir has no letter of its own for."""
    return not flag.startswith(b"\\") and flag not in _MAILDIR


def maildir_letters(flags: Iterable[bytes], keywords: Sequence[bytes] = ()) -> str:
    """The letters behind ":2," of a Maildir file name, in ASCII order as the format asks.

    Args:
        flags: what has neither a letter of its own nor one in the table is left out.
        keywords: the table of the Maildir, see `keyword_table`.
    """
    letters = _MAILDIR | dict(zip(keywords, _KEYWORD_LETTERS, strict=False))
    return "".join(sorted({letters[flag] for flag in normalise(flags) if flag in letters}))


def from_maildir_letters(letters: str, keywords: Sequence[bytes] = ()) -> Flags:
    """The flags that these letters stand for; letters without a meaning are passed over, as the format asks."""
    meanings = _FROM_MAILDIR | dict(zip(_KEYWORD_LETTERS, keywords, strict=False))
    return normalise(meanings[letter] for letter in letters if letter in meanings)


def mbox_status(flags: Iterable[bytes]) -> tuple[bytes, bytes]:
    """The values of the fields Status and X-Status of mbox files; no field is needed for an empty one.

    Status always has "O", as nothing that was backed up is new any more. Keywords have no place in these two fields.
    """
    present = normalise(flags)
    status = _READ + _OLD if b"\\Seen" in present else _OLD
    return status, b"".join(sorted(_X_STATUS[flag] for flag in present if flag in _X_STATUS))


def from_mbox_status(status: bytes, x_status: bytes = b"") -> Flags:
    """The flags that a Status and an X-Status field stand for; other letters are passed over."""
    seen = [b"\\Seen"] if _READ in status else []
    return normalise(seen + [flag for flag, letter in _X_STATUS.items() if letter in x_status])
