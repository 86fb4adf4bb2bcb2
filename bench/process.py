"""Run programs and measure what they took: the whole process tree of each, not only the process that was started.

- wall: from start to end, in seconds.
- cpu: user and system time of the process and of all its descendants that it waited for (wait4), in seconds.
- peak: the most resident memory the tree held at once, in bytes. /proc is read every 10 ms; each process's own
  high-water mark (VmHWM) is the least it can be. ru_maxrss will not do: it inherits the size of whoever forked.
- read, written: octets that it asked the system for, and gave it, of files, pipes and sockets alike, whether the disk
  had to be asked or not (/proc/PID/io: rchar, wchar); of the process and of descendants that it waited for.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

POLL_SECONDS = 0.01
_TRANSFER = re.compile(rb"^([rw])char: (\d+)$", re.MULTILINE)
_MEMORY = re.compile(rb"^Vm(HWM|RSS):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A program to run. ok: the exit codes that mean it did its work."""

    words: Sequence[str | Path]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    ok: frozenset[int] = frozenset({0})


class Cost(NamedTuple):
    """What one piece of work took; see the top of this module."""

    wall: float
    cpu: float
    peak: int
    read: int = 0
    written: int = 0


class Failed(RuntimeError):
    """A program did not do its work, so there is nothing to compare."""


def run(commands: Iterable[Command], *, limit: float) -> Cost:
    """Run them one after another as one piece of work: times add up, the peak is the highest.

    Args:
        limit: seconds after which a single command is ended. Raises Failed then, and on any exit code that is not ok.
    """
    costs = [_run(command, limit) for command in commands]
    return Cost(
        sum(one.wall for one in costs),
        sum(one.cpu for one in costs),
        max(one.peak for one in costs),
        sum(one.read for one in costs),
        sum(one.written for one in costs),
    )


def _run(command: Command, limit: float) -> Cost:
    words = [str(word) for word in command.words]
    output = command.folder / "output.log"
    with output.open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen(
            words,
            cwd=command.folder,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        watch = _Watch(process.pid, began + limit)
        watch.start()
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its counts go with it
            wall, (read, written) = time.monotonic() - began, transferred(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            watch.stop()
    process.returncode = code = os.waitstatus_to_exitcode(status)
    if watch.ended_it:
        raise Failed(f"{words[0]} took more than {limit:.0f} s and was ended")
    if code not in command.ok:
        raise Failed(f"{' '.join(words)}\nexit code {code}:\n{output.read_text(errors='replace')[-2000:]}")
    output.unlink()
    return Cost(wall, usage.ru_utime + usage.ru_stime, watch.peak, read, written)


class _Watch(threading.Thread):
    """Reads the memory of a process tree until told to stop, and ends the tree when its time is up."""

    def __init__(self, root: int, deadline: float) -> None:
        super().__init__(daemon=True)
        self._root, self._deadline, self._done = root, deadline, threading.Event()
        self.peak, self.ended_it = 0, False

    def stop(self) -> None:
        """Stop watching, before the process id can belong to somebody else."""
        self._done.set()
        self.join()

    def run(self) -> None:
        while not self._done.is_set():
            now = 0
            for pid in tree(self._root):
                resident, highest = memory(pid)
                now += resident
                self.peak = max(self.peak, highest)
            self.peak = max(self.peak, now)
            if time.monotonic() > self._deadline:
                self.ended_it = True
                with suppress(ProcessLookupError):
                    os.killpg(self._root, signal.SIGKILL)
            self._done.wait(POLL_SECONDS)


def tree(root: int) -> Iterator[int]:
    """The process and all its living descendants."""
    yield root
    for children in Path(f"/proc/{root}/task").glob("*/children"):
        with suppress(OSError):
            for child in children.read_text().split():
                yield from tree(int(child))


def memory(pid: int) -> tuple[int, int]:
    """Resident memory of one process: now, and the most it ever had; in bytes. Nothing for one that has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0, 0
    found = {name: int(kilobytes) * 1024 for name, kilobytes in _MEMORY.findall(status)}
    return found.get(b"RSS", 0), found.get(b"HWM", 0)


def transferred(pid: int) -> tuple[int, int]:
    """Octets that a process has read and written so far; nothing for one of which the system does not say."""
    try:
        counts = Path(f"/proc/{pid}/io").read_bytes()
    except OSError:
        return 0, 0
    found = {name: int(octets) for name, octets in _TRANSFER.findall(counts)}
    return found.get(b"r", 0), found.get(b"w", 0)


def stored(folder: Path) -> int:
    """Bytes in all files below a folder: their lengths, whatever blocks the file system rounds them to."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
