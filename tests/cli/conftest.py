"""The real command, as a process of its own, with a configuration and a server."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from backupd.cli.main import main
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.warm import start

ROOT = Path(__file__).parents[2]


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


Run = Callable[..., Result]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Like this process's, with the project importable and without anybody's own configuration."""
    kept = {name: value for name, value in os.environ.items() if name != "BACKUPD_CONFIG"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "BACKUPD_CONFIG": str(tmp_path / "config.yaml"), "TZ": "UTC"}


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """run("ls", "alice@latest") gives exit code, standard output and standard error."""

    def run(*arguments: str, stdin: str = "", timeout: float = 60) -> Result:
        process = start(arguments, environment, tmp_path, stdin=True)
        try:
            out, err = process.communicate(stdin, timeout)
        finally:
            process.kill()
        return Result(process.wait(), out, err)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """here("audit", ...) runs the command in this process, which is quicker than starting one."""
    monkeypatch.setenv("BACKUPD_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        capfd.readouterr()
        code = main(arguments)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    """A new, empty account on a real server."""
    return dovecot.account()


@pytest.fixture
def configured(account: Account, tmp_path: Path) -> Path:
    """A configuration with one account, alice, and one whose password is wrong, broken."""
    (tmp_path / "passphrase").write_text("correct horse battery\n")
    (tmp_path / "passphrase").chmod(0o600)
    path = tmp_path / "config.yaml"
    server = f"host: 127.0.0.1, port: {account.port}, tls: none, username: {account.username}"
    path.write_text(f"""\
state_dir: {tmp_path}/state
repository:
  url: {tmp_path}/repository
  passphrase: {{file: {tmp_path}/passphrase}}
accounts:
  alice:
    imap: {{{server}, password: {account.password}}}
  broken:
    imap: {{{server}, password: wrong}}
""")
    path.chmod(0o600)
    return path
