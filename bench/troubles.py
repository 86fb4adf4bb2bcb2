"""The daemon of `bench soak`, and what goes wrong for it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.cutting import CuttingDoor
from tests.support.dovecot import Dovecot

FAKETIME = (
    Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"),
)


class Sample(NamedTuple):
    """What a process takes. age: seconds since it was started; resident: octets; files: open file descriptors; busy:
    seconds of processor time so far."""

    age: float
    resident: int
    files: int
    threads: int
    busy: float


class Daemon:
    """`backupd run`, started and killed, and what it takes."""

    def __init__(self, config: Path, log: Path, clock: Path, *, true_clock: bool) -> None:
        self._config, self._log, self._clock = config, log, clock
        self._library = None if true_clock else next((each for each in FAKETIME if each.exists()), None)
        self.process: subprocess.Popen[bytes] | None = None
        self.lives: list[list[Sample]] = []
        """By process, in their order."""
        self._started = 0.0

    @property
    def can_jump(self) -> bool:
        """Whether its clock can be set."""
        return self._library is not None

    def start(self) -> None:
        environment = {**os.environ, "BACKUPD_CONFIG": str(self._config)}
        if self._library:
            # With the library's "monotonic fix" all threads that wait for each other spin.
            environment |= {
                "LD_PRELOAD": str(self._library), "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_CACHE_DURATION": "2", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            }  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "backupd", "run"], env=environment, stdout=log, stderr=log
            )
        self._started = time.monotonic()
        self.lives.append([])

    def signal(self, number: int) -> None:
        if self.process is None:
            raise RuntimeError("the daemon was not started")
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(60)

    def sample(self) -> None:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended by itself; see {self._log}")
        place = Path("/proc") / str(self.process.pid)
        status = dict(
            line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line
        )
        resident = int(status["VmRSS"].split()[0]) * 1024
        files = sum(1 for _ in (place / "fd").iterdir())
        spent = (place / "stat").read_text().rpartition(")")[2].split()
        busy = (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")
        age = time.monotonic() - self._started
        self.lives[-1].append(Sample(age, resident, files, int(status["Threads"]), busy))


class Disturbances:
    """What goes wrong, one thing at a time."""

    def __init__(
        self, daemon: Daemon, servers: list[Dovecot], doors: list[CuttingDoor], config: Path, clock: Path,
        chance: random.Random,
    ) -> None:  # fmt: skip
        self._daemon, self._servers, self._doors = daemon, servers, doors
        self._config, self._clock, self.chance = config, clock, chance
        self.counts: Counter[str] = Counter()
        self._down: dict[Dovecot, float] = {}

    def tick(self, *, all_of_them: bool = False) -> None:
        """Start servers that have been down for long enough. From the main thread: a server goes with its starter."""
        for server, back in list(self._down.items()):
            if all_of_them or time.monotonic() >= back:
                server.start()
                del self._down[server]

    def one(self, *, kill: bool) -> None:
        """One of them, by chance. kill: whether the daemon may be killed."""
        kinds = [self.cut, self.cut, self.restart, self.reload, self.reload_wrong, self.run_all]
        if kill:
            kinds.append(self.kill)
        if self._daemon.can_jump:
            kinds.append(self.jump)
        kind = self.chance.choice(kinds)
        self.counts[kind.__name__] += 1
        kind()

    def cut(self) -> None:
        """Connections are cut, some or all."""
        self.chance.choice(self._doors).cut(self.chance.choice([0.1, 0.5, 1.0]))

    def restart(self) -> None:
        """A server goes down, and comes back seconds later."""
        server = self.chance.choice(self._servers)
        if server not in self._down:
            server.stop()
            self._down[server] = time.monotonic() + self.chance.uniform(1, 15)

    def kill(self) -> None:
        """The daemon is killed, and started again."""
        self._daemon.signal(signal.SIGKILL)
        self._daemon.start()

    def reload(self) -> None:
        """SIGHUP, with another configuration."""
        document = json.loads(self._config.read_text())
        document["concurrency"] = self.chance.choice([3, 4, 5])
        self._config.write_text(json.dumps(document))
        self._daemon.signal(signal.SIGHUP)

    def reload_wrong(self) -> None:
        """SIGHUP, with a configuration that is wrong; then the right one is there again."""
        right = self._config.read_text()
        self._config.write_text(right[: len(right) // 2])
        self._daemon.signal(signal.SIGHUP)
        time.sleep(2)
        self._config.write_text(right)

    def run_all(self) -> None:
        """SIGUSR1: everything at once."""
        self._daemon.signal(signal.SIGUSR1)

    def jump(self) -> None:
        """The daemon's clock jumps, up to a day forward or backward, or is right again."""
        self._clock.write_text(self.chance.choice(["+0", "+0", "+90", "-90", "+7200", "-7200", "+86400", "-86400"]))
