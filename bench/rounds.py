"""The rounds: every contestant does the same work before anybody does the next, and each round another one begins.

So what disturbs the machine for a while disturbs all of them, and none is always the one that finds the caches warm.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from bench.contestants import RAW, Contestant
from bench.figures import Measure, Sample
from bench.mailboxes import Box, total
from bench.process import Command, Cost, Failed, run
from bench.solid import solid
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import message

FIRST = "first snapshot"
UNCHANGED = "nothing changed"
ONE_NEW = "one new message"
TO_FILES = "restore to files"
TO_SERVER = "restore to a server"

T = TypeVar("T")
Say = Callable[[str], None]


class Round:
    """One round of one mailbox. limit: seconds one command may take."""

    def __init__(
        self, server: Dovecot, box: Box, order: Sequence[Contestant], scratch: Path, limit: float, say: Say
    ) -> None:
        self._server, self._box, self._scratch, self._limit, self._say = server, box, scratch, limit, say
        self._order = order

    def whole(self, number: int) -> Iterator[Sample]:
        """All works. The account has one message more afterwards. number: makes that message another each round."""
        yield from self.first()
        storing = [one for one in self._order if one.name != RAW]
        for work in (UNCHANGED, ONE_NEW):
            if work == ONE_NEW:
                self._box.account.append("INBOX", message(f"New in round {number}"))
            before = {one.name: one.stored()["stored"] for one in storing}
            for one in storing:
                yield from self._measured(work, one, one.snapshot())
                grown = one.stored()["stored"] - before[one.name]
                yield self._sample(work, one, "stored", grown)
        yield from self.to_files()
        yield from self.to_server()

    def first(self) -> Iterator[Sample]:
        """Everybody's first snapshot, into new folders."""
        for one in self._order:
            folder = self._scratch / one.name.replace(" ", "")
            folder.mkdir()
            one.prepare(folder, self._box.account)
            yield from self._measured(FIRST, one, one.snapshot())
            for measure, size in one.stored().items():
                yield self._sample(FIRST, one, measure, size)

    def to_files(self) -> Iterator[Sample]:
        """Everybody's restore to files, counted."""
        expected = total(self._box.account)
        for one in self._order:
            target = self._scratch / "restored"
            commands = one.restore_files(target)
            if commands is None:
                continue
            yield from self._measured(TO_FILES, one, commands)
            _check(one, TO_FILES, messages_below(target), expected)
            shutil.rmtree(target)

    def to_server(self) -> Iterator[Sample]:
        """Everybody's restore into an empty account, counted."""
        expected = total(self._box.account)
        for one in self._order:
            account = self._server.account(self._box.account.format)
            commands = one.restore_server(account, self._box.spool)
            if commands is None:
                continue
            yield from self._measured(TO_SERVER, one, commands)
            # The raw append knows the mail that was delivered first, not what came in the rounds since.
            _check(one, TO_SERVER, total(account), self._box.count if one.name == RAW else expected)
            shutil.rmtree(account.home)

    def _measured(self, work: str, one: Contestant, commands: Sequence[Command]) -> Iterator[Sample]:
        cost = run(commands, limit=self._limit)
        self._say(f"{self._box.name}: {work}, {one.name}: {_shown(cost)}")
        yield self._sample(work, one, "wall", cost.wall)
        yield self._sample(work, one, "cpu", cost.cpu)
        yield self._sample(work, one, "peak", cost.peak)

    def _sample(self, work: str, one: Contestant, measure: Measure, value: float) -> Sample:
        return Sample(self._box.name, work, one.name, measure, value)


def _shown(cost: Cost) -> str:
    return f"{cost.wall:.2f} s, CPU {cost.cpu:.2f} s, {cost.peak / 1e6:.0f} MB"


def _check(one: Contestant, work: str, found: int, expected: int) -> None:
    if found != expected:
        raise Failed(f"{one.name}: {work} gave {found} messages of {expected}")


def messages_below(folder: Path) -> int:
    """Messages in a tree of .eml files, or in Maildirs."""
    return sum(1 for path in folder.rglob("*") if path.suffix == ".eml" or path.parent.name in ("cur", "new"))


def turned(order: Sequence[T], number: int) -> list[T]:
    """The contestants, beginning with another one each round."""
    start = number % len(order)
    return [*order[start:], *order[:start]]


def measure(
    server: Dovecot, box: Box, order: Sequence[Contestant], scratch: Path, *, rounds: int, limit: float, say: Say
) -> Iterator[Sample]:
    """All samples of one mailbox. rounds: 0 for one first snapshot and one restore to files only."""
    _warm(order, box.account, scratch, limit)
    for number in range(max(1, rounds)):
        folder = scratch / f"round-{number}"
        folder.mkdir()
        now = Round(server, box, turned(order, number), folder, limit, say)
        if rounds:
            yield from now.whole(number)
        else:
            yield from now.first()
            yield from now.to_files()
        shutil.rmtree(folder)
    for way, size in solid(box.spool):
        say(f"{box.name}: {way}: {size / 1e6:.1f} MB")
        yield Sample(box.name, FIRST, way, "stored", size)


def _warm(order: Sequence[Contestant], account: Account, scratch: Path, limit: float) -> None:
    """Read everything once, so that the first contestant does not pay for the disk."""
    for one in order:
        if one.name == RAW:
            one.prepare(scratch, account)
            run(one.snapshot(), limit=limit)
