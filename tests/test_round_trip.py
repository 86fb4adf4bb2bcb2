"""The whole promise, on all the mail there is: an account on a real server goes in, changes, goes in again, and each of
its snapshots comes back from the archive to every kind of target, byte for byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from backupd.model import Problem
from backupd.operations.backup import backup
from backupd.operations.restore import RestoreReport, restore
from backupd.operations.state import State
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from backupd.repository.snapshots import MailboxRecord, SnapshotRef
from backupd.sources.imap.source import ImapSource
from backupd.storage.base import Storage
from backupd.storage.local import LocalStorage
from backupd.storage.s3 import S3Storage
from backupd.targets.base import Target
from backupd.targets.eml import EmlTarget
from backupd.targets.imap.target import ImapTarget
from backupd.targets.maildir import MaildirTarget
from backupd.targets.mbox import MboxTarget
from backupd.targets.zip import ZipTarget
from backupd.wire.imap_settings import ImapSettings
from tests.support import corpus
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.restoring import Restored, read_eml, read_mbox, read_zip
from tests.support.seaweedfs import SeaweedFS

NAMES = ("Entwürfe & Köpfe", "日本", 'quoted "name"', "with space ", "per%cent*star", "back\\slash", "A&B", "100%")
"""Names of the first mailboxes, in place of those of the corpus: each shape once. The delimiter is "/"."""

pytestmark = [
    pytest.mark.timeout(900),  # all mail there is, on a machine that may be busy
    pytest.mark.parametrize(
        "backed",
        # Of each kind all tests on one worker, so that the account is made, and backed up, once.
        [
            pytest.param(kind, marks=pytest.mark.xdist_group(kind.replace(" ", "-")))
            for kind in ("bulk in a bucket", "nasty in a bucket", "generated")
        ],
        indirect=True,
        scope="module",
    ),
]

Facts = tuple[str, tuple[bytes, ...], bytes]
"""Of a message: SHA-256, flags and keywords, INTERNALDATE."""

Contents = dict[bytes, dict[int, Facts]]
"""All of an account: by raw mailbox name and UID."""


class Backed(NamedTuple):
    """An account that was backed up twice, and what it really was at both times."""

    repository: Repository
    state: State
    snapshots: list[tuple[SnapshotRef, Contents]]


def settings(account: Account) -> ImapSettings:
    return ImapSettings(account.host, account.username, account.password, account.port, "none")


def facts(raw: bytes, flags: tuple[bytes, ...], date: bytes) -> Facts:
    return hashlib.sha256(raw).hexdigest(), flags, date


def contents(account: Account) -> Contents:
    return {
        name: {each.uid: facts(each.raw, each.flags, each.internaldate) for each in account.messages(name)}
        for name in account.mailboxes()
    }


def office_mail(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The generated office mailbox of the corpus where there is one, else generated here."""
    place = corpus.folder()
    maker = place / "make_office_mailbox.py" if place else None
    if maker is None or not maker.is_file():
        yield from ((each.mailbox, each.raw) for each in corpus.generated("bulk"))
        return
    command = [sys.executable, maker, "--messages", "600", "--mailboxes", "3", "--format", "eml", "--out", folder]
    subprocess.run([*command, "--corpus", corpus.unpacked("bulk")], check=True, capture_output=True)
    for path in sorted(folder.rglob("*.eml")):
        yield path.parent.relative_to(folder).as_posix(), path.read_bytes()


def mail_of(kind: str, folder: Path) -> dict[str, list[bytes]]:
    """Messages as a server can hold them, by mailbox; those it cannot hold at all (empty ones) are left out."""
    found: dict[str, list[bytes]] = {}
    if kind == "generated":
        every = office_mail(folder)
    else:
        every = ((each.mailbox, each.raw) for each in corpus.messages("bulk" if kind == "bulk" else "nasty"))
    for mailbox, raw in every:
        if raw:
            found.setdefault(mailbox.replace("/", "-"), []).append(corpus.crlf(raw))
    renamed = iter(NAMES)
    return {next(renamed, mailbox): raws for mailbox, raws in found.items()}


def change(account: Account) -> None:
    """A day in the life of an account, all at once."""
    messages = {name: account.status(name)["MESSAGES"] for name in account.mailboxes()}
    first, second, third, *_ = sorted(messages, key=lambda name: -messages[name])
    account.append(first, message("New since then"), (b"\\Seen", b"$NotJunk"), b"29-Feb-2024 23:59:59 -0500")
    account.append("INBOX", message("The only one here"))
    account.store(first, "2:9", (b"\\Answered", b"Keyword-1"))
    account.expunge(first, "11:20")
    account.create("Moved here/below")
    account.move(first, "21:40", "Moved here/below")
    account.rename(second, "Renamed/twice")
    account.reset_uidvalidity(third)


