"""The demo's proof: everything that was in the account before the disasters, compared with what is in it now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Seen(NamedTuple):
    """What the user sees of a message. digest: SHA-256 of its bytes; date: INTERNALDATE with its time zone."""

    mailbox: str
    digest: str
    flags: tuple[str, ...]
    date: str
    size: int
    subject: str

    def __str__(self) -> str:
        flags = " ".join(self.flags) or "no flags"
        return f"{self.mailbox}: {self.date} {self.subject} ({flags}; {self.size:,} octets, SHA-256 {self.digest[:12]})"


class Proof(NamedTuple):
    """messages: there were; identical: are there again, the same in all that can be seen; missing, more: are not
    there, and should not be. A message that came back changed is one of each."""

    messages: int
    identical: int
    missing: list[Seen]
    more: list[Seen]

    @property
    def holds(self) -> bool:
        return not (self.missing or self.more)


def compare(before: Sequence[Seen], now: Sequence[Seen]) -> Proof:
    """Compare by what messages are, as often as each is there: UIDs and the order may be others."""
    was, is_ = Counter(before), Counter(now)
    return Proof(len(before), (was & is_).total(), list((was - is_).elements()), list((is_ - was).elements()))
