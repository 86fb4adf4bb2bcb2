"""`backupd hold`: what must not be forgotten, whatever the rules say; and a sudden loss that somebody has looked at.

Holds are in the repository, so they bind every machine (backupd/repository/holds.py). The tripwire's pins are no
objects: the snapshot that tells of a loss pins the one that still has the mail, until the loss is accepted.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import msgspec

from backupd.errors import ObjectMissing, UsageError
from backupd.operations import find_snapshot, record
from backupd.operations.counting import count
from backupd.operations.facts import known
from backupd.operations.standing import forget_losses
from backupd.operations.state import State
from backupd.repository import holds, names
from backupd.repository.holds import FORMAT, Acceptance, Held, Hold, Release
from backupd.repository.repository import Repository
from backupd.repository.snapshots import timestamp

LONGEST_REASON = 2000


class HoldLine(msgspec.Struct, frozen=True):
    """A hold in a list. snapshot: None for all of the account. state: "active", "released" or "expired". by: who held
    it; empty where nobody noted it. released, released_by, released_reason: when somebody ended it, who, and why. gone:
    it is active, and its snapshot is not there."""

    id: str
    account: str
    snapshot: str | None
    created: str
    until: str | None
    reason: str
    state: str
    by: str = ""
    released: str | None = None
    released_by: str = ""
    released_reason: str = ""
    gone: bool = False


class AcceptanceLine(msgspec.Struct, frozen=True):
    """Sudden losses that somebody accepted. snapshots: ids of those that tell of them. by: see HoldLine."""

    id: str
    account: str
    created: str
    snapshots: list[str]
    reason: str
    by: str = ""


class PinLine(msgspec.Struct, frozen=True):
    """A sudden loss that nobody has accepted. snapshot: that tells of it; pinned: that still have the mail. what: how
    much went."""

    account: str
    snapshot: str
    time: str
    pinned: list[str]
    what: list[str]


class HoldList(msgspec.Struct, frozen=True):
    """Holds, the oldest first, and what the tripwire pins. accepted: losses that were accepted, where it was asked for
    what has ended, too."""

    holds: list[HoldLine]
    pins: list[PinLine]
    accepted: list[AcceptanceLine] = []


def add(
    repository: Repository,
    text: str,
    accounts: Collection[str],
    *,
    reason: str,
    until: datetime | None = None,
    by: str = "",
    state: State | None = None,
    now: datetime,
) -> HoldLine:
    """Hold a snapshot, or all of an account. text: names either. until: None for as long as nobody releases it. by: who
    does so; it is stored encrypted, as the reason is.

    Raises UsageError where nothing, or more than one thing, is named, and where the snapshot goes in this moment.
    """
    _check_reason(reason)
    if until is not None and until <= now:
        raise UsageError("this hold would have ended already", subject=f"{until:%Y-%m-%d %H:%M}", remedy="name a later")
    if _is_account(repository, text, accounts):
        account = Hold(FORMAT, timestamp(now), text, reason, None, timestamp(until) if until else None, by)
        return _line(_put(repository, account, state, now), now)
    ref, snapshot = find_snapshot.find(repository, text, accounts)
    one = Hold(FORMAT, timestamp(now), snapshot.account, reason, ref.id, timestamp(until) if until else None, by)
    held = _put(repository, one, state, now)
    try:
        repository.storage.size(ref.name)
    except ObjectMissing:
        released = Release(FORMAT, timestamp(now), held.id, "it was forgotten while it was to be held")
        _store(repository, released, state, now, "release")
        raise UsageError(
            "this snapshot was forgotten while it was to be held", subject=ref.id, remedy="hold another one"
        ) from None
    return _line(held, now)


def _put(repository: Repository, said: Hold, state: State | None, now: datetime) -> Held:
    identifier, digest = holds.put(repository, said)
    there = [ref.name for ref in repository.refs(said.account) if said.snapshot in (None, ref.id)]
    record.held(repository, state, now, "hold", (names.hold(identifier), digest), there)
    return Held(identifier, said, released=False)


def _store(repository: Repository, said: holds.Record, state: State | None, now: datetime, kind: str) -> str:
    identifier, digest = holds.put(repository, said)
    record.append(repository, state, now, kind, adds=[(names.hold(identifier), digest)])
    return identifier


def _is_account(repository: Repository, text: str, accounts: Collection[str]) -> bool:
    return text in accounts or bool(repository.refs(text))


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > LONGEST_REASON:
        raise UsageError(
            "a reason says to others, and to you next year, why",
            subject="--reason",
            remedy=f"write one, of at most {LONGEST_REASON:,} characters",
        )


def remove(
    repository: Repository, text: str, *, reason: str = "", by: str = "", state: State | None = None, now: datetime
) -> HoldLine:
    """Release the hold of this id, or whose id, or last 8 digits, begin so. by: as in `add`. Raises UsageError."""
    found = [
        each for each in holds.read(repository).active(now) if each.id.startswith(text) or each.id[-8:].startswith(text)
    ]
    if len(found) != 1 or not text:
        there = f"{len(found):,} holds begin so" if found and text else "no such hold"
        raise UsageError(there, subject=text, remedy="`backupd hold list` shows them")
    held = found[0]
    release = Release(FORMAT, timestamp(now), held.id, reason, by)
    _store(repository, release, state, now, "release")
    return _line(held._replace(released=True, release=release), now)


def _is_gone(repository: Repository, held: Held, now: datetime, there: Collection[str]) -> bool:
    hold = held.hold
    if hold.snapshot is None or not held.is_active(now):
        return False
    return names.snapshot(repository.secrets.account_tag(hold.account), hold.snapshot) not in there


def _line(held: Held, now: datetime, *, gone: bool = False) -> HoldLine:
    hold = held.hold
    state = "released" if held.released else "active" if held.is_active(now) else "expired"
    line = HoldLine(
        held.id, hold.account, hold.snapshot, hold.created, hold.until, hold.reason, state, hold.by, gone=gone
    )
    if (release := held.release) is None:
        return line
    return msgspec.structs.replace(
        line, released=release.created, released_by=release.by, released_reason=release.reason
    )


def listed(
    repository: Repository,
    account: str | None = None,
    *,
    state: State | None = None,
    ended: bool = False,
    now: datetime,
) -> HoldList:
    """All that keeps snapshots, of one account or of all. ended: holds that keep nothing any more, too, and losses that
    were accepted."""
    said = holds.read(repository)
    there = {ref.name for ref in repository.refs(account)}
    lines = [_line(each, now, gone=_is_gone(repository, each, now, there)) for each in said.held]
    return HoldList(
        [line for line in lines if account in (None, line.account) and (ended or line.state == "active")],
        _pins(repository, account, said.accepted, state),
        [
            AcceptanceLine(key, each.account, each.created, each.snapshots, each.reason, each.by)
            for key, each in (said.acceptances if ended else ())
            if account in (None, each.account)
        ],
    )


def _pins(
    repository: Repository, account: str | None, accepted: Collection[str], state: State | None
) -> list[PinLine]:
    every = known(repository, repository.refs(account), state)
    there = {each.ref.id for each in every}
    found = []
    for each in every:
        losses = each.facts.losses if each.facts and each.ref.id not in accepted else []
        if pinned := sorted({loss.pinned for loss in losses} & there):
            what = [
                f"{loss.gone:,} of {count(loss.before, 'message')} gone from {loss.name or 'the account'}"
                for loss in losses
            ]
            found.append(
                PinLine(each.facts.account if each.facts else "", each.ref.id, timestamp(each.ref.time), pinned, what)
            )
    return found


def accept_loss(
    repository: Repository,
    account: str,
    *,
    state: State | None = None,
    reason: str = "",
    by: str = "",
    now: datetime,
) -> list[PinLine]:
    """All sudden losses of the account so far are meant: they pin nothing any more, and `status` is silent about them.

    Which ones they were. Raises UsageError when there are none.
    """
    found = _pins(repository, account, holds.read(repository).accepted, state)
    if not found:
        raise UsageError(
            "there is no sudden loss that is not accepted", subject=account, remedy="`backupd hold list` shows them"
        )
    accepted = Acceptance(FORMAT, timestamp(now), account, [each.snapshot for each in found], reason, by)
    _store(repository, accepted, state, now, "acceptance")
    if state:
        forget_losses(state, account)
    return found
