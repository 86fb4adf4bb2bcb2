"""Pruning on the command line, in a bucket."""

from __future__ import annotations

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

    dry = run("prune", "--dry-run")
    assert (dry.code, packs()) == (0, RUNS), dry.err
    assert f"{RUNS} small packs" in dry.out
    assert "would be superfluous" in dry.out
    done = run("prune", "--alone", "--json")
    report = done.document["report"]  # type: ignore[index]
    assert (done.code, report["removed"], report["waiting"], packs()) == (0, 2 * RUNS, 0, 1), done.err
    assert "nothing to do" in run("prune").out

    assert run("backup", "alice").out.startswith("alice: nothing has changed")
    assert run("restore", "alice@latest", "eml:out").code == 0
    assert sorted(path.read_bytes() for path in (tmp_path / "out").rglob("*.eml")) == sorted(mails)


@pytest.mark.parametrize(
    "words", [("--grace", "soon"), ("--grace", "2h"), ("--max-unused", "101%"), ("--max-repack", "much")]
)
def test_what_cannot_be_meant_is_refused(run: Run, configured: Path, words: tuple[str, str]) -> None:
    if words == ("--grace", "2h"):
        assert run("init").code == 0
    result = run("prune", *words)
    assert (result.code, words[0] in result.err) == (2, True), result.err
