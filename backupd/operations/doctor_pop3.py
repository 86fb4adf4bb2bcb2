"""What `backupd doctor` asks of a POP3 account: does the login work, can messages be told apart, and what does the
server do that its owner should know of before the first pull? No message is read, and none deleted.

What is known of a provider by its name (`forewarnings`) needs no connection, and is said before there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from backupd.operations.counting import count
from backupd.operations.finding import Finding
from backupd.sources.base import Identity
from backupd.sources.pop3.base import Listed, Pop3Source, hides


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
        yield Finding("ok", subject, f"{count(len(listing), 'message')}, {octets / 1000**2:,.1f} MB")
        yield from _names(subject, listing)
        if "PIPELINING" not in {each.upper() for each in identity.capabilities}:
            yield Finding("ok", subject, "no PIPELINING: each message costs a round trip")
        yield from _expiry(subject, identity)
        if deletes:
            yield Finding("ok", subject, "delete_after: messages are deleted from the server once they are proved safe")
        else:
            yield Finding("ok", subject, "backupd never deletes anything from the server")
        session.quit()
    finally:
        session.close()


def _names(subject: str, listing: list[Listed]) -> Iterator[Finding]:
    without = sum(not listed.uidl for listed in listing)
    times = Counter((each.uidl, each.size) for each in listing if each.uidl)
    twice = sum(count for count in times.values() if count > 1)
    if without or twice:
        shared = f"{twice:,} messages share their UIDL with another"
        how = f"no UIDL for {count(without, 'message')}" if without else shared
        yield Finding("ok", subject, f"{how}: these are told apart by their headers, which are read in each run")


def _expiry(subject: str, identity: Identity) -> Iterator[Finding]:
    """What the server says of how long it keeps mail (RFC 2449, 6.7)."""
    for words in (each.upper().split() for each in identity.capabilities):
        if words[0] == "EXPIRE" and len(words) > 1 and words[1].isdecimal():
            when = "when the session that read it ends" if int(words[1]) == 0 else f"after {int(words[1]):,} days"
            yield Finding(
                "warning",
                subject,
                f"the server deletes mail by itself {when} (EXPIRE {words[1]})",
                "ask the provider to keep it, or use imap; a snapshot is made before a session ends",
            )


def forewarnings(subject: str, host: str, username: str, *, deletes: bool) -> list[Finding]:
    """What the owner of such an account should know before anything is connected to.

    deletes: whether the configuration has delete_after.
    """
    if not hides(host):
        return []
    recent = username.startswith("recent:")
    lists = "the mail of the last 30 days only" if recent else "each message to one session, some hundreds at a time"
    name = "" if recent else ", and a username that begins with recent:"
    found = [
        Finding(
            "warning",
            subject,
            f"Gmail shows POP3 {lists}, and may archive or delete what was read, as its own settings say",
            f"better use imap; else set 'keep Gmail's copy in the Inbox' in Gmail{name}",
        )
    ]
    if deletes:
        found.append(
            Finding(
                "warning",
                subject,
                "delete_after: Gmail decides by its own settings what a deletion by POP3 does, and lists no message "
                "twice",
                "remove delete_after, and delete mail in Gmail itself",
            )
        )
    return found
