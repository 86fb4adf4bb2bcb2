"""Local mail of every kind goes in, comes out on an IMAP server with folders, flags and dates, and goes in again from
there: octet for octet. The same store once more adds nothing, and with one more message adds that one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from backupd.mail.arrival import of_header
from backupd.mail.headers import header_of
from backupd.operations.backup import BackupReport, backup, pull
from backupd.operations.import_mail import import_mail
from backupd.operations.restore import restore
from backupd.operations.state import State
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from backupd.sources.imap.source import ImapSource
from backupd.sources.local import detect
from backupd.targets.imap.target import ImapTarget
from backupd.wire.imap_settings import ImapSettings
from tests.support import corpus
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import nasty_mail
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_pop3 import SimulatedPop3
from tests.support.stores import FOLDERS, KINDS, Filed, Kind

_OF_PROGRAMS = re.compile(
    rb"(?mi)^(status|x-status|x-keywords|x-uid|x-imap|content-length|x-mozilla|x-tuid|x-gmail|x-gm-|x-account-key)"
)
"""Fields that mail programs write for themselves; a message that came with them cannot be told from one of theirs."""


def _can_be_filed(raw: bytes) -> bool:
    """Whether files with LF, quoting of every kind, and fields of programs in front of it leave it what it is."""
    header, empty, _ = raw.partition(b"\r\n\r\n")
    return bool(
        empty and raw.endswith(b"\r\n") and b"\r\r\n" not in raw and not raw.startswith((b"From ", b" ", b"\t"))
        and b"\n>From " not in raw and not _OF_PROGRAMS.search(header) and (date := of_header(header_of(raw)))
        and 1975 < date.year < 2026
    )  # fmt: skip


@pytest.fixture(scope="module")
def mails() -> list[Filed]:
    every = [each.raw for each in corpus.spread("bulk", 60)] + list(nasty_mail().values())
    every += [each.raw for each in corpus.spread("nasty", 60)]
    raws = [raw for raw in dict.fromkeys(map(corpus.crlf, filter(None, every))) if _can_be_filed(raw)]
    assert len(raws) > 40
    dates = [of_header(header_of(raw)) for raw in raws]
    return [
        Filed(FOLDERS[number % 3], raw, number % 2 == 0, number % 5 == 0, int(date.timestamp()) + 3600)
        for number, (raw, date) in enumerate(zip(raws, dates, strict=True))
        if date
    ]


class Bob:
    """An account that mail is imported into, and the store it comes from."""

    def __init__(self, kind: Kind, folder: Path, repository: Repository) -> None:
        self.kind, self.store, self.repository = kind, folder / "store", repository
        self.state = State(folder / "state")

    def files(self, some: list[Filed]) -> None:
        if self.store.is_dir():
            shutil.rmtree(self.store)
        self.store.unlink(missing_ok=True)
        self.kind.write(self.store, some)

    def takes_in(self) -> BackupReport:
        path = self.store / "mail.pst" if (self.store / "mail.pst").exists() else self.store
        format_ = detect.by_name(self.kind.named) if self.kind.named else detect.detect(path)
        return import_mail(self.repository, format_.open(path, exact=False), "bob", state=self.state)

    def restores(self, settings: ImapSettings) -> int:
        """To the server; how many messages were written."""
        fingerprint = self.repository.secrets.fingerprint
        ref = self.repository.refs("bob")[-1]
        report = restore(self.repository, ref, lambda: ImapTarget(settings, fingerprint), state=self.state)
        assert report.problems == []
        return sum(each.written for each in report.mailboxes)

    def mail(self, account: str) -> dict[bytes, list[bytes]]:
        found = contents(self.repository, newest(self.repository, account))
        return {name: sorted(raw for raw, *_ in some.values()) for name, some in found.items() if some}


@pytest.fixture(params=sorted(KINDS))
def bob(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bob]:
    monkeypatch.setenv("PATH", f"{tmp_path / 'store' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    storage = MemoryStorage()
    with Repository(storage, create(storage, "a passphrase", argon2=Argon2(1, 8, 1))) as repository:
        made = Bob(KINDS[request.param], tmp_path, repository)
        yield made
        made.state.close()


def settings(account: Account) -> ImapSettings:
    return ImapSettings(account.host, account.username, account.password, account.port, "none")


def expected(kind: Kind, mails: list[Filed]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for each in mails:
        found.setdefault(each.folder.encode() if kind.folders else b"INBOX", []).append(each.raw)
    return {name: sorted(raws) for name, raws in found.items()}


def test_a_store_comes_in_goes_to_imap_and_comes_back(bob: Bob, mails: list[Filed], account: Account) -> None:
    bob.files(mails)
    report = bob.takes_in()
    assert (report.problems, report.new) == ([], len(mails))
    assert bob.restores(settings(account)) == len(mails)

    keeps, by_raw = bob.kind.keeps, {each.raw: each for each in mails}
    there = {name: account.messages(name) for name in account.mailboxes()}
    assert {name: sorted(each.raw for each in some) for name, some in there.items() if some} == expected(
        bob.kind, mails
    )
    for each in (each for some in there.values() for each in some):
        filed = by_raw[each.raw]
        kept = {flag for flag, name in ((b"\\Seen", "seen"), (b"\\Flagged", "flagged")) if name in keeps}
        assert set(each.flags) - {b"\\Recent"} == filed.flags & kept
        arrived = datetime.strptime(each.internaldate.decode().strip(), "%d-%b-%Y %H:%M:%S %z").timestamp()
        assert arrived == (filed.stored if "date" in keeps else filed.stored - 3600)

    assert backup(bob.repository, ImapSource(settings(account)), "newbob", state=bob.state).complete
    assert bob.mail("newbob") == bob.mail("bob") == expected(bob.kind, mails)


def test_the_same_again_adds_nothing_and_one_more_adds_one(
    bob: Bob, mails: list[Filed], dovecot: Dovecot
) -> None:
    bob.files(mails[:-1])
    bob.takes_in()
    fresh = settings(dovecot.account())
    bob.restores(fresh)

    assert bob.takes_in().snapshot is None
    bob.files(mails)
    assert bob.takes_in().new == 1
    assert bob.restores(fresh) == 1
    assert bob.mail("bob") == expected(bob.kind, mails)


def test_what_came_by_pop3_too_is_there_once(bob: Bob, mails: list[Filed]) -> None:
    server = SimulatedPop3()
    server.put(*(each.raw for each in mails))
    pull(bob.repository, server, "bob", state=bob.state)
    bob.files(mails)

    assert bob.takes_in().problems == []
    assert pull(bob.repository, server, "bob", state=bob.state).snapshot is None
    assert bob.mail("bob") == expected(bob.kind, mails)


def test_what_was_imported_is_not_downloaded_again(bob: Bob, mails: list[Filed]) -> None:
    bob.files(mails)
    bob.takes_in()
    server = SimulatedPop3()
    server.put(*(each.raw for each in mails))

    assert pull(bob.repository, server, "bob", state=bob.state).new == 0
    assert bob.mail("bob") == expected(bob.kind, mails)
