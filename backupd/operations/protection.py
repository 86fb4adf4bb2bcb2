"""What keeps snapshots whatever the rules say: holds, and the tripwire's pins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from backupd.operations.facts import Known
from backupd.repository import holds
from backupd.repository.holds import Held
from backupd.repository.repository import Repository


class Protection:
    """What is known of holds, and of losses that were accepted, at one time."""

    def __init__(self, repository: Repository, now: datetime) -> None:
        """Raises Damaged when a hold cannot be read."""
        self._holds = holds.read(repository)
        self._tag, self._now = repository.secrets.account_tag, now

    def reasons(self, snapshots: Sequence[Known]) -> dict[str, list[str]]:
        """By id, what keeps these snapshots, which are all that there are of their accounts."""
        found = pins(snapshots, self._holds.accepted)
        active = [(one, self._tag(one.hold.account)) for one in self._holds.active(self._now)]
        for each in snapshots:
            for one, tag in active:
                # By the tag: a hold on all of an account is one on what cannot be read, too.
                if (one.hold.snapshot is None and tag == each.ref.tag) or one.hold.snapshot == each.ref.id:
                    found.setdefault(each.ref.id, []).append(told(one))
        return found


def told(held: Held) -> str:
    """A hold as a reason."""
    until = f" until {datetime.fromisoformat(held.hold.until):%Y-%m-%d %H:%M}" if held.hold.until else ""
    return f"hold {held.id[-8:]}{until}: {held.hold.reason}"


def pins(snapshots: Iterable[Known], accepted: frozenset[str]) -> dict[str, list[str]]:
    """By id, why the tripwire keeps snapshots: those that still have what was lost, and those that tell of the loss,
    until somebody accepts it. accepted: ids of snapshots whose losses are."""
    every = list(snapshots)
    there = {each.ref.id for each in every}
    found: dict[str, list[str]] = {}
    for each in every:
        if each.facts is None or each.ref.id in accepted:
            continue
        pinned = {loss.pinned for loss in each.facts.losses} & there
        for one in sorted(pinned):
            found.setdefault(one, []).append(f"pinned by the tripwire since {each.ref.time:%Y-%m-%d %H:%M}")
        if pinned:
            shown = ", ".join(one[-8:] for one in sorted(pinned))
            found.setdefault(each.ref.id, []).append(f"tells why {shown} is pinned")
    return found
