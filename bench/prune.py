"""`python -m bench prune`: what it takes to forget nine tenths of the snapshots of a large repository, and to prune.

backupd alone with 1,000,000 messages in 1,000 snapshots; and beside restic and borg with 50,000 in 100, for these
take seconds for each snapshot of so many files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.changing import Changing
from bench.contestants import version
from bench.figures import Measure, Sample
from bench.process import Failed, run
from bench.prune_contestants import Keeper, Own, WithBorg, WithRestic
from bench.prune_report import History, Measured, document, text, write

SECONDS_EACH = 3600.0
FULL = ((1_000_000, 1_000), (50_000, 100))
QUICK = ((6_000, 30), (2_000, 10))
Say = Callable[[str], None]


def make(keeper: Keeper, history: History, say: Say) -> None:
    """Make the repository. It takes most of the time, and is not measured."""
    began = time.monotonic()
    keeper.make(Changing(history.messages, history.snapshots))
    octets = sum(files(keeper.repository).values())
    say(f"{history.name}: {keeper.name}: made in {time.monotonic() - began:.0f} s, {octets / 1e6:,.0f} MB")


def measure(keeper: Keeper, history: History, say: Say) -> Iterator[Sample]:
    """All works, on a repository that was made."""
    before = files(keeper.repository)
    yield Sample(history.name, "all snapshots", keeper.name, "left", sum(before.values()))
    for work, commands in keeper.works(history.keep):
        before = files(keeper.repository)
        cost = run(commands, limit=SECONDS_EACH)
        after = files(keeper.repository)
        say(f"{history.name}: {keeper.name}: {work}: {cost}")
        found: dict[Measure, float] = {
            "wall": cost.wall, "cpu": cost.cpu, "peak": cost.peak, "read": cost.read, "written": cost.written,
        }  # fmt: skip
        if before != after:
            gone = before.keys() - after.keys()
            found |= {
                "stored": sum(size for name, size in after.items() if before.get(name) != size),
                "objects": len(gone),
                "removed": sum(before[name] for name in gone),
                "left": sum(after.values()),
            }
        for kind, value in found.items():
            yield Sample(history.name, work, keeper.name, kind, value)


def files(folder: Path) -> dict[str, int]:
    """Size of each file below a folder."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()
    }


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench prune", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few messages; writes nothing down")
    parser.add_argument("--messages", type=int, help="for backupd alone (default: 1,000,000)")
    parser.add_argument("--snapshots", type=int, help="for backupd alone (default: 1,000)")
    parser.add_argument("--beside", type=int, nargs=2, metavar=("MESSAGES", "SNAPSHOTS"), help="beside the others")
    parser.add_argument("--forget", type=int, default=90, help="per cent of the snapshots (default: 90)")
    parser.add_argument("--only", choices=("alone", "beside"), help="one of both; writes nothing down")
    parser.add_argument("--json", type=Path, help="write all samples to this file, and nothing else")
    parser.add_argument("--make", type=Path, metavar="FOLDER", help="only make the repositories, in this new folder")
    parser.add_argument("--made", type=Path, metavar="FOLDER", help="measure those, and remove them")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder); needs about 10 GB")
    return parser.parse_args(words)


def histories(wish: argparse.Namespace) -> tuple[History, History]:
    """What is measured alone, and beside the others."""
    alone, beside = QUICK if wish.quick else FULL
    alone, beside = (wish.messages or alone[0], wish.snapshots or alone[1]), tuple(wish.beside or beside)

    def made(name: str, messages: int, snapshots: int) -> History:
        return History(name, messages, snapshots, max(1, snapshots - snapshots * wish.forget // 100))

    return made("alone", *alone), made("beside others", *beside)


def main(words: Sequence[str]) -> int:
    wish = arguments(words)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    own = shutil.which("backupd", path=str(Path(sys.executable).parent)) or shutil.which("backupd")
    programs = {"backupd": own, **{name: shutil.which(name) for name in ("restic", "borg")}}
    missing = [name for name, path in programs.items() if path is None]
    if own is None or (missing and wish.only != "alone"):
        say(f"error: {' and '.join(missing)} not installed")
        return 1
    load, began, clock = os.getloadavg()[0], datetime.now(UTC), time.monotonic()
    alone, beside = histories(wish)
    samples: list[Sample] = []
    given: Path | None = wish.make or wish.made
    scratch = given or Path(tempfile.mkdtemp(prefix="bench-prune-", dir=wish.scratch))
    tasks: list[tuple[str, History, Callable[[Path], Keeper]]] = [
        ("alone", alone, lambda folder: Own(own, folder)),
        ("beside", beside, lambda folder: Own(own, folder)),
        ("beside-restic", beside, WithRestic),
        ("beside-borg", beside, WithBorg),
    ]
    try:
        for name, history, keeper_of in tasks:
            if wish.only not in (None, name.partition("-")[0]):
                continue
            folder = scratch / name
            keeper = keeper_of(folder)
            if not wish.made:
                folder.mkdir(parents=True)
                make(keeper, history, say)
            if not wish.make:
                samples += measure(keeper, history, say)
                shutil.rmtree(folder)
    except Failed as problem:
        say(f"error: {problem}")
        return 1
    finally:
        if not given:
            shutil.rmtree(scratch, ignore_errors=True)
    if wish.make:
        return 0
    versions = {name: version(path) for name, path in programs.items() if path}
    measured = Measured(began, (time.monotonic() - clock) / 60, load, versions, [alone, beside], samples)
    print(text(measured))
    if wish.json:
        wish.json.write_text(document(measured), encoding="utf-8")
    elif wish.quick or wish.only:
        say("nothing written down: only a run of everything goes to the page")
    else:
        for path in write(measured):
            say(f"wrote {path}")
    return 0
