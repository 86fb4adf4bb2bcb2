"""What does not pass by itself: an S3 server, or something in its place, says no. One clear error of the right kind
tells what is wrong and what to do, after a few requests and not after minutes.

Where the error cannot be had from the real server, a proxy before it answers in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from backupd.errors import ObjectMissing, StorageDenied, StorageError, StorageFull, StorageUnavailable
from backupd.storage.s3 import S3Storage
from tests.storage.conftest import OpenBucket
from tests.support.faulty_proxy import Answer, Fault, FaultyProxy, Forward, Request, cut, pass_on, refuse, reply
from tests.support.seaweedfs import SECRET_KEY, SeaweedFS

FOR_EVER = float("inf")

Operation = Callable[[S3Storage], object]
OPERATIONS: dict[str, Operation] = {
    "put": lambda storage: storage.put("index/b", [b"second"]),
    "put in parts": lambda storage: storage.put("packs/large", [bytes(6 << 20)]),
    "get": lambda storage: storage.get("index/a"),
    "get a range": lambda storage: storage.get("index/a", 1, 3),
    "list": lambda storage: list(storage.list()),
    "size": lambda storage: storage.size("index/a"),
    "delete": lambda storage: storage.delete("index/a"),
}
every_operation = pytest.mark.parametrize("operation", OPERATIONS)

PAGE = b"<html><head><title>Welcome</title></head><body><p>Please log in.</p></body></html>"
BROKEN_PAGE = b"<!DOCTYPE html><html><body><p>Please log in<br></html>"


def failing(storage: S3Storage, proxy: FaultyProxy, operation: str, fault: Fault, kind: type[StorageError]) -> str:
    """What is said when this fault lasts: an error of just this kind, soon, in one line, and without a secret."""
    proxy.fail(fault, times=FOR_EVER)
    with pytest.raises(kind) as caught:
        OPERATIONS[operation](storage)
    assert type(caught.value) is kind
    assert len(proxy.requests) <= 6
    said = str(caught.value)
    assert said.startswith("s3://bucket-")
    assert said.isprintable()
    assert SECRET_KEY not in said
    return said


# -- credentials -------------------------------------------------------------------------------------------------------


@every_operation
def test_access_denied(storage: S3Storage, proxy: FaultyProxy, operation: str) -> None:
    said = failing(storage, proxy, operation, refuse(403, "AccessDenied", "Access Denied"), StorageDenied)
    assert "the service does not permit this: AccessDenied: Access Denied (check what these credentials may do)" in said


@pytest.mark.parametrize("operation", ["put", "put in parts", "delete"])
def test_a_reader_cannot_write(open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, operation: str) -> None:
    reader = open_bucket(access_key_id="reader-key", secret_access_key=lambda: "reader-secret")
    assert reader.get("index/a") == b"first"
    with pytest.raises(StorageDenied, match=r"AccessDenied.* \(check what these credentials may do\)"):
        OPERATIONS[operation](reader)
    assert storage.get("index/a") == b"first"


@every_operation
def test_a_wrong_secret(open_bucket: OpenBucket, storage: S3Storage, operation: str) -> None:
    wrong = open_bucket(secret_access_key=lambda: "not-the-secret")
    with pytest.raises(StorageDenied, match=r"the service refuses the signature \(check secret_access_key") as caught:
        OPERATIONS[operation](wrong)
    assert "not-the-secret" not in str(caught.value)


@every_operation
def test_an_unknown_access_key(open_bucket: OpenBucket, storage: S3Storage, operation: str) -> None:
    wrong = open_bucket(access_key_id="nobody")
    with pytest.raises(StorageDenied, match=r"does not know this access key \(.*\) \(check access_key_id\)"):
        OPERATIONS[operation](wrong)


@every_operation
def test_expired_credentials_are_fetched_again_once(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, operation: str
) -> None:
    fetched: list[str] = []

    def secret() -> str:
        fetched.append("again")
        return SECRET_KEY

    keeper = open_bucket(secret_access_key=secret)
    keeper.size("index/a")
    assert len(fetched) == 1
    proxy.mend()
    expired = refuse(400, "ExpiredToken", "The provided token has expired.")

    def expired_at_first(request: Request, forward: Forward) -> Answer | None:
        return (expired if len(fetched) == 1 else pass_on)(request, forward)

    proxy.fail(expired_at_first, times=FOR_EVER)
    OPERATIONS[operation](keeper)
    proxy.mend()
    assert len(fetched) == 2

    said = failing(keeper, proxy, operation, expired, StorageDenied)
    assert "the credentials have expired (get new ones)" in said
    assert len(fetched) == 3


@pytest.mark.parametrize("hours", [-1, 1])
@every_operation
def test_a_clock_that_is_wrong(storage: S3Storage, operation: str, hours: int) -> None:
    """The server refuses this by itself."""
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=hours)):
        with pytest.raises(StorageDenied) as caught:
            OPERATIONS[operation](storage)
    assert "the service refuses this machine's clock (set the clock; NTP keeps it right)" in str(caught.value)
    assert storage.get("index/a") == b"first"


# -- the bucket --------------------------------------------------------------------------------------------------------


def test_a_bucket_that_is_removed_in_the_middle(seaweedfs: SeaweedFS) -> None:
    bucket = seaweedfs.bucket()
    storage = S3Storage(f"s3://{bucket}/mail", seaweedfs.settings())
    storage.put("index/a", [b"first"])
    client = seaweedfs.client()
    client.delete_object(Bucket=bucket, Key="mail/index/a")
    client.delete_bucket(Bucket=bucket)
    # What is put by its administrator makes SeaweedFS make the bucket; the next test is about other servers.
    for operation in ("get", "get a range", "list", "size"):
        with pytest.raises(StorageError) as caught:
            OPERATIONS[operation](storage)
        assert type(caught.value) is StorageError
        assert "there is no such bucket (make it, or check the url)" in str(caught.value)


@every_operation
def test_a_bucket_that_is_gone(storage: S3Storage, proxy: FaultyProxy, operation: str) -> None:
    fault = refuse(404, "NoSuchBucket", "The specified bucket does not exist")
    assert "there is no such bucket" in failing(storage, proxy, operation, fault, StorageError)


@pytest.mark.parametrize(
    "fault",
    [
        refuse(507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
        refuse(507),
        refuse(403, "QuotaExceeded", "The quota set for the bucket or user has been exceeded."),
    ],
    ids=["MinIO", "no code", "Ceph"],
)
@pytest.mark.parametrize(("operation", "path"), [("put", ""), ("put in parts", "uploads"), ("put in parts", "partNum")])
def test_no_space_is_told_at_once(
    storage: S3Storage, proxy: FaultyProxy, operation: str, path: str, fault: Fault
) -> None:
    proxy.fail(fault, method="PUT|POST", path=path, times=FOR_EVER)
    with pytest.raises(StorageFull, match=r"the bucket is full: .* \(free some space, or raise its quota\)"):
        OPERATIONS[operation](storage)
    assert len(proxy.requests) <= 6
    proxy.mend()
    OPERATIONS[operation](storage)


# -- elsewhere ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            refuse(301, "PermanentRedirect", "Use the specified endpoint.", Endpoint="mail.s3.eu-central-1.example"),
            "PermanentRedirect: Use the specified endpoint. (mail.s3.eu-central-1.example)",
        ),
        (refuse(307, "TemporaryRedirect", "Re-send the request."), "TemporaryRedirect: Re-send the request."),
        (
            refuse(400, "AuthorizationHeaderMalformed", "the region is wrong", Region="eu-central-1"),
            "AuthorizationHeaderMalformed: the region is wrong (eu-central-1)",
        ),
        (reply(302, BROKEN_PAGE, Content_Type="text/html", Location="http://login.example/"), "status 302, with a web"),
    ],
    ids=["301", "307", "region", "302 to a web page"],
)
@every_operation
def test_a_bucket_that_is_elsewhere(
    storage: S3Storage, proxy: FaultyProxy, operation: str, fault: Fault, words: str
) -> None:
    said = failing(storage, proxy, operation, fault, StorageError)
    assert f"the bucket is elsewhere: {words}" in said
    assert said.endswith("(check region and endpoint_url)")


# -- no S3 service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        reply(200, PAGE, Content_Type="text/html", ETag='"5f3c-62b"'),
        reply(200, PAGE),
        reply(200, BROKEN_PAGE, Content_Type="text/html"),
        reply(200),
    ],
    ids=["a page", "a page of no type", "a page that is no XML", "nothing"],
)
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "delete"])
def test_what_a_captive_portal_answers_is_taken_for_no_success(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, operation: str, fault: Fault
) -> None:
    short = open_bucket(retry_seconds=20.0)
    proxy.fail(fault, times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match=r"is no S3 service|a web page instead of an answer"):
        OPERATIONS[operation](short)
    proxy.mend()
    assert [info.name for info in short.list()] == ["index/a"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_page_in_the_place_of_any_answer_is_no_stored_object(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, method: str
) -> None:
    storage.put("packs/0", [b"x"])
    data = bytes(6 << 20)
    for after in range(3):
        proxy.fail(reply(200, PAGE, Content_Type="text/html"), method=method, times=1, after=after)
        name = f"packs/{method}-{after}"
        storage.put(name, [data])
        assert storage.get(name) == data
        proxy.mend()


@pytest.mark.parametrize("octets", [0, 1, 100, 400])
def test_a_page_of_a_listing_that_is_cut_is_asked_for_again(
    open_bucket: OpenBucket, proxy: FaultyProxy, octets: int
) -> None:
    storage = open_bucket(page=2)
    names = [f"packs/{number}" for number in range(5)]
    for name in names:
        storage.put(name, [b"x"])
    for page in range(3):
        proxy.mend()
        proxy.fail(cut(octets), method="GET", after=page, times=2)
        assert [info.name for info in storage.list()] == names
        assert proxy.count("GET") == 5


def test_a_listing_without_its_end_is_no_listing(storage: S3Storage, proxy: FaultyProxy) -> None:
    """A proxy that knows the length of what it has got announces that: nothing seems to be missing."""

    def half(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        headers = [(name, value) for name, value in answer.headers if name.lower() != "content-length"]
        return answer._replace(headers=headers, body=answer.body[: len(answer.body) // 2])

    proxy.fail(half, times=FOR_EVER)
    with pytest.raises(StorageUnavailable):
        list(storage.list())


def test_a_listing_that_does_not_go_on_is_an_error(storage: S3Storage, proxy: FaultyProxy) -> None:
    endless = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
    proxy.fail(reply(200, endless, Content_Type="application/xml"), times=FOR_EVER)
    with pytest.raises(StorageError, match="the service does not go on with a listing"):
        list(storage.list())


def test_an_answer_that_cannot_be_read_is_an_error(open_bucket: OpenBucket, proxy: FaultyProxy) -> None:
    storage = open_bucket(retry_seconds=20.0)
    contents = b"<IsTruncated>false</IsTruncated><Contents><Size>many</Size></Contents>"
    listing = b"<ListBucketResult>%s</ListBucketResult>" % contents
    proxy.fail(reply(200, listing, Content_Type="application/xml"), times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match=rf"{re.escape(proxy.endpoint_url)} answers what cannot be read"):
        list(storage.list())


def test_a_missing_object_is_no_missing_bucket(storage: S3Storage) -> None:
    for call in (lambda: storage.get("index/none"), lambda: storage.size("index/none")):
        with pytest.raises(ObjectMissing):
            call()
