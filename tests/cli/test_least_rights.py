"""Each role works with the rights that `s3-policy` prints for it, and can do nothing else: a proxy before a real server
refuses what the policy does not allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupd.storage.s3_policy import Role, policy
from tests.cli.conftest import Result, Run
from tests.support.dovecot_account import Account
from tests.support.faulty_proxy import FaultyProxy
from tests.support.iam import Guard
from tests.support.mail import Attachment, message, noise
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

LARGE = message("Large", attachments=[Attachment("film.mov", noise(1, 18 << 20))])
"""It makes a pack that goes in parts."""


@pytest.fixture
def bucket(seaweedfs: SeaweedFS) -> str:
    return seaweedfs.bucket(locks=True)


@pytest.fixture
def proxy(seaweedfs: SeaweedFS) -> Iterator[FaultyProxy]:
    with FaultyProxy(seaweedfs.port) as proxy:
        yield proxy


@pytest.fixture
def conditions() -> bool:
    """Whether the service knows Amazon's condition keys."""
    return True


class As:
    """Runs commands with the rights of a role: As(...)("writer", "backup"). refused: what it was not allowed."""

    def __init__(self, run: Run, proxy: FaultyProxy, bucket: str, *, conditions: bool) -> None:
        self._run, self._proxy, self._bucket, self._conditions = run, proxy, bucket, conditions
        self.refused: list[str] = []

    def __call__(self, role: Role | None, *words: str) -> Result:
        self._proxy.mend()
        guard: Guard | None = None
        if role:
            guard = Guard(policy(self._bucket, "mail/", role, conditions=self._conditions, lock_days=1))
            self._proxy.fail(guard, times=float("inf"))
        result = self._run(*words)
        self.refused = guard.refused if guard else []
        return result


@pytest.fixture
def as_(
    run: Run, proxy: FaultyProxy, bucket: str, configured: Path, tmp_path: Path, conditions: bool, account: Account
) -> As:
    """The repository is in the bucket, with locks of a day, and empty; there is a copy on the disk."""
    s3: dict[str, Any] = {
        "endpoint_url": proxy.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY, "retry_for": "20s", "object_lock": {"mode": "governance", "keep": "1d"},
    }  # fmt: skip
    there = f"url: s3://{bucket}/mail\n  s3: {json.dumps(s3)}"
    text = configured.read_text().replace(f"url: {tmp_path}/repository", there)
    configured.write_text(text + f"copies: [{{url: {tmp_path}/copy}}]\n")
    as_ = As(run, proxy, bucket, conditions=conditions)
    assert as_(None, "init").code == 0
    account.deliver("INBOX", [message("One")])
    return as_


@pytest.mark.parametrize("conditions", [False, True])
def test_a_writer_backs_up_and_can_remove_nothing(as_: As, account: Account, tmp_path: Path) -> None:
    for mail in (LARGE, message("Two"), None):
        if mail:
            account.deliver("INBOX", [mail])
        result = as_("writer", "backup", "alice")
        assert (result.code, as_.refused) == (0, []), result.err
    for words in (["status"], ["ls", "alice@latest"], ["copy"]):
        assert (as_("writer", *words).code, as_.refused) == (0, []), words
    assert as_("writer", "prune").code == 0, "there is nothing to prune yet"

    account.expunge("INBOX", "1")
    assert as_("writer", "backup", "alice").code == 0
    result = as_("writer", "key", "add", "laptop", "--role", "writer", "--key-file", str(tmp_path / "laptop.key"))
    assert (result.code, "does not permit this" in result.err) == (1, True)
    assert any("keys/" in each for each in as_.refused)


def test_a_reader_restores_and_stores_nothing(as_: As, account: Account, tmp_path: Path) -> None:
    assert as_("writer", "backup", "alice").code == 0
    for words in (["restore", "alice@latest", "eml:out"], ["status"], ["show", "alice@latest", "INBOX:1"]):
        result = as_("reader", *words)
        assert (result.code, as_.refused) == (0, []), result.err
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("*.eml")] == [message("One")]
    account.deliver("INBOX", [message("Two")])
    result = as_("reader", "backup", "alice")
    assert (result.code, "does not permit this" in result.err) == (1, True)
    assert as_("writer", "backup", "alice").code == 0


def test_an_auditor_makes_a_copy_elsewhere(as_: As) -> None:
    assert as_("writer", "backup", "alice").code == 0
    result = as_("auditor", "copy")
    assert (result.code, as_.refused) == (0, []), result.err


def test_a_repairer_brings_back_what_was_removed(as_: As, seaweedfs: SeaweedFS, bucket: str) -> None:
    assert as_("writer", "backup", "alice").code == 0
    client = seaweedfs.client()
    for each in client.list_objects_v2(Bucket=bucket)["Contents"]:
        client.delete_object(Bucket=bucket, Key=each["Key"])
    result = as_("repairer", "repair", "--removed-since", "2000-01-01")
    assert (result.code, as_.refused) == (0, []), result.err
    assert as_("reader", "restore", "alice@latest", "eml:out").code == 0


def test_a_writer_erases_nothing_and_an_eraser_does(as_: As) -> None:
    assert as_("writer", "backup", "alice").code == 0
    words = ["erase", "--query", "subject:One", "--reason", "asked to", "--although-locked", "--yes"]
    result = as_("writer", *words)
    assert (result.code, "s3-policy --role eraser" in result.err) == (1, True), result.err
    assert all("erasures/" in each for each in as_.refused)
    result = as_("eraser", *words)
    assert (result.code, as_.refused) == (0, []), result.err
    assert "1 erased" in as_("reader", "snapshots").out


def test_a_pruner_prunes(as_: As, account: Account) -> None:
    for number in range(9):
        account.deliver("INBOX", [message(f"Small {number}")])
        assert as_("writer", "backup", "alice").code == 0
    result = as_("pruner", "forget", "--keep-last", "1", "--json")
    assert (result.code, as_.refused) == (0, []), result.err
    assert result.document["report"]["locked"] == 8  # type: ignore[index]
    result = as_("pruner", "prune", "--alone", "--json")
    assert (result.code, as_.refused) == (0, []), result.err
    assert result.document["report"]["packs"] >= 8  # type: ignore[index]
    assert as_("writer", "hold", "add", "alice", "--reason", "an audit").code == 0
    assert as_.refused == []
