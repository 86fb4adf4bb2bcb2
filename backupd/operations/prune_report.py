"""What a prune did, or would do."""

from __future__ import annotations

from datetime import datetime

import msgspec


class PruneReport(msgspec.Struct, frozen=True):
    """What a prune did, or would do.

    packs, octets: small packs that were joined, and their octets. repacked, repacked_octets: packs that were needed in
    part. moved: octets of blocks that were moved out of both; into: new packs they are in. unneeded, unneeded_octets:
    packs of which no snapshot needs anything. leftovers: of them, those that no index object tells of. marked: objects
    that became superfluous, and are removed after the grace period; marked_octets: of the packs among them.

    removed, freed: objects, and octets, that were removed now. waiting: marked objects that are not old enough, or that
    a lock keeps until `locked_until`. needed: objects that had been marked and are needed.

    unused: octets of blocks that nobody needs, in packs that stay. beside: octets, before compression, of blobs that
    nobody needs in blocks that stay, or were moved. over: unused is more than was allowed, since no more may be moved.
    damaged: packs that are not what their names say. hindrances: why not all was removed that no snapshot needs.
    """

    repository: str
    dry_run: bool
    snapshots: int
    packs: int
    octets: int
    repacked: int
    repacked_octets: int
    moved: int
    into: int
    unneeded: int
    unneeded_octets: int
    leftovers: int
    marked: int
    marked_octets: int
    removed: int
    freed: int
    waiting: int
    locked_until: datetime | None
    needed: list[str]
    unused: int
    beside: int
    over: bool
    damaged: list[str]
    hindrances: list[str]


def together(first: PruneReport, second: PruneReport) -> PruneReport:
    """Of two that followed each other at once: the second removed what the first marked."""
    return msgspec.structs.replace(
        first,
        removed=first.removed + second.removed,
        freed=first.freed + second.freed,
        marked=second.marked,
        waiting=second.waiting,
        locked_until=second.locked_until,
        needed=sorted({*first.needed, *second.needed}),
    )
