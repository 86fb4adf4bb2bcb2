"""Asking the daemon that works with a state directory, over its control socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from backupd.daemon.asked import CONTROL_SOCKET, Trigger, Triggered
from backupd.daemon.report import Report
from backupd.daemon.sockets import reachable
from backupd.errors import BackupdError, NoDaemon, UsageError
from backupd.operations.state_files import DAEMON_LOCK

SECONDS = 15.0
RELOAD_SECONDS = 150.0
"""Whoever reloads fetches every secret that has changed."""
_MOST = 256 << 20
"""Octets of an answer: a thousand accounts are one million."""

_MOST_NAMED = 50
"""Accounts in an address; of more, all are asked for."""

Kind = TypeVar("Kind")


class Control:
    """The daemon of a state directory. Each call is a connection of its own."""

    def __init__(self, state_dir: Path, *, seconds: float = SECONDS) -> None:
        self._folder, self._seconds = state_dir, seconds

    @property
    def has_been(self) -> bool:
        """Whether a daemon has ever worked with this state directory."""
        return (self._folder / "locks" / DAEMON_LOCK).exists()

    def status(self, accounts: Sequence[str] = ()) -> Report:
        """How everything stands, or these accounts. Raises NoDaemon, and BackupdError where it may not be asked."""
        few = 0 < len(accounts) <= _MOST_NAMED
        query = f"?{urlencode([('account', name) for name in accounts])}" if few else ""
        status, body = self._answer("GET", f"/status{query}")
        if status == 503:
            raise BackupdError(f"the daemon cannot tell: {_text(body)}")
        found = self._decoded(body, Report)
        if not accounts or few:
            return found
        return msgspec.structs.replace(found, accounts=[each for each in found.accounts if each.account in accounts])

    def trigger(self, accounts: Sequence[str] = ()) -> Triggered:
        """Have these accounts backed up now, or all. Raises UsageError for those that there are not, NoDaemon,
        BackupdError."""
        status, body = self._answer("POST", "/trigger", msgspec.json.encode(Trigger(list(accounts))))
        found = self._decoded(body, Triggered) if status in (202, 404) else None
        if found is None:
            raise BackupdError(f"the daemon cannot do that now: {_text(body)}", subject=str(self._folder))
        if found.unknown:
            raise UsageError(
                "no such account in the daemon's configuration",
                subject=", ".join(found.unknown),
                remedy="was it added since? systemctl reload backupd",
            )
        return found

    def reload(self) -> None:
        """Have it read its configuration again. Raises BackupdError with why the old one stays, NoDaemon."""
        status, body = self._answer("POST", "/reload", seconds=RELOAD_SECONDS)
        if status != 200:
            raise BackupdError(f"the daemon keeps its configuration: {_text(body)}")

    def _decoded(self, body: bytes, kind: type[Kind]) -> Kind:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise NoDaemon(
                f"what listens there is no daemon of this version: {error}",
                subject=str(self._folder / CONTROL_SOCKET),
                remedy="restart it: systemctl restart backupd",
            ) from error

    def _answer(
        self, method: str, path: str, body: bytes | None = None, *, seconds: float | None = None
    ) -> tuple[int, bytes]:
        where = self._folder / CONTROL_SOCKET
        try:
            with reachable(where) as name:
                connection = _Connection(name, seconds or self._seconds)
                try:
                    connection.request(method, path, body)
                    answer = connection.getresponse()
                    return answer.status, answer.read(_MOST)
                finally:
                    connection.close()
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            raise NoDaemon(
                "the daemon is not running", subject=str(self._folder), remedy="systemctl start backupd, or backupd run"
            ) from error
        except PermissionError as error:
            raise BackupdError(
                "this user may not talk to the daemon", subject=str(where), remedy="do it as the daemon's user, or root"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise NoDaemon(
                f"the daemon does not answer: {error or type(error).__name__}",
                subject=str(where),
                remedy="its log tells more: journalctl -u backupd",
            ) from error


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._name = name

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._name)


def _text(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())
