"""Who forgets and prunes in `python -m bench prune`, and what each of them has to run for it.

All keep the same history (changing.py), with their defaults and encrypted. To backupd it comes as an account, without a
server. To restic and borg it comes as files: one a message, in the folders of a Maildir, with the flags in the names.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Protocol

from backupd.operations.backup import backup
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository, unlock
from backupd.storage.local import LocalStorage
from bench import a_day_later
from bench.changing import Changing, message
from bench.contestants import OWN, PASSPHRASE, quietly, secret
from bench.process import Command, Failed

LIST, AUDIT, AUDIT_AFTER = "snapshots", "audit of all references", "audit afterwards"
FORGET, MARK, REMOVE, AT_ONCE = "forget", "prune", "prune, a day later", "forget, and prune at once"

Work = tuple[str, Sequence[Command]]


class Keeper(Protocol):
    """Somebody who keeps the history. repository: its folder."""

    name: str
    repository: Path

    def make(self, account: Changing) -> None:
        """Make a repository, and all snapshots of the account. Not measured but for its time."""

    def works(self, keep: int) -> Iterator[Work]:
        """What is measured, one after the other; each changes what the next one finds. keep: newest snapshots."""


def history(account: Changing) -> Iterator[datetime]:
    """Each snapshot's time, when the account is at it."""
    for number in range(account.snapshots):
        if number:
            account.go_on()
        yield account.time


