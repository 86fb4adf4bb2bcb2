"""Copies on the command line: from a folder to a bucket, and mail back from a copy when the repository is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

MAILS = [message(f"Message {number}") for number in range(5)]


@pytest.fixture
def with_copies(run: Run, configured: Path, account: Account, seaweedfs: SeaweedFS, tmp_path: Path) -> Path:
    """The account is backed up; one copy is to be in a folder, another one in a bucket."""
    s3 = {
        "endpoint_url": seaweedfs.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY, "retry_for": "10s",
    }  # fmt: skip
    bucket = f"s3://{seaweedfs.bucket()}/mail"
    copies = [{"url": str(tmp_path / "second")}, {"url": bucket, "s3": s3}]
    configured.write_text(configured.read_text() + f"copies: {json.dumps(copies)}\n")
    account.deliver("INBOX", MAILS)
    assert run("init").code == 0
    assert run("backup", "alice").code == 0
    return configured


def restored(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.eml"))


def test_mail_is_restored_from_a_copy_when_the_repository_is_gone(run: Run, with_copies: Path, tmp_path: Path) -> None:
    first = run("copy", "--json")
    assert first.code == 0
    assert first.document == {
        "copies": [{**each, "copied": each["objects"], "problems": []} for each in first.document["copies"]],  # type: ignore[index]
        "exit_code": 0,
    }
    again = run("copy")
    assert (again.code, again.out.count("nothing to copy")) == (0, 2)
    assert SECRET_KEY not in first.out + first.err + again.out + again.err

    shutil.rmtree(tmp_path / "repository")
    shutil.rmtree(tmp_path / "state")
    assert run("restore", "alice@latest", "eml:lost").code == 10
    for number in ("1", "2"):
        result = run("restore", "alice@latest", f"eml:from-{number}", "--copy", number)
        assert (result.code, restored(tmp_path / f"from-{number}")) == (0, sorted(MAILS))


def test_a_copy_that_fails_does_not_keep_the_others_from_being_made(
    run: Run, with_copies: Path, tmp_path: Path
) -> None:
    (tmp_path / "second").write_text("in the way")
    result = run("copy", "--json")
    assert result.code == 1
    failed, made = result.document["copies"]  # type: ignore[index]
    assert failed["error"]["exit_code"] == 1
    assert made["copied"] == made["objects"] > 0


def test_what_was_damaged_is_told_and_the_exit_code_says_so(run: Run, with_copies: Path, tmp_path: Path) -> None:
    (pack, *_) = (path for path in (tmp_path / "repository/packs").rglob("*") if path.is_file())
    octets = bytearray(pack.read_bytes())
    octets[len(octets) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(octets)
    result = run("copy", "1")
    assert result.code == 3
    assert pack.name in result.err


def test_a_copy_is_only_written_by_copy(run: Run, with_copies: Path) -> None:
    for command in (["backup"], ["init"], ["copy"]):
        result = run(*command, "--copy", "1")
        assert (result.code, "no copy of it" in result.err) == (2, True)
    for words in (["copy", "3"], ["snapshots", "--copy", "s3://elsewhere/mail"]):
        result = run(*words)
        assert (result.code, "there is no such copy" in result.err) == (2, True)


def test_without_a_copy_in_the_configuration_it_says_what_to_do(run: Run, configured: Path) -> None:
    result = run("copy")
    assert (result.code, "copies:" in result.err) == (2, True)


def test_a_key_slot_that_was_removed_is_told_until_it_is_revoked(run: Run, with_copies: Path) -> None:
    assert run("key", "add", "laptop", "--role", "writer", "--key-file", "laptop.key").code == 0
    made = run("copy")
    assert made.code == 0, made.err
    assert run("key", "remove", "laptop").code == 0
    told = run("copy", "1")
    assert (told.code, "keys/laptop-" in told.err, "--revoke" in told.err) == (0, True, True)
    done = run("copy", "1", "--revoke")
    assert (done.code, "1 key slot removed: keys/laptop-" in done.out) == (0, True)
    assert "laptop" not in run("key", "list", "--copy", "1").out
    assert "laptop" in run("key", "list", "--copy", "2").out


def test_the_policy_for_a_copy_names_its_bucket(run: Run, with_copies: Path) -> None:
    policy = run("s3-policy", "--role", "copier", "--copy", "2").document
    bucket = with_copies.read_text().split("s3://")[1].split("/")[0]
    assert f"arn:aws:s3:::{bucket}/mail/keys/*" in json.dumps(policy)
    assert "Delete" not in json.dumps(policy)
    refused = run("s3-policy", "--role", "writer")
    assert (refused.code, "not in a bucket" in refused.err) == (2, True)
