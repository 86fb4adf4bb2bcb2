"""`python -m bench watch`: what it costs to watch a thousand accounts for changes, and how soon one is told.

A Dovecot has an account and a process for each connection; the process that measures is the one that watches, and does
nothing else, a new one for each way: NOTIFY without TLS, NOTIFY with TLS, IDLE with TLS (for which the server says
every two minutes that it is still there).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from backupd.daemon.watchtower import Watchtower
from backupd.wire.imap_connection import ImapSettings
from bench.contestants import ROOT
from bench.figures import between, octets
from bench.process import memory
from bench.report import PAGE, RESULTS, machine
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.told import Told

BEGIN, END = "<!-- watch: begin -->", "<!-- watch: end -->"
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
"""Dovecot's processes each want one, and look for changes by themselves every half minute where they get none."""
VERSION = ".".join(map(str, sys.version_info[:3]))
WAYS = {"NOTIFY": (False, ()), "NOTIFY with TLS": (True, ()), "IDLE with TLS": (True, ("NOTIFY",))}
"""Whether with TLS, and what the server hides."""
EXTRA = "default_client_limit = 8000\nservice imap {\n  process_limit = 3000\n}\n"


@dataclass(frozen=True)
class Figures:
    """One way. wall, cpu: seconds to reach all. resident: octets for each connection. share: of a core, while nothing
    happens for `idle` seconds. wakings: how often a second. told: seconds from the end of a delivery to being told."""

    way: str
    connections: int
    wall: float
    cpu: float
    resident: float
    share: float
    wakings: float
    idle: float
    told: list[float]


def measure(accounts: Sequence[Account], way: str, *, tls: bool, idle: float, deliveries: int) -> Figures:
    """Watch all of them, wait, and deliver to some."""
    told = Told()
    tower = Watchtower(told.changed, told.state)
    names = [account.username for account in accounts]
    before, began, cpu = memory(os.getpid())[0], time.monotonic(), time.process_time()
    for account in accounts:
        where = {"port": account.tls_port, "ca_file": account.ca_file} if tls else {"port": account.port, "tls": "none"}
        settings = ImapSettings(account.host, account.username, account.password, **where)  # type: ignore[arg-type]
        tower.add(account.username, settings)
    how = way.split()[0].lower()
    told.is_in(how, *names, seconds=600)
    wall, spent = time.monotonic() - began, time.process_time() - cpu
    while not told.quiet(3):
        pass
    time.sleep(35)  # the threads that connect have ended
    resident = memory(os.getpid())[0] - before
    cpu, switches, began = time.process_time(), _switches(), time.monotonic()
    time.sleep(idle)
    passed = time.monotonic() - began
    share, wakings = (time.process_time() - cpu) / passed, (_switches() - switches) / passed
    delays = []
    # The first to be reached have the server's inotify for sure.
    for account in list(accounts[:20]) * (deliveries // 20):
        seen, raw = told.changes[account.username], message("delivered")
        account.append("INBOX", raw)
        began = time.monotonic()
        told.until(lambda name=account.username, count=seen: told.changes[name] > count)  # type: ignore[misc]
        delays.append(time.monotonic() - began)
    tower.close(30)
    return Figures(way, len(accounts), wall, spent, resident / len(accounts), share, wakings, idle, delays)


def _switches() -> int:
    """How often the process has gone to sleep by itself, all threads together."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found += int(line.split()[1])
    return found


def text(began: datetime, minutes: float, found: Sequence[Figures]) -> str:
    """The part of the page between the markers."""
    here = machine()
    lines = [
        f"Measured on {began:%-d %B %Y}, in {minutes:.0f} minutes.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, Dovecot 2.3, Python {VERSION}.",
        "",
        f"| | {' | '.join(one.way for one in found)} |",
        f"|---|{'---:|' * len(found)}",
    ]
    rows: list[tuple[str, Callable[[Figures], str]]] = [
        ("connections", lambda one: f"{one.connections:,}"),
        ("reaching all of them, wall", lambda one: f"{one.wall:.1f} s"),
        ("reaching all of them, CPU", lambda one: f"{one.cpu:.1f} s"),
        ("memory for each connection", lambda one: octets(one.resident)),
        ("CPU while nothing happens, of one core", lambda one: f"{one.share:.3%}"),
        ("wakings a second while nothing happens", lambda one: f"{one.wakings:.1f}"),
        ("told after a delivery, median", lambda one: f"{median(one.told):.2f} s"),
        ("told after a delivery, 99th percentile", lambda one: f"{sorted(one.told)[int(len(one.told) * 0.99)]:.2f} s"),
    ]
    lines += [f"| {name} | {' | '.join(show(one) for one in found)} |" for name, show in rows]
    return "\n".join(lines)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench watch", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="100 accounts and half a minute; writes nothing down")
    parser.add_argument("--accounts", type=int, help="so many instead; writes nothing down")
    parser.add_argument("--way", choices=WAYS, help="this way alone, its figures as JSON")
    return parser.parse_args(words)


def one_way(way: str, count: int, *, quick: bool) -> Figures:
    """Measure one way, in this process."""
    tls, hide = WAYS[way]
    idle, deliveries = (20.0, 20) if quick else (240.0, 200)
    with Dovecot(hide=hide, extra=EXTRA) as server:
        accounts = [server.account() for _ in range(count)]
        return measure(accounts, way, tls=tls, idle=idle, deliveries=deliveries)


def in_a_process(way: str, count: int, *, quick: bool) -> Figures:
    """Measure one way, in a process of its own: memory that was used before would not be counted."""
    words = [sys.executable, "-m", "bench", "watch", "--way", way, "--accounts", str(count)]
    done = subprocess.run([*words, *(["--quick"] if quick else [])], stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return Figures(**json.loads(done.stdout))


def main(words: Sequence[str]) -> int:
    wish = arguments(words)
    count = wish.accounts or (100 if wish.quick else 1000)
    began, clock = datetime.now(UTC), time.monotonic()
    try:
        if wish.way:
            print(json.dumps(asdict(one_way(wish.way, count, quick=wish.quick))))
            return 0
        found = [in_a_process(way, count, quick=wish.quick) for way in WAYS]
    except DovecotMissing as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        return 1
    section = text(began, (time.monotonic() - clock) / 60, found)
    print(section)
    if wish.quick or wish.accounts:
        print("nothing written down: only a whole run goes to the page", file=sys.stderr)
        return 0
    RESULTS.mkdir(exist_ok=True)
    ways = [asdict(one) for one in found]
    document = {"began": began.isoformat(timespec="seconds"), "machine": machine(), "ways": ways}
    (RESULTS / f"watch-{began:%Y-%m-%d}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, section), encoding="utf-8")
    return 0
