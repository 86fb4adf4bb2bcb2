"""What `python -m bench prune` measured, for people (docs/benchmarks.md) and programs (bench/results/)."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import OWN
from bench.figures import MEASURES, Comparison, Measure, Sample, between, compare, highest, rows, table
from bench.prune_contestants import AT_ONCE, FORGET, LIST
from bench.report import PAGE, RESULTS, machine

BEGIN, END = "<!-- prune: begin -->", "<!-- prune: end -->"
OTHERS = ("restic", "borg")
COMPARED: tuple[tuple[str, Measure], ...] = (
    *((AT_ONCE, measure) for measure in ("wall", "cpu", "peak", "read", "stored", "left")),
    (FORGET, "wall"),
    (LIST, "wall"),
)


@dataclass(frozen=True)
class History:
    """What is made: so many messages in all, in so many snapshots, of which the newest `keep` are kept."""

    name: str
    messages: int
    snapshots: int
    keep: int


@dataclass(frozen=True)
class Measured:
    """A whole run. load: of the machine when it began."""

    began: datetime
    minutes: float
    load: float
    versions: dict[str, str]
    histories: Sequence[History]
    samples: Sequence[Sample]


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    programs = {**measured.versions, "Python": platform.python_version()}
    facts = ", ".join(f"{name} {value}" for name, value in programs.items())
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes; load {measured.load:.1f} before.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, {facts}.",
        "",
    ]
    summary = [
        Comparison(f"{work}, {MEASURES[measure]}: {other} / backupd", work, measure, other, OWN)
        for other in OTHERS
        for work, measure in COMPARED
    ]
    beside = [sample for sample in measured.samples if sample.mailbox == measured.histories[-1].name]
    if beside:
        lines += [compare(beside, summary) + highest(beside, OWN)]
    for history in measured.histories:
        own = [sample for sample in measured.samples if sample.mailbox == history.name]
        if own:
            names = list(dict.fromkeys(sample.contestant for sample in own))
            lines += [
                f"### {history.messages:,} messages, {history.snapshots:,} snapshots",
                "",
                f"The newest {history.keep:,} are kept.",
                "",
                table(rows(own), names),
            ]
    return "\n".join(lines)


def document(measured: Measured) -> str:
    """The same as JSON."""
    facts = {name: getattr(measured, name) for name in ("minutes", "load", "versions")} | {
        "began": measured.began.isoformat(timespec="seconds"),
        "machine": machine(),
        "histories": [asdict(history) for history in measured.histories],
        "samples": [sample._asdict() for sample in measured.samples],
    }
    return json.dumps(facts, indent=1) + "\n"


def write(measured: Measured) -> list[Path]:
    """Write both. Returns where."""
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{measured.began:%Y-%m-%d}-prune.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
