"""What a repository costs: what is stored, and what its bucket is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path

import pytest

from backupd.errors import ObjectMissing
from backupd.operations.backup import BackupReport, backup
from backupd.operations.costs import Costs, Daily, Meter, costs, daily
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository, create, unlock
from backupd.storage.base import ObjectInfo, Requests
from backupd.storage.s3 import S3Storage
from backupd.storage.s3_settings import S3Settings
from tests.operations.conftest import CHEAP, Backup
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.seaweedfs import SeaweedFS
from tests.support.simulated_account import SimulatedAccount

TODAY = date(2026, 3, 31)
NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)
PASSPHRASE = "a passphrase"


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> Callable[[], S3Storage]:
    """bucket() opens the same empty place again and again, as commands do."""
    url = f"s3://{seaweedfs.bucket()}/mail"
    return lambda: S3Storage(url, seaweedfs.settings())


@pytest.fixture
def run(bucket: Callable[[], S3Storage], state: State, account: SimulatedAccount) -> Callable[[], Requests]:
    """run() is what `backupd backup` does with a bucket; what it asked the bucket for."""
    create(bucket(), PASSPHRASE, argon2=CHEAP)

    def run() -> Requests:
        storage = bucket()
        with Repository(storage, unlock(storage, PASSPHRASE), cache=state.path) as repository:
            backup(repository, account, "alice", state=state)
        return storage.requests

    return run


def test_a_run_without_news_writes_nothing_and_asks_six_times_at_most(
    run: Callable[[], Requests], account: SimulatedAccount
) -> None:
    account.append(b"INBOX", *(message(f"Message {number}") for number in range(20)))
    run()
    for _ in range(3):
        asked = run()
        assert asked.writes == 0
        assert asked.listings + asked.reads <= 6


def test_a_run_with_new_mail_writes_a_handful_of_objects(
    run: Callable[[], Requests], account: SimulatedAccount
) -> None:
    account.append(b"INBOX", message("First"))
    run()
    for number in range(3):
        account.append(b"INBOX", message(f"Message {number}"))
        asked = run()
        assert asked.writes == 5, "a pack, an index, a snapshot, an entry of the record, the proof that none overwrites"
        assert asked.listings + asked.reads <= 15


def test_each_kind_of_request_is_counted(bucket: Callable[[], S3Storage]) -> None:
    storage = bucket()
    storage.put("index/a", [b"12345"])
    first = storage.requests
    storage.put("index/b", [b"12345"])
    assert storage.requests.since(first) == Requests(writes=1)
    before = storage.requests
    storage.get("index/a")
    storage.size("index/a")
    list(storage.list())
    storage.delete("index/a")
    assert storage.requests.since(before) == Requests(writes=0, listings=1, reads=2)


@pytest.fixture
def failing() -> Iterator[str]:
    """The address of a service that is busy twice, and then has nothing."""
    statuses = chain([503, 503], repeat(404))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(next(statuses))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_is_asked_again_is_counted_again(failing: str) -> None:
    settings = S3Settings(
        endpoint_url=failing, region="us-east-1", access_key_id="key", secret_access_key=lambda: "secret"
    )
    storage = S3Storage("s3://bucket/mail", settings)
    with pytest.raises(ObjectMissing):
        storage.get("index/a")
    assert storage.requests == Requests(reads=3)


def test_a_meter_tells_what_is_new(bucket: Callable[[], S3Storage]) -> None:
    storage = bucket()
    meter = Meter(storage)
    list(storage.list())
    assert meter.news() == Requests(listings=1)
    assert meter.news() == Requests()
    assert Meter(MemoryStorage()).news() == Requests()


def test_requests_are_added_up_by_day_and_repository_for_thirty_days(state: State, tmp_path: Path) -> None:
    for age in range(40, -1, -1):
        state.asked("s3://mail", TODAY - timedelta(days=age), Requests(1, 2, 3))
    state.asked("s3://mail", TODAY, Requests(10, 20, 30))
    state.asked("s3://other", TODAY, Requests(reads=1))

    again = State(tmp_path / "state")
    known = again.requests("s3://mail")
    again.close()

    assert sorted(known) == [TODAY - timedelta(days=age) for age in range(29, -1, -1)]
    assert known[TODAY] == Requests(11, 22, 33)
    assert known[TODAY - timedelta(days=1)] == Requests(1, 2, 3)
    assert state.requests("s3://third") == {}


def test_the_average_counts_days_without_requests_and_leaves_out_today() -> None:
    yesterday, long_ago = TODAY - timedelta(days=1), TODAY - timedelta(days=4)
    known = {TODAY: Requests(5, 6, 7), yesterday: Requests(2, 4, 6), long_ago: Requests(6, 0, 2)}
    assert daily(known, TODAY) == Daily(
        today={"writes": 5, "listings": 6, "reads": 7}, average={"writes": 2, "listings": 1, "reads": 2}, days=4
    )
    assert daily({TODAY: Requests(1)}, TODAY).average is None
    assert daily({}, TODAY) == Daily({"writes": 0, "listings": 0, "reads": 0}, None, 0)


class Bucket(MemoryStorage):
    """Charges for requests, and remembers which listings were asked for."""

    requests = Requests()

    def __init__(self) -> None:
        super().__init__()
        self.listed: list[str] = []

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        self.listed.append(prefix)
        return super().list(prefix)


def test_what_a_bucket_holds_is_known_without_a_listing_of_its_packs(
    state: State, account: SimulatedAccount
) -> None:
    storage = Bucket()
    with Repository(storage, create(storage, PASSPHRASE, argon2=CHEAP)) as repository:
        account.append(b"INBOX", *(message(f"Message {number}") for number in range(5)))
        report: BackupReport = backup(repository, account, "alice", state=state)
        assert report.new == 5
        storage.listed.clear()

        found = costs(repository, state, NOON)

    assert not any(names.PACKS.startswith(prefix) for prefix in storage.listed)
    octets = sum(map(len, storage.objects.values()))
    assert found == Costs("memory:", len(storage.objects), octets, daily({}, TODAY))


def test_what_a_disk_holds_is_listed_and_its_requests_are_nobodys_concern(
    take: Backup, account: SimulatedAccount, repository: Repository, storage: MemoryStorage, state: State
) -> None:
    account.append(b"INBOX", message("One"))
    take()
    storage.objects["packs/00/" + 64 * "0"] = b"in no index"
    octets = sum(map(len, storage.objects.values()))
    assert costs(repository, state, NOON) == Costs("memory:", len(storage.objects), octets, None)
