"""What `backupd doctor` says of a bucket: whether anybody can replace or destroy what is stored in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from backupd.errors import BackupdError, StorageDenied
from backupd.operations.finding import Finding, of_error
from backupd.storage.s3_probe import BucketFacts, LockFacts


def check_bucket(url: str, probe: Callable[[], BucketFacts]) -> Iterator[Finding]:
    """What the bucket did when it was tried. It is called immutable only if a locked object could not be removed."""
    try:
        facts = probe()
    except StorageDenied as error:
        yield Finding(
            "warning",
            "bucket",
            f"{url} could not be tried: {error.what}",
            "these credentials need to store below probe/, see `backupd s3-policy`",
        )
        return
    except BackupdError as error:
        yield of_error("bucket", error)
        return
    if facts.conditional:
        yield Finding("ok", "bucket", f"{url} keeps objects from being overwritten (If-None-Match)")
    else:
        yield Finding(
            "ok", "bucket", f"{url} does not know If-None-Match: each object is looked for before it is stored"
        )
    if isinstance(facts.lock, LockFacts):
        yield _of_lock(facts.lock)
    elif facts.lock:
        yield of_error("object lock", facts.lock)
    else:
        yield from _without_locks(facts)


def _of_lock(lock: LockFacts) -> Finding:
    wrong = ""
    if lock.removed:
        wrong = "a locked object could be removed: the bucket is not immutable"
    elif not lock.locked:
        wrong = "the bucket stores objects without the lock that was asked for: it is not immutable"
    elif lock.shortened:
        wrong = "the time of a lock could be shortened: the bucket is not immutable"
    if wrong:
        return Finding("problem", "object lock", wrong, "use a bucket of a service that honours Object Lock")
    if lock.bypassed:
        return Finding(
            "warning",
            "object lock",
            "these credentials may bypass governance: whoever has them can destroy everything",
            "take the right s3:BypassGovernanceRetention from them, or use mode: compliance",
        )
    if not lock.may_remove:
        return Finding(
            "ok",
            "object lock",
            "objects are locked; these credentials may remove none anyway, so it was not tried whether the lock holds "
            "against others",
        )
    return Finding(
        "ok", "object lock", "the bucket is immutable: a locked object could not be removed, nor its lock shortened"
    )


def _without_locks(facts: BucketFacts) -> Iterator[Finding]:
    if facts.versioned:
        yield Finding("ok", "bucket", "versions are kept: what is removed or replaced can be brought back for as long")
    elif facts.versioned is False:
        yield Finding(
            "warning",
            "bucket",
            "whoever has credentials that may delete can destroy everything in it",
            "turn versioning on, or use object_lock; and give backups a writer's rights only (`backupd s3-policy`)",
        )
