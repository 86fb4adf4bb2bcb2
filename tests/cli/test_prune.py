"""Pruning on the command line, in a bucket."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

RUNS = 8


@pytest.fixture
def bucket(configured: Path, account: Account, seaweedfs: SeaweedFS, tmp_path: Path) -> str:
    """The repository is in a bucket, and has a small pack of each of some runs."""
    name = seaweedfs.bucket()
    s3 = f"""\
  s3:
    endpoint_url: {seaweedfs.endpoint_url}
    region: us-east-1
    access_key_id: {ACCESS_KEY}
    secret_access_key: {SECRET_KEY}
"""
    text = configured.read_text().replace(f"url: {tmp_path}/repository", f"url: s3://{name}/mail")
    configured.write_text(text.replace("accounts:", f"{s3}accounts:"))
    return name


def test_small_packs_in_a_bucket_become_one(
    run: Run, bucket: str, account: Account, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    def packs() -> int:
        return int(seaweedfs.client().list_objects_v2(Bucket=bucket, Prefix="mail/packs/")["KeyCount"])

    assert run("init").code == 0
    mails = [message(f"Message {number}") for number in range(RUNS)]
    for mail in mails:
        account.deliver("INBOX", [mail])
        assert run("backup", "alice").code == 0
    assert packs() == RUNS

    first = run("prune", "--grace", "1s")
    assert (first.code, packs()) == (0, RUNS + 1), first.err
    assert f"{RUNS} small packs" in first.out
    assert "superfluous from now on" in first.out
    time.sleep(1.1)  # the grace period, which counts from the clock of the machine
    second = run("prune", "--grace", "1s", "--json")
    report = second.document["report"]  # type: ignore[index]
    assert (second.code, report["removed"], report["waiting"], packs()) == (0, 2 * RUNS, 0, 1)
    assert "nothing to do" in run("prune").out

    assert run("backup", "alice").out.startswith("alice: nothing has changed")
    assert run("restore", "alice@latest", "eml:out").code == 0
    assert sorted(path.read_bytes() for path in (tmp_path / "out").rglob("*.eml")) == sorted(mails)


def test_a_grace_period_that_is_none_is_refused(run: Run, configured: Path) -> None:
    result = run("prune", "--grace", "soon")
    assert (result.code, "--grace" in result.err) == (2, True)