class Own:
    """backupd, as the installed command; but the snapshots are made in this process."""

    name = OWN

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        self.repository = folder / "repository"

    def make(self, account: Changing) -> None:
        passphrase = {"file": str(secret(self._folder / "passphrase", PASSPHRASE))}
        config = {
            "state_dir": str(self._folder / "state"),
            "repository": {"url": str(self.repository), "passphrase": passphrase},
        }
        (self._folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        quietly(self._command("init").words, self._folder)
        storage = LocalStorage(self.repository)
        with (
            closing(State(self._folder / "state")) as state,
            Repository(storage, unlock(storage, PASSPHRASE), cache=state.path) as repository,
        ):
            for time in history(account):
                backup(repository, account, "source", state=state, clock=lambda: time)  # noqa: B023 called at once

    def works(self, keep: int) -> Iterator[Work]:
        forget = self._command("forget", "source", "--keep-last", str(keep))
        audit = self._command("audit", "--level", "metadata")
        yield LIST, [self._command("snapshots")]
        yield AUDIT, [audit]
        before = self._folder / "before"
        _copied(self._folder, before, ("state",))
        # Objects never change: they get a second name each.
        shutil.copytree(self.repository, before / "repository", copy_function=os.link)
        yield FORGET, [forget]
        yield MARK, [self._command("prune")]
        date_back(self.repository)
        yield REMOVE, [self._a_day_later("prune")]
        yield AUDIT_AFTER, [audit]
        for each in ("state", "repository"):
            shutil.rmtree(self._folder / each)
            (before / each).rename(self._folder / each)
        yield AT_ONCE, [forget, self._command("prune", "--alone")]

    def _command(self, *words: str) -> Command:
        return Command([self._program, "--config", self._folder / "config.yaml", *words], self._folder)


    def _a_day_later(self, *words: str) -> Command:
        program = [sys.executable, "-m", a_day_later.__name__]
        place = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
        return Command(
            [*program, "--config", self._folder / "config.yaml", *words], self._folder, {"PYTHONPATH": place}
        )


def date_back(repository: Path) -> None:
    """Make all marks a day older by their names; see a_day_later.py."""
    for path in list((repository / names.MARKS).iterdir()):
        made = names.mark_time(names.MARKS + path.name)
        if made is None:
            raise Failed(f"{path.name} is no mark")
        path.rename(path.with_name(names.snapshot_id(made - a_day_later.PERIOD, path.name[-8:])))


class AsFiles:
    """A backup of files."""

    name: str
    kept: tuple[str, ...]
    """Beside the repository, what belongs to its state."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.repository, self._mail = folder / "repository", folder / "mail"
        self._environment = self._environment_of(folder)

    def make(self, account: Changing) -> None:
        secret(self._folder / "passphrase", PASSPHRASE)
        quietly(self._init(), self._folder, self._environment)
        for time in history(account):
            change(self._mail, account)
            quietly(self._save(time), self._mail, self._environment)
        shutil.rmtree(self._mail)

    def works(self, keep: int) -> Iterator[Work]:
        before, every = self._folder / "before", ("repository", *self.kept)
        _copied(self._folder, before, every)
        yield LIST, [self._command(self._list())]
        yield FORGET, [self._command(self._forget(keep))]
        for each in every:
            shutil.rmtree(self._folder / each)
            (before / each).rename(self._folder / each)
        yield AT_ONCE, [self._command(words) for words in self._prune(keep)]
        yield AUDIT_AFTER, [self._command(self._check())]

    def _command(self, words: Sequence[str]) -> Command:
        return Command(words, self._folder, self._environment)

    def _environment_of(self, folder: Path) -> dict[str, str]:
        raise NotImplementedError

    def _init(self) -> Sequence[str]:
        raise NotImplementedError

    def _save(self, time: datetime) -> Sequence[str]:
        raise NotImplementedError

    def _list(self) -> Sequence[str]:
        raise NotImplementedError

    def _forget(self, keep: int) -> Sequence[str]:
        raise NotImplementedError

    def _prune(self, keep: int) -> Sequence[Sequence[str]]:
        raise NotImplementedError

    def _check(self) -> Sequence[str]:
        raise NotImplementedError


class WithRestic(AsFiles):
    name = "restic"
    kept = ("cache",)

    def _environment_of(self, folder: Path) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(folder / "repository"),
            "RESTIC_PASSWORD_FILE": str(folder / "passphrase"),
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }

    def _init(self) -> Sequence[str]:
        return ["restic", "init", "--repository-version", "2"]

    def _save(self, time: datetime) -> Sequence[str]:
        return ["restic", "-q", "backup", "--time", f"{time:%Y-%m-%d %H:%M:%S}", "."]

    def _list(self) -> Sequence[str]:
        return ["restic", "snapshots"]

    def _forget(self, keep: int) -> Sequence[str]:
        return ["restic", "-q", "forget", "--keep-last", str(keep)]

    def _prune(self, keep: int) -> Sequence[Sequence[str]]:
        return [[*self._forget(keep), "--prune"]]

    def _check(self) -> Sequence[str]:
        return ["restic", "-q", "check"]


class WithBorg(AsFiles):
    name = "borg"
    kept = ("borg",)

    def _environment_of(self, folder: Path) -> dict[str, str]:
        return {
            "BORG_REPO": str(folder / "repository"),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(folder / "borg"),
        }

    def _init(self) -> Sequence[str]:
        return ["borg", "init", "-e", "repokey-blake2"]

    def _save(self, time: datetime) -> Sequence[str]:
        return ["borg", "create", "--timestamp", f"{time:%Y-%m-%dT%H:%M:%S}", f"::{time:%Y-%m-%d}", "."]

    def _list(self) -> Sequence[str]:
        return ["borg", "list"]

    def _forget(self, keep: int) -> Sequence[str]:
        return ["borg", "prune", "--keep-last", str(keep)]

    def _prune(self, keep: int) -> Sequence[Sequence[str]]:
        return [self._forget(keep), ["borg", "compact"]]

    def _check(self) -> Sequence[str]:
        return ["borg", "check"]


def change(mail: Path, account: Changing) -> None:
    """Bring the folders up to date with the account."""
    for name, change in account.changes.items():
        place = mail / name / "cur"
        place.mkdir(parents=True, exist_ok=True)
        for at, uid in enumerate(change.added):
            (place / f"{uid}.changing:2,S").write_bytes(message(change.number + at))
        for uid in change.gone:
            for flags in ("S", "FS"):
                (place / f"{uid}.changing:2,{flags}").unlink(missing_ok=True)
        for uid in change.flagged:
            (place / f"{uid}.changing:2,S").rename(place / f"{uid}.changing:2,FS")


def _copied(source: Path, target: Path, folders: Sequence[str]) -> None:
    for each in folders:
        shutil.copytree(source / each, target / each)
