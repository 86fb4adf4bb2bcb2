"""What `python -m bench growth` measured, for people (docs/benchmarks.md) and programs (bench/results/)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.figures import Sample, between, octets, rows, table
from bench.report import PAGE, RESULTS, machine

BEGIN, END = "<!-- growth: begin -->", "<!-- growth: end -->"

LOOK_UPS = ("blobs", "fill_seconds", "open_seconds", "unknown_seconds", "known_seconds", "peak", "on_disk")
"""Of an index: its blobs; seconds to fill it, to open it, and for one look-up; memory of that process; its files."""


@dataclass(frozen=True)
class Measured:
    """A whole run. columns: the accounts, in order. look_ups: by the names of LOOK_UPS."""

    began: datetime
    minutes: float
    versions: dict[str, str]
    columns: Sequence[str]
    samples: Sequence[Sample]
    look_ups: dict[str, float]


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    looked = measured.look_ups
    index = (
        f"An index of {looked['blobs']:,.0f} blobs takes {octets(looked['on_disk'])} of disk, and "
        f"{looked['fill_seconds']:.0f} s to fill. It opens in {looked['open_seconds'] * 1e3:.1f} ms; asking for a "
        f"blob takes {looked['unknown_seconds'] * 1e6:.1f} microseconds if it is a new one, "
        f"{looked['known_seconds'] * 1e6:.1f} if it is there, in a process of {octets(looked['peak'])}."
    )
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, {facts}.",
        "",
        table(rows(measured.samples), measured.columns),
        index,
    ]
    return "\n".join(lines)


def document(measured: Measured) -> str:
    """The same as JSON: every sample, not the medians alone."""
    facts = {name: getattr(measured, name) for name in ("minutes", "versions", "columns", "look_ups")} | {
        "began": measured.began.isoformat(timespec="seconds"),
        "machine": machine(),
        "samples": [sample._asdict() for sample in measured.samples],
    }
    return json.dumps(facts, indent=1) + "\n"


def write(measured: Measured) -> list[Path]:
    """Write both. Returns where."""
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"growth-{measured.began:%Y-%m-%d}.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
