"""What `python -m bench pop3` measured, for people (docs/benchmarks.md) and programs (bench/results/)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import OWN, RAW
from bench.figures import Comparison, Sample, between, compare, highest, octets, rates, rows, table
from bench.mailboxes import Box
from bench.pop3_contestants import BATCH, GETMAIL, MAILDROP
from bench.report import PAGE, RESULTS, machine
from bench.rounds import ONE_NEW, UNCHANGED

FIRST = "first pull"
BEGIN, END = "<!-- pop3: begin -->", "<!-- pop3: end -->"

SUMMARY = (
    Comparison(f"{FIRST}, wall: {OWN} / {RAW}", FIRST, "wall", OWN, RAW),
    *(Comparison(f"{FIRST}, wall: {peer} / {OWN}", FIRST, "wall", peer, OWN) for peer in (GETMAIL, MAILDROP, BATCH)),
    *(Comparison(f"bytes stored: {peer} / {OWN}", FIRST, "stored", peer, OWN) for peer in (GETMAIL, MAILDROP)),
    *(Comparison(f"{UNCHANGED}, wall: {peer} / {OWN}", UNCHANGED, "wall", peer, OWN) for peer in (GETMAIL, MAILDROP)),
    *(Comparison(f"{ONE_NEW}, wall: {peer} / {OWN}", ONE_NEW, "wall", peer, OWN) for peer in (GETMAIL, MAILDROP)),
)


@dataclass(frozen=True)
class Measured:
    """A whole run. load: of the machine when it began. names: who took part, in order."""

    began: datetime
    minutes: float
    load: float
    versions: dict[str, str]
    names: Sequence[str]
    left_out: Sequence[str]
    box: Box
    samples: Sequence[Sample]


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    box = measured.box
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes; load {measured.load:.1f} before.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, {facts}.",
        "",
        f"{box.count:,} messages, {octets(box.octets)}.",
        "",
    ]
    if OWN in measured.names:
        rate = rates(measured.samples, OWN, FIRST, {box.name: box.count})
        lines += [compare(measured.samples, SUMMARY) + rate + highest(measured.samples, OWN)]
    if measured.left_out:
        lines += [f"Left out: {'; '.join(measured.left_out)}.", ""]
    return "\n".join([*lines, table(rows(measured.samples), measured.names).replace("Maildir beside it", "state")])


def document(measured: Measured) -> str:
    """The same as JSON: every sample, not the medians alone."""
    facts = {name: getattr(measured, name) for name in ("minutes", "load", "versions", "names", "left_out")} | {
        "began": measured.began.isoformat(timespec="seconds"),
        "machine": machine(),
        "box": {"name": measured.box.name, "messages": measured.box.count, "octets": measured.box.octets},
        "samples": [sample._asdict() for sample in measured.samples],
    }
    return json.dumps(facts, indent=1) + "\n"


def write(measured: Measured) -> list[Path]:
    """Write both. Returns where."""
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / f"{measured.began:%Y-%m-%d}-pop3.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
