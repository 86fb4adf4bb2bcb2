"""What `backupd doctor` asks of a POP3 account: does the login work, can messages be told apart, and what does the
server do that its owner should know of before the first pull? No message is read, and none deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from backupd.operations.finding import Finding
from backupd.operations.pull import HIDES
from backupd.sources.pop3.base import Listed, Pop3Source


def check_pop3(
    open_source: Callable[[], Pop3Source], subject: str, now: datetime, *, deletes: bool
) -> Iterator[Finding]:
    """Log in by POP3, and see how well the account can be backed up. Raises ServerError.

    deletes: whether the configuration has delete_after.
    """
    session = open_source().open()
    try:
        identity = session.identity
        software = f" ({identity.server})" if identity.server else ""
        yield Finding("ok", subject, f"the login works{software}")
        listing = session.listing()
        octets = sum(max(0, listed.size) for listed in listing)
        yield Finding("ok", subject, f"{len(listing):,} messages, {octets / 1000**2:,.1f} MB")
        yield from _names(subject, listing)
        if "PIPELINING" not in {each.upper() for each in identity.capabilities}:
            yield Finding("ok", subject, "no PIPELINING: each message costs a round trip")
        if identity.host.lower().endswith(HIDES):
            yield from _gmail(subject, deletes)
        elif deletes:
            yield Finding("ok", subject, "delete_after: messages are deleted from the server once they are proved safe")
        else:
            yield Finding("ok", subject, "nothing is ever deleted from the server")
        session.quit()
    finally:
        session.close()


def _names(subject: str, listing: list[Listed]) -> Iterator[Finding]:
    without = sum(not listed.uidl for listed in listing)
    times = Counter((each.uidl, each.size) for each in listing if each.uidl)
    twice = sum(count for count in times.values() if count > 1)
    if without or twice:
        how = f"no UIDL for {without:,} messages" if without else f"{twice:,} messages share their UIDL with another"
        yield Finding("ok", subject, f"{how}: these are told apart by their headers, which are read in each run")


def _gmail(subject: str, deletes: bool) -> Iterator[Finding]:
    yield Finding(
        "warning",
        subject,
        "Gmail shows each message to POP3 once, some hundreds at a time, and may archive or delete what was read, "
        "as its own settings say",
        "better use imap; else set 'keep Gmail's copy in the Inbox' in Gmail, and a username that begins with recent:",
    )
    if deletes:
        yield Finding(
            "warning",
            subject,
            "delete_after: Gmail decides by its own settings what a deletion by POP3 does, and lists no message twice",
            "remove delete_after, and delete mail in Gmail itself",
        )
