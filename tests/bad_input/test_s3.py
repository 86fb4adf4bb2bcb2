"""The real command with its repository in a bucket, and a proxy in between that spoils requests and answers: nothing is
lost, whatever happens; and what cannot go on says why in one clear line, without a traceback or a secret."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import pytest

from backupd.repository.repository import Repository, create, unlock
from backupd.repository.slots import Argon2
from backupd.storage.s3 import S3Storage
from tests.support.command import PASSPHRASE, SECONDS, Place, hashes, imap, mail_of
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
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
    sometimes,
)
from tests.support.mail import Attachment, message, noise
from tests.support.ports import free_ports
from tests.support.reading import contents
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS
from tests.support.warm import Started

FOR_EVER = float("inf")
LARGE = 44
"""So many messages of 600 kB come to more than half a pack of 32 MiB, which goes in parts of 16 MiB."""


@pytest.fixture(scope="module")
def alice(dovecot: Dovecot) -> Account:
    """An account with mail of all sizes. No test changes it."""
    account = dovecot.account("mdbox")
    account.deliver("INBOX", [message(f"Message {number}", size=300 + number % 3_000) for number in range(500)])
    account.create("Files")
    account.deliver(
        "Files", [message(f"Large {n}", attachments=[Attachment("a", noise(n, 600_000))]) for n in range(LARGE)]
    )
    return account


@pytest.fixture(scope="module")
def truth(alice: Account) -> Counter[str]:
    return mail_of(alice)


@pytest.fixture(scope="module")
def bucket(seaweedfs: SeaweedFS) -> str:
    """One for all tests, each of which has a folder of its own in it."""
    return seaweedfs.bucket()


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultyProxy]:
    """Before the S3 server; it spoils nothing until it is told to."""
    with FaultyProxy(seaweedfs.port) as proxy:
        yield proxy


class InBucket:
    """A place whose repository is in a bucket behind the proxy."""

    def __init__(self, place: Place, seaweedfs: SeaweedFS, proxy: FaultyProxy, url: str, account: Account) -> None:
        self.place, self.url, self.account = place, url, account
        place.secrets |= {SECRET_KEY, "wrong-secret-9876543210"}
        self.storage = S3Storage(url, seaweedfs.settings())
        self._s3 = {
            "endpoint_url": proxy.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY, "retry_for": "60s", "timeout": 5,
        }  # fmt: skip
        self.configure()

    def configure(self, **s3: Any) -> None:
        """Write the configuration; s3: what is to be different in its section of that name."""
        self.place.configure({"alice": imap(self.account)})
        document = json.loads(self.place.config.read_bytes())
        document["repository"] |= {"url": self.url, "s3": {**self._s3, **s3}}
        self.place.config.write_text(json.dumps(document))

    def create(self) -> None:
        """Make the repository, past the proxy."""
        create(self.storage, PASSPHRASE, argon2=Argon2(1, 8, 1))

    def nothing_lost(self, truth: Counter[str]) -> None:
        """Every snapshot that is listed can be read, wholly and unchanged."""
        with Repository(self.storage, unlock(self.storage, PASSPHRASE)) as repository:
            for ref in repository.refs():
                snapshot = repository.snapshot(ref)
                came = hashes(raw for box in contents(repository, snapshot).values() for raw, *_ in box.values())
                assert came.total() == snapshot.messages
                assert came <= truth

    def next_run_completes(self, truth: Counter[str]) -> None:
        """A backup, and what it says, and that all mail comes back."""
        self.place.done("backup")
        assert self.place.snapshots()[-1]["complete"]
        assert self.place.restored("alice@latest") == truth


@pytest.fixture
def remote(place: Place, seaweedfs: SeaweedFS, proxy: FaultyProxy, bucket: str, alice: Account) -> InBucket:
    """An empty repository for alice."""
    remote = InBucket(place, seaweedfs, proxy, f"s3://{bucket}/{place.folder.name}/mail", alice)
    remote.create()
    return remote


# -- faults that pass --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_a_backup_through_faults_of_all_kinds(
    remote: InBucket, proxy: FaultyProxy, truth: Counter[str], seed: int
) -> None:
    faults = [
        refuse(500, "InternalError", "Please try again."), refuse(502), refuse(503, "SlowDown", "Slow down."),
        reply(503, b"<html><br></html>", Content_Type="text/html"), drop, lose_the_answer, cut(0), cut(7), cut(200),
        change_the_request, hang(proxy),
    ]  # fmt: skip
    remote.configure(timeout=1)
    proxy.fail(sometimes(0.25, faults, seed), times=FOR_EVER)

    remote.place.done("backup")
    assert remote.place.restored("alice@latest") == truth

    assert len(proxy.requests) > 20
    proxy.mend()
    assert remote.place.restored("alice@latest", mailbox="INBOX").total() == 500
    remote.nothing_lost(truth)
    (snapshot,) = remote.place.snapshots()
    assert snapshot["complete"]


def test_what_arrives_changed_is_never_restored(remote: InBucket, proxy: FaultyProxy, truth: Counter[str]) -> None:
    """Whole objects have a checksum and are asked for again; of a range only we can tell what it should be."""
    remote.place.done("backup")
    proxy.fail(change_the_answer, method="GET", path=r"/(packs|index|snapshots|keys)/", after=6, times=FOR_EVER)
    folder = remote.place.folder / "damaged"

    result = remote.place.run("restore", "alice@latest", f"eml:{folder}")

    assert result.code in (1, 3)
    assert hashes(path.read_bytes() for path in folder.rglob("*.eml")) <= truth
    proxy.mend()
    assert remote.place.restored("alice@latest") == truth


# -- killed ------------------------------------------------------------------------------------------------------------


class Killer:
    """Kills a command when its request comes, and answers nothing."""

    def __init__(self, *, after_it_was_done: bool) -> None:
        self.process: Started | None = None
        self.started = threading.Event()
        self._after_it_was_done = after_it_was_done

    def __call__(self, request: Request, forward: Forward) -> Answer | None:
        if self._after_it_was_done:
            forward(request)
        assert self.started.wait(SECONDS)
        assert self.process is not None
        self.process.kill()
        return None


KILLED: list[tuple[str, str, int, bool]] = [
    ("PUT", "partNumber=1", 0, False),
    ("PUT", "partNumber=2", 0, True),
    ("POST", "uploadId=", 0, False),
    ("POST", "uploadId=", 0, True),
    ("PUT", "/index/", 0, True),
    ("PUT", "/snapshots/", 0, False),
    ("PUT", "/snapshots/", 0, True),
]


@pytest.mark.parametrize(("method", "path", "after", "done"), KILLED)
def test_a_backup_that_is_killed_loses_nothing_and_the_next_one_completes(
    remote: InBucket, proxy: FaultyProxy, truth: Counter[str], method: str, path: str, after: int, done: bool
) -> None:
    killer = Killer(after_it_was_done=done)
    proxy.fail(killer, method=method, path=path, after=after)
    killer.process = remote.place.start("backup")
    killer.started.set()
    assert remote.place.end(killer.process).code == -9
    proxy.mend()

    remote.nothing_lost(truth)
    remote.next_run_completes(truth)
    if path == "/snapshots/" or (path, done) == ("/index/", True):
        assert proxy.count("POST") == 0, "an index names the large pack: it is not sent again"


# -- faults that do not pass -------------------------------------------------------------------------------------------


@pytest.fixture
def short(remote: InBucket) -> InBucket:
    """It gives up soon."""
    remote.configure(retry_for="1s", timeout=1)
    return remote


Commands = list[list[str]]
COMMANDS: Commands = [["backup"], ["snapshots"], ["restore", "alice@latest", "eml:mail"], ["ls", "alice@latest"]]


def told(remote: InBucket, code: int, *saying: str) -> None:
    """Every command ends with this code and one line that says all this."""
    for command in COMMANDS:
        remote.place.failed(code, *command, saying=[remote.url, *saying])


def test_a_dead_endpoint(short: InBucket) -> None:
    (port,) = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    short.configure(retry_for="1s", endpoint_url=endpoint)
    told(short, 1, f"no connection to {endpoint}", "tried for", "check that the service runs")


def test_a_silent_endpoint(short: InBucket, proxy: FaultyProxy) -> None:
    proxy.fail(hang(proxy), times=FOR_EVER)
    told(short, 1, f"{proxy.endpoint_url} does not answer", "tried for", "check that the service runs")


def test_a_captive_portal(short: InBucket, proxy: FaultyProxy) -> None:
    proxy.fail(reply(200, b"<html><body>Please log in.</body></html>", Content_Type="text/html"), times=FOR_EVER)
    told(short, 1, "what answers is no S3 service", "check endpoint_url")


def test_another_region(short: InBucket, proxy: FaultyProxy) -> None:
    proxy.fail(refuse(301, "PermanentRedirect", "Use the other endpoint.", Endpoint="s3.example"), times=FOR_EVER)
    told(short, 1, "the bucket is elsewhere", "s3.example", "check region and endpoint_url")


def test_a_wrong_secret(short: InBucket) -> None:
    short.configure(secret_access_key="wrong-secret-9876543210")
    told(short, 1, "the service refuses the signature", "check secret_access_key")


def test_an_unknown_key(short: InBucket) -> None:
    short.configure(access_key_id="nobody")
    told(short, 1, "the service does not know this access key", "check access_key_id")


def test_expired_keys(short: InBucket, proxy: FaultyProxy) -> None:
    proxy.fail(refuse(400, "ExpiredToken", "The provided token has expired."), times=FOR_EVER)
    told(short, 1, "the credentials have expired", "get new ones")


def test_a_wrong_clock(short: InBucket, proxy: FaultyProxy) -> None:
    proxy.fail(refuse(403, "RequestTimeTooSkewed", "The difference is too large."), times=FOR_EVER)
    told(short, 1, "the service refuses this machine's clock", "set the clock")


def test_a_bucket_that_never_was(short: InBucket, seaweedfs: SeaweedFS) -> None:
    short.url = "s3://nobodys-bucket/mail"
    short.configure()
    told(short, 1, "there is no such bucket", "make it, or check the url")


# -- in the middle of a backup -----------------------------------------------------------------------------------------

MIDDLES: list[tuple[str, Fault, list[str]]] = [
    ("bucket removed", refuse(404, "NoSuchBucket", "It does not exist."), ["there is no such bucket"]),
    ("expired", refuse(400, "ExpiredToken", "The token has expired."), ["the credentials have expired"]),
    ("denied", refuse(403, "AccessDenied", "Access Denied"), ["AccessDenied", "check what these credentials may do"]),
    ("full", refuse(507, "StorageFull", "No space."), ["the bucket is full: StorageFull", "free some space"]),
    ("dead", drop, ["the connection to", "broke", "tried for"]),
]


@pytest.mark.parametrize(
    ("fault", "saying", "path"),
    # Each at one of the two places where they differ: a part of a pack, and an object in one request.
    [(*each[1:], path) for each, path in zip(MIDDLES, cycle(["partNumber=2", "/index/"]), strict=False)],
    ids=[each[0] for each in MIDDLES],
)
def test_a_backup_that_cannot_go_on_says_why_and_the_next_one_completes(
    short: InBucket, proxy: FaultyProxy, truth: Counter[str], fault: Fault, saying: list[str], path: str
) -> None:
    def from_now_on(request: Request, forward: Forward) -> Answer | None:
        proxy.fail(fault, times=FOR_EVER)
        return fault(request, forward)

    short.configure(retry_for="4s", timeout=4)  # large parts take their time on a busy machine
    proxy.fail(from_now_on, method="PUT", path=path)
    short.place.failed(1, "backup", saying=["alice: ", *saying])

    proxy.mend()
    short.configure()
    short.nothing_lost(truth)
    short.next_run_completes(truth)


def test_keys_that_expire_in_the_middle_are_fetched_again(
    remote: InBucket, proxy: FaultyProxy, truth: Counter[str]
) -> None:
    fetched = remote.place.folder / "fetched"
    remote.configure(secret_access_key={"command": f"echo again >>{fetched}; echo {SECRET_KEY}"})
    expired = refuse(400, "ExpiredToken", "The provided token has expired.")
    for path in ("partNumber=1", "/index/", "/snapshots/"):
        proxy.fail(expired, method="PUT", path=path)
    remote.next_run_completes(truth)
    assert fetched.read_text().count("again") >= 4
