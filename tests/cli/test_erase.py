"""Erasing on the command line: a person's mail goes, all else comes back byte for byte, and nothing brings it back.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.repository.repository import unlock
from backupd.storage.local import LocalStorage
from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise
from tests.support.opened import contains
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

SHARED = Attachment("shared.bin", noise("shared", 20_000))
ANNS = [
    message(f"secret-subject {number}", "secret-text\r\n", sender="Ann <ann@example.com>", attachments=attachments)
    for number, attachments in enumerate([(), (), (SHARED, Attachment("own.bin", noise("own", 9000)))])
]
OTHERS = [message(f"Others {number}", noise(number, 2000).hex(), sender="joann@example.com") for number in range(5)]
OTHERS.append(message("With a file", attachments=[SHARED]))
GONE = ("--query", "from:ann@example.com", "--reason", "case 4711")


@pytest.fixture
def stored(run: Run, configured: Path, account: Account) -> None:
    account.deliver("INBOX", [OTHERS[0], ANNS[0], OTHERS[1], ANNS[1], *OTHERS[2:4]])
    account.create("Work")
    account.deliver("Work", [ANNS[2], *OTHERS[4:]])
    assert run("init").code == 0
    assert run("backup", "alice").code == 0


def restored(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*.eml"))


def is_there(tmp_path: Path, secret: bytes) -> bool:
    storage = LocalStorage(tmp_path / "repository")
    return contains(storage, unlock(storage, "correct horse battery"), secret)


def test_a_persons_mail_goes_for_good_and_all_else_is_as_it_was(
    run: Run, stored: None, account: Account, tmp_path: Path
) -> None:
    done = run("erase", *GONE, "--yes", "--json")
    report = done.document["report"]  # type: ignore[index]
    assert (done.code, report["messages"], report["accounts"], report["forbidden"]) == (0, 3, ["alice"], 0), done.err

    assert "3 erased" in run("snapshots").out
    listed = run("ls", "alice@latest", "INBOX")
    assert (listed.code, listed.out.count("case 4711"), listed.out.count("secret")) == (0, 2, 0)
    shown = run("show", "alice@latest", "INBOX:2")
    assert (shown.code, "case 4711" in shown.err, "secret" in shown.out + shown.err) == (1, True, False)
    result = run("restore", "alice@latest", "eml:out")
    assert (result.code, restored(tmp_path / "out")) == (0, sorted(OTHERS)), result.err
    assert "3 left out, for they were erased" in result.out

    assert run("prune", "--alone").code == 0
    for secret in (b"secret", noise("own", 9000)):
        assert not is_there(tmp_path, secret)


def test_what_still_stands_on_the_server_or_comes_again_stays_away(
    run: Run, stored: None, account: Account, tmp_path: Path
) -> None:
    dry = run("erase", "--query", "from:ann@example.com", "--dry-run")
    assert (dry.code, dry.out.count("secret-subject"), "3 messages" in dry.out) == (0, 3, True), dry.err
    assert is_there(tmp_path, b"secret")
    assert run("erase", *GONE, "--yes").code == 0
    assert run("prune", "--alone").code == 0
    assert run("backup", "alice").out.startswith("alice: nothing has changed")
    account.create("Again")
    account.deliver("Again", ANNS)
    assert run("backup", "alice").code == 0
    assert "6 erased" in run("snapshots").out
    assert not is_there(tmp_path, b"secret")
    assert run("audit", "alice", "--level", "drill", "--full").code == 0
    assert "nothing is left to be finished" in run("erase", "--finish").out


def ask(
    tmp_path: Path, environment: dict[str, str], answer: bytes, words: Sequence[str] = GONE, *, code: int = 0
) -> str:
    """On a terminal, where somebody answers. What is said; the exit code must be this."""
    above, below = pty.openpty()
    try:
        os.write(above, answer)
        done = subprocess.run(
            [sys.executable, "-m", "backupd", "erase", *words],
            env=environment, cwd=tmp_path, stdin=below, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(above)
        os.close(below)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_it_asks_before_and_where_nobody_can_be_asked_it_does_nothing(
    run: Run, stored: None, environment: dict[str, str], tmp_path: Path
) -> None:
    nobody = ("nobody", *GONE, "--yes")
    for words, why in ((GONE, "--yes"), (GONE[:2], "--reason"), (GONE[2:], "--query"), (nobody, "no account")):
        refused = run("erase", *words)
        assert (refused.code, why in refused.err) == (2, True), refused.err
    said = ask(tmp_path, environment, b"n\n")
    assert "Erase 3 messages for good?" in said
    assert "nothing was erased" in said
    assert ask(tmp_path, environment, b"y\n").count("messages") > 1
    assert "3 erased" in run("snapshots").out


def test_mail_that_cannot_be_looked_at_is_told_of(
    run: Run, stored: None, environment: dict[str, str], tmp_path: Path
) -> None:
    (pack,) = (path for path in (tmp_path / "repository/packs").rglob("*") if path.is_file())
    data = pack.read_bytes()
    pack.unlink()
    pack.write_bytes(bytes(len(data)))
    words = ("--query", "text:secret-text", "--reason", "case 4711")
    done = run("erase", *words, "--yes")
    assert done.code == 3
    assert "not looked at: list " in done.err
    assert "`backupd repair`" in done.err
    assert "no message of what could be looked at is meant" in ask(tmp_path, environment, b"", words, code=3)
    assert "nothing is left of what could be looked at to be finished" in run("erase", "--finish").out


def test_what_is_held_is_refused_and_copies_are_told(
    run: Run, stored: None, configured: Path, tmp_path: Path
) -> None:
    configured.write_text(configured.read_text() + f"copies: {json.dumps([{'url': str(tmp_path / 'second')}])}\n")
    assert run("copy").code == 0
    assert run("hold", "add", "alice", "--reason", "a lawsuit", "--until", "2199-12-31").code == 0
    refused = run("erase", *GONE, "--yes")
    assert (refused.code, refused.out) == (1, ""), refused.out
    assert "2199-12-31" in refused.err
    assert "a lawsuit" in refused.err
    partly = run("erase", *GONE, "--yes", "--what-is-allowed")
    assert (partly.code, "3 messages kept" in partly.out) == (3, True), partly.out

    hold = run("hold", "list", "--json").document["holds"][0]["id"]  # type: ignore[index]
    assert run("hold", "remove", hold).code == 0
    assert str(tmp_path / "second") in run("erase", *GONE, "--yes").err
    assert run("prune", "--alone").code == 0
    assert run("copy").code == 0
    assert run("prune", "--alone", "--copy", "1").code == 0
    result = run("restore", "alice@latest", "eml:out", "--copy", "1")
    assert (result.code, restored(tmp_path / "out")) == (0, sorted(OTHERS)), result.err
    second = LocalStorage(tmp_path / "second")
    assert not contains(second, unlock(second, "correct horse battery"), b"secret")


def test_what_a_bucket_locks_is_refused_until_the_lock_ends(
    run: Run, configured: Path, account: Account, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    bucket = seaweedfs.bucket(locks=True)
    s3 = f"""\
  s3:
    endpoint_url: {seaweedfs.endpoint_url}
    region: us-east-1
    access_key_id: {ACCESS_KEY}
    secret_access_key: {SECRET_KEY}
    object_lock: {{mode: compliance, keep: 10d}}
"""
    text = configured.read_text().replace(f"url: {tmp_path}/repository", f"url: s3://{bucket}/mail")
    configured.write_text(text.replace("accounts:", f"{s3}accounts:"))
    account.deliver("INBOX", [OTHERS[0], ANNS[0]])
    assert run("init").code == 0
    assert run("backup", "alice").code == 0
    refused = run("erase", *GONE, "--yes")
    assert refused.code == 1
    assert f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}" in refused.err
    assert "is locked" in refused.err

    assert run("erase", *GONE, "--yes", "--although-locked").code == 0
    assert "1 erased" in run("snapshots").out
    pruned = run("prune", "--alone")
    assert (pruned.code, "locked until" in pruned.out) == (0, True), pruned.out
