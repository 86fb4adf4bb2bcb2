"""What happens, as the daemon says it; and what it means to somebody who wants to hear of trouble only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Kind = Literal["failure", "loss", "objective", "expiry", "lock", "audit"]

SHARED = frozenset({"network", "certificate", "storage"})
"""Causes of failures that are the place's and not the account's: who knows that a server cannot be reached need not be
told so for each of its accounts."""

PATIENT = frozenset({"network", "throttled", "server", "storage", "busy", "login", "certificate", "bug"})
"""Causes of failures that may pass by themselves. Also a refused login: servers say so when their user database is
away for a minute."""


class Started(msgspec.Struct, frozen=True):
    """A backup of the account begins."""

    account: str


class Completed(msgspec.Struct, frozen=True):
    """A backup of the account has ended and left nothing out."""

    account: str


class Incomplete(msgspec.Struct, frozen=True):
    """A backup of the account has ended, but some mail could not be read. what: the first problem."""

    account: str
    problems: int
    what: str


class Failed(msgspec.Struct, frozen=True):
    """A backup of the account failed; told for each attempt.

    cause: network, throttled, login, certificate, server, storage, configuration, busy or bug. place: the mail server's
    host, or the repository's address where that is at fault. last_good: when the repository was last known to have all
    there was. objective: seconds, the oldest acceptable snapshot.
    """

    account: str
    cause: str
    what: str
    remedy: str = ""
    place: str = ""
    last_good: datetime | None = None
    objective: float | None = None


class Lost(msgspec.Struct, frozen=True):
    """Much mail has gone at once. mailbox: empty for the account as a whole. pinned: the snapshot that still has it."""

    account: str
    mailbox: str
    gone: int
    before: int
    pinned: str


class Missed(msgspec.Struct, frozen=True):
    """The account is older than its objective (seconds); told as long as it is."""

    account: str
    objective: float
    last_good: datetime | None = None


class Met(msgspec.Struct, frozen=True):
    """The account is younger than its objective."""

    account: str


class Expiring(msgspec.Struct, frozen=True):
    """What logs the account in will soon be of no use any more."""

    account: str
    expires: datetime
    what: str = "the OAuth token"


class Renewed(msgspec.Struct, frozen=True):
    """What logs the account in is good for long again."""

    account: str


class LocksEnding(msgspec.Struct, frozen=True):
    """Locks of stored objects run out at this time, unless they are renewed."""

    repository: str
    ends: datetime
    why: str = ""


class LocksRenewed(msgspec.Struct, frozen=True):
    """Locks of stored objects last for long again."""

    repository: str


class AuditFailed(msgspec.Struct, frozen=True):
    """An audit, or another job on the repository such as copy or prune, failed."""

    job: str
    what: str
    remedy: str = ""


class AuditPassed(msgspec.Struct, frozen=True):
    """The job went well."""

    job: str


class Unreachable(msgspec.Struct, frozen=True):
    """The repository cannot be used."""

    repository: str
    what: str
    remedy: str = ""


class Reachable(msgspec.Struct, frozen=True):
    """The repository can be used."""

    repository: str


class ReloadRefused(msgspec.Struct, frozen=True):
    """The configuration was changed and is wrong; the one before stays in force."""

    what: str


class Reloaded(msgspec.Struct, frozen=True):
    """The configuration in the file is the one in force: it was reloaded, or the daemon has begun with it."""


Event = (
    Started | Completed | Incomplete | Failed | Lost | Missed | Met | Expiring | Renewed | LocksEnding | LocksRenewed
    | AuditFailed | AuditPassed | Unreachable | Reachable | ReloadRefused | Reloaded
)  # fmt: skip


class Trouble(msgspec.Struct, frozen=True):
    """Something is wrong, and lasts until a relief of the same kind and subject.

    cause: what sort it is; among several of a subject the latest counts. subject: what is in trouble; the account's
    name, where it is one. place: what others may have in common with it. shared: all who have cause and place in common
    have one trouble. patient: it may pass by itself. minor: it is rarely worth a reminder. once: it is told, and that
    is all: it has no end. at: a time that matters, in seconds since 1970: of expiry. last_good, objective: see Failed.
    """

    kind: Kind
    cause: str
    subject: str
    what: str
    remedy: str = ""
    account: str = ""
    place: str = ""
    shared: bool = False
    patient: bool = False
    minor: bool = False
    once: bool = False
    at: float | None = None
    last_good: float | None = None
    objective: float | None = None

    @property
    def key(self) -> str:
        """The name of the cause: what is told once."""
        return f"{self.kind}:{self.cause}@{self.place}" if self.shared else f"{self.kind}:{self.cause}:{self.subject}"


class Relief(msgspec.Struct, frozen=True):
    """Nothing of this kind is wrong with the subject."""

    kind: Kind
    subject: str
    account: str = ""


def meaning(event: Event) -> tuple[Trouble | Relief, ...]:
    """What an event means; nothing, where only a service that is pinged wants to know."""
    found = _trouble(event)
    return (found,) if found else _reliefs(event)


def _trouble(event: Event) -> Trouble | None:
    match event:
        case Failed(account, cause, what, remedy, place, last_good, objective):
            return Trouble(
                "failure", cause, account, what, remedy, account=account, place=place,
                shared=cause in SHARED and bool(place), patient=cause in PATIENT,
                last_good=_seconds(last_good), objective=objective,
            )  # fmt: skip
        case Incomplete(account, problems, what):
            more = f" (and {problems - 1:,} more)" if problems > 1 else ""
            return Trouble("failure", "incomplete", account, f"{what}{more}", account=account, minor=True)
        case Lost(account, mailbox, gone, before, pinned):
            messages = f"{before:,} {'message' if before == 1 else 'messages'}"
            what = f"{gone:,} of {messages} {'is' if gone == 1 else 'are'} gone from {mailbox or 'the account'}"
            return Trouble("loss", pinned, f"{account}/{mailbox}", what, account=account, place=account, once=True)
        case Missed(account, objective, last_good):
            return Trouble(
                "objective", "", account, "older than its objective", account=account,
                last_good=_seconds(last_good), objective=objective,
            )  # fmt: skip
        case Expiring(account, expires, what):
            return Trouble("expiry", "", account, what, account=account, at=expires.timestamp())
        case LocksEnding(repository, ends, why):
            return Trouble("lock", "", repository, why, at=ends.timestamp())
        case AuditFailed(job, what, remedy):
            return Trouble("audit", "", job, what, remedy)
        case Unreachable(repository, what, remedy):
            return Trouble("failure", "storage", repository, what, remedy, place=repository, shared=True, patient=True)
        case ReloadRefused(what):
            return Trouble("failure", "reload", "the configuration", what)
        case _:
            return None


def _reliefs(event: Event) -> tuple[Relief, ...]:
    match event:
        case Completed(account):
            # What was proved to be complete right now is younger than any objective.
            return Relief("failure", account, account), Relief("objective", account, account)
        case Met(account):
            return (Relief("objective", account, account),)
        case Renewed(account):
            return (Relief("expiry", account, account),)
        case LocksRenewed(repository):
            return (Relief("lock", repository),)
        case AuditPassed(job):
            return (Relief("audit", job),)
        case Reachable(repository):
            return (Relief("failure", repository),)
        case Reloaded():
            return (Relief("failure", "the configuration"),)
        case _:
            return ()


def about(event: Event) -> tuple[str, ...]:
    """What a later event must have in common with this one to stand for it as well, if this one was not looked at yet.

    Of accounts, the end of one run makes the end of the run before it old news; a loss stays news.
    """
    match event:
        case Lost(account, mailbox, _, _, pinned):
            return ("loss", account, mailbox, pinned)
        case Started(account):
            return ("started", account)
        case _:
            found = meaning(event)[0]
            return found.kind, found.subject


def _seconds(time: datetime | None) -> float | None:
    return time.timestamp() if time else None
