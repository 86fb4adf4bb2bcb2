"""Large objects go to S3 in parts. Whatever fails on the way, the object is there whole or not at all, and no parts
that nobody can see, and somebody pays for, are left."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backupd.errors import ObjectExists, ObjectMissing, StorageDenied, StorageError, StorageUnavailable
from backupd.storage.s3 import S3Storage
from tests.storage.conftest import OpenBucket
from tests.support.faulty_proxy import (
    Answer,
    Fault,
    FaultyProxy,
    Forward,
    Request,
    change_the_request,
    cut,
    drop,
    lose_the_answer,
    refuse,
    reply,
    without,
)
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

FOR_EVER = float("inf")
PART = 5 << 20
DATA = random.Random(1).randbytes(2 * PART + 12345)
OTHER = DATA[:-1] + bytes([DATA[-1] ^ 1])
NAME = "packs/large"

# The requests that an upload consists of.
CREATE = {"method": "POST", "path": r"\?uploads"}
SEND = {"method": "PUT", "path": "partNumber="}
COMPLETE = {"method": "POST", "path": "uploadId="}
ABORT = {"method": "DELETE", "path": "uploadId="}


@pytest.fixture
def unfinished(seaweedfs: SeaweedFS, storage: S3Storage) -> Any:
    """unfinished() lists the keys of uploads that nobody has finished."""
    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")

    def unfinished() -> list[str]:
        page = seaweedfs.client().list_multipart_uploads(Bucket=bucket, Prefix=prefix)
        return [upload["Key"].removeprefix(f"{prefix}/") for upload in page.get("Uploads", [])]

    return unfinished


def begin(seaweedfs: SeaweedFS, storage: S3Storage, key: str) -> None:
    """Leave an upload as a killed process does."""
    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
    client = seaweedfs.client()
    started = client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{key}")
    client.upload_part(
        Bucket=bucket, Key=f"{prefix}/{key}", UploadId=started["UploadId"], PartNumber=1, Body=bytes(1000)
    )


PASSING: dict[str, Fault] = {
    "500": refuse(500, "InternalError", "Please try again."),
    "SlowDown": refuse(503, "SlowDown", "Please reduce your request rate."),
    "no answer": drop,
    "a lost answer": lose_the_answer,
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("step", [CREATE, SEND, COMPLETE], ids=["create", "send", "complete"])
def test_what_passes_is_asked_again(
    storage: S3Storage, proxy: FaultyProxy, unfinished: Any, step: dict[str, Any], fault: str
) -> None:
    proxy.fail(PASSING[fault], times=4, **step)
    storage.put(NAME, [DATA])
    assert storage.get(NAME) == DATA
    assert unfinished() == [NAME] * (4 if (step, fault) == (CREATE, "a lost answer") else 0)


def test_uploads_begun_with_a_lost_answer_are_cleaned_like_abandoned_ones(
    storage: S3Storage, proxy: FaultyProxy, unfinished: Any
) -> None:
    proxy.fail(lose_the_answer, **CREATE)
    storage.put(NAME, [DATA])
    assert unfinished() == [NAME]
    assert storage.clean(datetime.now(UTC) + timedelta(hours=25)) == 1
    assert unfinished() == []
    assert storage.get(NAME) == DATA


def test_a_part_that_arrives_changed_is_sent_again(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(change_the_request, times=1, after=1, **SEND)
    storage.put(NAME, [DATA])
    assert proxy.count(**SEND) == 4
    assert storage.get(NAME) == DATA


def test_only_what_failed_is_sent_again(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(drop, times=3, after=2, **SEND)
    storage.put(NAME, [DATA])
    assert proxy.count(**SEND) == 3 + 3


# -- completion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        lose_the_answer,
        reply(200, b"<Error><Code>InternalError</Code><Message>Please try again.</Message></Error>"),
        cut(0),
        cut(80),
    ],
    ids=["lost", "an error after all", "no body", "a cut body"],
)
def test_a_completion_without_a_good_answer(
    storage: S3Storage, proxy: FaultyProxy, unfinished: Any, fault: Fault
) -> None:
    proxy.fail(fault, times=1, **COMPLETE)
    storage.put(NAME, [DATA])
    assert storage.get(NAME) == DATA
    assert unfinished() == []
    with pytest.raises(ObjectExists):
        storage.put(NAME, [OTHER])
    assert storage.get(NAME) == DATA


def test_a_completion_whose_upload_is_gone_is_believed_only_if_the_object_is_there(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, unfinished: Any
) -> None:
    def done_before(request: Request, forward: Forward) -> Answer | None:
        forward(request)
        return refuse(404, "NoSuchUpload", "The upload does not exist.")(request, forward)

    proxy.fail(done_before, times=1, **COMPLETE)
    storage.put(NAME, [DATA])
    assert storage.get(NAME) == DATA

    proxy.fail(refuse(404, "NoSuchUpload", "The upload does not exist."), times=1, **COMPLETE)
    with pytest.raises(StorageUnavailable, match=r"packs/second: .* \(run it again\)"):
        storage.put("packs/second", [DATA])
    with pytest.raises(ObjectMissing):
        storage.get("packs/second")
    assert unfinished() == []


def test_another_object_that_came_meanwhile_stays(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, unfinished: Any
) -> None:
    quicker = open_bucket()

    def meanwhile(request: Request, forward: Forward) -> Answer:
        quicker.put(NAME, [OTHER])
        return forward(request)

    proxy.fail(meanwhile, times=1, **COMPLETE)
    with pytest.raises(ObjectExists):
        storage.put(NAME, [DATA])
    assert storage.get(NAME) == OTHER
    assert unfinished() == []


def test_what_is_there_is_not_sent(storage: S3Storage, proxy: FaultyProxy) -> None:
    storage.put(NAME, [DATA])
    proxy.mend()
    storage.put(NAME, [DATA[:1000], memoryview(DATA)[1000:]])
    assert (proxy.count("PUT"), proxy.count("POST"), proxy.count("GET")) == (0, 0, 0)


# -- nothing is left ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [SEND, COMPLETE], ids=["send", "complete"])
def test_an_upload_that_fails_is_aborted(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, unfinished: Any, step: dict[str, Any]
) -> None:
    proxy.fail(refuse(403, "AccessDenied", "Access Denied"), times=FOR_EVER, **step)
    with pytest.raises(StorageDenied):
        storage.put(NAME, [DATA])
    assert unfinished() == []
    with pytest.raises(ObjectMissing):
        storage.size(NAME)


def test_what_it_failed_of_is_told_even_if_it_cannot_be_aborted(
    storage: S3Storage, proxy: FaultyProxy, unfinished: Any
) -> None:
    proxy.fail(refuse(507, "QuotaExceeded", "The quota has been exceeded."), times=FOR_EVER, **SEND)
    proxy.fail(refuse(403, "AccessDenied", "A writer may remove nothing."), times=FOR_EVER, **ABORT)
    with pytest.raises(StorageError, match="the bucket is full: QuotaExceeded"):
        storage.put(NAME, [DATA])
    assert unfinished() == [NAME]


def test_abandoned_uploads_are_removed_when_they_are_a_day_old(
    seaweedfs: SeaweedFS, open_bucket: OpenBucket, storage: S3Storage, unfinished: Any
) -> None:
    begin(seaweedfs, storage, "packs/killed")
    begin(seaweedfs, storage, "packs/killed-too")
    now = datetime.now(UTC)
    assert storage.clean(now + timedelta(hours=23)) == 0
    assert sorted(unfinished()) == ["packs/killed", "packs/killed-too"]
    assert storage.clean(now + timedelta(hours=25)) == 2
    assert unfinished() == []


def test_uploads_of_others_in_the_same_bucket_are_left_alone(
    seaweedfs: SeaweedFS, bucket: str, storage: S3Storage
) -> None:
    client = seaweedfs.client()
    theirs = client.create_multipart_upload(Bucket=bucket, Key="theirs/large")
    try:
        assert storage.clean(datetime.now(UTC) + timedelta(days=30)) == 0
        listed = client.list_multipart_uploads(Bucket=bucket, Prefix="theirs/")
        assert [each["UploadId"] for each in listed["Uploads"]] == [theirs["UploadId"]]
    finally:
        client.abort_multipart_upload(Bucket=bucket, Key="theirs/large", UploadId=theirs["UploadId"])


def test_the_first_large_object_of_a_process_has_abandoned_uploads_removed(
    seaweedfs: SeaweedFS, storage: S3Storage, proxy: FaultyProxy, unfinished: Any
) -> None:
    begin(seaweedfs, storage, "packs/killed")
    listing = {"method": "GET", "path": r"\?uploads"}
    storage.put(NAME, [DATA])
    storage.put("packs/second", [DATA])
    assert proxy.count(**listing) == 1
    assert unfinished() == ["packs/killed"], "it is a minute old, and may be another machine's"


@pytest.mark.parametrize("fault", [refuse(501, "NotImplemented"), refuse(403, "AccessDenied"), reply(200)])
def test_a_server_that_lists_no_uploads_does_not_keep_objects_from_being_stored(
    open_bucket: OpenBucket, proxy: FaultyProxy, fault: Fault
) -> None:
    storage = open_bucket(retry_seconds=20.0)
    proxy.fail(fault, times=FOR_EVER, method="GET", path=r"\?uploads")
    storage.put(NAME, [DATA])
    assert storage.get(NAME) == DATA


def test_a_server_that_knows_no_condition_on_completion_overwrites_nothing_that_was_there(
    storage: S3Storage, proxy: FaultyProxy
) -> None:
    ignorant = without("if-none-match", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    proxy.fail(ignorant, times=FOR_EVER, **COMPLETE)
    storage.put(NAME, [DATA])
    with pytest.raises(ObjectExists):
        storage.put(NAME, [OTHER])
    assert storage.get(NAME) == DATA
