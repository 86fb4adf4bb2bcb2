"""Which mailboxes of an account are backed up."""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from backupd.model import Mailbox


class Selection(msgspec.Struct, frozen=True):
    """Patterns of shells over mailbox names, with "/" between levels whatever the server's delimiter is.

    A mailbox is taken when one of `include` and none of `exclude` matches it. A pattern also matches all below it:
    "Junk" leaves out "Junk/2024".
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def __contains__(self, mailbox: Mailbox) -> bool:
        name = readable_path(mailbox)
        return _any_matches(self.include, name) and not _any_matches(self.exclude, name)


EVERYTHING = Selection()


def readable_path(mailbox: Mailbox) -> str:
    """The name with "/" between its levels."""
    delimiter = (mailbox.delimiter or b"").decode("latin-1")
    return mailbox.name.replace(delimiter, "/") if delimiter not in ("", "/") else mailbox.name


def matches(mailbox: Mailbox, pattern: str) -> bool:
    """Whether a pattern names this mailbox: its name as shown, with either delimiter, or a shell pattern over it."""
    return mailbox.name == pattern or _any_matches((pattern,), readable_path(mailbox))


def _any_matches(patterns: tuple[str, ...], name: str) -> bool:
    return any(_matches(pattern, name) for pattern in patterns)


def _matches(pattern: str, name: str) -> bool:
    # INBOX is the one name without case (RFC 3501, 5.1).
    if name[:5].upper() == "INBOX" and name[5:6] in ("", "/"):
        name = "INBOX" + name[5:]
        if pattern[:5].upper() == "INBOX":
            pattern = "INBOX" + pattern[5:]
    return name == pattern or fnmatchcase(name, pattern) or fnmatchcase(name, pattern + "/*")
