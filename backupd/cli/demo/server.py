"""A mail server for the demo alone: pymap, in memory, on a free port of this machine, gone with the demo."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

from backupd.errors import BackupdError

_START_SECONDS = 20.0
_STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


class Login(NamedTuple):
    """Where the server is, and who may come in."""

    host: str
    port: int
    username: str
    password: str


@contextlib.contextmanager
def running() -> Iterator[Login]:
    """The server, as long as this lasts. Raises BackupdError when it is not installed or does not start."""
    try:
        import pymap  # noqa: F401 - run below as a program of its own
    except ImportError:
        raise BackupdError("the demo needs a mail server of its own", remedy="install backupd[demo]") from None
    login = Login("127.0.0.1", _free_port(), "demo", secrets.token_urlsafe(12))
    with subprocess.Popen(_command(login), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, start_new_session=True,
                          preexec_fn=_die_with_parent) as process:  # fmt: skip  # noqa: PLW1509
        try:
            _wait(login, process)
            yield login
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _command(login: Login) -> list[str]:
    # The password is for this server alone, which holds nothing but the demo's mail and ends with it.
    program = "import sys; from pymap.main import main; sys.exit(main())"
    place = ["--host", login.host, "--port", str(login.port), "--no-tls"]
    user = ["--demo-user", login.username, "--demo-password", login.password]
    return [sys.executable, "-c", program, *place, "dict", *user]


def _die_with_parent() -> None:
    """Linux: end when the demo ends, however it ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


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
