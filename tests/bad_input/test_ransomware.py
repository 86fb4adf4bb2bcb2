"""Somebody has the credentials of the machine that backs up, and destroys everything they can. Every snapshot is there
afterwards: in a bucket with Object Lock, by `repair`; where there is none, from a copy.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.command import Place, hashes, imap, mail_of
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, nasty_mail, noise
from tests.support.seaweedfs import WRITER_KEY, WRITER_SECRET, SeaweedFS

ROUNDS = 3


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    return dovecot.account()


@pytest.fixture(params=["locks"])
def locks(request: pytest.FixtureRequest) -> bool:
    """Whether the bucket has Object Lock, and it is used."""
    return bool(request.param == "locks")


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, locks: bool) -> str:
    return seaweedfs.bucket(locks=locks)


@pytest.fixture
def place(tmp_path: Path, seaweedfs: SeaweedFS, bucket: str, locks: bool, account: Account) -> Place:
    """Backups of one account into the bucket, with the credentials of a writer; locked for ten days."""
    place = Place(tmp_path)
    place.configure({"alice": imap(account)})
    document = json.loads(place.config.read_text())
    document["repository"]["url"] = f"s3://{bucket}/mail"
    document["repository"]["s3"] = {
        "endpoint_url": seaweedfs.endpoint_url, "region": "us-east-1", "access_key_id": WRITER_KEY,
        "secret_access_key": WRITER_SECRET, "retry_for": "20s",
    }  # fmt: skip
    if locks:
        document["repository"]["s3"]["object_lock"] = {"mode": "compliance", "keep": "10d"}
    document["copies"] = [{"url": str(tmp_path / "copy")}]
    place.config.write_text(json.dumps(document))
    place.secrets.add(WRITER_SECRET)
    return place


def back_up(place: Place, account: Account) -> dict[str, Counter[str]]:
    """Some snapshots: the mail of each, by its id."""
    assert place.run("init").code == 0
    taken = {}
    for number, raw in enumerate(nasty_mail().values()):
        if number % 5 == 0:
            account.append("INBOX", raw)
    for number in range(ROUNDS):
        large = message(f"Report {number}", attachments=[Attachment("report.pdf", noise(number, 1 << 20))])
        account.deliver("INBOX", [message(f"Message {number}"), large])
        if number:
            account.expunge("INBOX", "1:2")
        done = place.done("backup", "alice", "--json").document
        assert isinstance(done, dict)
        taken[str(done["runs"][0]["snapshot"])] = mail_of(account)
    assert len(taken) == ROUNDS
    return taken


class Attacker:
    """Knows what the machine knows, and S3."""

    def __init__(self, seaweedfs: SeaweedFS, bucket: str) -> None:
        import boto3

        self._bucket = bucket
        self._s3: Any = boto3.client(
            "s3", endpoint_url=seaweedfs.endpoint_url, region_name="us-east-1", aws_access_key_id=WRITER_KEY,
            aws_secret_access_key=WRITER_SECRET,
        )  # fmt: skip

    def destroy(self) -> Iterator[str]:
        """Do the worst; the names of what was destroyed for good."""
        keys = [each["Key"] for each in self._s3.list_objects_v2(Bucket=self._bucket)["Contents"]]
        soon = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(minutes=1)}
        for key in keys:
            for attempt in (
                lambda key=key: self._s3.put_object_retention(Bucket=self._bucket, Key=key, Retention=soon),
                lambda key=key: self._s3.put_object_retention(
                    Bucket=self._bucket, Key=key, Retention=soon, BypassGovernanceRetention=True
                ),
            ):
                with suppress(ClientError):
                    attempt()
        for key in keys[::2]:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"Your mail has been encrypted.")
        for key in keys[1:]:
            self._s3.delete_object(Bucket=self._bucket, Key=key)
        self._s3.delete_object(Bucket=self._bucket, Key=keys[0])
        for key in keys[::3]:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=b"Pay.")
        for each in self._s3.list_object_versions(Bucket=self._bucket)["Versions"]:
            version = {"Bucket": self._bucket, "Key": each["Key"], "VersionId": each["VersionId"]}
            for bypass in (False, True):
                with suppress(ClientError):
                    self._s3.delete_object(**version, BypassGovernanceRetention=bypass)
        suspended = {"Bucket": self._bucket, "VersioningConfiguration": {"Status": "Suspended"}}
        for change in (
            lambda: self._s3.put_bucket_versioning(**suspended),
            lambda: self._s3.delete_bucket(Bucket=self._bucket),
        ):
            with suppress(ClientError):
                change()
        left = {each["Key"] for each in self._s3.list_object_versions(Bucket=self._bucket).get("Versions", [])}
        yield from (key for key in keys if key not in left)

    def readable(self) -> bool:
        """Whether anything of the repository is as it was, as anybody would see it."""
        listed = self._s3.list_objects_v2(Bucket=self._bucket).get("Contents", [])
        return any(each["Size"] > 100 for each in listed)


def test_every_snapshot_is_restored_from_a_bucket_with_locks(
    place: Place, account: Account, seaweedfs: SeaweedFS, bucket: str
) -> None:
    taken = back_up(place, account)
    attacker = Attacker(seaweedfs, bucket)
    before = datetime.now(UTC) - timedelta(seconds=1)

    assert list(attacker.destroy()) == []
    assert not attacker.readable()
    assert place.run("snapshots").code != 0

    planned = place.run("repair", "--removed-since", before.isoformat(), "--dry-run", "--json").document
    assert not attacker.readable()
    report = place.run("repair", "--removed-since", before.isoformat(), "--json").document
    assert isinstance(planned, dict)
    assert isinstance(report, dict)
    assert report["report"]["lost"] == []
    assert {each["object"] for each in planned["report"]["mended"]} == {
        each["object"] for each in report["report"]["mended"]
    }

    assert [each["id"] for each in place.snapshots()] == list(taken)
    for snapshot, mail in taken.items():
        assert place.restored(snapshot) == mail
    again = place.done("repair", "--json").document
    assert isinstance(again, dict)
    assert again["report"]["mended"] == again["report"]["lost"] == []

    account.append("INBOX", message("Life goes on"))
    assert place.run("backup", "alice").code == 0
    assert place.restored(str(place.snapshots()[-1]["id"])) == mail_of(account)


@pytest.mark.parametrize("locks", ["no locks"], indirect=True)
def test_without_locks_every_snapshot_is_restored_from_a_copy_that_the_writer_cannot_reach(
    place: Place, account: Account, seaweedfs: SeaweedFS, bucket: str
) -> None:
    taken = back_up(place, account)
    assert place.run("copy").code == 0
    destroyed = list(Attacker(seaweedfs, bucket).destroy())
    assert len(destroyed) > 3 * ROUNDS

    for number, (snapshot, mail) in enumerate(taken.items()):
        folder = place.folder / f"from-copy-{number}"
        place.done("restore", snapshot, f"eml:{folder}", "--copy", "1")
        assert hashes(path.read_bytes() for path in folder.rglob("*.eml")) == mail

    assert place.run("repair", "--removed-since", "2000-01-01").code == 0
    for snapshot, mail in taken.items():
        assert place.restored(snapshot) == mail
