"""A bucket behind a proxy that can spoil what passes, and a clock on which pauses take no time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from backupd.storage.s3 import S3Storage
from tests.support.faulty_proxy import FaultyProxy
from tests.support.hasty_clock import HastyClock
from tests.support.seaweedfs import SeaweedFS

OpenBucket = Callable[..., S3Storage]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> HastyClock:
    """What our pauses and boto3's go by."""
    import botocore.endpoint

    clock = HastyClock()
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=clock.sleep, time=time.time))
    return clock


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultyProxy]:
    """Before the S3 server; it spoils nothing until it is told to."""
    with FaultyProxy(seaweedfs.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def bucket(seaweedfs: SeaweedFS) -> str:
    """One for all tests, each of which has a folder of its own in it: the first object in a bucket takes long."""
    return seaweedfs.bucket()


@pytest.fixture
def open_bucket(seaweedfs: SeaweedFS, bucket: str, proxy: FaultyProxy, clock: HastyClock) -> OpenBucket:
    """open_bucket(timeout=0.2, part_octets=...) gives a storage behind the proxy; always in the same place."""
    folder = f"s3://{bucket}/{secrets.token_hex(8)}/mail"

    def open_bucket(*, part_octets: int = 5 << 20, page: int = 1000, **settings: Any) -> S3Storage:
        wishes = {"endpoint_url": proxy.endpoint_url, **settings}
        return S3Storage(folder, seaweedfs.settings(**wishes), clock=clock, part_octets=part_octets, page=page)

    return open_bucket


@pytest.fixture
def storage(open_bucket: OpenBucket, proxy: FaultyProxy) -> S3Storage:
    """One that holds index/a already, and knows therefore that the server heeds conditions."""
    storage = open_bucket()
    storage.put("index/a", [b"first"])
    assert storage.conditional
    proxy.mend()
    return storage
