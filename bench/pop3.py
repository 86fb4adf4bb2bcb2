"""`python -m bench pop3`: a large POP3 mailbox, beside getmail6 and fetchmail, and beside who only reads it.

All mail stays on the server. The first pull is taken once, since the others need minutes for it; what follows it,
three times. Every result is checked: each message must be there, once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from bench.contestants import RAW
from bench.figures import Measure, Sample
from bench.mailboxes import Box, Kind, fill
from bench.pop3_contestants import Puller, pullers
from bench.pop3_mail import Expected, mailbox, numbered
from bench.pop3_report import FIRST, Measured, document, text, write
from bench.process import Failed, run
from bench.rounds import ONE_NEW, UNCHANGED, turned
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.mail import message

SECONDS_EACH = 3600.0
ROUNDS = 3
KIND = Kind("pop3", "one mailbox of a POP3 account", mailbox, 50_000, 500)
Say = Callable[[str], None]


class Run:
    """One mailbox, pulled by everybody."""

    def __init__(self, box: Box, everybody: Sequence[Puller], scratch: Path, say: Say) -> None:
        self._box, self._everybody, self._scratch, self._say = box, everybody, scratch, say
        self._expected = Expected(box.spool)

    def measure(self, rounds: int) -> Iterator[Sample]:
        yield from self._first()
        storing = [one for one in self._everybody if one.name != RAW]
        for number in range(rounds):
            for work in (UNCHANGED, ONE_NEW):
                if work == ONE_NEW:
                    new = numbered(self._box.count + number, message(f"New in round {number}"))
                    self._box.account.append("INBOX", new)
                    self._expected.add(new)
                for one in turned(storing, number):
                    before = one.stored()["stored"]
                    yield from self._measured(work, one)
                    yield self._sample(work, one, "stored", one.stored()["stored"] - before)
        for one in storing:
            altered = self._expected.altered(one.name, one.messages())
            self._say(f"{one.name} has all {len(self._expected)} messages, {altered} of them altered")
            yield self._sample(FIRST, one, "altered", altered)

    def _first(self) -> Iterator[Sample]:
        for one in self._everybody:
            folder = self._scratch / one.name.replace(" ", "").replace(",", "-")
            folder.mkdir(mode=0o711)
            one.prepare(folder, self._box.account)
            if one.name == RAW:
                run(one.pull(), limit=SECONDS_EACH)  # once for the disk, so that the first to come does not pay for it
        for one in self._everybody:
            yield from self._measured(FIRST, one)
            for measure, size in one.stored().items():
                yield self._sample(FIRST, one, measure, size)

    def _measured(self, work: str, one: Puller) -> Iterator[Sample]:
        cost = run(one.pull(), limit=SECONDS_EACH)
        self._say(f"{work}, {one.name}: {cost.wall:.2f} s, CPU {cost.cpu:.2f} s, {cost.peak / 1e6:.0f} MB")
        yield self._sample(work, one, "wall", cost.wall)
        yield self._sample(work, one, "cpu", cost.cpu)
        yield self._sample(work, one, "peak", cost.peak)

    def _sample(self, work: str, one: Puller, measure: Measure, value: float) -> Sample:
        return Sample(self._box.name, work, one.name, measure, value)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench pop3", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little mail, one round; writes nothing down")
    parser.add_argument("--messages", type=int, help="so many instead; writes nothing down")
    parser.add_argument("--without", action="append", default=[], help="leave out this contestant; may be given again")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="write all samples to this file, and nothing else")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    wish = arguments(words)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    everybody, versions, left_out = pullers()
    for lacking in left_out:
        say(f"left out: {lacking}")
    everybody = [one for one in everybody if one.name not in wish.without]
    kind = KIND if wish.messages is None else replace(KIND, messages=wish.messages)
    began, clock, load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=wish.scratch))
    scratch.chmod(0o711)  # getmail files mail as somebody else, who must get through
    try:
        with Dovecot() as server:
            say(f"delivering {kind.messages} messages")
            box = fill(server, kind, scratch, quick=wish.quick)
            say(f"{box.count} messages, {box.octets / 1e6:.0f} MB")
            samples = list(Run(box, everybody, scratch, say).measure(1 if wish.quick else ROUNDS))
        minutes = (time.monotonic() - clock) / 60
        names = [one.name for one in everybody]
        measured = Measured(began, minutes, load, versions, names, left_out, box, samples)
        print(text(measured))
        if wish.json:
            wish.json.write_text(document(measured), encoding="utf-8")
        elif wish.quick or wish.messages or wish.without or left_out:
            say("nothing written down: only a run of everything, with everybody, goes to the page")
        else:
            for path in write(measured):
                say(f"wrote {path}")
    except (Failed, DovecotMissing) as problem:
        say(f"error: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
