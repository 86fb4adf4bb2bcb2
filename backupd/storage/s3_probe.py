"""What a bucket really does, found by trying, since services say yes to what they do not do.

Small objects below probe/ are stored for that, locked ones for an hour. What these credentials may remove is removed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from operator import methodcaller
from typing import Any, Final

import msgspec

from backupd.errors import BackupdError, StorageDenied, StorageError, StorageUnavailable
from backupd.storage import s3_errors
from backupd.storage.s3_connection import Connection
from backupd.storage.s3_settings import S3Settings
from backupd.storage.s3_upload import encoded, parts_of

_PROBES: Final = "probe/"
_BODY: Final = b"stored by backupd doctor; of no use any more\n"
_LOCKED: Final = timedelta(hours=1)  # more than clocks may be apart
_HALF: Final = timedelta(minutes=30)


class LockFacts(msgspec.Struct, frozen=True):
    """What came of a locked object.

    locked: the service says that it is. removed: it could be removed all the same. shortened: its lock could be made
    shorter. bypassed: it could be removed by bypassing the lock's mode GOVERNANCE. may_remove: these credentials may
    remove versions that are not locked, so that it was the lock that kept it.
    """

    locked: bool
    removed: bool
    shortened: bool
    bypassed: bool
    may_remove: bool


class BucketFacts(msgspec.Struct, frozen=True):
    """conditional: `If-None-Match` keeps objects from being replaced. versioned: None where it is not told. lock: None
    where no locks are wanted; an error, where it could not be tried.
    """

    conditional: bool
    versioned: bool | None
    lock: LockFacts | BackupdError | None


def probe(connection: Connection, bucket: str, prefix: str, settings: S3Settings, now: datetime) -> BucketFacts:
    """Try it. Raises StorageDenied where these credentials may not store anything, and other errors of the storage."""
    return _Probe(connection, bucket, prefix, settings, now).run()


class _Probe:
    def __init__(
        self, connection: Connection, bucket: str, prefix: str, settings: S3Settings, now: datetime
    ) -> None:
        self._connection, self._bucket, self._prefix = connection, bucket, prefix
        self._settings, self._now = settings, now

    def run(self) -> BucketFacts:
        conditional = self._conditional()
        lock: LockFacts | BackupdError | None = None
        if self._settings.lock_mode:
            try:
                lock = self._lock(self._settings.lock_mode)
            except StorageError as error:
                lock = error
        self._clean()
        return BucketFacts(conditional, self._versioned(), lock)

    def _call(self, work: Callable[[Any], Any]) -> Any:
        return self._connection.call(work, subject=_PROBES)

    def _conditional(self) -> bool:
        """Whether the second of two equal objects is refused."""
        key = f"{self._prefix}{_PROBES}conditional"
        try:
            for _ in range(2):
                self._connection.call(
                    lambda client: client.put_object(**self._object(key), IfNoneMatch="*"),
                    subject=_PROBES,
                    expected=lambda error: s3_errors.is_taken(error) or s3_errors.knows_no_condition(error),
                )
        except Exception as error:
            if s3_errors.is_taken(error):
                return True
            if s3_errors.knows_no_condition(error):
                return False
            raise
        return False

    def _lock(self, mode: str) -> LockFacts:
        key = f"{self._prefix}{_PROBES}{os.urandom(8).hex()}"
        until = self._now + _LOCKED
        parameters = {"ObjectLockMode": mode, "ObjectLockRetainUntilDate": until}
        stored = self._call(lambda client: client.put_object(**self._object(key), IfNoneMatch="*", **parameters))
        version = {"Bucket": self._bucket, "Key": key, "VersionId": stored.get("VersionId", "null")}
        found = self._call(lambda client: client.head_object(**version))
        locked = found.get("ObjectLockMode") == mode and found.get("ObjectLockRetainUntilDate", self._now) > self._now
        shorter = {"Mode": mode, "RetainUntilDate": self._now + _HALF}
        shortened = locked and self._succeeds(lambda client: client.put_object_retention(**version, Retention=shorter))
        may_remove = self._may_remove(key)
        removed = self._succeeds(lambda client: client.delete_object(**version)) and self._is_gone(version)
        bypassed = False
        if not removed and mode == "GOVERNANCE":
            bypass = {**version, "BypassGovernanceRetention": True}
            bypassed = self._succeeds(lambda client: client.delete_object(**bypass)) and self._is_gone(version)
        return LockFacts(locked, removed, shortened, bypassed, may_remove)

    def _may_remove(self, key: str) -> bool:
        """Whether versions may be removed: tried on the mark that a plain removal leaves, which is never locked."""
        place = {"Bucket": self._bucket, "Key": key}
        try:
            mark = self._call(lambda client: client.delete_object(**place))
        except StorageDenied:
            return False
        if not mark.get("DeleteMarker"):
            return True
        return self._succeeds(lambda client: client.delete_object(**place, VersionId=mark["VersionId"]))

    def _is_gone(self, version: dict[str, str]) -> bool:
        """Some services say that they have removed what is there as before."""
        return not self._succeeds(lambda client: client.head_object(**version))

    def _succeeds(self, work: Callable[[Any], Any]) -> bool:
        """False where the service refuses; it may say so in many ways. Raises StorageUnavailable."""
        try:
            self._call(work)
        except StorageError as error:
            if isinstance(error, StorageUnavailable):
                raise
            return False
        return True

    def _versioned(self) -> bool | None:
        try:
            answer = self._call(lambda client: client.get_bucket_versioning(Bucket=self._bucket))
        except StorageError:  # these credentials need not be allowed to ask
            return None
        return bool(answer.get("Status") == "Enabled")

    def _clean(self) -> None:
        """Remove the probes there are; what is locked, or may not be removed, is left for another time."""
        place = {"Bucket": self._bucket, "Prefix": f"{self._prefix}{_PROBES}"}
        with suppress(StorageError):
            page = self._call(lambda client: client.list_object_versions(**place))
            for each in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                version = {"Bucket": self._bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
                with suppress(StorageDenied):
                    self._call(methodcaller("delete_object", **version))

    def _object(self, key: str) -> dict[str, Any]:
        digest = encoded(parts_of([_BODY], len(_BODY))[0].sha256())
        return {
            "Bucket": self._bucket, "Key": key, "Body": _BODY, "ChecksumSHA256": digest,
            **self._settings.of_new_objects(),
        }  # fmt: skip
