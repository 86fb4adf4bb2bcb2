"""What audits on this machine knew before: which bytes were proved when, and what objects were whose names prove
nothing.

It is kept in the state directory, and is a help and no proof: lost, it begins anew. What no key and no name tells, it
does: that a key slot is another than it was, that one is back that had been removed, that repository.json was swapped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from backupd.operations.audit_report import Finding, Level, Severity
from backupd.operations.audit_state import Seen
from backupd.operations.state import State
from backupd.repository import names

_ANOTHER = "if that is not your doing, somebody has tampered with the storage: compare it with a copy"


BYTES, CONTENT = KINDS = ("bytes", "content")
"""Ways to prove an object: that its bytes are what its name says, that its blobs are what their ids say."""

_IDENTITY = "id"

DRILLED = "drill"
"""That a stretch of a mailbox was restored, and came out right; not of an object, but of a name that the drill gives
it."""


class Memory:
    """The memory of one repository's audits. state: None where nothing is remembered."""

    def __init__(self, state: State | None, url: str, now: datetime | None = None) -> None:
        self._state, self._url, self._now = state, url, now or datetime.now(UTC)
        self._waiting: dict[str, list[str]] = {}
        self._proved: dict[str, set[str]] = {kind: set() for kind in (*KINDS, DRILLED)}

    @property
    def remembers(self) -> bool:
        """Whether anything is remembered at all."""
        return self._state is not None

    def proofs(self, kind: str) -> dict[str, float]:
        """When each object was last proved in this way, by this audit or one before."""
        before = self._state.proofs(self._url, kind) if self._state else {}
        return {**before, **dict.fromkeys(self._proved[kind], self._now.timestamp())}

    def prove(self, kind: str, name: str) -> None:
        """The object is proved; durable with the next `save`, which comes by itself now and then."""
        self._proved[kind].add(name)
        waiting = self._waiting.setdefault(kind, [])
        waiting.append(name)
        if len(waiting) >= 256:
            self.save()

    def save(self) -> None:
        """Make what was proved durable."""
        for kind, some in self._waiting.items():
            if self._state and some:
                self._state.prove(self._url, kind, some, self._now.timestamp())
        self._waiting.clear()

    def unprove(self, some: Iterable[str]) -> None:
        """These are damaged, or gone."""
        some = list(some)
        self.save()
        for proved in self._proved.values():
            proved.difference_update(some)
        if self._state:
            self._state.unprove(self._url, some)

    def compare(self, found: Mapping[str, str], identity: str | None) -> list[Finding]:
        """What the description and the key slots say, compared with what they said before.

        Args:
            found: digest of each that is there.
            identity: the repository's id, as a key has proved it; None without one.
        """
        if self._state is None:
            return []
        before = {each.object: each for each in self._state.seen(self._url)}
        known = before.pop(_IDENTITY, None)
        now = self._now.timestamp()
        if identity and known and known.digest != identity:
            # Another repository in the place of the one before; the key fits it.
            before = {}
            self._state.saw(self._url, [], anew=True)
        findings = [each for name, digest in found.items() if (each := _changed(before.get(name), digest))]
        for name, seen in before.items():
            if name not in found and not seen.gone:
                severity, what = Severity.NOTE, "the key slot was there at the last audit, and is gone"
                if name == names.DESCRIPTION:
                    severity, what = Severity.CRITICAL, "it was there at the last audit, and is gone"
                findings.append(Finding(severity, Level.STORAGE, name, what, _ANOTHER))
        remembered = [Seen(name, digest, now, False) for name, digest in found.items() if name not in before]
        remembered += [
            Seen(each.object, each.digest, each.time, True)
            for name, each in before.items()
            if name not in found and not each.gone and name != names.DESCRIPTION
        ]
        if identity:
            remembered.append(Seen(_IDENTITY, identity, now, False))
        self._state.saw(self._url, remembered)
        return findings

    def gone(self, there: Iterable[str]) -> set[str]:
        """Objects that were proved once, and are not there any more. They are forgotten with that."""
        known = {name for kind in KINDS for name in self.proofs(kind)}
        gone = known.difference(there)
        self.unprove(gone)
        return gone


def _changed(seen: Seen | None, digest: str) -> Finding | None:
    if seen is None:
        return None
    when = datetime.fromtimestamp(seen.time, UTC).isoformat(sep=" ", timespec="minutes")[:16]
    if seen.digest != digest:
        what = f"it is not what it was at an audit of {when} UTC, and nothing ever changes it"
        return Finding(Severity.CRITICAL, Level.STORAGE, seen.object, what, _ANOTHER)
    if seen.gone:
        what = "this key slot had been removed, and is there again: what it opened, it opens"
        return Finding(Severity.WARNING, Level.STORAGE, seen.object, what, "`backupd key remove` revokes it")
    return None
