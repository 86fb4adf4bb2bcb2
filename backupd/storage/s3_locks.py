"""S3 Object Lock: a version of an object that is locked can be removed by nobody until a time.

In the mode COMPLIANCE nobody at all can shorten a lock or remove what is locked. In the mode GOVERNANCE those can who
have the right s3:BypassGovernanceRetention. What a lock does not prevent is that a plain DELETE hides the object, and
that a PUT puts another version before it; the version that is locked stays, and repairs bring it back.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from backupd.errors import StorageDenied
from backupd.storage.s3_connection import Connection
from backupd.storage.s3_settings import S3Settings


def of_new_objects(settings: S3Settings, now: datetime) -> dict[str, Any]:
    """Parameters of a request that makes an object."""
    if settings.lock_mode is None:
        return {}
    until = now + timedelta(seconds=settings.lock_seconds)
    return {"ObjectLockMode": settings.lock_mode, "ObjectLockRetainUntilDate": until}


class ObjectLocks:
    """See `Locks`. prefix: of all keys, empty or ending with a slash."""

    def __init__(self, connection: Connection, bucket: str, prefix: str, mode: str, seconds: float) -> None:
        self._connection = connection
        self._bucket, self._prefix, self._mode, self._seconds = bucket, prefix, mode, seconds

    @classmethod
    def wanted(cls, connection: Connection, bucket: str, prefix: str, settings: S3Settings) -> ObjectLocks | None:
        """As the settings want them, if they do."""
        if settings.lock_mode is None:
            return None
        return cls(connection, bucket, prefix, settings.lock_mode, settings.lock_seconds)

    @property
    def seconds(self) -> float:
        """See Locks.seconds."""
        return self._seconds

    def extend(self, name: str, until: datetime) -> None:
        """See Locks.extend."""
        retention = {"Mode": self._mode, "RetainUntilDate": until}
        try:
            self._connection.call(
                lambda client: client.put_object_retention(
                    Bucket=self._bucket, Key=self._prefix + name, Retention=retention
                ),
                subject=name,
            )
        except StorageDenied:
            # Somebody else may have locked it for longer, which nobody may shorten.
            if (self.until(name) or datetime.min.replace(tzinfo=UTC)) < until:
                raise

    def until(self, name: str) -> datetime | None:
        """See Locks.until."""
        head = self._connection.call(
            lambda client: client.head_object(Bucket=self._bucket, Key=self._prefix + name), subject=name
        )
        until: datetime | None = head.get("ObjectLockRetainUntilDate")
        return until
