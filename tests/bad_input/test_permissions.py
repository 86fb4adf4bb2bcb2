"""Folders that backupd may not use: one line that says which and what to check, and nothing is changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import ROOT, Place, imap, mail_of
from tests.support.dovecot_account import Account
from tests.support.mail import message

NOBODY = 65534


def _others_may_read(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))


@pytest.fixture
def denied(place: Place, account: Account) -> Iterator[Place]:
    """A place with one backup in it, used by somebody who owns none of it; for root that is nobody."""
    if os.geteuid() == 0 and not (_others_may_read(ROOT) and _others_may_read(Path(sys.executable).parent)):
        pytest.skip("user nobody may not read the project or the Python that runs it")
    account.append("INBOX", message("Hello"))
    place.configure({"alice": imap(account)})
    place.create()
    place.done("backup")
    if os.geteuid() == 0:
        # All but the repository may be used by nobody.
        for path in (place.folder, *place.folder.parents):
            if not path.stat().st_mode & 0o001:
                path.chmod(path.stat().st_mode | 0o011)
        for path in (place.config, place.folder / "passphrase", place.state, *place.state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        place.before = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    yield place
    for path in (place.repository, place.state):
        path.chmod(0o700)


def test_a_repository_that_may_not_be_read(denied: Place) -> None:
    denied.repository.chmod(0o000)

    for command in (["backup"], ["snapshots"], ["restore", "alice@latest", f"eml:{denied.folder}/out"]):
        denied.failed(1, *command, saying=[str(denied.repository), "no permission", "check who owns the directory"])


def test_a_repository_that_may_not_be_written(denied: Place, account: Account) -> None:
    account.append("INBOX", message("New"))
    before = denied.names("")
    for path in (denied.repository, *denied.repository.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    denied.failed(1, "backup", saying=["alice: ", str(denied.repository), "no permission", "check who owns"])

    assert denied.names("") == before
    assert len(denied.snapshots()) == 1
    for path in (denied.repository, *(each for each in denied.repository.rglob("*") if each.is_dir())):
        path.chmod(0o755)
    denied.before = ()
    denied.done("backup")
    assert denied.restored("alice@latest") == mail_of(account)


def test_a_state_folder_that_may_not_be_used(denied: Place) -> None:
    if os.geteuid() == 0:
        shutil.rmtree(denied.state)
        denied.state.mkdir(mode=0o700)
    else:
        denied.state.chmod(0o000)

    denied.failed(1, "backup", saying=[str(denied.state), "check state_dir's owner"])


def test_a_target_folder_that_may_not_be_written(denied: Place) -> None:
    for path in (denied.repository, *denied.repository.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    closed = denied.folder / "closed"
    closed.mkdir(mode=0o755)
    if os.geteuid() != 0:
        closed.chmod(0o555)

    saying = [str(closed), "not allowed", "check owner and permissions"]
    denied.failed(1, "restore", "alice@latest", f"maildir:{closed}", saying=saying)


def test_a_folder_in_which_no_repository_can_be_made(denied: Place) -> None:
    parent = denied.folder / "closed"
    parent.mkdir(mode=0o755)
    if os.geteuid() != 0:
        parent.chmod(0o555)
    denied.config.write_bytes(
        denied.config.read_bytes().replace(str(denied.repository).encode(), str(parent / "new").encode())
    )

    denied.failed(1, "init", saying=[str(parent / "new"), "no permission", "check who owns the directory"])
