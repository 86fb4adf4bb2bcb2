"""`python -m bench growth`: does it get slower as the mailbox grows?

One mailbox of 10,000, of 100,000 and of 1,000,000 small messages, and an account of 1,000 folders. The first snapshot
should grow with the mail; everything else should cost what has changed, and not what is there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from bench.contestants import Backupd, RawWire, WithRestic, contestants
from bench.counting import Door
from bench.figures import Measure, Sample
from bench.growth_report import LOOK_UPS, Measured, document, text, write
from bench.process import Command, Failed, run
from bench.rounds import FIRST, ONE_NEW, UNCHANGED
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.mail import text as words

RAW_FIRST = f"{FIRST}, raw wire"
ONE_FLAG = "one flag changed"
ONE_GONE = "one message expunged"
LIST = "ls of the newest snapshot"
ONE_OUT = "one message out of the archive"
RESTORE = "restore of a mailbox of one message"
MIRROR_UNCHANGED = f"{UNCHANGED}, mbsync"
ROUNDS = 3
SECONDS_EACH = 1800.0
_SMALL = "Small"
_TEMPLATES = 2_000
Say = Callable[[str], None]


@dataclass(frozen=True)
class Reached(Account):
    """The account through a door that counts."""

    door: int

    @property
    def port(self) -> int:
        return self.door


@dataclass(frozen=True)
class Kind:
    """An account to measure: so many messages, evenly in so many folders below INBOX (0: all in INBOX), and one more in
    a mailbox of its own. mirrored: whether mbsync takes part, whose first run of a million would take half an hour."""

    name: str
    messages: int
    folders: int = 0
    mirrored: bool = True


KINDS = (
    Kind("10,000", 10_000),
    Kind("100,000", 100_000),
    Kind("1,000,000", 1_000_000, mirrored=False),
    Kind("1,000 folders", 10_000, 1_000),
)
QUICK = (Kind("300", 300), Kind("3,000", 3_000), Kind("30 folders", 300, 30))
LOOK_UP_BLOBS, LOOK_UP_QUICK = 10_000_000, 100_000


def mail(count: int) -> Iterator[bytes]:
    """Small messages, all different. Made of few templates: it is the server's work that shall take the time."""
    templates = [message(f"Small {n}", words(n, 300), sender=f"s{n % 97}@example.com") for n in range(_TEMPLATES)]
    for number in range(count):
        yield b"X-Number: %d\r\n%s" % (number, templates[number % _TEMPLATES])


