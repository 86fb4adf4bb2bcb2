"""`python -m bench latency`: the same work over a link of 100 ms, where it counts what is waited for.

Two sorts of account: one with much mail, whose first snapshot the rate of the line should bound, and ones with many
folders and little in each, which cost round trips. mbsync is measured for itself too, without the restic behind it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.contestants import BORG, RAW, RESTIC, Contestant, contestants
from bench.figures import Sample
from bench.latency_report import LINE, MIRROR, Measured, document, text, write
from bench.link import Link, Unavailable, missing
from bench.mailboxes import Box, Mail, bulk, total
from bench.process import Command, Cost, Failed, run
from bench.rounds import FIRST, ONE_NEW, TO_SERVER, UNCHANGED, turned
from bench.spool import read_spool, write_spool
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.dovecot_account import Account
from tests.support.imap_wire import Delivery
from tests.support.mail import message
from tests.support.mail import text as words

ROUND_TRIP = 0.1
SECONDS_EACH = 1800.0
Say = Callable[[str], None]


class Far(Dovecot):
    """A server that listens on a link's address too, which is the one its accounts give."""

    def __enter__(self) -> Far:
        return self

    def __init__(self, address: str) -> None:
        super().__init__(extra=f"listen = {Dovecot.host}, {address}")
        self.host = address


@dataclass(frozen=True)
class Kind:
    """A sort of account, and the line it is reached over. mbit: of the line."""

    name: str
    about: str
    make: Callable[[Path, int], Mail]
    messages: int
    quick: int
    mbit: float
    rounds: int = 3


def folders(count: int) -> Callable[[Path, int], Mail]:
    """Mail that lies in so many folders, of which each has about as much."""

    def make(scratch: Path, limit: int) -> Mail:
        for number in range(limit):
            folder = f"Projects/{number % count:04}"
            yield folder, message(f"Small {number}", words(number, 1500), sender=f"sender{number % 97}@example.com")

    return make


KINDS = (
    Kind("mail", "mailing lists, newsletters and spam; 100 Mbit/s", bulk, 5_000, 200, 100),
    Kind("slow line", "the same; 20 Mbit/s", bulk, 5_000, 200, 20, rounds=1),
    Kind("100 folders", "100 folders; 100 Mbit/s", folders(100), 2_000, 200, 100, rounds=1),
    Kind("500 folders", "500 folders; 100 Mbit/s", folders(500), 2_500, 500, 100, rounds=1),
)


def fill(server: Far, kind: Kind, scratch: Path, *, quick: bool) -> Box:
    """Make the mail, and append it to a new account, not over the link."""
    spool = scratch / "spool"
    count, octets = write_spool(spool, kind.make(scratch, kind.quick if quick else kind.messages))
    account = server.account()
    with account.wire() as wire:
        for mailbox, messages in read_spool(spool):
            if mailbox != "INBOX":
                wire.command(b"CREATE", b'"%s"' % mailbox.encode())
            wire.append(mailbox, (Delivery(raw) for raw in messages))
    # What a server changes in a message would not be what the raw append writes; the number alone must fit.
    if (held := total(account)) != count:
        raise RuntimeError(f"{kind.name}: {count} messages were delivered, and the server has {held}")
    return Box(kind.name, kind.about, account, spool, count, octets)


