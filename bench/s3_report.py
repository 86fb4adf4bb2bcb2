"""What `python -m bench s3` measured, for people (docs/benchmarks.md) and programs (bench/results/)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.contestants import OWN, RESTIC
from bench.figures import Comparison, Sample, between, compare, octets, rows, table
from bench.mailboxes import Box
from bench.report import PAGE, RESULTS, machine
from bench.rounds import FIRST, TO_FILES, UNCHANGED

LOCAL, ALONE = "backupd, local disk", "boto3 alone"
COPY_UP, COPY_DOWN, LIST = "copy from disk to bucket", "copy from bucket to disk", "listing"
BEGIN, END = "<!-- s3: begin -->", "<!-- s3: end -->"

SUMMARY = (
    Comparison("first snapshot: bucket / local disk", FIRST, "wall", OWN, LOCAL),
    Comparison("first snapshot: mbsync + restic / backupd, both to a bucket", FIRST, "wall", RESTIC, OWN),
    Comparison("bytes stored: restic / backupd", FIRST, "stored", RESTIC, OWN),
    Comparison("nothing changed: mbsync + restic / backupd", UNCHANGED, "wall", RESTIC, OWN),
    Comparison("restore to files: bucket / local disk", TO_FILES, "wall", OWN, LOCAL),
    Comparison("restore to files: backupd / restic, both from a bucket", TO_FILES, "wall", OWN, RESTIC),
    Comparison("copy from disk to bucket: backupd / boto3 alone", COPY_UP, "wall", OWN, ALONE),
    Comparison("copy from bucket to disk: backupd / boto3 alone", COPY_DOWN, "wall", OWN, ALONE),
)


@dataclass(frozen=True)
class Measured:
    """A whole run. load: of the machine when it began. objects: in the listing."""

    began: datetime
    minutes: float
    load: float
    versions: dict[str, str]
    boxes: Sequence[Box]
    objects: int
    samples: Sequence[Sample]


def text(measured: Measured) -> str:
    """The part of the page between the markers."""
    here = machine()
    facts = ", ".join(f"{name} {value}" for name, value in measured.versions.items())
    mail = [sample for sample in measured.samples if sample.mailbox != LIST]
    lines = [
        f"Measured on {measured.began:%-d %B %Y}, in {measured.minutes:.0f} minutes; load {measured.load:.1f} before.",
        f"{here['cores']} cores of {here['processor']}, Linux {here['kernel']}, {facts}.",
        "",
        compare(mail, SUMMARY),
    ]
    for box in measured.boxes:
        own = [sample for sample in mail if sample.mailbox == box.name]
        lines += [
            f"### {box.name}, in a bucket",
            "",
            f"{box.count:,} messages, {octets(box.octets)}.",
            "",
            table(rows(own), [OWN, LOCAL, RESTIC, ALONE]),
        ]
    listed = [sample for sample in measured.samples if sample.mailbox == LIST]
    lines += [f"### A listing of {measured.objects:,} objects", "", table(rows(listed), [OWN, ALONE])]
    return "\n".join(lines)


def document(measured: Measured) -> str:
    """The same as JSON: every sample, not the medians alone."""
    facts = {name: getattr(measured, name) for name in ("minutes", "load", "versions", "objects")} | {
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
    result = RESULTS / f"{measured.began:%Y-%m-%d}-s3.json"
    result.write_text(document(measured), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), BEGIN, END, text(measured)), encoding="utf-8")
    return [result, PAGE]
