"""What goes wrong between client and S3 server and passes: it is asked again, nothing is lost, and nothing is altered.

A real server behind a proxy that spoils chosen requests and answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from backupd.errors import Damaged, ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from backupd.storage.s3 import S3Storage
from tests.storage.conftest import OpenBucket
from tests.support.faulty_proxy import (
    Answer,
    Fault,
    FaultyProxy,
    Forward,
    Request,
    change_the_answer,
    change_the_request,
    cut,
    drop,
    hang,
    lose_the_answer,
    refuse,
    reply,
)
from tests.support.ports import free_ports
from tests.support.seaweedfs import SECRET_KEY

FOR_EVER = float("inf")

Operation = Callable[[S3Storage], object]
OPERATIONS: dict[str, tuple[Operation, object]] = {
    "put": (lambda storage: storage.put("index/b", [b"second"]), None),
    "get": (lambda storage: storage.get("index/a"), b"first"),
    "get a range": (lambda storage: storage.get("index/a", 1, 3), b"irs"),
    "list": (lambda storage: [info.name for info in storage.list()], ["index/a"]),
    "size": (lambda storage: storage.size("index/a"), 5),
    "delete": (lambda storage: storage.delete("index/none"), None),
}
PASSING: dict[str, Fault] = {
    "500": refuse(500, "InternalError", "We encountered an internal error. Please try again."),
    "502 without a word": refuse(502),
    "503": refuse(503, "ServiceUnavailable", "Please try again."),
    "503 SlowDown": refuse(503, "SlowDown", "Please reduce your request rate."),
    "429": refuse(429, "TooManyRequests", "Please reduce your request rate."),
    "503 in a web page": reply(503, b"<html><h1>503 Service Unavailable</h1><br></html>", Content_Type="text/html"),
    "no answer": drop,
    "a lost answer": lose_the_answer,
    "no HTTP": lambda _, __: Answer(0, [], b"SSH-2.0-OpenSSH_9.2\r\n"),
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_passes_is_asked_again(storage: S3Storage, proxy: FaultyProxy, operation: str, fault: str) -> None:
    work, expected = OPERATIONS[operation]
    proxy.fail(PASSING[fault], times=4)  # boto3 asks three times by itself
    assert work(storage) == expected
    assert len(proxy.requests) >= 5
    if operation == "put":
        assert storage.get("index/b") == b"second"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_silent_server_is_given_up_and_asked_again(
    open_bucket: OpenBucket, proxy: FaultyProxy, storage: S3Storage, operation: str
) -> None:
    patient = open_bucket(timeout=0.2)
    work, expected = OPERATIONS[operation]
    proxy.fail(hang(proxy), times=1)
    assert work(patient) == expected


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [0, 1, 4])
def test_a_cut_body_is_asked_for_again(storage: S3Storage, proxy: FaultyProxy, octets: int) -> None:
    proxy.fail(cut(octets), method="GET", times=2)
    assert storage.get("index/a") == b"first"
    assert proxy.count("GET") == 3


def test_a_cut_range_is_asked_for_again(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(cut(2), method="GET", times=2)
    assert storage.get("index/a", 1, 4) == b"irst"
    assert proxy.count("GET") == 3


def test_a_body_that_is_cut_for_ever_is_no_object(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(cut(3), method="GET", times=FOR_EVER)
    for range_ in ((), (1, 4)):
        with pytest.raises(StorageUnavailable, match=re.escape(f"the connection to {proxy.endpoint_url} broke")):
            storage.get("index/a", *range_)


def test_an_answer_of_less_than_the_range_is_damage(storage: S3Storage, proxy: FaultyProxy) -> None:
    def shorter(request: Request, forward: Forward) -> Answer:
        answer = forward(request)
        headers = [("ETag", '"x"'), ("Content-Range", "bytes 1-2/3"), ("Content-Length", "2")]
        return answer._replace(headers=headers, body=answer.body[:2])

    proxy.fail(shorter, method="GET", times=FOR_EVER)
    with pytest.raises(Damaged, match="/mail: index/a: the object is shorter than it should be"):
        storage.get("index/a", 1, 4)


def test_the_whole_is_not_taken_for_a_range(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(reply(200, b"first", ETag='"x"'), method="GET", times=FOR_EVER)
    with pytest.raises(StorageError, match="/mail: index/a: the service ignores ranges"):
        storage.get("index/a", 1, 4)


def test_an_answer_with_changed_octets_is_asked_for_again(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(change_the_answer, method="GET", times=2)
    assert storage.get("index/a") == b"first"
    assert proxy.count("GET") == 3


def test_what_never_matches_its_checksum_is_damaged(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(change_the_answer, method="GET", times=FOR_EVER)
    with pytest.raises(Damaged, match=r"/mail: index/a: the object does not match its checksum"):
        storage.get("index/a")
    assert proxy.count("GET") == 3


def test_an_object_that_changed_on_the_server_is_no_longer_itself(storage: S3Storage, proxy: FaultyProxy) -> None:
    """The proxy stands for a disk that lost a bit: the server gives the checksum of what was stored once."""
    proxy.fail(change_the_answer, method="GET", times=FOR_EVER)
    storage.put("index/a", [b"first"])  # compared by the checksum: no reason to read it
    with pytest.raises(Damaged):
        storage.get("index/a")


def test_a_request_with_changed_octets_is_refused_by_the_server_and_sent_again(
    storage: S3Storage, proxy: FaultyProxy
) -> None:
    proxy.fail(change_the_request, method="PUT", times=2)
    storage.put("index/b", [b"second"])
    assert proxy.count("PUT") == 3
    assert storage.get("index/b") == b"second"


def test_what_always_arrives_changed_is_never_stored(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(change_the_request, method="PUT", times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match="the service fails: "):
        storage.put("index/b", [b"second"])
    proxy.mend()
    with pytest.raises(ObjectMissing):
        storage.get("index/b")


# -- lost answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [True, False], ids=["first write of the process", "later"])
def test_a_write_whose_answer_was_lost_is_a_success(
    open_bucket: OpenBucket, storage: S3Storage, proxy: FaultyProxy, new: bool
) -> None:
    writer = open_bucket() if new else storage
    proxy.fail(lose_the_answer, method="PUT")
    writer.put("index/b", [b"second"])
    assert writer.get("index/b") == b"second"
    with pytest.raises(ObjectExists):
        writer.put("index/b", [b"other!"])
    assert writer.get("index/b") == b"second"


def test_a_lost_answer_does_not_hide_that_another_object_was_there(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(lose_the_answer, method="PUT")
    with pytest.raises(ObjectExists, match="/mail: index/a: there is another object of this name"):
        storage.put("index/a", [b"other"])
    assert storage.get("index/a") == b"first"


def test_a_removal_whose_answer_was_lost_is_a_success(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(lose_the_answer, method="DELETE")
    storage.delete("index/a")
    assert list(storage.list()) == []


# -- an end in a bounded time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_dead_endpoint_ends_in_a_clear_error(open_bucket: OpenBucket, operation: str) -> None:
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    dead = open_bucket(endpoint_url=endpoint, retry_seconds=2.0)
    with pytest.raises(StorageUnavailable) as caught:
        OPERATIONS[operation][0](dead)
    what = rf"no connection to {re.escape(endpoint)}; tried for \d seconds"
    assert re.fullmatch(what, caught.value.what)
    assert caught.value.remedy == "check that the service runs and can be reached from here"
    assert SECRET_KEY not in str(caught.value)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_silent_endpoint_ends_in_a_clear_error(open_bucket: OpenBucket, proxy: FaultyProxy, operation: str) -> None:
    silent = open_bucket(retry_seconds=1.0, timeout=0.2)
    proxy.fail(hang(proxy), times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match=rf"{re.escape(proxy.endpoint_url)} does not answer; tried for \d sec"):
        OPERATIONS[operation][0](silent)
    assert len(proxy.requests) <= 5


def test_a_silence_longer_than_the_time_to_try_in_is_not_waited_for(
    open_bucket: OpenBucket, proxy: FaultyProxy
) -> None:
    silent = open_bucket(retry_seconds=0.3, timeout=60.0)
    proxy.fail(hang(proxy), times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        silent.get("index/a")
    assert len(proxy.requests) == 1


@pytest.mark.parametrize("fault", ["500", "503 SlowDown", "429", "503 in a web page", "no answer"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_fails_for_ever_is_not_asked_for_ever(
    open_bucket: OpenBucket, proxy: FaultyProxy, operation: str, fault: str
) -> None:
    storage = open_bucket(retry_seconds=3.0)
    proxy.fail(PASSING[fault], times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match=r"(the service fails|the connection to .* broke).*; tried for"):
        OPERATIONS[operation][0](storage)
    assert len(proxy.requests) <= 15


def test_the_reason_is_told_even_if_the_time_is_up_while_boto3_pauses(
    open_bucket: OpenBucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)  # the longest pauses there are
    storage = open_bucket(retry_seconds=0.1)
    proxy.fail(PASSING["503 SlowDown"], times=FOR_EVER)
    with pytest.raises(StorageUnavailable, match="the service fails: SlowDown: Please reduce your request rate"):
        storage.get("index/a")