class Round:
    """One round of one account."""

    def __init__(self, link: Link, server: Far, box: Box, order: Sequence[Contestant], scratch: Path, say: Say) -> None:
        self._link, self._server, self._box, self._order = link, server, box, order
        self._scratch, self._say = scratch, say

    def run(self, number: int) -> Iterator[Sample]:
        """All works. number: makes the new message another each round."""
        storing = [one for one in self._order if one.name != RAW]
        for one in self._order:
            folder = self._scratch / one.name.replace(" ", "")
            folder.mkdir()
            one.prepare(folder, self._box.account)
            yield from self._measured(FIRST, one, one.snapshot())
        for work in (UNCHANGED, ONE_NEW):
            if work == ONE_NEW:
                self._box.account.append("INBOX", message(f"New in round {number}"))
            for one in storing:
                yield from self._measured(work, one, one.snapshot())
        expected = total(self._box.account)
        for one in self._order:
            account = self._server.account()
            commands = one.restore_server(account, self._box.spool)
            if commands is None:
                continue
            yield from self._measured(TO_SERVER, one, commands)
            self._check(one, account, self._box.count if one.name == RAW else expected)
            shutil.rmtree(account.home)

    def _check(self, one: Contestant, account: Account, expected: int) -> None:
        if (found := total(account)) != expected:
            raise Failed(f"{one.name}: {TO_SERVER} gave {found} messages of {expected}")

    def _measured(self, work: str, one: Contestant, commands: Sequence[Command]) -> Iterator[Sample]:
        costs: list[Cost] = []
        self._link.traffic()
        for command in commands:
            cost = run([replace(command, words=self._link.inside(command.words))], limit=SECONDS_EACH)
            if command.words[0] == "mbsync":
                yield Sample(self._box.name, work, MIRROR, "wall", cost.wall)
            costs.append(cost)
        traffic = self._link.traffic()
        wall = sum(cost.wall for cost in costs)
        self._say(f"{self._box.name}: {work}, {one.name}: {wall:.2f} s, {traffic}")
        yield Sample(self._box.name, work, one.name, "wall", wall)
        yield Sample(self._box.name, work, one.name, "cpu", sum(cost.cpu for cost in costs))
        yield Sample(self._box.name, work, one.name, "peak", max(cost.peak for cost in costs))
        # mbsync alone uses the line, so it is the same for what stands behind it.
        network = MIRROR if one.name in (RESTIC, BORG) else one.name
        yield Sample(self._box.name, work, network, "wire", traffic.down + traffic.up)
        yield Sample(self._box.name, work, network, "turns", traffic.turns)


def measure(
    kind: Kind, order: Sequence[Contestant], scratch: Path, say: Say, *, quick: bool
) -> tuple[Box, list[Sample]]:
    """Everything of one sort of account."""
    samples: list[Sample] = []
    with Link(rtt=ROUND_TRIP, mbit=kind.mbit) as link, Far(link.far) as server:
        say(f"{kind.name}: delivering")
        box = fill(server, kind, scratch, quick=quick)
        say(f"{kind.name}: {box.count} messages, {box.octets / 1e6:.1f} MB")
        samples.append(Sample(box.name, FIRST, LINE, "wall", box.octets * 8 / kind.mbit / 1e6))
        for number in range(1 if quick else kind.rounds):
            folder = scratch / f"round-{number}"
            folder.mkdir()
            samples += Round(link, server, box, turned(order, number), folder, say).run(number)
            shutil.rmtree(folder)
    return box, samples


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little mail, one round; writes nothing down")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--only", action="append", choices=names, help="this sort of account; may be given again")
    parser.add_argument("--without", action="append", default=[], help="leave out this contestant; may be given again")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write all samples to this file, and nothing else")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    wish = arguments(words)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if why := missing():
        say(f"error: no link with a long round trip can be made here: {why}")
        return 1
    order, versions, left_out = contestants()
    # Borg would show the same as restic: behind mbsync, neither uses the line.
    order = [one for one in order if one.name != BORG and one.name not in wish.without]
    began, clock = datetime.now(UTC), time.monotonic()
    boxes: list[Box] = []
    samples: list[Sample] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=wish.scratch))
    try:
        for kind in KINDS:
            if wish.only and kind.name not in wish.only:
                continue
            folder = scratch / str(len(boxes))
            folder.mkdir()
            box, found = measure(kind, order, folder, say, quick=wish.quick)
            boxes.append(box)
            samples += found
            shutil.rmtree(folder)
        minutes = (time.monotonic() - clock) / 60
        measured = Measured(began, minutes, [one.name for one in order], left_out, versions, boxes, samples)
        print(text(measured))
        if wish.json:
            wish.json.write_text(document(measured), encoding="utf-8")
        elif wish.quick or wish.only or wish.without or left_out:
            say("nothing written down: only a run of everything, with everybody, goes to the page")
        else:
            for path in write(measured):
                say(f"wrote {path}")
    except (Failed, DovecotMissing, Unavailable) as problem:
        say(f"error: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
