"""Objects that nobody can destroy, and what the bucket keeps of those that somebody did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from backupd.errors import ObjectMissing, StorageDenied, StorageError
from backupd.operations.doctor_bucket import check_bucket
from backupd.storage.s3 import S3Storage
from tests.support.seaweedfs import SeaweedFS

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)

Open = Callable[..., S3Storage]


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> str:
    return seaweedfs.bucket(locks=True)


@pytest.fixture
def locked(seaweedfs: SeaweedFS, bucket: str) -> Open:
    """The bucket, whose new objects are locked for ten days."""

    def opened(mode: str = "COMPLIANCE", **others: object) -> S3Storage:
        settings = seaweedfs.settings(lock_mode=mode, lock_seconds=10 * DAY.total_seconds())
        return S3Storage(f"s3://{bucket}/mail", settings, now=lambda: NOW, **others)  # type: ignore[arg-type]

    return opened


@pytest.mark.parametrize("mode", ["COMPLIANCE", "GOVERNANCE"])
@pytest.mark.parametrize("octets", [10, 11 << 20], ids=["whole", "in parts"])
def test_what_is_stored_is_locked_for_as_long_as_it_says(
    locked: Open, seaweedfs: SeaweedFS, bucket: str, mode: str, octets: int
) -> None:
    storage = locked(mode, part_octets=5 << 20)
    storage.put("packs/aa/x", [b"x" * octets])

    assert storage.locks is not None
    assert storage.locks.until("packs/aa/x") == NOW + 10 * DAY
    (version,) = storage.versions.list()
    with pytest.raises(Exception, match="AccessDenied"):
        seaweedfs.client().delete_object(Bucket=bucket, Key="mail/packs/aa/x", VersionId=version.id)
    assert storage.get("packs/aa/x") == b"x" * octets


def test_a_lock_is_made_longer_and_never_shorter(locked: Open) -> None:
    storage = locked()
    storage.put("index/a", [b"x"])
    locks = storage.locks
    assert locks is not None

    locks.extend("index/a", NOW + 20 * DAY)
    assert locks.until("index/a") == NOW + 20 * DAY
    locks.extend("index/a", NOW + 15 * DAY)  # it is locked for longer already
    assert locks.until("index/a") == NOW + 20 * DAY
    with pytest.raises(ObjectMissing):
        locks.extend("index/none", NOW + DAY)
    with pytest.raises(ObjectMissing):
        locks.until("index/none")


def test_who_may_not_lock_is_told(locked: Open, seaweedfs: SeaweedFS, bucket: str) -> None:
    locked().put("index/a", [b"x"])
    reader = seaweedfs.settings(
        access_key_id="reader-key", secret_access_key=lambda: "reader-secret", lock_mode="COMPLIANCE", lock_seconds=1e6
    )
    locks = S3Storage(f"s3://{bucket}/mail", reader).locks
    assert locks is not None
    with pytest.raises(StorageDenied):
        locks.extend("index/a", NOW + 100 * DAY)


def test_a_bucket_without_object_lock_is_not_taken_for_one(seaweedfs: SeaweedFS) -> None:
    settings = seaweedfs.settings(lock_mode="COMPLIANCE", lock_seconds=86400.0)
    storage = S3Storage(f"s3://{seaweedfs.bucket()}/mail", settings)
    with pytest.raises(StorageError, match="made with Object Lock"):
        storage.put("index/a", [b"x"])
    found = [(each.level, each.subject) for each in check_bucket(storage.url, lambda: storage.probe(NOW))]
    assert ("problem", "object lock") in found


def test_without_locks_there_are_none(seaweedfs: SeaweedFS, bucket: str) -> None:
    storage = S3Storage(f"s3://{bucket}/mail", seaweedfs.settings())
    storage.put("index/a", [b"x"])
    assert storage.locks is None


def test_what_was_replaced_and_removed_is_kept_in_a_bucket_with_versions(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket(versioned=True)
    storage = S3Storage(f"s3://{bucket}/mail", seaweedfs.settings(), page=2)
    for name in ("index/a", "index/b", "snapshots/x/y"):
        storage.put(name, [name.encode()])
    storage.replace("index/a", [b"damaged"])
    storage.delete("index/a")
    storage.delete("snapshots/x/y")
    storage.put("snapshots/x/y", [b"another"])

    found = [(each.name, each.latest, each.removal) for each in storage.versions.list()]
    assert found[0] == ("index/a", True, True)
    assert sorted(found[1:3]) == [("index/a", False, False)] * 2
    assert found[3] == ("index/b", True, False)
    assert found[4] == ("snapshots/x/y", True, False)
    assert sorted(found[5:]) == [("snapshots/x/y", False, False), ("snapshots/x/y", False, True)]
    index = [each for each in storage.versions.list("index/a") if not each.removal]
    assert sorted(map(storage.versions.get, index)) == [b"damaged", b"index/a"]
    with pytest.raises(ObjectMissing):
        storage.versions.get(index[0]._replace(id="00000000000000000000000000000000"))


def test_without_versions_there_is_only_what_is_there(seaweedfs: SeaweedFS) -> None:
    storage = S3Storage(f"s3://{seaweedfs.bucket()}/mail", seaweedfs.settings())
    storage.put("index/a", [b"a"])
    storage.put("index/b", [b"b"])
    storage.delete("index/b")
    (version,) = storage.versions.list()
    assert (version.name, version.size, version.latest, version.removal) == ("index/a", 1, True, False)
    assert storage.versions.get(version) == b"a"


# -- what doctor says of it --------------------------------------------------------------------------------------------


def findings(storage: S3Storage) -> list[str]:
    found = check_bucket(storage.url, lambda: storage.probe(NOW))
    return [f"{each.level}: {each.subject}: {each.what}" for each in found]


def test_doctor_calls_a_bucket_immutable_when_a_locked_object_could_not_be_removed(locked: Open) -> None:
    first, second = findings(locked())
    assert "(If-None-Match)" in first
    assert second.startswith("ok: object lock: the bucket is immutable")


def test_doctor_warns_of_credentials_that_may_bypass_the_lock(locked: Open) -> None:
    assert "warning: object lock: these credentials may bypass governance" in findings(locked("GOVERNANCE"))[1]


def test_doctor_leaves_nothing_that_it_may_remove(seaweedfs: SeaweedFS) -> None:
    storage = S3Storage(f"s3://{seaweedfs.bucket(versioned=True)}/mail", seaweedfs.settings())
    assert "ok: bucket: versions are kept" in findings(storage)[1]
    assert list(storage.list()) == []
    assert list(storage.versions.list()) == []


def test_doctor_warns_of_a_bucket_where_everything_can_be_destroyed(seaweedfs: SeaweedFS) -> None:
    storage = S3Storage(f"s3://{seaweedfs.bucket()}/mail", seaweedfs.settings())
    found = findings(storage)
    assert found[1:] == ["warning: bucket: whoever has credentials that may delete can destroy everything in it"], found


def test_doctor_says_when_it_may_not_try(seaweedfs: SeaweedFS, bucket: str) -> None:
    reader = seaweedfs.settings(access_key_id="reader-key", secret_access_key=lambda: "reader-secret")
    (found,) = findings(S3Storage(f"s3://{bucket}/mail", reader))
    assert found.startswith(f"warning: bucket: s3://{bucket}/mail could not be tried")
