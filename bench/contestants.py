"""Who is measured, and what each of them has to run for the same piece of work.

All encrypt (the raw wire stores nothing), all keep their own defaults: mbsync with fsync, restic with its automatic
compression, borg with repokey-blake2 and lz4. Each gets a folder of its own, gone after each round.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.figures import Measure
from bench.process import Command, stored
from tests.support.dovecot_account import Account

ROOT = Path(__file__).resolve().parents[1]
PASSPHRASE = "a passphrase for measuring"
OWN, RAW, RESTIC, BORG = "backupd", "raw wire", "mbsync + restic", "mbsync + borg"


class Contestant(Protocol):
    """One way of doing the work. Every method but `prepare` only says what to run; None: it does not do that work."""

    name: str

    def prepare(self, folder: Path, account: Account) -> None:
        """Make configuration and an empty repository in the folder. Not measured."""

    def snapshot(self) -> Sequence[Command]:
        """Bring the repository up to date with the account."""

    def restore_files(self, target: Path) -> Sequence[Command] | None:
        """Write all mail of the newest snapshot below a new folder, one message a file."""

    def restore_server(self, account: Account, spool: Path) -> Sequence[Command] | None:
        """Write all mail of the newest snapshot into an empty account. spool: the same mail, for the raw append."""

    def stored(self) -> dict[Measure, int]:
        """Bytes on the disk now: "stored" in the repository, and "beside" it what else there must be."""


class RawWire:
    """Not a backup: what reading and appending cost when nothing is done with the mail."""

    name = RAW

    def prepare(self, folder: Path, account: Account) -> None:
        self._folder, self._account = folder, account

    def snapshot(self) -> Sequence[Command]:
        return [self._wire("bench.drain", self._account)]

    def restore_files(self, target: Path) -> None:
        return None

    def restore_server(self, account: Account, spool: Path) -> Sequence[Command]:
        return [self._wire("bench.append", account, spool)]

    def stored(self) -> dict[Measure, int]:
        return {}

    def _wire(self, module: str, account: Account, *more: Path) -> Command:
        words: list[str | Path] = [sys.executable, "-m", module, account.host, str(account.port), account.username]
        words += more
        environment = {"PYTHONPATH": str(ROOT), "BENCH_PASSWORD": account.password}
        return Command(words, self._folder, environment)


class Backupd:
    """The installed command, as a user runs it."""

    name = OWN

    def __init__(self, program: str) -> None:
        self._program = program

    def prepare(self, folder: Path, account: Account) -> None:
        self.folder = self._folder = folder
        self._account = account
        secret(folder / "passphrase", PASSPHRASE)
        self._configure({"source": account})
        quietly([*self._command("init")], folder)

    def snapshot(self) -> Sequence[Command]:
        return [Command(self._command("backup", "source"), self._folder)]

    def ask(self, *words: str) -> Sequence[Command]:
        """Any other command."""
        return [Command(self._command(*words), self._folder)]

    def restore_files(self, target: Path) -> Sequence[Command]:
        return self.ask("restore", "source@latest", f"eml:{target}")

    def restore_server(self, account: Account, spool: Path) -> Sequence[Command]:
        self._configure({"source": self._account, "target": account})
        # 3: all is written, and the server says it keeps one message with other line ends. The others do not look.
        words = self._command("restore", "source@latest", "imap:target")
        return [Command(words, self._folder, ok=frozenset({0, 3}))]

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._folder / "repository")}

    def _places(self) -> dict[str, Any]:
        """Of the configuration: where the repository is."""
        return {"repository": {"url": str(self._folder / "repository")}}

    def _command(self, *words: str) -> list[str | Path]:
        verb, *rest = words
        return [self._program, "--config", self._folder / "config.yaml", verb, *rest]

    def _configure(self, accounts: dict[str, Account]) -> None:
        settings = {}
        for name, account in accounts.items():
            password = {"file": str(secret(self._folder / f"{name}.password", account.password))}
            server = {"host": account.host, "port": account.port, "tls": "none", "allow_plaintext": True}
            settings[name] = {"imap": {**server, "username": account.username, "password": password}}
        config = {"state_dir": str(self._folder / "state"), "accounts": settings, **self._places()}
        config["repository"]["passphrase"] = {"file": str(self._folder / "passphrase")}
        (self._folder / "config.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML


class Mirrored:
    """mbsync to a Maildir, and a file backup of that. What most people who care have today."""

    def __init__(self, name: str) -> None:
        self.name = name

    def prepare(self, folder: Path, account: Account) -> None:
        self._folder = folder
        self._maildir = folder / "mail"
        self._maildir.mkdir()
        self._mirror(folder / "mbsyncrc", account, self._maildir, "Pull", "Near")
        self._environment = self._set_up(folder)

    def snapshot(self) -> Sequence[Command]:
        mirror = Command(["mbsync", "-q", "-c", self._folder / "mbsyncrc", "mail"], self._folder)
        return [mirror, Command(self._save(), self._maildir, self._environment)]

    def restore_files(self, target: Path) -> Sequence[Command]:
        target.mkdir()
        return [Command(self._load(target), target, self._environment)]

    def restore_server(self, account: Account, spool: Path) -> Sequence[Command]:
        back = self._folder / "back"
        self._mirror(self._folder / "pushrc", account, back, "Push", "Far")
        push = Command(["mbsync", "-q", "-c", self._folder / "pushrc", "mail"], self._folder)
        return [*self.restore_files(back), push]

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._folder / "repository"), "beside": stored(self._maildir)}

    def _mirror(self, config: Path, account: Account, maildir: Path, way: str, create: str) -> None:
        state = self._folder / f"positions-{way}"
        state.mkdir()
        text = f"""IMAPAccount server
