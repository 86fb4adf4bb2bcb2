"""Commands as processes of their own, without the second that Python takes to import them.

They are forked from a process that has imported backupd already (warm_server.py), all but the first of each command.
For whoever looks from outside only the command line that process lists show is different. There are a thousand such
commands in these tests: started in the common way they take most of the time of all.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
_WORD = struct.calcsize("q")
_MATTERS_TO_PYTHON = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_", "GLIBC_")
_ENVIRONMENT = dict(os.environ)
"""That of the process that commands are forked from: as it was before any test changed it."""
_lock = threading.Lock()
_control: socket.socket | None = None
_started: set[str] = set()


class Process:
    """A command that was started. It has of subprocess.Popen what tests use, with the same meaning."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], cwd: Path, *, stdin: bool) -> None:
        ends = [os.pipe() for _ in range(4)]
        (theirs, ours), (out, their_out), (err, their_err), (self._told, pipe) = ends
        if not stdin:
            os.close(theirs)
            theirs = os.open(os.devnull, os.O_RDONLY)
        given = [theirs, their_out, their_err, pipe]
        request = json.dumps({"words": list(words), "env": dict(env), "cwd": str(cwd)}).encode()
        try:
            _ask(request, given)
        except OSError:
            for each in (ours, out, err, self._told):
                os.close(each)
            raise
        finally:
            for each in given:
                os.close(each)
        if stdin:
            self.stdin: IO[str] | None = os.fdopen(ours, "w", encoding="utf-8")
        else:
            os.close(ours)
            self.stdin = None
        self.stdout: IO[str] = os.fdopen(out, encoding="utf-8")
        self.stderr: IO[str] = os.fdopen(err, encoding="utf-8")
        self.returncode: int | None = None
        self._one_reads = threading.Lock()
        weakref.finalize(self, os.close, self._told)
        self.pid = self._word()

    def _word(self) -> int:
        said = os.read(self._told, _WORD)
        if len(said) < _WORD:
            raise RuntimeError("the process that commands are forked from has ended")
        number: int = struct.unpack("q", said)[0]
        return number

    def poll(self) -> int | None:
        """The exit code, if there is one; of who was killed by a signal, its number below zero."""
        return self._ended(0)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            with self._one_reads:
                if self.returncode is None:
                    self.returncode = self._word()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("backupd", timeout or 0)
        return code

    def communicate(self, text: str = "", timeout: float | None = None) -> tuple[str, str]:
        """All that comes from standard output and error, until both are closed, and the process has ended. Raises
        subprocess.TimeoutExpired."""
        said = ["", ""]

        def read(place: int, stream: IO[str]) -> None:
            said[place] = stream.read()
            stream.close()

        readers = [
            threading.Thread(target=read, args=each, daemon=True) for each in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        if self.stdin:
            with contextlib.suppress(BrokenPipeError):  # it reads nothing
                self.stdin.write(text)
                self.stdin.close()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired("backupd", timeout or 0)
        self.wait(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Does nothing where the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(9)


Started = Process | subprocess.Popen[str]


def start(
    words: Sequence[str], env: Mapping[str, str], cwd: Path, *, before: Sequence[str] = (), stdin: bool = False
) -> Started:
    """Start `backupd` with these words. It is really started anew where something must be there before Python is: words
    before the command, or variables that matter to it. So is the first of each command, which finds what only those
    find that have imported nothing yet."""
    command = words[0] if words else ""
    is_first = command not in _started
    _started.add(command)
    if is_first or before or _of_python(env) != _of_python(_ENVIRONMENT | {"PYTHONPATH": env.get("PYTHONPATH", "")}):
        return subprocess.Popen(
            [*before, sys.executable, "-m", "backupd", *words], env=env, cwd=cwd, text=True,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    return Process(words, env, cwd, stdin=stdin)


def _of_python(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_MATTERS_TO_PYTHON)}


def _ask(request: bytes, descriptors: list[int]) -> None:
    global _control  # noqa: PLW0603 - one for each process of the tests
    with _lock:
        try:
            socket.send_fds(_server(), [request], descriptors)
        except (BrokenPipeError, ConnectionResetError):  # it has been ended, by whoever had no memory left
            _control = None
            socket.send_fds(_server(), [request], descriptors)


def _server() -> socket.socket:
    """To the process that commands are forked from; there is one for each that asks."""
    global _control  # noqa: PLW0603 - one for each process of the tests
    if _control is None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.warm_server"], cwd=ROOT,
            stdin=theirs.fileno(), stdout=subprocess.DEVNULL,
            env=_ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        theirs.close()
        _control = ours
        atexit.register(_end, server, ours)
    return _control


def _end(server: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    server.wait(10)
