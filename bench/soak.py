"""`python -m bench soak`: does the daemon keep what it promises when nothing goes well for an hour?

Accounts on two real servers, backed up continuously, while mail arrives all the time. Meanwhile servers restart,
connections are cut, the daemon's clock jumps (with libfaketime), its configuration is reloaded, and the daemon itself
is killed (SIGKILL) and started again. In the end every message that a server has confirmed must be in a snapshot, byte
for byte, and nothing may have grown that should not.

From delivery to restorable: from the server's OK to APPEND to the moment at which the first snapshot is stored in which
the mailbox has so many messages. That is exact as long as nothing is expunged, and nothing is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupd.repository.repository import Repository, create, unlock
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from bench.cutting import CuttingDoor
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.imap_wire import Refused, Wire
from tests.support.mail import message
from tests.support.mail import text as words
from tests.support.reading import contents

PASSPHRASE = "soak soak soak"
FAKETIME = (
    Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"),
    Path("/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"),
)
Say = Callable[[str], None]


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@dataclass
class Delivered:
    """What one account has received: SHA-256 of each message and when the server confirmed it, in its order. doubtful:
    of a message that was not confirmed, because the server went down meanwhile."""

    account: Account
    digests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    restorable: int = 0
    doubtful: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Postman(threading.Thread):
    """Delivers mail to accounts at random, so many messages a second."""

    def __init__(self, accounts: list[Delivered], rate: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._accounts, self._rate, self._chance = accounts, rate, random.Random(seed)
        self._wires: dict[str, Wire] = {}
        self.end = threading.Event()
        self._number = 0

    def run(self) -> None:
        ahead = time.monotonic()
        while not self.end.is_set():
            ahead = max(ahead + self._chance.expovariate(self._rate), time.monotonic() - 5)
            if self.end.wait(max(0.0, ahead - time.monotonic())):
                break
            self._deliver(self._chance.choice(self._accounts))

    def _deliver(self, to: Delivered) -> None:
        self._number += 1
        raw = message(f"Soak {id(self)} {self._number}", words(self._number, self._chance.randint(200, 20_000)))
        account, digest = to.account, hashlib.sha256(raw).hexdigest()
        try:
            wire = self._wires.get(account.username)
            if wire is None:
                wire = self._wires[account.username] = Wire(
                    account.host, account.port, account.username, account.password, timeout=20
                )
                self._settle(to)
            with to.lock:  # no snapshot is looked at between the server's OK and the note of it
                to.doubtful = digest
                wire.command(b"APPEND INBOX {%d+}\r\n%s" % (len(raw), raw))
                to.digests.append(digest)
                to.times.append(time.time())
                to.doubtful = ""
        except (OSError, Refused):  # the server restarts
            if wire := self._wires.pop(account.username, None):
                wire.close()
            self.end.wait(0.5)

    def _settle(self, to: Delivered) -> None:
        """Whether the server has stored what it could not confirm any more."""
        with to.lock:
            if to.doubtful and to.account.status("INBOX")["MESSAGES"] > len(to.digests):
                to.digests.append(to.doubtful)
                to.times.append(time.time())
            to.doubtful = ""

    def settle(self) -> None:
        """The same for all accounts, when the postman has ended."""
        for one in self._accounts:
            self._settle(one)


class Watcher(threading.Thread):
    """Notes when messages become restorable, by the snapshots as they appear."""

    def __init__(self, folder: Path, delivered: Mapping[str, Delivered]) -> None:
        super().__init__(daemon=True)
        storage = LocalStorage(folder)
        secrets = unlock(storage, PASSPHRASE)
        self._repository = Repository(storage, secrets)
        self._folders = {name: folder / "snapshots" / secrets.account_tag(name) for name in delivered}
        self._delivered, self._seen = delivered, dict[str, set[str]]()
        self.seconds: list[float] = []
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.wait(0.5):
            self.look()

    def look(self) -> None:
        for name, folder in self._folders.items():
            try:
                there = {entry.name: entry.stat().st_ctime for entry in os.scandir(folder)}
            except OSError:
                continue
            new = there.keys() - self._seen.get(name, set())
            if not new:
                continue
            self._seen[name] = set(there)
            for ref in self._repository.refs(name):
                if ref.id in new:
                    self._note(self._delivered[name], ref.id, name, there[ref.id])

    def _note(self, to: Delivered, identifier: str, name: str, stored: float) -> None:
        try:
            ref = next(ref for ref in self._repository.refs(name) if ref.id == identifier)
            snapshot = self._repository.snapshot(ref)
        except Exception as error:  # noqa: BLE001 - forgotten meanwhile, or a checkpoint that has gone
            say(f"{name}: {identifier} went before it was read: {type(error).__name__}")
            return
        count = sum(record.messages for record in snapshot.mailboxes if record.mailbox.name.upper() == "INBOX")
        with to.lock:
            self.seconds += [max(0.0, stored - each) for each in to.times[to.restorable : count]]
            to.restorable = max(to.restorable, min(count, len(to.times)))


class Daemon:
    """`backupd run`, started and killed, and what it takes."""

    def __init__(self, config: Path, log: Path, clock: Path, *, true_clock: bool) -> None:
        self._config, self._log, self._clock = config, log, clock
        self._library = None if true_clock else next((each for each in FAKETIME if each.exists()), None)
        self.process: subprocess.Popen[bytes] | None = None
        self.samples: list[tuple[float, int, int, int]] = []
        """(seconds since it was started, octets resident, file descriptors, threads)."""
        self.busy: list[tuple[float, float]] = []
        """(time, seconds of processor time so far) of the process that runs now."""
        self._started = 0.0

    @property
    def can_jump(self) -> bool:
        """Whether its clock can be set."""
        return self._library is not None

    def start(self) -> None:
        environment = {**os.environ, "BACKUPD_CONFIG": str(self._config)}
        if self._library:
            environment |= {
                "LD_PRELOAD": str(self._library), "FAKETIME_TIMESTAMP_FILE": str(self._clock), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1",
            }  # fmt: skip
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "backupd", "run"], env=environment, stdout=log, stderr=log
            )
        self._started = time.monotonic()
        self.busy = []

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
        self.busy.append((time.monotonic(), (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")))
        self.samples.append((time.monotonic() - self._started, resident, files, int(status["Threads"])))


def configuration(folder: Path, accounts: Mapping[str, tuple[Account, CuttingDoor]]) -> dict[str, object]:
    return {
        "state_dir": str(folder / "state"),
        "repository": {"url": str(folder / "repository"), "passphrase": PASSPHRASE},
        "retention": {"keep_last": 50, "keep_within": "1h", "keep_hourly": 48},
        "maintenance": {"forget": "every 5 minutes", "prune": "every 7 minutes"},
        "concurrency": 4,
        "accounts": {
            name: {
                "imap": {
                    "host": "127.0.0.1", "port": door.port, "tls": "none", "connections": 2, "timeout": 20,
                    "username": account.username, "password": account.password,
                },
                "schedule": "continuous", "poll": "2m", "objective": "10m",
            }
            for name, (account, door) in accounts.items()
        },
    }  # fmt: skip


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--rate", type=float, default=4.0, help="messages a second, over all accounts")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two disturbances, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--true-clock", action="store_true", help="no jumps; what makes them costs much")
    parser.add_argument("--undisturbed", action="store_true", help="nothing goes wrong, and no jumps")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> int:
    """Run it; 1 if anything is missing."""
    wish = arguments(given)
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=wish.scratch))
    servers = [Dovecot(), Dovecot()]
    doors = [CuttingDoor(lambda server=server: server.ports.imap) for server in servers]  # type: ignore[misc]
    try:
        return _soak(wish, folder, servers, doors)
    finally:
        for door in doors:
            door.close()
        for server in servers:
            server.close()
        shutil.rmtree(folder, ignore_errors=True)


def _soak(wish: argparse.Namespace, folder: Path, servers: list[Dovecot], doors: list[CuttingDoor]) -> int:
    places = {
        f"account-{number:04}": (servers[number % 2].account(), doors[number % 2]) for number in range(wish.accounts)
    }
    config, clock = folder / "config.yaml", folder / "clock"
    config.write_text(json.dumps(configuration(folder, places)))
    config.chmod(0o600)
    clock.write_text("+0")
    create(LocalStorage(folder / "repository"), PASSPHRASE, argon2=Argon2(1, 8, 1))
    delivered = {name: Delivered(account) for name, (account, _) in places.items()}
    true_clock = wish.true_clock or wish.undisturbed
    daemon = Daemon(config, Path(f"{folder}.log"), clock, true_clock=true_clock)
    watcher = Watcher(folder / "repository", delivered)
    everybody = list(delivered.values())
    postmen = [Postman(everybody[number::2], wish.rate / 2 or 1.0, wish.seed + number) for number in range(2)]
    disturb = _Disturbances(daemon, servers, doors, config, clock, random.Random(wish.seed))
    daemon.start()
    watcher.start()
    time.sleep(10)
    for postman in postmen if wish.rate else []:
        postman.start()
    end, ahead = time.monotonic() + 60 * wish.minutes, time.monotonic() + wish.every
    told = time.monotonic()
    while time.monotonic() < end:
        time.sleep(1)
        daemon.sample()
        disturb.tick()
        if not wish.undisturbed and ahead <= time.monotonic() < end - 60:
            disturb.one()
            ahead = time.monotonic() + disturb.chance.uniform(0.5, 1.5) * wish.every
        if time.monotonic() - told > 60:
            told = time.monotonic()
            _, resident, files, threads = daemon.samples[-1]
            count = sum(len(one.digests) for one in everybody)
            say(f"{count} delivered; {_figures(watcher.seconds)}; {resident / 1e6:.0f} MB, {files} files, "
                f"{threads} threads; {sum(disturb.counts.values())} disturbances")  # fmt: skip
    for postman in postmen:
        postman.end.set()
    for postman in postmen:
        if postman.is_alive():
            postman.join(30)
    disturb.tick(all_of_them=True)
    for postman in postmen:
        postman.settle()
    say("no more mail; waiting for the last of it")
    wait = time.monotonic() + 180
    while time.monotonic() < wait and any(one.restorable < len(one.digests) for one in delivered.values()):
        time.sleep(1)
        daemon.sample()
    daemon.signal(signal.SIGTERM)
    watcher.end.set()
    watcher.join()
    return _judge(wish, folder, delivered, watcher, daemon, disturb)


class _Disturbances:
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

    def one(self) -> None:
        kinds = [self.cut, self.cut, self.restart, self.kill, self.reload, self.reload_wrong, self.run_all]
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


def _share(busy: list[tuple[float, float]]) -> float | None:
    """Percent of a core in the latter half of these samples."""
    latter = busy[len(busy) // 2 :]
    if len(latter) < 2:
        return None
    return round(100 * (latter[-1][1] - latter[0][1]) / (latter[-1][0] - latter[0][0]), 2)


def _figures(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "nothing restorable yet"
    ordered = sorted(seconds)
    return (
        f"{len(ordered)} restorable, after {statistics.median(ordered):.2f} s (median), "
        f"{ordered[int(0.99 * len(ordered))]:.2f} s (99th percentile), {ordered[-1]:.1f} s at most"
    )


def _judge(
    wish: argparse.Namespace, folder: Path, delivered: Mapping[str, Delivered], watcher: Watcher, daemon: Daemon,
    disturb: _Disturbances,
) -> int:  # fmt: skip
    say("reading every message back")
    storage = LocalStorage(folder / "repository")
    missing = strangers = messages = 0
    with Repository(storage, unlock(storage, PASSPHRASE)) as repository:
        for name, one in delivered.items():
            found: Counter[str] = Counter()
            for ref in repository.refs(name)[-1:]:
                for mailbox in contents(repository, repository.snapshot(ref)).values():
                    found.update(hashlib.sha256(raw).hexdigest() for raw, _, _ in mailbox.values())
            wanted = Counter(one.digests)
            messages += wanted.total()
            missing += (wanted - found).total()
            strangers += (found - wanted).total()
    lives = [sample for sample in daemon.samples if sample[0] > 60] or daemon.samples
    third = max(1, len(lives) // 3)
    figures = {
        "minutes": wish.minutes, "accounts": wish.accounts, "messages": messages, "missing": missing,
        "twice or unknown": strangers, "delivery to restorable": _figures(watcher.seconds),
        "disturbances": dict(disturb.counts),
        "memory, MB: first third, last third, most": [
            round(statistics.median(each[1] for each in lives[:third]) / 1e6),
            round(statistics.median(each[1] for each in lives[-third:]) / 1e6),
            round(max(each[1] for each in daemon.samples) / 1e6),
        ],
        "files: first third, last third, most": [
            statistics.median(each[2] for each in lives[:third]), statistics.median(each[2] for each in lives[-third:]),
            max(each[2] for each in daemon.samples),
        ],
        "threads: most": max(each[3] for each in daemon.samples),
        "processor time of one core, last minutes of the process that lived last, %": _share(daemon.busy),
        "objects": sum(1 for _ in storage.list()), "octets stored": sum(info.size for info in storage.list()),
    }  # fmt: skip
    text = json.dumps(figures, indent=2)
    print(text)
    if wish.json:
        wish.json.write_text(text + "\n", encoding="utf-8")
    return 1 if missing or strangers else 0

