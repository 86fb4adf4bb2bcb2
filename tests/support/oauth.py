"""Apps at the test provider, and logins as if time had passed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from backupd.oauth.app import App
from backupd.oauth.store import Logins
from tests.support.oidc_provider import Client, OidcProvider

KEY = bytes(range(32))


def app_at(provider: OidcProvider, client: Client, **more: Any) -> App:
    """The app of account alice, as it would be configured."""
    values: dict[str, Any] = {
        "account": "alice", "provider": provider.issuer, "issuer": provider.issuer, "grant": "user",
        "scopes": ("openid", "offline_access"), "client_id": client.client_id, "username": client.user,
    }  # fmt: skip
    if client.secret:
        values["client_secret"] = lambda: client.secret
    return App(**(values | more))


def logins_in(folder: Path) -> Logins:
    """Logins under a key that only tests have."""
    return Logins(folder / "logins", lambda: KEY)


def grow_older(logins: Logins, account: str, by: timedelta) -> None:
    """Let so much time pass for a stored login."""
    with logins.lock(account), logins.replacing(account) as commit:
        login = logins.read(account)
        assert login is not None
        known = msgspec.structs.asdict(login.facts)
        times = {name: value - by for name, value in known.items() if isinstance(value, datetime)}
        commit(msgspec.structs.replace(login, facts=msgspec.structs.replace(login.facts, **times)))


class LoginProcess:
    """`backupd auth login`, the real command, and what it says to the person before it."""

    def __init__(self, environment: dict[str, str], folder: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "backupd", "auth", "login", *arguments],
            env=environment, cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.said = ""

    def until(self, pattern: str) -> str:
        """What stands in the first line on standard error that the pattern finds, once it has been said."""
        assert self._process.stderr
        for line in self._process.stderr:
            self.said += line
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError(f"it was never said: {self.said}")

    def paste(self, text: str) -> None:
        """As a person before the terminal."""
        assert self._process.stdin
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str, str]:
        """Exit code, standard output, and all of standard error."""
        try:
            out, err = self._process.communicate(timeout=60)
        finally:
            self._process.kill()
        return self._process.returncode, out, self.said + err


def everything_below(folder: Path) -> bytes:
    """All octets of all files, and all names."""
    return b"\n".join(
        str(path).encode() + b"\n" + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    )