Host {account.host}
Port {account.port}
User {account.username}
Pass {account.password}
SSLType None
AuthMechs LOGIN
Timeout 300

IMAPStore server
Account server

MaildirStore local
Path {maildir}/
Inbox {maildir}/INBOX
SubFolders Verbatim

Channel mail
Far :server:
Near :local:
Patterns *
Create {create}
Sync {way}
CopyArrivalDate yes
SyncState {state}/
"""
        secret(config, text)

    def _set_up(self, folder: Path) -> dict[str, str]:
        raise NotImplementedError

    def _save(self) -> list[str | Path]:
        raise NotImplementedError

    def _load(self, target: Path) -> list[str | Path]:
        raise NotImplementedError


class WithRestic(Mirrored):
    def __init__(self) -> None:
        super().__init__(RESTIC)

    def _set_up(self, folder: Path) -> dict[str, str]:
        environment = {
            "RESTIC_REPOSITORY": str(folder / "repository"),
            "RESTIC_PASSWORD_FILE": str(secret(folder / "passphrase", PASSPHRASE)),
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }
        quietly(["restic", "init", "--repository-version", "2"], folder, environment)
        return environment

    def _save(self) -> list[str | Path]:
        return ["restic", "-q", "backup", "."]

    def _load(self, target: Path) -> list[str | Path]:
        return ["restic", "-q", "restore", "latest", "--target", target]


class WithBorg(Mirrored):
    def __init__(self) -> None:
        super().__init__(BORG)

    def _set_up(self, folder: Path) -> dict[str, str]:
        environment = {
            "BORG_REPO": str(folder / "repository"),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(folder / "borg"),
        }
        quietly(["borg", "init", "-e", "repokey-blake2"], folder, environment)
        return environment

    def _save(self) -> list[str | Path]:
        return ["borg", "create", "::{now:%Y%m%d-%H%M%S-%f}", "."]

    def _load(self, target: Path) -> list[str | Path]:
        (newest,) = quietly(["borg", "list", "--last", "1", "--short"], self._folder, self._environment).split()
        return ["borg", "extract", f"::{newest}"]


def secret(path: Path, text: str) -> Path:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return path


def quietly(words: Sequence[str | Path], folder: Path, environment: dict[str, str] | None = None) -> str:
    """Run what is not measured, and return what it printed."""
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(
        words, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def contestants() -> tuple[list[Contestant], dict[str, str], list[str]]:
    """Those that are installed, the versions of all programs, and who is left out for want of which program."""
    own = Path(sys.executable).parent / "backupd"
    programs = {
        "backupd": str(own) if own.exists() else shutil.which("backupd"),
        **{name: shutil.which(name) for name in ("mbsync", "restic", "borg")},
    }
    missing = []
    found: list[Contestant] = []
    if program := programs["backupd"]:
        found.append(Backupd(program))
    else:
        missing.append("backupd (the package is not installed in this environment)")
    found.append(RawWire())
    for name, wanted, make in ((RESTIC, "restic", WithRestic), (BORG, "borg", WithBorg)):
        lacking = [program for program in ("mbsync", wanted) if not programs[program]]
        if lacking:
            missing.append(f"{name} ({' and '.join(lacking)} not installed)")
        else:
            found.append(make())
    programs["Dovecot"] = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    versions = {name: version(path) for name, path in programs.items() if path}
    versions["Python"] = platform.python_version()
    return found, versions, missing


def version(program: str) -> str:
    """The first thing like a version that a program says of itself."""
    words = [program, {"restic": "version", "maildrop": "-v"}.get(Path(program).name, "--version")]
    printed = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    number = re.search(r"\d+(\.\d+)+", printed)
    return number[0] if number else "unknown"
