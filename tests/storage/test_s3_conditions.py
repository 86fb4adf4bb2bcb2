"""`If-None-Match: *` keeps objects from being overwritten. Some servers refuse it, some ignore it; nothing is
overwritten there either, as far as a client can see to that: it looks first.

The real server knows the condition; the proxy takes it away, or refuses it as those servers do.
"""

from __future__ import annotations

import re

import pytest

from backupd.errors import ObjectExists, StorageDenied, StorageUnavailable
from backupd.storage.s3 import S3Storage
from tests.storage.conftest import OpenBucket
from tests.support.faulty_proxy import (
    Answer,
    Fault,
    FaultyProxy,
    Forward,
    Request,
    drop,
    lose_the_answer,
    pass_on,
    refuse,
    without,
)
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY

FOR_EVER = float("inf")
PART = 5 << 20
LARGE = bytes(PART + 1000)


def refusing(status: int, code: str = "") -> Fault:
    """Like a server that knows no condition, and says so."""
    answer = refuse(status, code, "A header you provided implies functionality that is not implemented.")

    def fault(request: Request, forward: Forward) -> Answer | None:
        return (answer if "if-none-match" in request.headers else pass_on)(request, forward)

    return fault


WITHOUT: dict[str, Fault] = {
    "ignored": without("if-none-match", access_key=ACCESS_KEY, secret_key=SECRET_KEY),
    "501 NotImplemented": refusing(501, "NotImplemented"),
    "501 without a word": refusing(501),
    "400 UnsupportedHeader": refusing(400, "UnsupportedHeader"),
}
every_server_without = pytest.mark.parametrize("fault", WITHOUT)


def holding(proxy: FaultyProxy, fault: str) -> None:
    """From now on the server knows no condition."""
    proxy.fail(WITHOUT[fault], method="PUT|POST", times=FOR_EVER)


@every_server_without
def test_nothing_is_overwritten(storage: S3Storage, open_bucket: OpenBucket, proxy: FaultyProxy, fault: str) -> None:
    holding(proxy, fault)
    for name in ("index/b", "index/c"):
        writer = open_bucket()
        with pytest.raises(ObjectExists):  # the first write of a process
            writer.put("index/a", [b"other"])
        writer.put(name, [b"second"])
        assert writer.conditional is False
        with pytest.raises(ObjectExists):  # and later ones
            writer.put(name, [b"other!"])
        writer.put(name, [b"sec", b"ond"])
        assert [storage.get("index/a"), storage.get(name)] == [b"first", b"second"]


@every_server_without
def test_nothing_large_is_overwritten(open_bucket: OpenBucket, proxy: FaultyProxy, fault: str) -> None:
    holding(proxy, fault)
    for name in ("packs/a", "packs/b"):
        writer = open_bucket(part_octets=PART)
        writer.put(name, [LARGE])
        writer.put(name, [LARGE])
        with pytest.raises(ObjectExists):
            writer.put(name, [LARGE[:-1] + b"x"])
        assert writer.get(name) == LARGE


@every_server_without
@pytest.mark.parametrize("passing", [drop, lose_the_answer], ids=["not arrived", "answer lost"])
def test_a_write_that_broke_is_repeated(
    open_bucket: OpenBucket, proxy: FaultyProxy, fault: str, passing: Fault
) -> None:
    for after in range(3):
        proxy.fail(passing, method="PUT", after=after)
        holding(proxy, fault)
        writer = open_bucket()
        for number in range(2):
            writer.put(f"index/{after}-{number}", [b"second"])
            assert writer.get(f"index/{after}-{number}") == b"second"
        proxy.mend()


def test_what_the_server_does_is_found_out_once(open_bucket: OpenBucket, proxy: FaultyProxy) -> None:
    writer = open_bucket()
    assert writer.conditional is None
    for number in range(3):
        writer.put(f"index/{number}", [b"%d" % number])
    assert writer.conditional is True
    assert (proxy.count("HEAD"), proxy.count("PUT")) == (1, 1 + 1 + 2), "the first is looked for, and put twice"


@every_server_without
def test_a_server_without_conditions_is_asked_about_every_object(
    open_bucket: OpenBucket, proxy: FaultyProxy, fault: str
) -> None:
    holding(proxy, fault)
    writer = open_bucket()
    writer.put("index/0", [b"0"])
    proxy.requests.clear()
    for number in (1, 2):
        writer.put(f"index/{number}", [b"%d" % number])
    assert (proxy.count("HEAD"), proxy.count("PUT")) == (2, 2)
    assert not any("if-none-match" in each.headers for each in proxy.requests)


def test_what_keeps_it_from_being_found_out_is_found_out_later(open_bucket: OpenBucket, proxy: FaultyProxy) -> None:
    writer = open_bucket(retry_seconds=20.0)
    proxy.fail(drop, method="PUT", after=1, times=FOR_EVER)
    with pytest.raises(StorageUnavailable):
        writer.put("index/b", [b"second"])
    assert writer.conditional is None
    proxy.mend()
    writer.put("index/b", [b"second"])
    with pytest.raises(ObjectExists):
        writer.put("index/b", [b"other!"])
    assert writer.get("index/b") == b"second"


def test_a_conflict_of_two_writers_is_tried_again(storage: S3Storage, proxy: FaultyProxy) -> None:
    proxy.fail(refuse(409, "ConditionalRequestConflict", "A conflicting operation is in progress."), method="PUT")
    storage.put("index/b", [b"second"])
    assert proxy.count("PUT") == 2
    assert storage.get("index/b") == b"second"


@every_server_without
def test_a_refusal_of_something_else_is_told(
    storage: S3Storage, open_bucket: OpenBucket, proxy: FaultyProxy, fault: str
) -> None:
    """No refused write is taken for a write, whatever the reason."""
    denied = refuse(403, "AccessDenied", "Access Denied")
    proxy.fail(denied, method="PUT", after=1 if fault.startswith(("4", "5")) else 0, times=FOR_EVER)
    holding(proxy, fault)
    with pytest.raises(StorageDenied, match=re.escape("AccessDenied: Access Denied")):
        open_bucket().put("index/b", [b"second"])
    proxy.mend()
    assert [info.name for info in storage.list()] == ["index/a"]
