"""The process that warm.py forks commands from: it has imported all of backupd, and waits for what to run.

Standard input is a socket. Each message on it is a command as JSON, with four descriptors: its standard input, output
and error, and a pipe, which is told the process's number and then, when that ends, how.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import backupd
from backupd.cli.main import main
from backupd.repository import slots
from backupd.repository.slots import Argon2

LONGEST = 1 << 20
DESCRIPTORS = 4
LAZILY = ("apprise", "boto3", "botocore.config", "botocore.exceptions", "keyring", "rich.progress", "rich.table")
"""Imported by backupd where they are needed."""


def warm_up() -> None:
    """Import whatever any command may."""
    found = pkgutil.walk_packages(backupd.__path__, "backupd.", onerror=lambda _name: None)
    names = [each.name for each in found if not each.name.endswith("__main__")]
    for name in [*names, *LAZILY]:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(name)
    assert threading.active_count() == 1, "a process with threads cannot be forked"
    # Key slots that open fast, as Place.create makes them: they need not withstand anybody here.
    slots.wrap = functools.partial(_wrap, slots.wrap)
    gc.collect()
    gc.freeze()


def _wrap(wrap: Callable[..., tuple[str, bytes]], *some: Any, argon2: Argon2 | None, **more: Any) -> tuple[str, bytes]:
    return wrap(*some, argon2=argon2 or Argon2(1, 8, 1), **more)


def serve(control: socket.socket) -> list[str]:
    """Start what is asked for until nobody can ask any more, and tell how each ended. In each process that is started
    this returns the words of its command."""
    told: dict[int, int] = {}
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
            tell_ends(told)
        if control.fileno() in ready:
            request, descriptors = receive(control)
            if not request:
                sys.exit(0)
            process = os.fork()
            if not process:
                become(json.loads(request), descriptors)
                return list(json.loads(request)["words"])
            told[process] = descriptors[3]
            os.write(descriptors[3], struct.pack("q", process))
            for each in descriptors[:3]:
                os.close(each)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    request, more, _, _ = control.recvmsg(LONGEST, socket.CMSG_SPACE(DESCRIPTORS * numbers.itemsize))
    for _, _, data in more:
        numbers.frombytes(data)
    return request, list(numbers)


def tell_ends(told: dict[int, int]) -> None:
    """To whoever waits for one of these processes, if it has ended."""
    for process, pipe in list(told.items()):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(pipe, struct.pack("q", os.waitstatus_to_exitcode(status)))
            os.close(pipe)
            del told[process]


def become(wish: dict[str, object], descriptors: list[int]) -> None:
    """In the new process: have what a command that is started in the common way has."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, each in enumerate(descriptors[:3]):
        os.dup2(each, number)
    os.closerange(3, min(1 << 16, os.sysconf("SC_OPEN_MAX")))
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        old = getattr(sys, name)  # knows what was there before it: whether one can seek in it, for one
        lines = 1 if name == "stderr" else -1
        new = os.fdopen(number, mode, lines, encoding=old.encoding, errors=old.errors, closefd=False)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)
    os.environ.clear()
    os.environ.update(wish["env"])  # type: ignore[call-overload]
    time.tzset()
    os.chdir(str(wish["cwd"]))


def end(code: int) -> NoReturn:
    """As Python ends, but for taking all modules apart, which copies every page that this process shares."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    warm_up()
    arguments = serve(socket.socket(fileno=os.dup(0)))
    sys.argv = [str(Path(backupd.__path__[0]) / "__main__.py"), *arguments]
    end(main())