@pytest.fixture(scope="module")
def backed(
    request: pytest.FixtureRequest, dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backed]:
    kind, _, place = request.param.partition(" in ")
    folder = tmp_path_factory.mktemp(kind)
    account = dovecot.account("mdbox" if kind == "bulk" else "sdbox")
    for name, raws in mail_of(kind, folder / "office").items():
        account.create(name)
        account.deliver(name, raws)
        account.store(name, "1:*", (b"\\Seen",))
        account.store(name, "1:5", (b"\\Flagged", b"$Forwarded", b"NonJunk"))
    account.subscribe(*account.mailboxes()[:3])
    storage: Storage = LocalStorage(folder / "repository")
    if place:
        server: SeaweedFS = request.getfixturevalue("seaweedfs")
        storage = S3Storage(f"s3://{server.bucket()}/mail", server.settings(retry_seconds=60.0))
    secrets = create(storage, "a passphrase", argon2=Argon2(1, 8, 1))
    state = State(folder / "state")
    source = ImapSource(settings(account), 3)
    with Repository(storage, secrets, cache=state.path) as repository:
        truth, new = [], []
        for step in (lambda: None, lambda: change(account)):
            step()
            report = backup(repository, source, "alice", state=state)
            assert report.complete
            assert report.problems == []
            new.append(report.new)
            truth.append(contents(account))
        # Of the renamed mailbox, the one that was reset and what was moved, nothing was downloaded again.
        assert new == [sum(map(len, truth[0].values())), 2]
        assert backup(repository, source, "alice", state=state).snapshot is None
        yield Backed(repository, state, list(zip(repository.refs("alice"), truth, strict=True)))
    state.close()


def restored(backed: Backed, number: int, open_target: Callable[[], Target]) -> tuple[RestoreReport, Contents]:
    """What the restore said, and what should be there now: all but what was refused, and said to be."""
    ref, truth = backed.snapshots[number]
    report = restore(backed.repository, ref, open_target, state=backed.state)
    again = restore(backed.repository, ref, open_target, state=backed.state)
    assert sum(each.written - each.altered for each in again.mailboxes) == 0, "a second restore wrote again"
    return report, truth


def selectable(backed: Backed, number: int) -> list[MailboxRecord]:
    """The mailboxes of a snapshot that can hold messages."""
    snapshot = backed.repository.snapshot(backed.snapshots[number][0])
    return [record for record in snapshot.mailboxes if record.mailbox.selectable]


def altered(problems: list[Problem]) -> set[tuple[str, int | None]]:
    return {(problem.mailbox, problem.uid) for problem in problems}


@pytest.mark.parametrize("number", [0, 1])
def test_a_snapshot_comes_back_to_an_imap_account(backed: Backed, number: int, dovecot: Dovecot) -> None:
    fresh = dovecot.account("mdbox")
    target = settings(fresh)
    fingerprint = backed.repository.secrets.fingerprint
    report, truth = restored(backed, number, lambda: ImapTarget(target, fingerprint))

    # Dovecot itself changes the line ends of some of the nastiest mail when it is appended; each is said by name.
    assert all("line ends changed" in problem.what for problem in report.problems)
    names = {record.mailbox.name: record.mailbox.raw_name for record in selectable(backed, number)}
    spared = {(names[name], uid) for name, uid in altered(report.problems)}
    now = contents(fresh)
    assert set(now) == set(truth)
    for name, messages in truth.items():
        came = list(now[name].values())
        went = list(messages.items())
        assert len(came) == len(went)
        wrong = [uid for (uid, was), is_ in zip(went, came, strict=True) if was != is_ and (name, uid) not in spared]
        assert not wrong, name
    assert len(spared) * 20 <= sum(map(len, truth.values()))


@pytest.mark.parametrize(("kind", "number"), [("eml", 0), ("eml", 1), ("mbox", 1), ("zip", 1)])
def test_a_snapshot_comes_back_to_files(backed: Backed, number: int, kind: str, tmp_path: Path) -> None:
    classes: dict[str, Callable[..., Target]] = {"eml": EmlTarget, "mbox": MboxTarget, "zip": ZipTarget}
    place = tmp_path / ("mail.zip" if kind == "zip" else "mail")
    report, truth = restored(backed, number, lambda: classes[kind](place, backed.repository.secrets.fingerprint))

    assert report.problems == []
    came = {each.name: _read(kind, place, each.target_name) for each in report.mailboxes if each.messages}
    for record in selectable(backed, number):
        expected = truth[record.mailbox.raw_name]
        found = {
            uid: facts(raw, tuple(flag.encode() for flag in flags), date.encode())
            for uid, (raw, flags, date) in came.get(record.mailbox.name, {}).items()
        }
        assert found == expected, record.mailbox.name
    assert {record.mailbox.raw_name for record in selectable(backed, number)} == set(truth)


def _read(kind: str, place: Path, target_name: str) -> Restored:
    if kind == "zip":
        return read_zip(place, target_name.removeprefix(f"{place}:"))
    return (read_eml if kind == "eml" else read_mbox)(Path(target_name))


@pytest.mark.parametrize("number", [0, 1])
def test_a_snapshot_comes_back_to_a_maildir_that_dovecot_reads(backed: Backed, number: int, dovecot: Dovecot) -> None:
    reader = dovecot.account("maildir-fs")
    place = reader.home / "Maildir"
    report, truth = restored(backed, number, lambda: MaildirTarget(place, backed.repository.secrets.fingerprint))
    reader.server.own(place, *place.rglob("*"))

    assert report.problems == []
    folders = {each.name: Path(each.target_name) for each in report.mailboxes}
    for record in selectable(backed, number):
        expected = list(truth[record.mailbox.raw_name].values())
        served = reader.messages(_served_name(folders[record.mailbox.name], place))
        assert [facts(each.raw, each.flags, each.internaldate) for each in served] == expected, record.mailbox.name


def _served_name(folder: Path, root: Path) -> bytes:
    return "/".join(folder.relative_to(root).parts).encode() or b"INBOX"
