"""A mail server for the demo alone: pymap, in memory, on a free port of this machine, gone with the demo."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backupd.errors import BackupdError

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0


class Login(NamedTuple):
    """Where the server is, and who may come in."""

    host: str
    port: int
    username: str
    password: str


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Login]:
    """The server, as long as this lasts. It removes the folder when it ends, even after a demo that was killed.

    Raises BackupdError when it does not start.
    """
    login = Login("127.0.0.1", _free_port(), "demo", secrets.token_urlsafe(12))
    # -P: the program's folder must not come before the standard library. A session of its own: Ctrl-C is for the demo.
    command = [sys.executable, "-P", str(Path(__file__).with_name("server_process.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:  # fmt: skip
        try:
            assert process.stdin  # noqa: S101 - a pipe was asked for
            process.stdin.write(_begin(login, folder))
            process.stdin.flush()
            _wait(login, process)
            yield login
        finally:
            _stop(process)


def _begin(login: Login, folder: Path) -> bytes:
    place = ["--host", login.host, "--port", str(login.port), "--no-tls"]
    # "=": a password may begin with a dash.
    user = [f"--demo-user={login.username}", f"--demo-password={login.password}"]
    return json.dumps({"arguments": [*place, "dict", *user], "folder": str(folder)}).encode() + b"\n"


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(BrokenPipeError):
        if process.stdin:
            process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(login: Login, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((login.host, login.port), 1) as probe:
            probe.settimeout(2)
            if probe.recv(4) == b"* OK":
                return
        time.sleep(0.05)
    raise BackupdError("the demo's mail server did not start", remedy="try again, or install backupd[demo] anew")
