"""`python -m bench soak`: does the daemon keep what it promises when nothing goes well for an hour?

Accounts on two real servers, backed up continuously, while mail arrives all the time. Meanwhile servers restart,
connections are cut, the daemon's clock jumps (with libfaketime), its configuration is reloaded, and the daemon itself
is killed (SIGKILL) and started again. In the end every message that a server has confirmed must be in a snapshot, byte
for byte, and nothing may have grown that should not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from backupd.repository.repository import Repository, create, unlock
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from bench.cutting import CuttingDoor
from bench.post import Delivered, Postman, Watcher, say
from bench.troubles import Daemon, Disturbances, Sample
from bench.watch import EXTRA
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.reading import contents

PASSPHRASE = "soak soak soak"
QUIET = 1 / 3
"""In the last part of the time the daemon is not killed any more, so that one process lives long enough to grow."""


def configuration(folder: Path, accounts: Mapping[str, tuple[Account, CuttingDoor]]) -> dict[str, object]:
    return {
        "state_dir": str(folder / "state"),
        "repository": {"url": str(folder / "repository"), "passphrase": PASSPHRASE},
        "retention": {"keep_last": 5, "keep_within": "10m"},  # as many after ten minutes as in the end
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
    servers = [Dovecot(extra=EXTRA), Dovecot(extra=EXTRA)]
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
    watcher = Watcher(folder / "repository", PASSPHRASE, delivered)
    everybody = list(delivered.values())
    postmen = [Postman(everybody[number::2], wish.rate / 2 or 1.0, wish.seed + number) for number in range(2)]
    disturb = Disturbances(daemon, servers, doors, config, clock, random.Random(wish.seed))
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
            disturb.one(kill=end - time.monotonic() > QUIET * 60 * wish.minutes)
            ahead = time.monotonic() + disturb.chance.uniform(0.5, 1.5) * wish.every
        if time.monotonic() - told > 60:
            told = time.monotonic()
            count = sum(len(one.digests) for one in everybody)
            now = daemon.lives[-1][-1] if daemon.lives[-1] else None  # it may have begun in this second
            size = f"{now.resident / 1e6:.0f} MB, {now.files} files, {now.threads} threads" if now else "a new process"
            troubles = f"{disturb.counts.total()} disturbances"
            say(f"{count} delivered; {_figures(watcher.seconds)}; {size}; {troubles}")
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


def _share(life: Sequence[Sample]) -> float | None:
    """Percent of a core in the latter half of these samples."""
    latter = life[len(life) // 2 :]
    if len(latter) < 2:
        return None
    return round(100 * (latter[-1].busy - latter[0].busy) / (latter[-1].age - latter[0].age), 2)


def _minutes(life: Sequence[Sample]) -> float:
    return round(life[-1].age / 60, 1)


def _course(values: Sequence[int]) -> list[float]:
    """Medians of the first minute, of the one in the middle, and of the last."""
    middle = max(0, len(values) // 2 - 30)
    parts = [values[:60], values[middle : middle + 60], values[-60:]]
    return [statistics.median(part) for part in parts if part]


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
    disturb: Disturbances,
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
    everything = [sample for life in daemon.lives for sample in life]
    longest = max(daemon.lives, key=len)
    figures = {
        "minutes": wish.minutes, "accounts": wish.accounts, "messages": messages, "missing": missing,
        "twice or unknown": strangers, "delivery to restorable": _figures(watcher.seconds),
        "disturbances": dict(disturb.counts),
        "objective of 10 minutes": "kept" if max(watcher.seconds, default=0.0) <= 600 else "not kept",
        "processes of the daemon": len(daemon.lives), "minutes of the one that lived longest": _minutes(longest),
        "its memory, MB: after a minute, in the middle, at the end": [
            round(each / 1e6) for each in _course([sample.resident for sample in longest[60:]])
        ],
        "its memory, MB: medians of each five minutes": [
            round(statistics.median(sample.resident for sample in longest[at : at + 300]) / 1e6)
            for at in range(0, len(longest), 300)
        ],
        "its files: after a minute, in the middle, at the end": _course([sample.files for sample in longest[60:]]),
        "memory, MB: most": round(max(sample.resident for sample in everything) / 1e6),
        "files: most": max(sample.files for sample in everything),
        "threads: most": max(sample.threads for sample in everything),
        "processor time, % of a core, second half of the process that lived last": _share(daemon.lives[-1]),
        "objects": sum(1 for _ in storage.list()), "octets stored": sum(info.size for info in storage.list()),
    }  # fmt: skip
    text = json.dumps(figures, indent=2)
    print(text)
    if wish.json:
        wish.json.write_text(text + "\n", encoding="utf-8")
    return 1 if missing or strangers else 0

