"""What `python -m bench latency` measured, for people (docs/benchmarks.md) and programs (bench/results/)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import OWN, RAW, RESTIC
from bench.figures import Comparison, Sample, between, compare, octets, rows, table
from bench.mailboxes import Box
from bench.report import PAGE, RESULTS, machine
from bench.rounds import FIRST, ONE_NEW, TO_SERVER, UNCHANGED

MIRROR, LINE = "mbsync", "the line alone"
BEGIN, END = "<!-- latency: begin -->", "<!-- latency: end -->"

SUMMARY = (
    Comparison("first snapshot: backupd / what the rate of the line alone takes", FIRST, "wall", OWN, LINE),
    Comparison("first snapshot: raw wire / what the rate of the line alone takes", FIRST, "wall", RAW, LINE),
    Comparison("first snapshot: mbsync / backupd", FIRST, "wall", MIRROR, OWN),
    Comparison("first snapshot: mbsync + restic / backupd", FIRST, "wall", RESTIC, OWN),
    Comparison("nothing changed: mbsync / backupd", UNCHANGED, "wall", MIRROR, OWN),
    Comparison("one new message: mbsync / backupd", ONE_NEW, "wall", MIRROR, OWN),
    Comparison("restore to a server: backupd / raw append", TO_SERVER, "wall", OWN, RAW),
    Comparison("restore to a server: mbsync / backupd", TO_SERVER, "wall", MIRROR, OWN),
)


@dataclass(frozen=True)
class Measured:
    """A whole run."""

    began: datetime
    minutes: float
    contestants: Sequence[str]
    left_out: Sequence[str]
    versions: dict[str, str]
    boxes: Sequence[Box]
    samples: Sequence[Sample]


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, {facts}.",
        "",
        compare(measured.samples, SUMMARY),
    ]
    names = [*measured.contestants]
    if RESTIC in names:
        names.insert(names.index(RESTIC), MIRROR)
    for box in measured.boxes:
        own = [sample for sample in measured.samples if sample.mailbox == box.name]
        found = [row for row in rows(own) if row.measure in ("wall", "cpu", "wire", "turns")]
        lines += [
            f"### {box.name}: {box.about}",
            "",
            f"{box.count:,} messages, {octets(box.octets)}.",
            "",
            table(found, [*names, LINE]),
        ]
    return "\n".join(lines)


def document(measured: Measured) -> str:
    """The same as JSON: every sample, not the medians alone."""
    facts = {name: getattr(measured, name) for name in ("minutes", "left_out", "versions")} | {
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
    result = RESULTS / f"{measured.began:%Y-%m-%d}-latency.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
