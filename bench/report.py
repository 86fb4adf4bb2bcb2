"""What was measured, for people (docs/benchmarks.md) and programs (bench/results/*.json); with machine and versions."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import BORG, OWN, RAW, RESTIC, ROOT
from bench.figures import Comparison, Sample, between, compare, highest, octets, rates, rows, table
from bench.mailboxes import Box
from bench.rounds import FIRST, ONE_NEW, TO_FILES, TO_SERVER, UNCHANGED
from bench.solid import DENSE, SOLID

PAGE = ROOT / "docs/benchmarks.md"
RESULTS = ROOT / "bench/results"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

SUMMARY = (
    Comparison("first snapshot, wall: backupd / raw wire", FIRST, "wall", OWN, RAW),
    Comparison("first snapshot, wall: mbsync + restic / backupd", FIRST, "wall", RESTIC, OWN),
    Comparison("first snapshot, wall: mbsync + borg / backupd", FIRST, "wall", BORG, OWN),
    Comparison("bytes stored: backupd / restic, without its Maildir", FIRST, "stored", OWN, RESTIC),
    Comparison("bytes stored: backupd / borg, without its Maildir", FIRST, "stored", OWN, BORG),
    Comparison(f"bytes stored: backupd / {DENSE}", FIRST, "stored", OWN, DENSE),
    Comparison("nothing changed, wall: mbsync + restic / backupd", UNCHANGED, "wall", RESTIC, OWN),
    Comparison("one new message, wall: mbsync + restic / backupd", ONE_NEW, "wall", RESTIC, OWN),
    Comparison("restore to files, wall: restic / backupd", TO_FILES, "wall", RESTIC, OWN),
    Comparison("restore to a server, wall: backupd / raw append", TO_SERVER, "wall", OWN, RAW),
    Comparison("restore to a server, wall: restic + mbsync / backupd", TO_SERVER, "wall", RESTIC, OWN),
)
"""What the page shows first."""


@dataclass(frozen=True)
class Measured:
    """A whole run of the harness."""

    began: datetime
    minutes: float
    rounds: int
    quick: bool
    contestants: Sequence[str]
    left_out: Sequence[str]
    versions: dict[str, str]
    boxes: Sequence[Box]
    samples: Sequence[Sample]


def machine() -> dict[str, str]:
    """What the figures depend on. Nothing that tells whose machine it is."""
    processor = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": processor[1] if processor else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": octets(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "kernel": re.match(r"[\d.]+", platform.release())[0],  # type: ignore[index]
    }


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes; medians of {measured.rounds}.",
        f"{here['cores']} cores of {here['processor']}, {here['memory']} of memory, Linux {here['kernel']}, {facts}.",
        "",
    ]
    if OWN in measured.contestants:
        messages = {box.name: box.count for box in measured.boxes}
        rate = rates(measured.samples, OWN, FIRST, messages)
        lines += [compare(measured.samples, SUMMARY) + rate + highest(measured.samples, OWN)]
    if measured.left_out:
        lines += [f"Left out: {'; '.join(measured.left_out)}.", ""]
    for box in measured.boxes:
        own = [sample for sample in measured.samples if sample.mailbox == box.name]
        present = {sample.contestant for sample in own}
        names = [name for name in (*measured.contestants, *SOLID) if name in present]
        mailboxes = len(list(box.spool.iterdir()))
        lines += [
            f"### {box.name}: {box.about}",
            "",
            f"{box.count:,} messages, {octets(box.octets)}, in {mailboxes} mailbox{'es' if mailboxes > 1 else ''}.",
            "",
            table(rows(own), names),
        ]
    return "\n".join(lines)


def document(measured: Measured) -> str:
    """The same as JSON: every sample, not the medians alone."""
    facts = {name: getattr(measured, name) for name in ("minutes", "rounds", "quick", "left_out", "versions")} | {
        "began": measured.began.isoformat(timespec="seconds"),
        "machine": machine(),
        "boxes": [
            {"name": box.name, "about": box.about, "messages": box.count, "octets": box.octets}
            for box in measured.boxes
        ],
        "samples": [sample._asdict() for sample in measured.samples],
    }
    return json.dumps(facts, indent=1) + "\n"


def write(measured: Measured) -> list[Path]:
    """Write both. Returns where."""
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{measured.began:%Y-%m-%d}.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
