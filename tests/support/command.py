"""The real command in a process of its own, with a configuration and a place for its repository, state and output.

What it says when something goes wrong is part of what is tested: `failed` holds it to one clear line.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backupd.repository.repository import create
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.support.dovecot_account import Account
from tests.support.warm import Started, start

ROOT = Path(__file__).parents[2]
PASSPHRASE = "correct horse battery"
SECONDS = 60.0
"""Longer than any of these commands may take; whoever waits longer waits for nothing."""


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> object:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """Lines of standard error."""
        return self.err.splitlines()


def environment(config: Path) -> dict[str, str]:
    """Like this process's, with the project importable and without anybody's own configuration."""
    kept = {name: value for name, value in os.environ.items() if name != "BACKUPD_CONFIG"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "BACKUPD_CONFIG": str(config), "TZ": "UTC"}


@dataclass
class Place:
    """A folder with a configuration, and the command that uses it.

    repository, state: may be set elsewhere before `configure`. before: words in front of the command, such as setpriv.
    secrets: what no output may ever hold.
    """

    folder: Path
    repository: Path = field(init=False)
    state: Path = field(init=False)
    before: Sequence[str] = ()
    secrets: set[str] = field(default_factory=lambda: {PASSPHRASE})

    def __post_init__(self) -> None:
        self.repository, self.state = self.folder / "repository", self.folder / "state"

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def objects(self) -> LocalStorage:
        """The repository's objects."""
        return LocalStorage(self.repository)

    def names(self, prefix: str) -> list[str]:
        """Names of the repository's objects that begin so."""
        return [info.name for info in self.objects.list(prefix)]

    def configure(
        self,
        accounts: dict[str, dict[str, object]],
        *,
        passphrase: str = PASSPHRASE,
        kind: str = "imap",
        copies: Sequence[Path] = (),
        more: dict[str, object] | None = None,
    ) -> None:
        """Write the configuration. accounts: the section of each that names its server. kind: imap or pop3. more: other
        keys of the top level."""
        secret = self.folder / "passphrase"
        secret.write_text(f"{passphrase}\n")
        secret.chmod(0o600)
        self.secrets |= {str(section["password"]) for section in accounts.values()} | {passphrase}
        document = {
            "state_dir": str(self.state),
            "repository": {"url": str(self.repository), "passphrase": {"file": str(secret)}},
            "copies": [{"url": str(copy)} for copy in copies],
            "accounts": {name: {kind: section} for name, section in accounts.items()},
            **(more or {}),
        }
        self.config.touch(mode=0o600)
        self.config.write_bytes(msgspec.json.encode(document))  # JSON is YAML

    def create(self) -> None:
        """Make the repository, with a key slot that opens fast."""
        create(self.objects, PASSPHRASE, argon2=Argon2(1, 8, 1))

    def start(self, *arguments: str | Path) -> Started:
        """Start a command; it is for the caller to wait for its end."""
        return start(list(map(str, arguments)), environment(self.config), self.folder, before=self.before)

    def end(self, process: Started) -> Result:
        """Wait for a command, and check what must hold whatever happened: no traceback, no secret."""
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        result = Result(process.wait(), out, err)
        for text in (out, err):
            assert "Traceback" not in text, text
            assert "this is a bug" not in text, text
            assert not any(secret in text for secret in self.secrets), "a secret was shown"
        return result

    def run(self, *arguments: str | Path) -> Result:
        """Run a command to its end."""
        return self.end(self.start(*arguments))

    def failed(self, code: int, *arguments: str | Path, saying: Sequence[str], lines: int = 1) -> Result:
        """Run a command that must fail with this exit code, and with so many clear lines that hold all of `saying`."""
        result = self.run(*arguments)
        assert result.code == code, result.err
        self.clear(result, saying=saying, lines=lines)
        return result

    def clear(self, result: Result, *, saying: Sequence[str], lines: int = 1) -> None:
        """Hold standard error to so many lines, each of which holds all of `saying`."""
        assert len(result.lines) == lines, result.err
        for line in result.lines:
            assert line.startswith("backupd: "), line
            for word in saying:
                assert word in line, f"{word!r} is not in {line!r}"

    def done(self, *arguments: str | Path) -> Result:
        """Run a command that must succeed, silently."""
        result = self.run(*arguments)
        assert (result.code, result.err) == (0, ""), result
        return result

    def snapshots(self) -> list[dict[str, object]]:
        """What `snapshots --json` lists."""
        found = self.done("snapshots", "--json").document
        assert isinstance(found, list)
        return found

    def restored(self, snapshot: str, *, mailbox: str = "") -> Counter[str]:
        """SHA-256 of every message of a snapshot, by restoring it to files; it must come back wholly."""
        folder = self.folder / f"restored-{snapshot}-{mailbox}"
        self.done("restore", snapshot, f"eml:{folder}", *(["--mailbox", mailbox] if mailbox else []))
        return hashes(path.read_bytes() for path in folder.rglob("*.eml"))


def hashes(messages: object) -> Counter[str]:
    """How often each message is there, by SHA-256."""
    return Counter(hashlib.sha256(raw).hexdigest() for raw in messages)  # type: ignore[attr-defined]


def imap(account: Account, **more: object) -> dict[str, object]:
    """The imap section for an account of the test server, without TLS unless told."""
    plain = {"host": account.host, "port": account.port, "tls": "none"}
    return {**plain, "username": account.username, "password": account.password, **more}


def mail_of(account: Account) -> Counter[str]:
    """SHA-256 of all an account holds now."""
    return hashes(each.raw for name in account.mailboxes() for each in account.messages(name))


def when(process: Started, event: Callable[[], bool]) -> bool:
    """Look until the event has come or the process has ended; whether it came while the process was running."""
    until = time.monotonic() + SECONDS
    while not event():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "it never came"
        time.sleep(0.002)
    return process.poll() is None


def kill(process: Started, number: int = signal.SIGKILL) -> None:
    """Send a signal to a command, if it is still there."""
    if process.poll() is None:
        process.send_signal(number)
