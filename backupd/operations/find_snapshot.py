"""Which snapshot a person means: an id, the beginning of one, ACCOUNT@latest or ACCOUNT@TIME."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, time, tzinfo

from backupd.errors import Damaged, UsageError
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Snapshot, SnapshotRef

_DATE_ALONE = re.compile(r"\d{4}-\d{2}-\d{2}\Z|\d{8}\Z")
_ID = re.compile(r"[0-9TZa-f-]+\Z")
_MOST_CANDIDATES = 5


def find(
    repository: Repository, text: str, accounts: Collection[str] = (), *, zone: tzinfo | None = None
) -> tuple[SnapshotRef, Snapshot]:
    """The snapshot that `text` names. It may be incomplete, or a checkpoint: that is for the caller to show.

    Args:
        text: an id; a unique beginning of one, or of its last 8 digits; ACCOUNT@latest; ACCOUNT@TIME, the newest that
            began at or before TIME. A time without an offset is meant in `zone`, a date alone as the end of that day.
        accounts: those in the configuration, to say what there is when `text` names nothing.
        zone: None is the time zone of this machine.

    Raises UsageError when nothing or more than one thing is named, and Damaged.
    """
    ref = find_ref(repository, text, accounts, zone=zone)
    try:
        return ref, repository.snapshot(ref)
    except Damaged as error:
        before = [other.id for other in repository.refs() if other.tag == ref.tag and other < ref]
        error.remedy = f"use the one before it: {before[-1]}" if before else "`backupd backup` takes a new one"
        raise


def find_ref(
    repository: Repository, text: str, accounts: Collection[str] = (), *, zone: tzinfo | None = None
) -> SnapshotRef:
    """The same of a snapshot that need not be readable. Raises UsageError."""
    account, at, when = text.rpartition("@")
    if text in accounts:
        raise UsageError("which snapshot of this account?", subject=text, remedy=f"{text}@latest is the newest one")
    return _by_time(repository, account, when, accounts, zone) if at else _by_id(repository.refs(), text)


def moment(text: str, zone: tzinfo | None = None) -> datetime:
    """The time a person wrote, with its offset. Raises UsageError."""
    try:
        parsed = datetime.fromisoformat(text)
        if _DATE_ALONE.match(text):
            parsed = datetime.combine(parsed, time.max)
        if parsed.tzinfo is None:
            parsed = parsed.replace(tzinfo=zone) if zone else parsed.astimezone()
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            "not a time", subject=text, remedy="write 2026-11-01T12:00, 2026-11-01 for the end of that day, or latest"
        ) from None


def _by_time(
    repository: Repository, account: str, when: str, accounts: Collection[str], zone: tzinfo | None
) -> SnapshotRef:
    refs = repository.refs(account) if account else []
    if not refs:
        raise _no_snapshots(account, accounts)
    if when == "latest":
        return refs[-1]
    latest = moment(when, zone)
    before = [ref for ref in refs if ref.time <= latest]
    if not before:
        raise UsageError(
            f"no snapshot of {account} is that old",
            subject=when,
            remedy=f"the oldest is {refs[0].id}, the newest {refs[-1].id}",
        )
    return before[-1]


def _no_snapshots(account: str, accounts: Collection[str]) -> UsageError:
    if account in accounts:
        return UsageError(
            "no snapshot of this account yet", subject=account, remedy=f"`backupd backup {account}` takes one"
        )
    there = f"there are {', '.join(sorted(accounts))}" if accounts else "`backupd snapshots` shows what there is"
    return UsageError("no account of this name, and no snapshot of one", subject=account or "@", remedy=there)


def _by_id(refs: Sequence[SnapshotRef], text: str) -> SnapshotRef:
    found = []
    if _ID.match(text):
        found = [ref for ref in refs if ref.id == text] or [
            ref for ref in refs if ref.id.startswith(text) or ref.short.startswith(text)
        ]
    if len(found) == 1:
        return found[0]
    if not found:
        newest = f"the newest is {refs[-1].id}" if refs else "there are none yet"
        raise UsageError(
            "no such snapshot", subject=text, remedy=f"{newest}; ACCOUNT@latest and ACCOUNT@2026-11-01T12:00 work too"
        )
    some = ", ".join(ref.id for ref in found[:_MOST_CANDIDATES])
    more = f" and {len(found) - _MOST_CANDIDATES:,} more" if len(found) > _MOST_CANDIDATES else ""
    raise UsageError(f"{len(found):,} snapshots begin so", subject=text, remedy=f"give more of it: {some}{more}")
