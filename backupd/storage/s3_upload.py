"""Sending an object in one request or in parts, each with its SHA-256, and none of it over an object that is there.

The buffers are sent as they are: nothing joins them to a copy.
"""

from __future__ import annotations

import base64
import hashlib
import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from operator import methodcaller
from typing import Any, Final

from backupd.errors import StorageError
from backupd.storage import s3_errors
from backupd.storage.base import Buffer
from backupd.storage.s3_connection import Connection

ABANDONED: Final = timedelta(days=1)
_PARTS_AT_ONCE: Final = 4


class Body(io.RawIOBase):
    """Buffers as a file to read from, or `length` octets of them from `start`."""

    def __init__(self, data: Sequence[Buffer], start: int = 0, length: int | None = None) -> None:
        self._views = [memoryview(each).cast("B") for each in data if len(each)]
        self._starts = [0, *accumulate(len(view) for view in self._views)]
        self._start = start
        self._length = self._starts[-1] - start if length is None else length
        self._at = 0

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes: boto3 begins again when a request failed."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.IOBase.seek."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """See io.RawIOBase.readinto."""
        into = memoryview(buffer).cast("B")
        done = 0
        while done < len(into) and self._at < self._length:
            place = self._start + self._at
            number = bisect_right(self._starts, place) - 1
            begin = place - self._starts[number]
            some = self._views[number][begin : begin + min(len(into) - done, self._length - self._at)]
            into[done : done + len(some)] = some
            done += len(some)
            self._at += len(some)
        return done

    def sha256(self) -> bytes:
        """Digest of it all; the next read begins where the last one ended."""
        digest = hashlib.sha256()
        end = self._start + self._length
        for begin, view in zip(self._starts, self._views, strict=False):
            if begin < end and begin + len(view) > self._start:
                digest.update(view[max(0, self._start - begin) : end - begin])
        return digest.digest()


def parts_of(data: Sequence[Buffer], octets: int) -> list[Body]:
    """Bodies of at most so many octets; one, empty, for nothing."""
    total = sum(len(each) for each in data)
    return [Body(data, start, min(octets, total - start)) for start in range(0, total, octets)] or [Body(data)]


def encoded(digest: bytes) -> str:
    """As S3 writes digests."""
    return base64.b64encode(digest).decode("ascii")


class Uploader:
    """Puts objects into one bucket.

    of_new_objects: parameters of a request that makes an object now.
    """

    def __init__(self, connection: Connection, bucket: str, of_new_objects: Callable[[], dict[str, Any]]) -> None:
        self._connection = connection
        self._bucket = bucket
        self._of_new_objects = of_new_objects

    def whole(self, key: str, name: str, body: Body, condition: dict[str, str]) -> None:
        """One request. Lets boto3's errors about the condition through."""
        parameters = {
            "Bucket": self._bucket, "Key": key, "ContentType": "application/octet-stream",
            "ChecksumSHA256": encoded(body.sha256()), **self._of_new_objects(), **condition,
        }  # fmt: skip

        def put(client: Any) -> None:
            body.seek(0)
            s3_errors.answered(client.put_object(Body=body, **parameters), "ETag")

        self._connection.call(put, subject=name, expected=_about_condition)

    def in_parts(self, key: str, name: str, parts: Sequence[Body], condition: dict[str, str]) -> None:
        """A request for each part, and two more; nothing is left of it when it fails.

        Lets boto3's errors about the condition through.
        """
        place = {"Bucket": self._bucket, "Key": key}
        wanted = {
            **place, "ContentType": "application/octet-stream", "ChecksumAlgorithm": "SHA256", **self._of_new_objects(),
        }  # fmt: skip
        started = self._connection.call(
            lambda client: s3_errors.answered(client.create_multipart_upload(**wanted), "UploadId"), subject=name
        )
        upload = {**place, "UploadId": started["UploadId"]}
        try:
            # Far away, one connection gets only a share of the line. The parts are in memory already.
            with ThreadPoolExecutor(min(_PARTS_AT_ONCE, len(parts)), thread_name_prefix="part") as pool:
                sent = list(pool.map(partial(self._part, upload, name), range(1, len(parts) + 1), parts))
            whole = {**upload, "MultipartUpload": {"Parts": sent}, **condition}
            self._connection.call(
                lambda client: s3_errors.answered(client.complete_multipart_upload(**whole), "ETag"),
                subject=name,
                expected=_about_completion,
            )
        except BaseException:
            # What it failed of is what matters; parts that cannot be removed now are removed by clean().
            with suppress(StorageError):
                self._abort(upload, name)
            raise

    def clean(self, prefix: str, now: datetime | None = None) -> int:
        """Remove unfinished uploads older than a day, which only a killed process leaves; how many."""
        before = (now or datetime.now(UTC)) - ABANDONED
        removed = 0
        more: dict[str, str] = {}
        while True:
            place = {"Bucket": self._bucket, "Prefix": prefix, **more}
            page = self._connection.call(methodcaller("list_multipart_uploads", **place))
            for upload in page.get("Uploads", []):
                if upload["Key"].startswith(prefix) and upload["Initiated"] < before:
                    chosen = {"Bucket": self._bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self._abort(chosen, upload["Key"])
                    removed += 1
            following = {
                "KeyMarker": page.get("NextKeyMarker", ""), "UploadIdMarker": page.get("NextUploadIdMarker", "")
            }  # fmt: skip
            if not page.get("IsTruncated") or following in (more, {"KeyMarker": "", "UploadIdMarker": ""}):
                return removed
            more = following

    def _part(self, upload: dict[str, Any], name: str, number: int, body: Body) -> dict[str, Any]:
        digest = encoded(body.sha256())

        def put(client: Any) -> Any:
            body.seek(0)
            return s3_errors.answered(
                client.upload_part(**upload, PartNumber=number, Body=body, ChecksumSHA256=digest), "ETag"
            )

        answer = self._connection.call(put, subject=name)
        part = {"PartNumber": number, "ETag": answer["ETag"]}
        # A service that knows no checksums would take one in the list of parts for a mistake.
        return {**part, "ChecksumSHA256": digest} if answer.get("ChecksumSHA256") else part

    def _abort(self, upload: dict[str, Any], name: str) -> None:
        try:
            self._connection.call(
                lambda client: client.abort_multipart_upload(**upload), subject=name, expected=has_no_upload
            )
        except Exception as error:
            if not has_no_upload(error):
                raise


def has_no_upload(error: Exception) -> bool:
    """Whether the service says that the upload is finished or aborted already."""
    return s3_errors.code_of(error) == "NoSuchUpload"


def _about_condition(error: Exception) -> bool:
    return s3_errors.is_taken(error) or s3_errors.knows_no_condition(error)


def _about_completion(error: Exception) -> bool:
    return _about_condition(error) or has_no_upload(error)
