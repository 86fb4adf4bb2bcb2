"""`python -m bench damage`: ten thousand harms to a repository, and what audits of each level say of each.

Each harm is done to a small repository in memory. Then it is audited as a host without a key does, as a writer, and as
a reader, with and without the memory of an audit before; and every message is restored, or not: the audit must have
said which. What an audit claims to see, and did not, is a failure, and so is a message it placed wrongly. Then it is
repaired, with a copy, with parity, or with the mail server at hand (healed.py).
"""

from __future__ import annotations

import argparse
import atexit
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from backupd.errors import BackupdError
from backupd.operations.audit import Means, Wish, audit
from backupd.operations.audit_report import AuditReport, Level, Severity
from backupd.operations.record_check import checker
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository, unlock
from bench.damaged import ACCOUNTS, KINDS, NOON, OBJECTS, PASSPHRASE, Harm, Place, Repo, build, harm, listed, readable
from bench.figures import between
from bench.healed import HELPS, Healing, Outcome, heal
from bench.healed import table as healed_table
from bench.report import machine

PAGE = Path(__file__).parents[1] / "docs/audit.md"
NOW = NOON + timedelta(days=6)
STORAGE, WRITER, READER, CONTENT, AGAIN = AUDITS = (
    "storage, no key",
    "metadata, writer",
    "metadata, reader",
    "content, reader",
    "content, reader, not the first",
)
"""The first is by a host that has an export of the record. The last one is by a machine that made the backups, and
audited the repository before it was harmed."""

_PROVED_BY_NAME = frozenset({"bit", "cut", "empty", "longer", "swapped", "copied", "forged", "replaced"})
_BY_NAME = ("pack", "index", "snapshot", "hold", "mark", "need", "erasure", "record", "parity")
_RECORDED = ("snapshot", "hold", "erasure")
_WENT, _CAME_BACK = frozenset({"removed"}), frozenset({"replayed"})

CLAIMS: dict[str, dict[str, frozenset[str]]] = {
    STORAGE: {
        **dict.fromkeys(_BY_NAME, _PROVED_BY_NAME),
        **dict.fromkeys(_RECORDED, _PROVED_BY_NAME | _WENT | _CAME_BACK),
        "record": _PROVED_BY_NAME | _WENT,
        "key slot": frozenset({"empty", "swapped", "copied", "forged"}),
        "repository.json": frozenset({"empty", "swapped", "removed"}),
    },
    WRITER: {
        "pack": frozenset({"cut", "empty", "longer", "removed", "copied", "forged", "replayed"}),
        "index": _PROVED_BY_NAME,
        **dict.fromkeys(_RECORDED, _PROVED_BY_NAME | _WENT | _CAME_BACK),
        "record": _PROVED_BY_NAME,
        "repository.json": frozenset({"empty", "swapped", "removed", "replaced"}),
        "key slot": frozenset({"empty", "swapped", "copied", "forged"}),
    },
}
CLAIMS[READER] = CLAIMS[WRITER]
CLAIMS[CONTENT] = {
    sort: CLAIMS[STORAGE].get(sort, frozenset()) | CLAIMS[WRITER].get(sort, frozenset()) for sort in OBJECTS
}
CLAIMS[AGAIN] = {
    **CLAIMS[CONTENT],
    "key slot": _PROVED_BY_NAME | {"removed", "replayed"},
    "repository.json": _PROVED_BY_NAME - {"copied", "forged"} | {"removed"},
    "record": _PROVED_BY_NAME | _WENT,
}
"""What each audit sees of what is done to each object, without exception: it says so, be it as a note."""


class Trial(NamedTuple):
    """What audits said of one harm.

    said: by audit: its outcome, "note" where it had no more than notes, "ok" for nothing, or the name of an error,
    which is `unknown` to a monitor. lost: messages that cannot be restored, of snapshots that are there. misplaced:
    audits that named others than those. healings: what repairs made of it; all kinds where it cost mail, else one. """

    kind: str
    object: str
    what: str
    said: dict[str, str]
    lost: int
    misplaced: dict[str, str]
    healings: list[Healing]

    @property
    def unseen(self) -> list[str]:
        """Audits that claim to see this, and did not; at the level of content, that is whatever costs a message."""
        claiming = [name for name in AUDITS if self.kind in CLAIMS[name].get(self.object, ())]
        claiming += [CONTENT, AGAIN] if self.lost else []
        return [name for name in claiming if self.said.get(name) == "ok"]


