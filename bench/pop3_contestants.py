"""Who takes part with POP3, and what each of them has to run. All leave the mail on the server.

getmail6 and fetchmail get the settings with which they change least. fetchmail gives each message to a program that
files it, and takes part twice: with maildrop, and with a single file to which it writes SMTP commands by itself, which
is the fastest it can.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bench.contestants import OWN, RAW, ROOT, Backupd, quietly, secret, version
from bench.figures import Measure
from bench.pop3_mail import in_batch, in_files
from bench.process import Command, stored
from tests.support.dovecot_account import Account

GETMAIL, MAILDROP, BATCH = "getmail6", "fetchmail + maildrop", "fetchmail, one file"
_NOBODY = "nobody"


class Puller(Protocol):
    """One way of pulling a POP3 mailbox."""

    name: str

    def prepare(self, folder: Path, account: Account) -> None:
        """Make configuration, and what must be there before the first pull. Not measured."""

    def pull(self) -> Sequence[Command]:
        """Bring everything up to date with the mailbox."""

    def stored(self) -> dict[Measure, int]:
        """Bytes on the disk now: "stored" for the mail, and "beside" it what the program must remember."""

    def messages(self) -> Iterator[bytes]:
        """Everything that was pulled, to be checked. Not measured."""


class Drained:
    """Reads all, keeps nothing: what the server can give over one connection."""

    name = RAW

    def prepare(self, folder: Path, account: Account) -> None:
        self._folder, self._account = folder, account

    def pull(self) -> Sequence[Command]:
        account = self._account
        words = [sys.executable, "-m", "bench.pop3_drain", account.host, str(_port(account)), account.username]
        return [Command(words, self._folder, {"PYTHONPATH": str(ROOT), "BENCH_PASSWORD": account.password})]

    def stored(self) -> dict[Measure, int]:
        return {}

    def messages(self) -> Iterator[bytes]:
        raise RuntimeError(f"{RAW} keeps nothing")


class OverPop3(Backupd):
    """The installed command; its repository is encrypted and compressed."""

    def pull(self) -> Sequence[Command]:
        return self.snapshot()

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._folder / "repository"), "beside": stored(self._folder / "state")}

    def messages(self) -> Iterator[bytes]:
        target = self._folder / "restored"
        (command,) = self.restore_files(target)
        quietly(command.words, command.folder)
        yield from in_files(target)
        shutil.rmtree(target)

    def _configure(self, accounts: dict[str, Account]) -> None:
        settings = {}
        for name, account in accounts.items():
            password = {"file": str(secret(self._folder / f"{name}.password", account.password))}
            server = {"host": account.host, "port": _port(account), "tls": "none", "allow_plaintext": True}
            settings[name] = {"pop3": {**server, "username": account.username, "password": password}}
        config = {"state_dir": str(self._folder / "state"), "accounts": settings, **self._places()}
        config["repository"]["passphrase"] = {"file": str(self._folder / "passphrase")}
        (self._folder / "config.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")  # JSON is YAML


class Getmail:
    """getmail6 to a Maildir. It forks for each message, and syncs it to the disk."""

    name = GETMAIL

    def prepare(self, folder: Path, account: Account) -> None:
        self._folder, self._maildir = folder, maildir(folder)
        self._state = folder / "getmail"
        self._state.mkdir()
        # It refuses to file mail as root.
        who = f"user = {_NOBODY}" if os.geteuid() == 0 else ""
        if who:
            for path in (self._maildir, *self._maildir.iterdir()):
                shutil.chown(path, _NOBODY)
        text = f"""[retriever]
type = SimplePOP3Retriever
server = {account.host}
port = {_port(account)}
username = {account.username}
password = {account.password}
timeout = 300

[destination]
type = Maildir
path = {self._maildir}/
{who}

