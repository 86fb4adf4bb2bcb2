"""What a repair makes of a harm, with one thing at hand: a copy, parity, or the mail server; and the truth about it.

The truth is found as in damaged.py, by restoring every message. A repair that says nothing stays lost, when something
does, has failed; and so has one after which less can be restored than before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from backupd.errors import BackupdError
from backupd.operations.audit_source import Servers
from backupd.operations.repair import repair
from backupd.operations.selection import Selection
from backupd.repository import names
from backupd.repository.parity_storage import has_parity
from backupd.repository.repository import Repository, unlock
from backupd.storage.base import Storage
from bench.damaged import ACCOUNTS, KINDS, NOON, OBJECTS, PASSPHRASE, Harm, Place, Repo, encoded, readable

COPY, FIVE, TEN, SERVER = HELPS = ("a copy", "parity of 5 %", "parity of 10 %", "the mail server")


class Healing(NamedTuple):
    """What a repair made of a harm. healed: all can be restored that could be before the harm. back: messages that
    could not be restored, and can now; of `lost`. wrong: what the repair should not have done; empty for nothing."""

    help: str
    healed: bool
    back: int
    lost: int
    wrong: str


def heal(made: Repo, harmed: Harm, whole: frozenset[Place], left: set[Place], help_: str) -> Healing:
    """Repair what was harmed. whole, left: what could be restored before the harm, and after it."""
    storage = made.open(harmed.objects)
    if help_ in (FIVE, TEN):
        storage.objects |= _parity(made, 5 if help_ == FIVE else 10)
    copies = []
    if help_ == COPY:
        copies = [made.open(made.objects)]
        copies[0].url = "memory:copy"

    def opened(where: Storage) -> Repository:
        return Repository(where, unlock(where, PASSPHRASE))

    servers = Servers(made.accounts.get, lambda _name: None, lambda _name: Selection())
    try:
        report = repair(
            storage, copies, opened, accounts=ACCOUNTS, servers=servers if help_ == SERVER else None,
            removed_since=NOON if harmed.kind == "removed" else None,
        )  # fmt: skip
        is_whole = report.is_whole
    except BackupdError:
        is_whole = False
    try:
        after = set(readable(made, storage.objects))
    except BackupdError:
        after = set()
    wrong = ""
    if worse := left - after:
        wrong = f"{len(worse)} messages could be restored before the repair, and cannot now"
    # Nobody can miss a snapshot that is gone.
    missed = {place for place in whole - after if place[0] in harmed.objects}
    if is_whole and missed:
        wrong = f"nothing is said to stay lost, and {len(missed)} messages are"
    return Healing(help_, whole <= after, len((whole - left) & after), len(whole - left), wrong)


def _parity(made: Repo, per_cent: int) -> dict[str, bytes]:
    return {
        names.parity(name): encoded(name, data, per_cent) for name, data in made.objects.items() if has_parity(name)
    }


class Outcome(NamedTuple):
    """Of one harm: what was harmed, and what each repair made of it; empty where it was not tried."""

    object: str
    kind: str
    healings: Sequence[Healing]


def table(found: Iterable[Outcome]) -> str:
    """A row for each object and harm that cost something: how many of them each repair made whole again, and what share
    of the lost messages came back."""
    costly = [each for each in found if any(one.lost for one in each.healings)]
    lines = [f"| object | harm | cost mail | {' | '.join(HELPS)} |", "|---|---|---:|" + "---:|" * len(HELPS)]
    for sort in OBJECTS:
        for kind in KINDS:
            lines += _row(sort, kind, [each for each in costly if (each.object, each.kind) == (sort, kind)])
        lines += _row(sort, "all", [each for each in costly if each.object == sort])
    lines += _row("all", "all", costly)
    return "\n".join(lines) + "\n"


def _row(sort: str, kind: str, own: Sequence[Outcome]) -> list[str]:
    cells = (_cell([one for each in own for one in each.healings if one.help == help_]) for help_ in HELPS)
    return [f"| {sort} | {kind} | {len(own):,} | {' | '.join(cells)} |"] if own else []


def _cell(some: Sequence[Healing]) -> str:
    healed, back, lost = sum(one.healed for one in some), sum(one.back for one in some), sum(one.lost for one in some)
    if healed == len(some):
        return "all"
    if not back:
        return "none"
    return f"{healed:,} of {len(some):,} ({100 * back / lost:.0f} %)"