@cache
def _folder() -> Path:
    """Of this process; the state of the machine that made the backups is in it."""
    folder = Path(tempfile.mkdtemp(prefix="bench-damage-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def repo() -> Repo:
    """The repository that is harmed, the same in every process but for what is random in it."""
    made = build(_folder() / "state")
    with closing(State(_folder() / "state")) as state:
        report = run_audit(made, made.objects, Level.CONTENT, Role.READER, state)
    if not isinstance(report, AuditReport) or any(each.severity is not Severity.NOTE for each in report.findings):
        raise RuntimeError(f"the repository is not whole to begin with: {report}")
    return made


@cache
def usual() -> dict[str, frozenset[str]]:
    """What each audit says of the unharmed repository: how many messages were erased, that the record is whole."""
    return {
        name: frozenset(each.what for each in report.findings)
        for name, report in audited(repo().objects, again=True).items()
        if isinstance(report, AuditReport)
    }


@cache
def whole() -> frozenset[Place]:
    """All messages of the unharmed repository."""
    return frozenset(readable(repo(), repo().objects))


@cache
def erased() -> frozenset[Place]:
    """Messages that were erased. Where that cannot be read any more, they look like lost ones, and nobody can tell."""
    return frozenset(place for place, is_there in listed(repo(), repo().objects) if not is_there)


def run_audit(
    made: Repo, objects: dict[str, bytes], level: Level, role: Role, state: State | None = None
) -> AuditReport | str:
    """An audit; or the name of the error that kept it from judging."""
    storage = made.open(objects)

    def opened() -> Repository:
        return Repository(storage, unlock(storage, PASSPHRASE).for_role(role))

    wish, exported = Wish(level, dict.fromkeys(ACCOUNTS)), made.exported if role is Role.AUDITOR else None
    means = Means(state, lambda: NOW, check_record=checker(state, dict.fromkeys(ACCOUNTS), exported=exported))
    try:
        return audit(storage, opened if role is not Role.AUDITOR else None, wish, means)
    except BackupdError as error:
        return type(error).__name__


def audited(objects: dict[str, bytes], *, again: bool) -> dict[str, AuditReport | str]:
    """By all audits; again: by the one as well that remembers what there was."""
    made = repo()
    found = {
        STORAGE: run_audit(made, objects, Level.STORAGE, Role.AUDITOR),
        WRITER: run_audit(made, objects, Level.METADATA, Role.WRITER),
        READER: run_audit(made, objects, Level.METADATA, Role.READER),
        CONTENT: run_audit(made, objects, Level.CONTENT, Role.READER),
    }
    # Of most kinds of objects nothing is remembered that their names do not prove.
    if again:
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            shutil.copy(_folder() / "state/state.sqlite", folder)
            with closing(State(Path(folder))) as state:
                found[AGAIN] = run_audit(made, objects, Level.CONTENT, Role.READER, state)
    return found


def trial(kind: str, sort: str, seed: int) -> Trial | None:
    """One harm, audited at all levels; None where there is no such harm."""
    made = repo()
    harmed = harm(made, random.Random(seed), kind, sort)
    if harmed is None:
        return None
    reports = audited(harmed.objects, again=sort in ("key slot", "repository.json", "record", *_RECORDED))
    try:
        left = set(readable(made, harmed.objects))
        opens = True
    except BackupdError:
        left, opens = set(), False
    lost = {place for place in whole() - left if place[0] in harmed.objects}
    misplaced: dict[str, str] = {}
    for name, report in reports.items():
        if isinstance(report, AuditReport) and report.role is not Role.AUDITOR and opens:
            misplaced[name] = _misplaced(report, harmed, lost)
    misplaced = {name: wrong for name, wrong in misplaced.items() if wrong}
    said = {name: _said(report, usual()[name]) for name, report in reports.items()}
    helps = HELPS if whole() - left else HELPS[seed // len(CELLS) % len(HELPS) :][:1]
    healings = [heal(made, harmed, whole(), left, each) for each in helps]
    return Trial(kind, sort, f"seed {seed}: {harmed.what}", said, len(lost), misplaced, healings)


def _said(report: AuditReport | str, usual: frozenset[str]) -> str:
    if isinstance(report, str):
        return report
    news = any(each.what not in usual for each in report.findings)
    return "note" if report.outcome == "ok" and news else report.outcome


def _misplaced(report: AuditReport, harmed: Harm, lost: set[Place]) -> str:
    """How the messages that a report names differ from those that cannot be restored; empty where they are the same.

    A snapshot that cannot be read is told as such, and its messages are not told one by one. Below the level of
    storage, and to a writer, not all that is lost can be known; but what is named as lost is. """
    unread = {each.subject for each in report.findings if each.subject.startswith(names.SNAPSHOTS)}
    expected = {place for place in lost if place[0] not in unread}
    named: set[Place] = set()
    snapshots = [name for name in harmed.objects if name.startswith(names.SNAPSHOTS)]  # and not their parity
    for each in report.affected:
        if each.restorable or not each.certain:
            continue
        for name in (name for name in snapshots if name.rpartition("/")[2] in each.snapshots):
            for uid in range(each.uid, each.last + 1):
                # Of a stretch of which no more can be read than its ends, not every UID need be a message.
                if each.uid == each.last or (name, each.account, each.mailbox, uid) in expected:
                    named.add((name, each.account, each.mailbox, uid))
    deep = report.level.includes(Level.STORAGE) and report.role is Role.READER
    named -= erased()
    if named - expected or (deep and expected - named):
        return f"{len(named - expected)} named that are whole, {len(expected - named)} lost and not named"
    return ""


# -- many --------------------------------------------------------------------------------------------------------------

CELLS = [(kind, sort) for sort in OBJECTS for kind in KINDS]
_AT_ONCE = 120


def trials(seeds: Sequence[int]) -> list[Trial]:
    """One for each of these seeds, which go through all kinds and objects in turn; without those there are not."""
    found = (trial(*CELLS[seed % len(CELLS)], seed) for seed in seeds)
    return [each for each in found if each is not None]


def run(count: int, processes: int) -> Iterator[Trial]:
    """So many harms, by some processes."""
    done, begun = 0, 0
    with ProcessPoolExecutor(processes) as pool:
        while done < count:
            jobs = [range(first, first + _AT_ONCE) for first in range(begun, begun + processes * _AT_ONCE, _AT_ONCE)]
            begun += processes * _AT_ONCE
            for some in pool.map(trials, jobs):
                for each in some[: count - done]:
                    done += 1
                    yield each


def table(found: Sequence[Trial]) -> str:
    """A row for each object and harm: how many of them each audit saw. In brackets: how many of these as a note."""
    lines = [f"| object | harm | tried | cost mail | {' | '.join(AUDITS)} |", "|---|---|" + "---:|" * (2 + len(AUDITS))]
    for sort in OBJECTS:
        for kind in KINDS:
            own = [each for each in found if (each.object, each.kind) == (sort, kind)]
            if own:
                cells = [_cell(Counter(each.said[name] for each in own if name in each.said)) for name in AUDITS]
                costly = sum(each.lost > 0 for each in own)
                lines.append(f"| {sort} | {kind} | {len(own):,} | {costly:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(said: Counter[str]) -> str:
    total, unseen, notes = said.total(), said["ok"], said["note"]
    if not total:
        return ""
    seen = "all" if not unseen else "none" if unseen == total else f"{total - unseen:,} of {total:,}"
    return f"{seen} ({notes:,})" if notes else seen


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench damage", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="so many harms; fewer than 10,000 write nothing down")
    parser.add_argument("--processes", type=int, default=2)
    wish = parser.parse_args(words)
    began, clock = datetime.now(UTC), time.monotonic()
    found: list[Trial] = []
    failed = wrongly = 0
    for each in run(wish.count, wish.processes):
        found.append(each)
        for name in each.unseen:
            failed += 1
            print(f"unseen by {name}: {each.object} {each.what}", file=sys.stderr)
        for name, wrong in each.misplaced.items():
            failed += 1
            print(f"misplaced by {name}: {each.object} {each.what}: {wrong}", file=sys.stderr)
        for healing in each.healings:
            if healing.wrong:
                wrongly += 1
                print(f"repaired wrongly with {healing.help}: {each.what}: {healing.wrong}", file=sys.stderr)
    here = machine()
    seconds = time.monotonic() - clock
    text = (
        f"Measured on {began:%-d %B %Y}, in {seconds / 60:.0f} minutes, {here['cores']} cores of {here['processor']}.\n"
        f"{len(found):,} harms, {sum(each.lost > 0 for each in found):,} of which cost mail. Claims that were not "
        f"kept, and messages placed wrongly: {failed}. Errors that nobody expected: none.\n\n{table(found)}"
    )
    healed = (
        f"{sum(len(each.healings) for each in found):,} repairs of these. Repairs after which less could be restored "
        f"than before, or that claimed too much: {wrongly}.\n\n"
        f"{healed_table(Outcome(each.object, each.kind, each.healings) for each in found)}"
    )
    print(text, healed, sep="\n")
    if wish.count >= 10_000 and not failed + wrongly:
        page = PAGE.read_text(encoding="utf-8")
        page = between(page, "<!-- damage: begin -->", "<!-- damage: end -->", text)
        PAGE.write_text(between(page, "<!-- healed: begin -->", "<!-- healed: end -->", healed), encoding="utf-8")
    return 1 if failed + wrongly else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
