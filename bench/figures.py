"""From samples to a table: medians, ratios, and how a figure is written. Values in, text out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

Measure = Literal[
    "wall", "cpu", "peak", "read", "written", "stored", "beside", "objects", "removed", "left",
    "wire", "received", "sent", "commands", "turns", "altered",
]  # fmt: skip
MEASURES: dict[Measure, str] = {
    "wall": "wall",
    "cpu": "CPU",
    "peak": "peak memory",
    "read": "bytes read",
    "written": "bytes written",
    "stored": "bytes stored",
    "beside": "Maildir beside it",
    "objects": "objects removed",
    "removed": "bytes removed",
    "left": "repository after it",
    "wire": "on the wire",
    "received": "received",
    "sent": "sent",
    "commands": "commands",
    "turns": "round trips",
    "altered": "messages altered",
}


class Sample(NamedTuple):
    """One measured value. value: seconds for wall and cpu, a number for commands, turns and altered, else bytes."""

    mailbox: str
    work: str
    contestant: str
    measure: Measure
    value: float


class Row(NamedTuple):
    """The medians of one measure of one work, by contestant."""

    work: str
    measure: Measure
    medians: dict[str, float]


def rows(samples: Iterable[Sample]) -> list[Row]:
    """Medians, in the order in which works first came, and within a work in the order of MEASURES."""
    values: dict[tuple[str, Measure], dict[str, list[float]]] = {}
    works: list[str] = []
    for sample in samples:
        if sample.work not in works:
            works.append(sample.work)
        values.setdefault((sample.work, sample.measure), {}).setdefault(sample.contestant, []).append(sample.value)
    return [
        Row(work, measure, {name: median(found) for name, found in values[work, measure].items()})
        for work in works
        for measure in MEASURES
        if (work, measure) in values
    ]


def ratio(value: float, base: float) -> str:
    """How many times the base a value is: three figures are more than the noise allows."""
    if base <= 0:
        return "-"
    times = value / base
    return f"{times:.0f} x" if times >= 20 else f"{times:.1f} x" if times >= 1 else f"{times:.2f} x"


def seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 100 else f"{value:.1f} s" if value >= 10 else f"{value:.2f} s"


def octets(value: float) -> str:
    """In units of 1000, as sizes of disks are given."""
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"


FORMATS: dict[Measure, Callable[[float], str]] = {
    "wall": seconds,
    "cpu": seconds,
    "peak": octets,
    "read": octets,
    "written": octets,
    "stored": octets,
    "beside": octets,
    "objects": "{:,.0f}".format,
    "removed": octets,
    "left": octets,
    "wire": octets,
    "received": octets,
    "sent": octets,
    "commands": "{:,.0f}".format,
    "turns": "{:,.0f}".format,
    "altered": "{:,.0f}".format,
}


def table(found: Sequence[Row], contestants: Sequence[str]) -> str:
    """A Markdown table. The first contestant is the base: beside each other figure stands how many times its it is."""
    base = contestants[0]
    lines = [
        f"| work | measure | {' | '.join(contestants)} |",
        f"|---|---|{'---:|' * len(contestants)}",
    ]
    last = ""
    for row in found:
        cells = []
        for name in contestants:
            value = row.medians.get(name)
            if value is None:
                cells.append("")
            elif name == base or base not in row.medians:
                cells.append(FORMATS[row.measure](value))
            else:
                cells.append(f"{FORMATS[row.measure](value)} ({ratio(value, row.medians[base])})")
        work = row.work if row.work != last else ""
        last = row.work
        lines.append(f"| {work} | {MEASURES[row.measure]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def between(page: str, begin: str, end: str, text: str) -> str:
    """The page with what stands between two markers replaced. ValueError when they are not there once each."""
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"the page must hold {begin} and {end} once, in this order")
    head, rest = page.split(begin)
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}"


class Comparison(NamedTuple):
    """One line of the summary: a measure of one work, this one's median divided by that one's."""

    about: str
    work: str
    measure: Measure
    this: str
    that: str


def compare(samples: Sequence[Sample], comparisons: Sequence[Comparison]) -> str:
    """A Markdown table with a column for each mailbox, in the order in which they came; empty where figures lack."""
    mailboxes = list(dict.fromkeys(sample.mailbox for sample in samples))
    found = {
        (mailbox, row.work, row.measure): row.medians
        for mailbox in mailboxes
        for row in rows(sample for sample in samples if sample.mailbox == mailbox)
    }
    lines = [f"| | {' | '.join(mailboxes)} |", f"|---|{'---:|' * len(mailboxes)}"]
    for one in comparisons:
        medians = [found.get((mailbox, one.work, one.measure), {}) for mailbox in mailboxes]
        cells = [ratio(m[one.this], m[one.that]) if one.this in m and one.that in m else "" for m in medians]
        lines.append(f"| {one.about} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def highest(samples: Sequence[Sample], contestant: str) -> str:
    """The most memory a contestant ever took, as one line of that table; nothing when it took no part."""
    mailboxes = list(dict.fromkeys(sample.mailbox for sample in samples))
    own = [sample for sample in samples if sample.contestant == contestant and sample.measure == "peak"]
    peaks = [max((sample.value for sample in own if sample.mailbox == box), default=None) for box in mailboxes]
    if all(peak is None for peak in peaks):
        return ""
    cells = ["" if peak is None else octets(peak) for peak in peaks]
    return f"| {contestant}: peak memory, the highest of all works | {' | '.join(cells)} |\n"


def rates(samples: Sequence[Sample], contestant: str, work: str, messages: dict[str, int]) -> str:
    """How many messages a second the contestant did of a work, as one line of that table."""
    cells = []
    for mailbox in dict.fromkeys(sample.mailbox for sample in samples):
        walls = [
            sample.value
            for sample in samples
            if (sample.mailbox, sample.work, sample.contestant, sample.measure) == (mailbox, work, contestant, "wall")
        ]
        cells.append(f"{messages[mailbox] / median(walls):,.0f}" if walls else "")
    return f"| {contestant}: messages a second, {work} | {' | '.join(cells)} |\n" if any(cells) else ""