[options]
delete = false
read_all = false
verbose = 0
delivered_to = false
received = false
"""
        secret(self._state / "getmailrc", text)

    def pull(self) -> Sequence[Command]:
        words: list[str | Path] = ["getmail", "--quiet", "--getmaildir", self._state, "--rcfile", "getmailrc"]
        return [Command(words, self._folder)]

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._maildir), "beside": stored(self._state)}

    def messages(self) -> Iterator[bytes]:
        yield from in_files(self._maildir)


class Fetchmail:
    """fetchmail, without a daemon. A subclass says where the mail goes."""

    name: str

    def prepare(self, folder: Path, account: Account) -> None:
        self._folder = folder
        self._state = folder / "fetchmail"
        self._state.mkdir()
        # invisible: no Received field of its own; no rewrite: addresses stay as they are.
        text = f"""set no syslog
set invisible
set no bouncemail
poll {account.host} protocol pop3 service {_port(account)} uidl timeout 300
    user "{account.username}" password "{account.password}" is {_NOBODY} here
    keep no rewrite sslproto '' {self._destination()}
"""
        secret(self._state / "fetchmailrc", text)

    def pull(self) -> Sequence[Command]:
        state = self._state
        words: list[str | Path] = ["fetchmail", "--silent", "--fetchmailrc", state / "fetchmailrc"]
        words += ["--idfile", state / "ids", "--pidfile", state / "pid"]
        # 1: there was no new mail.
        return [Command(words, self._folder, {"FETCHMAILHOME": str(state)}, ok=frozenset({0, 1}))]

    def _destination(self) -> str:
        raise NotImplementedError


class ToMaildrop(Fetchmail):
    """A process for each message, which syncs it to the disk in a Maildir."""

    name = MAILDROP

    def _destination(self) -> str:
        self._maildir = maildir(self._folder)
        secret(self._state / "filter", f'to "{self._maildir}/"\n')
        return f'mda "exec {shutil.which("maildrop")} {self._state}/filter"'

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._maildir), "beside": stored(self._state)}

    def messages(self) -> Iterator[bytes]:
        yield from in_files(self._maildir)


class ToBatch(Fetchmail):
    """No process and no file for a message, and no sync: nobody would keep mail so, but fetchmail can do no faster."""

    name = BATCH

    def _destination(self) -> str:
        self._file = self._folder / "mail.bsmtp"
        return f'bsmtp "{self._file}"'

    def stored(self) -> dict[Measure, int]:
        return {"stored": self._file.stat().st_size, "beside": stored(self._state)}

    def messages(self) -> Iterator[bytes]:
        yield from in_batch(self._file)


def _port(account: Account) -> int:
    return account.server.ports.pop3


def maildir(folder: Path) -> Path:
    """A new, empty Maildir."""
    made = folder / "Maildir"
    for part in ("cur", "new", "tmp"):
        (made / part).mkdir(parents=True)
    return made


def pullers() -> tuple[list[Puller], dict[str, str], list[str]]:
    """Those that are installed, the versions of all programs, and who is left out for want of which program."""
    own = Path(sys.executable).parent / "backupd"
    names = ("getmail", "fetchmail", "maildrop")
    programs = {"backupd": str(own) if own.exists() else shutil.which("backupd"), **{n: shutil.which(n) for n in names}}
    found: list[Puller] = []
    missing = []
    if program := programs["backupd"]:
        found.append(OverPop3(program))
    else:
        missing.append(f"{OWN} (the package is not installed in this environment)")
    found.append(Drained())
    peers: list[tuple[Puller, tuple[str, ...]]] = [
        (Getmail(), ("getmail",)), (ToMaildrop(), ("fetchmail", "maildrop")), (ToBatch(), ("fetchmail",)),
    ]  # fmt: skip
    for peer, wanted in peers:
        if lacking := [name for name in wanted if not programs[name]]:
            missing.append(f"{peer.name} ({' and '.join(lacking)} not installed)")
        else:
            found.append(peer)
    programs["Dovecot"] = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    versions = {name: version(path) for name, path in programs.items() if path}
    versions["Python"] = platform.python_version()
    return found, versions, missing