def fill(server: Dovecot, kind: Kind) -> Account:
    """A new account with its mail."""
    account = server.account("mdbox")
    messages = mail(kind.messages)
    account.create(_SMALL)
    account.append(_SMALL, message("The only one"))
    if not kind.folders:
        account.append_many("INBOX", messages)
        return account
    for number in range(kind.folders):
        account.create(f"Projects/{number:04}")
        account.append_many(f"Projects/{number:04}", islice(messages, kind.messages // kind.folders))
    return account


class Series:
    """All works on one account, in order. Each changes what the next one finds."""

    def __init__(self, kind: Kind, account: Account, door: Door, program: str, scratch: Path, say: Say) -> None:
        self._kind, self._account, self._door, self._say = kind, account, door, say
        self._scratch = scratch
        self._reached = Reached(
            account.server, account.username, account.password, account.home, account.format, door.port
        )
        self._own = Backupd(program)
        self._mailbox = "Projects/0000" if kind.folders else "INBOX"

    def run(self) -> Iterator[Sample]:
        raw = RawWire()
        for name, one in (("raw", raw), ("own", self._own)):
            folder = self._scratch / name
            folder.mkdir()
            one.prepare(folder, self._reached)
        yield from self._measured(RAW_FIRST, raw.snapshot())
        yield from self._measured(FIRST, self._own.snapshot())
        for number in range(ROUNDS):
            yield from self._measured(UNCHANGED, self._own.snapshot())
            uid = self._some_uid(number)
            self._account.store(self._mailbox, uid, [b"\\Flagged"])
            yield from self._measured(ONE_FLAG, self._own.snapshot())
            self._account.append(self._mailbox, message(f"New {number}"))
            yield from self._measured(ONE_NEW, self._own.snapshot())
            self._account.expunge(self._mailbox, uid)
            yield from self._measured(ONE_GONE, self._own.snapshot())
            yield from self._measured(LIST, self._own.ask("ls", "source@latest"))
            named = f"{self._mailbox}:{self._some_uid(number + ROUNDS)}"
            yield from self._measured(ONE_OUT, self._own.ask("show", "source@latest", named, "--raw"))
            target = self._scratch / f"restored-{number}"
            restore = self._own.ask("restore", "source@latest", f"eml:{target}", "--mailbox", _SMALL)
            yield from self._measured(RESTORE, restore)
        yield from self._mirror()

    def _mirror(self) -> Iterator[Sample]:
        """mbsync, when nothing has changed."""
        if not self._kind.mirrored or shutil.which("mbsync") is None:
            return
        other, folder = WithRestic(), self._scratch / "mbsync"
        folder.mkdir()
        other.prepare(folder, self._reached)
        mirror = other.snapshot()[:1]
        run(mirror, limit=SECONDS_EACH)
        for _ in range(ROUNDS):
            yield from self._measured(MIRROR_UNCHANGED, mirror)

    def _some_uid(self, number: int) -> int:
        """UIDs from all over the first mailbox, another for each number."""
        there = self._kind.messages // (self._kind.folders or 1)
        return 1 + there * (number + 1) // (2 * ROUNDS + 2)

    def _measured(self, work: str, commands: Sequence[Command]) -> Iterator[Sample]:
        before = self._own.stored()["stored"]
        self._door.traffic()
        cost = run(commands, limit=SECONDS_EACH)
        traffic = self._door.traffic()
        grown = self._own.stored()["stored"] - before
        self._say(f"{self._kind.name}: {work}: {cost.wall:.2f} s, {traffic}, {grown} octets stored")
        yield Sample("growth", work, self._kind.name, "wall", cost.wall)
        yield Sample("growth", work, self._kind.name, "cpu", cost.cpu)
        yield Sample("growth", work, self._kind.name, "peak", cost.peak)
        if work in (LIST, ONE_OUT, RESTORE):  # which ask no server, and store nothing
            return
        counted: list[tuple[Measure, float]] = [
            ("received", traffic.received),
            ("sent", traffic.sent),
            ("commands", traffic.lines),
            ("turns", traffic.round_trips),
        ]
        if work not in (RAW_FIRST, MIRROR_UNCHANGED):
            counted.append(("stored", grown))
        for measure, value in counted:
            yield Sample("growth", work, self._kind.name, measure, value)


def look_ups(blobs: int, folder: Path) -> dict[str, float]:
    """What `bench.lookup` measured, in a process of its own."""
    found: dict[str, float] = {}
    for step in ("fill", "ask"):
        result = folder / f"{step}.json"
        words: list[str | Path] = [sys.executable, "-m", "bench.lookup", step, folder, str(blobs), result]
        run([Command(words, folder, {"PYTHONPATH": str(Path(__file__).resolve().parents[1])})], limit=SECONDS_EACH)
        found |= json.loads(result.read_bytes())
    return {name: found[name] for name in LOOK_UPS}


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few messages; writes nothing down")
    names = [kind.name for kind in (*KINDS, *QUICK)]
    parser.add_argument("--only", action="append", choices=names, help="this one; may be given again; writes nothing")
    parser.add_argument("--json", type=Path, help="write all samples to this file, and nothing else")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder); needs about 10 GB")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    wish = arguments(words)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    _, versions, left_out = contestants()
    program = shutil.which("backupd", path=str(Path(sys.executable).parent)) or shutil.which("backupd")
    if program is None:
        say(f"error: {left_out[0]}")
        return 1
    began, clock = datetime.now(UTC), time.monotonic()
    samples: list[Sample] = []
    kinds = [kind for kind in (QUICK if wish.quick else KINDS) if not wish.only or kind.name in wish.only]
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=wish.scratch))
    try:
        for number, kind in enumerate(kinds):
            # A server for each, so that no more than one account is on the disk.
            with Dovecot() as server, Door(server.ports.imap) as door:
                say(f"{kind.name}: delivering")
                account = fill(server, kind)
                folder = scratch / str(number)  # a name with a space is too much for mbsync
                folder.mkdir()
                samples += Series(kind, account, door, program, folder, say).run()
                shutil.rmtree(folder)
        say("looking up blobs")
        looked = look_ups(LOOK_UP_QUICK if wish.quick else LOOK_UP_BLOBS, scratch)
        kept = {name: versions[name] for name in ("backupd", "Dovecot", "Python")}
        names = [kind.name for kind in kinds]
        measured = Measured(began, (time.monotonic() - clock) / 60, kept, names, samples, looked)
        print(text(measured))
        if wish.json:
            wish.json.write_text(document(measured), encoding="utf-8")
        elif wish.quick or wish.only:
            say("nothing written down: only a run of everything goes to the page")
        else:
            for path in write(measured):
                say(f"wrote {path}")
    except (Failed, DovecotMissing) as problem:
        say(f"error: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
