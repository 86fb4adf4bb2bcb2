"""`python -m bench parity`: what parity costs: time, memory and octets of a first snapshot, with it and without.

The three are run one after another in each round, in turn, so that ratios hold whatever else the machine does. What the
coding alone takes is measured beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from backupd.repository import parity
from bench.contestants import Backupd
from bench.figures import between
from bench.mailboxes import KINDS, Box, fill
from bench.process import run
from bench.report import machine
from bench.rounds import turned
from tests.support.dovecot import Dovecot

PAGE = Path(__file__).parents[1] / "docs/benchmarks.md"
MEASURED = ("bulk", "office")
SHARES = (None, 5, 10)
SECONDS_EACH = 900.0
PACK = 32 << 20


class Protected(Backupd):
    """backupd with so many per cent of parity, or none."""

    def __init__(self, program: str, per_cent: int | None) -> None:
        super().__init__(program)
        self.per_cent = per_cent

    def _places(self) -> dict[str, Any]:
        places = super()._places()
        if self.per_cent is not None:
            places["repository"]["parity"] = f"{self.per_cent}%"
        return places


Sample = tuple[int | None, dict[str, float]]


def rounds(box: Box, scratch: Path, program: str, count: int) -> Iterator[Sample]:
    """What a first snapshot took, for each share in each round."""
    everybody = [Protected(program, share) for share in SHARES]
    for number in range(count):
        for one in turned(everybody, number):
            folder = scratch / f"parity-{one.per_cent}"
            folder.mkdir()
            one.prepare(folder, box.account)
            cost = run(one.snapshot(), limit=SECONDS_EACH)
            stored = one.stored()["stored"]
            yield one.per_cent, {"wall": cost.wall, "cpu": cost.cpu, "peak": cost.peak, "stored": stored}
            shutil.rmtree(folder)


def row(box: Box, samples: Sequence[Sample]) -> Iterator[str]:
    """Rows of the table: medians, and beside them how many times as much it is as without parity."""
    plain: dict[str, float] = {}
    for share in SHARES:
        own = [each for of, each in samples if of == share]
        found = {measure: median(each[measure] for each in own) for measure in own[0]}
        plain = plain or found
        shown = {
            "wall": f"{found['wall']:.2f} s", "cpu": f"{found['cpu']:.2f} s", "peak": f"{found['peak'] / 1e6:.0f} MB",
            "stored": f"{found['stored'] / 1e6:.2f} MB",
        }  # fmt: skip
        cells = [f"{text} ({found[each] / plain[each]:.3f} x)" for each, text in shown.items()]
        yield f"| {box.name} | {'none' if share is None else f'{share} %'} | {' | '.join(cells)} |"


def coding() -> str:
    """Octets a second that are coded and healed, of a pack of random octets."""
    data, lines = os.urandom(PACK), []
    for share in SHARES[1:]:
        clock = time.perf_counter()
        kept = b"".join(parity.encode([data], share))
        coded = time.perf_counter() - clock
        damaged = bytearray(data)
        for shard in range(share):
            damaged[shard * PACK // 100 + 5] ^= 1
        clock = time.perf_counter()
        if parity.heal(damaged, kept) != data:
            raise RuntimeError("parity did not heal what it must")
        healed = time.perf_counter() - clock
        lines.append(f"{share} %: coded at {PACK / coded / 1e6:.0f} MB/s, healed at {PACK / healed / 1e6:.0f} MB/s")
    return "; ".join(lines)


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench parity", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little mail and one round; writes nothing down")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=MEASURED, help="this sort of mail; may be given again")
    wish = parser.parse_args(words)
    program = shutil.which("backupd") or sys.exit("backupd is not installed")
    began = datetime.now(UTC)
    lines: list[str] = []
    scratch = Path(tempfile.mkdtemp(prefix="bench-parity-"))
    try:
        with Dovecot() as server:
            for kind in (each for each in KINDS if each.name in (wish.only or MEASURED)):
                folder = scratch / kind.name
                folder.mkdir()
                box = fill(server, kind, folder, quick=wish.quick)
                samples = list(rounds(box, scratch, program, 1 if wish.quick else wish.rounds))
                lines += row(box, samples)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    here = machine()
    text = (
        f"Measured on {began:%-d %B %Y}, median of {wish.rounds} rounds, {here['cores']} cores of {here['processor']}. "
        f"One pack of {PACK / 1e6:.0f} MB, with the checksums: {coding()}.\n\n"
        "| mail | parity | wall | CPU | peak memory | stored |\n|---|---|---:|---:|---:|---:|\n"
    )
    text += "\n".join(lines) + "\n"
    print(text)
    if not wish.quick:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(between(page, "<!-- parity: begin -->", "<!-- parity: end -->", text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
