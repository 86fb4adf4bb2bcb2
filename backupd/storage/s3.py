"""Objects in a bucket of an S3 service, below a prefix.

`If-None-Match: *` keeps an object from being overwritten. Services differ there: some refuse the condition, some ignore
it without a word. So the first small object this process stores is put twice, the same bytes: a service that takes the
second has ignored the condition. As long as that is not known, and wherever the condition does not hold, the object is
looked for first. In between another writer may be quicker; names say what is in almost every object, so what is
overwritten then is the same bytes.

Objects above 16 MiB go in parts. They are always looked for first, to save sending them in vain, and because some
services know the condition only for objects in one piece.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from operator import methodcaller
from typing import Any, Final

from backupd.errors import Damaged, ObjectExists, ObjectMissing, StorageError, StorageFull, StorageUnavailable
from backupd.storage import s3_errors, s3_locks, s3_probe, s3_settings
from backupd.storage.base import NAME, Buffer, ObjectInfo, Requests
from backupd.storage.s3_connection import Clock, Connection
from backupd.storage.s3_locks import ObjectLocks
from backupd.storage.s3_probe import BucketFacts
from backupd.storage.s3_settings import S3Settings
from backupd.storage.s3_upload import Body, Uploader, encoded, has_no_upload, parts_of
from backupd.storage.s3_versions import ObjectVersions

PART_OCTETS: Final = 16 << 20
_PROOF_OCTETS: Final = 256 << 10  # objects up to here are put twice to see what the service does
_PAGE: Final = 1000  # the most that services give
_COMPARE_OCTETS: Final = 1 << 20
_MISMATCHES: Final = 3  # in a row are no accident of the network
_CONDITION: Final = {"IfNoneMatch": "*"}


class S3Storage:
    """A bucket, which must be there. Thread-safe; boto3 is imported at the first call.

    part_octets: objects above it go in parts of this size (Amazon takes 5 MiB or more). page: names in one answer.
    now: from which locks are counted.
    """

    def __init__(
        self,
        url: str,
        settings: S3Settings,
        *,
        clock: Clock | None = None,
        part_octets: int = PART_OCTETS,
        page: int = _PAGE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._bucket, self._prefix = s3_settings.parse(url)
        self._settings = settings
        self._url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._connection = Connection(settings, self._url, clock=clock)
        self._uploader = Uploader(self._connection, self._bucket, lambda: _of_new_objects(settings, now()))
        self._versions = ObjectVersions(self._connection, self._bucket, self._prefix, page)
        self._locks = ObjectLocks.wanted(self._connection, self._bucket, self._prefix, settings)
        self._part_octets, self._page = part_octets, page
        self._lock = threading.Lock()
        self._conditional: bool | None = None
        self._tidied = False

    @property
    def url(self) -> str:
        """s3://bucket/prefix"""
        return self._url

    @property
    def requests(self) -> Requests:
        """See Storage.requests."""
        return self._connection.requests

    @property
    def versions(self) -> ObjectVersions:
        """What the bucket has kept, if it keeps any."""
        return self._versions

    @property
    def locks(self) -> ObjectLocks | None:
        """Object Lock, if it is wanted."""
        return self._locks

    @property
    def conditional(self) -> bool | None:
        """Whether the service keeps objects from being overwritten; None while nothing was put that shows it."""
        return self._conditional

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.put."""
        key = self._key(name)
        parts = parts_of(data, self._part_octets)
        proves = self._conditional is None and len(parts) == 1 and len(parts[0]) <= _PROOF_OCTETS
        if not (self._conditional and len(parts) == 1) and self._is_there(name, data, parts):
            return
        if not self._send(key, name, parts):
            if not self._is_there(name, data, parts):
                raise StorageUnavailable(
                    "the object was there and is gone again", subject=self._subject(name), remedy="run it again"
                )
        elif proves:
            self._prove(key, name, parts[0])

    def replace(self, name: str, data: Sequence[Buffer]) -> None:
        """See Storage.replace."""
        key = self._key(name)
        parts = parts_of(data, self._part_octets)
        if len(parts) == 1:
            self._uploader.whole(key, name, parts[0], {})
        else:
            self._uploader.in_parts(key, name, parts, {})

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See Storage.get."""
        key = self._key(name)
        if length == 0 or (length is None and offset and offset >= self.size(name)):
            return self._nothing(name, offset)
        wanted: dict[str, Any] = {"Bucket": self._bucket, "Key": key}
        if offset or length is not None:
            wanted["Range"] = f"bytes={offset}-" if length is None else f"bytes={offset}-{offset + length - 1}"
        else:
            wanted["ChecksumMode"] = "ENABLED"

        mismatches = 0

        def get(client: Any) -> bytes:
            nonlocal mismatches
            answer = client.get_object(**wanted)
            body = answer["Body"]
            try:
                s3_errors.answered(answer, "ETag", "ContentLength")
                if "Range" in wanted and not answer.get("ContentRange", "").startswith(f"bytes {offset}-"):
                    raise StorageError("the service ignores ranges", subject=self._subject(name))
                if length is not None and answer["ContentLength"] != length:
                    raise self._too_short(name)
                return bytes(body.read())  # all of it, and of the right checksum, or an error
            except Exception as error:
                mismatches += s3_errors.is_mismatch(error)
                if mismatches < _MISMATCHES:
                    raise
                raise Damaged("the object does not match its checksum", subject=self._subject(name)) from error
            finally:
                body.close()

        try:
            return self._connection.call(get, subject=name, expected=_is_beyond)
        except Exception as error:
            if _is_beyond(error):
                raise self._too_short(name) from error
            raise

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See Storage.list."""
        return _in_order(self._listed(prefix), prefix)

    def size(self, name: str) -> int:
        """See Storage.size."""
        try:
            return int(self._head(name)["ContentLength"])
        except ObjectMissing:
            self._look(name)  # or is it the bucket that is missing?
            raise

    def delete(self, name: str) -> None:
        """See Storage.delete."""
        key = self._key(name)
        with suppress(ObjectMissing):
            self._connection.call(lambda client: client.delete_object(Bucket=self._bucket, Key=key), subject=name)

    def clean(self, now: datetime | None = None) -> int:
        """Remove unfinished uploads older than a day, which only a killed process leaves; how many."""
        return self._uploader.clean(self._prefix, now)

    def probe(self, now: datetime) -> BucketFacts:
        """Try what the bucket does; stores small objects for that. See s3_probe.py."""
        return s3_probe.probe(self._connection, self._bucket, self._prefix, self._settings, now)

    # -- writing -------------------------------------------------------------------------------------------------------

    def _send(self, key: str, name: str, parts: Sequence[Body]) -> bool:
        """Store it; False if there is an object of this name."""
        condition = {} if self._conditional is False else _CONDITION
        try:
            if len(parts) == 1:
                self._uploader.whole(key, name, parts[0], condition)
            else:
                self._tidy()
                self._uploader.in_parts(key, name, parts, condition)
        except Exception as error:
            # No upload any more: it was completed, and the answer was lost.
            if s3_errors.is_taken(error) or has_no_upload(error):
                self._conditional = True if s3_errors.is_taken(error) and len(parts) == 1 else self._conditional
                return False
            if not (condition and s3_errors.knows_no_condition(error)):
                raise
            self._conditional = False
            if self._exists(name):
                return False
            return self._send(key, name, parts)
        return True

    def _prove(self, key: str, name: str, body: Body) -> None:
        """Put what has just been put: a service that takes it does not heed the condition."""
        with self._lock:
            if self._conditional is None:
                try:
                    self._uploader.whole(key, name, body, _CONDITION)
                except Exception as error:
                    if not s3_errors.is_taken(error):
                        raise
                    self._conditional = True
                else:
                    self._conditional = False

    def _is_there(self, name: str, data: Sequence[Buffer], parts: Sequence[Body]) -> bool:
        """Whether these bytes are stored under this name. Raises ObjectExists if others are."""
        try:
            head = self._head(name, ChecksumMode="ENABLED")
            same = head["ContentLength"] == sum(map(len, parts)) and self._has(name, head, data, parts)
        except ObjectMissing:
            return False
        if not same:
            raise ObjectExists("there is another object of this name", subject=self._subject(name))
        return True

    def _has(self, name: str, head: dict[str, Any], data: Sequence[Buffer], parts: Sequence[Body]) -> bool:
        """Whether an object of the same size has these bytes: by its checksum, or by reading it."""
        digests = [part.sha256() for part in parts]
        whole = encoded(digests[0]) if len(parts) == 1 else encoded(Body(data).sha256())
        in_parts = f"{encoded(hashlib.sha256(b''.join(digests)).digest())}-{len(parts)}"
        if head.get("ChecksumSHA256") in (whole, in_parts):
            return True
        key = self._key(name)

        def read(client: Any) -> bytes:
            digest = hashlib.sha256()
            body = s3_errors.answered(client.get_object(Bucket=self._bucket, Key=key), "ETag")["Body"]
            try:
                while some := body.read(_COMPARE_OCTETS):
                    digest.update(some)
            finally:
                body.close()
            return digest.digest()

        return encoded(self._connection.call(read, subject=name)) == whole

    def _tidy(self) -> None:
        """Before the first upload in parts, remove what killed processes left. It may fail: others can clean."""
        if not self._tidied:
            self._tidied = True
            with suppress(StorageError):
                self.clean()

    # -- reading -------------------------------------------------------------------------------------------------------

    def _head(self, name: str, **parameters: str) -> dict[str, Any]:
        wanted = {"Bucket": self._bucket, "Key": self._key(name), **parameters}

        def head(client: Any) -> dict[str, Any]:
            return s3_errors.answered(client.head_object(**wanted), "ETag", "ContentLength")

        try:
            return self._connection.call(head, subject=name)
        except (ObjectMissing, StorageFull, StorageUnavailable):
            raise
        except StorageError:
            self._look(name)  # which fails with the reason, or renews what has expired
            return self._connection.call(head, subject=name)

    def _look(self, name: str) -> None:
        """What HEAD is asked, in a way that can be answered with a reason: an answer to HEAD has no body."""
        wanted = {"Bucket": self._bucket, "Prefix": self._key(name), "MaxKeys": 1}
        self._connection.call(methodcaller("list_objects_v2", **wanted), subject=name)

    def _exists(self, name: str) -> bool:
        try:
            self._head(name)
        except ObjectMissing:
            return False
        return True

    def _nothing(self, name: str, offset: int) -> bytes:
        """No bytes, from where there may be some: no range can say that."""
        if offset > self.size(name):
            raise self._too_short(name)
        return b""

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        more: dict[str, str] = {}
        while True:
            wanted = {"Bucket": self._bucket, "Prefix": self._prefix + prefix, "MaxKeys": self._page, **more}
            page = self._connection.call(partial(_page, wanted))
            for each in page.get("Contents", []):
                name = each["Key"].removeprefix(self._prefix)
                if name.startswith(prefix) and NAME.match(name):
                    yield ObjectInfo(name, each["Size"], each["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page.get("NextContinuationToken", "")}
            if following in (more, {"ContinuationToken": ""}):
                raise StorageError("the service does not go on with a listing", subject=self._url)
            more = following

    def _key(self, name: str) -> str:
        if not NAME.match(name):
            raise StorageError("not a name for an object", subject=repr(name))
        return self._prefix + name

    def _subject(self, name: str) -> str:
        return f"{self._url}: {name}"

    def _too_short(self, name: str) -> Damaged:
        return Damaged("the object is shorter than it should be", subject=self._subject(name))


def _of_new_objects(settings: S3Settings, now: datetime) -> dict[str, Any]:
    return {**settings.of_new_objects(), **s3_locks.of_new_objects(settings, now)}


def _page(wanted: dict[str, Any], client: Any) -> dict[str, Any]:
    return s3_errors.answered(client.list_objects_v2(**wanted), "IsTruncated")


def _is_beyond(error: Exception) -> bool:
    return s3_errors.code_of(error) == "InvalidRange" or s3_errors.status_of(error) == 416


def _in_order(listed: Iterable[ObjectInfo], prefix: str) -> Iterator[ObjectInfo]:
    """In the order of names. Amazon lists so; services that keep folders list packs/x before packs-other.

    What such a service has put too early is one folder at a time, so no more than that is held back.
    """
    held: list[ObjectInfo] = []
    first = ""
    for info in listed:
        # Of the names that follow, those that sort before the held ones begin with the first segment too.
        if held and (not info.name.startswith(first) or info.name[len(first) : len(first) + 1] > "/"):
            yield from sorted(held)
            held.clear()
        if not held:
            end = info.name.find("/", len(prefix))
            first = info.name[:end] if end >= 0 else info.name
        held.append(info)
    yield from sorted(held)
