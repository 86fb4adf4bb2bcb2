"""What a bucket with versioning has kept of objects that were replaced or removed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from backupd.storage import s3_errors
from backupd.storage.base import NAME, Version
from backupd.storage.s3_connection import Connection


class ObjectVersions:
    """See `Versions`. prefix: of all keys, empty or ending with a slash. page: versions in one answer."""

    def __init__(self, connection: Connection, bucket: str, prefix: str, page: int) -> None:
        self._connection = connection
        self._bucket, self._prefix, self._page = bucket, prefix, page

    def list(self, prefix: str = "") -> Iterator[Version]:
        """See Versions.list."""
        more: dict[str, str] = {}
        while True:
            wanted = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, "MaxKeys": self._page, **more}
            page = self._connection.call(partial(_page, wanted))
            found = [*map(self._version, page.get("Versions", [])), *map(self._removal, page.get("DeleteMarkers", []))]
            # Each of the two is in this order already. Of the same second, the latest one is said to be it.
            found.sort(key=lambda each: (each.name, not each.latest, -each.stored))
            yield from (each for each in found if NAME.match(each.name))
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"]}
            if marker := page.get("NextVersionIdMarker"):
                more["VersionIdMarker"] = marker

    def get(self, version: Version) -> bytes:
        """See Versions.get."""
        wanted = {"Bucket": self._bucket, "Key": self._prefix + version.name, "VersionId": version.id}

        def get(client: Any) -> bytes:
            body = client.get_object(**wanted, ChecksumMode="ENABLED")["Body"]
            try:
                return bytes(body.read())
            finally:
                body.close()

        return self._connection.call(get, subject=version.name)

    def _version(self, each: dict[str, Any]) -> Version:
        name, stored = each["Key"].removeprefix(self._prefix), each["LastModified"].timestamp()
        return Version(name, each["VersionId"], each["Size"], stored, each["IsLatest"], removal=False)

    def _removal(self, each: dict[str, Any]) -> Version:
        name, stored = each["Key"].removeprefix(self._prefix), each["LastModified"].timestamp()
        return Version(name, each["VersionId"], 0, stored, each["IsLatest"], removal=True)


def _page(wanted: dict[str, Any], client: Any) -> dict[str, Any]:
    return s3_errors.answered(client.list_object_versions(**wanted), "IsTruncated")
