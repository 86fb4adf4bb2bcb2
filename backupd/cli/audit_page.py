"""The report of an audit as one HTML file, for somebody who does not administrate mail: what was proved, and what was
not.

It loads nothing from anywhere, runs nothing, and prints well. Markup is made by markup.py, which escapes all text.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from backupd import __version__
from backupd.cli import output
from backupd.cli.markup import Markup, element, joined
from backupd.errors import StorageDenied
from backupd.operations.audit_report import LEVELS, Affected, AuditedAccount, AuditReport, Finding, Level

_MOST = 500
"""Messages in the table; with more, nobody reads it."""

VERDICTS = {
    "ok": "All is well",
    "warning": "There is something to look at",
    "critical": "Something is wrong",
    "unknown": "Not everything could be checked",
}

_MEANS = {
    Level.FRESHNESS: "Every account has a backup that is as young as it should be, and none lost much mail at once.",
    Level.METADATA: "Every snapshot can be read, and all that it refers to is there.",
    Level.STORAGE: "What is stored is what was stored: no byte has changed.",
    Level.CONTENT: "Messages were decrypted and put together again, and are what they were when they came in.",
    Level.SOURCE: "The mail server and the newest snapshot agree.",
    Level.DRILL: "Mail was restored, read back, and compared: it came back exactly.",
}

_ROLES = {
    "auditor": "none: only stored objects could be compared with their names",
    "writer": "the writer's, which cannot read mail",
    "reader": "the reader's",
}

_STYLE = """
:root { --ink: #1d2329; --faint: #5b6570; --line: #d5dae0; --ok: #1a7f4b; --warning: #9a6300; --critical: #b3261e;
        --unknown: #5b4b9a; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 2rem; max-width: 60rem; color: var(--ink); background: #fff;
       font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.05rem; font-weight: 600; color: var(--faint); }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.15rem; }
.verdict { margin: .6rem 0 1.4rem; padding: 1rem 1.25rem; border-left: .5rem solid; border-radius: .25rem;
           background: #f5f7f9; }
.verdict strong { display: block; font-size: 1.6rem; line-height: 1.25; }
.ok { color: var(--ok); } .warning { color: var(--warning); } .critical { color: var(--critical); }
.unknown { color: var(--unknown); } .note { color: var(--faint); }
.verdict p { margin: .3rem 0 0; color: var(--ink); }
dl { display: grid; grid-template-columns: 13rem 1fr; margin: 0; gap: .35rem 1rem; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--faint); }
th, td { padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
         overflow-wrap: break-word; }
td.place { overflow-wrap: anywhere; min-width: 9rem; } code { font-size: .95em; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.word { white-space: nowrap; font-weight: 600; } .whole { white-space: nowrap; }
ul { padding-left: 1.2rem; } li { margin: .25rem 0; }
.remedy { color: var(--faint); display: block; }
footer { margin-top: 3rem; padding-top: .8rem; border-top: 1px solid var(--line); color: var(--faint);
         font-size: .85rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem; } }
@page { margin: 16mm; }
@media print { body { padding: 0; max-width: none; font-size: 10.5pt; } .verdict { background: none; border: 1px solid;
  border-left-width: .5rem; } h2 { break-after: avoid; } tr, .verdict, li { break-inside: avoid; }
  thead { display: table-header-group; } }
"""


def write(report: AuditReport, path: Path) -> None:
    """Write the page, whole or not at all. Raises StorageDenied."""
    data = page(report).encode()
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=".audit-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageDenied(
            f"the report cannot be written: {error.strerror}", subject=str(path), remedy="choose another place"
        ) from error


def page(report: AuditReport) -> str:
    """The page."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Mail backup audit: {VERDICTS[report.outcome]}"),
        element("style", _STYLE),
    )
    body = element("body", *_body(report))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _body(report: AuditReport) -> Iterator[Markup]:
    yield element("h1", "Audit of the mail backup")
    yield element(
        "div",
        element("strong", VERDICTS[report.outcome], class_=report.outcome),
        element("p", _summary(report)),
        class_=f"verdict {report.outcome}",
    )
    yield _facts(report)
    grave = [each for each in report.findings if each.severity != "note"]
    if grave:
        yield element("h2", "What is amiss")
        yield _findings(grave)
    if report.affected:
        yield from _affected(report)
    yield element("h2", "What was checked")
    yield from _checked(report)
    if report.accounts:
        yield element("h2", "Accounts")
        yield _accounts(report.accounts)
    notes = [each for each in report.findings if each.severity == "note"]
    if notes:
        yield element("h2", "Noted")
        yield element("ul", *(element("li", f"{each.subject}: {each.what}") for each in notes))
    yield element("footer", f"Written by backupd {__version__}, audit of {_moment(report.started)}")


def _summary(report: AuditReport) -> str:
    drills = [each.drill for each in report.accounts if each.drill]
    lost = [each for each in report.affected if not each.restorable]
    damaged = sum(each.messages for each in lost) + report.affected_more
    if damaged:
        verb = ("is" if damaged == 1 else "are") if any(each.certain for each in lost) else "may be"
        return f"{output.count(damaged, 'message')} {verb} damaged; see below which."
    if report.problems:
        noun = "thing needs" if report.problems == 1 else "things need"
        return f"{report.problems:,} {noun} attention; no message is known to be damaged."
    if drills:
        slowest = max(each.total_seconds for each in drills)
        return f"No message is damaged, and restoring an account takes {_span(slowest)} at the most."
    return f"No damage was found at the level “{report.level}”."


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else output.age(timedelta(seconds=seconds))


def _facts(report: AuditReport) -> Markup:
    took = _seconds(report.started, report.ended)
    objects, snapshots = report.checked.objects, report.checked.snapshots
    read = f"{output.size(report.checked.octets)} in {output.count(objects, 'object')}"
    facts = [
        ("Repository", report.repository),
        ("Its id", report.id or "not known without a key"),
        ("Checked", f"{_moment(report.started)}, in {_span(took)}"),
        ("How deep", f"{report.level}, level {LEVELS.index(report.level) + 1} of {len(LEVELS)}"),
        ("Key used", _ROLES[report.role]),
        ("Read", f"{read}, {output.count(snapshots, 'snapshot')} among them" if snapshots else read),
    ]
    if report.coverage:
        facts += [("Coverage", each) for each in coverage(report)]
    return element("dl", *(part for term, text in facts for part in (element("dt", term), element("dd", text))))


def _moment(rfc3339: str) -> str:
    """A time of this machine's zone, which is named."""
    return datetime.fromisoformat(rfc3339).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _seconds(started: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()


def coverage(report: AuditReport) -> Iterator[str]:
    """How far all bytes are proved, in sentences; nothing where none were read in turn."""
    found = report.coverage
    if found is None:
        return
    percent = 100 * found.proved / found.octets if found.octets else 100.0
    oldest = f", the oldest on {output.local_time(found.oldest)}" if found.oldest else ""
    never = f"; {output.size(found.never)} never" if found.never else ""
    yield f"{percent:.1f}% of {output.size(found.octets)} proved at this level{oldest}{never}"
    if found.budget is not None:
        when = ""
        if found.cycle_seconds is not None:
            when = f", which takes {output.age(timedelta(seconds=found.cycle_seconds))} at the pace of the latest"
        runs = output.count(found.cycle_runs, "audit")
        yield f"{100 * found.budget:g}% is read each time: {runs} until every byte was read{when}"
    if not found.remembered:
        yield "nothing is remembered from audit to audit, so the rotation begins anew each time"


def _findings(findings: Iterable[Finding]) -> Markup:
    rows = (
        element(
            "tr",
            element("td", each.severity, class_=f"word {each.severity}"),
            element("td", each.subject, class_="place"),
            element("td", each.what, *([element("span", *_code(each.remedy), class_="remedy")] if each.remedy else [])),
        )
        for each in findings
    )
    return _table(("", "Where", "What was found, and what to do"), rows)


def _code(text: str) -> Iterator[str | Markup]:
    """Text in which what stands between grave accents is shown as what to type."""
    for place, part in enumerate(text.split("`")):
        yield element("code", part) if place % 2 else part


def _affected(report: AuditReport) -> Iterator[Markup]:
    yield element("h2", "Messages that are concerned")
    yield _table(
        ("Account, mailbox", "Message", "What", "Snapshots"), (_message(each) for each in report.affected[:_MOST])
    )
    more = len(report.affected) - _MOST + report.affected_more
    if more > 0:
        yield element("p", f"And {more:,} more.")


def _message(each: Affected) -> Markup:
    messages = output.count(each.messages, "message")
    which = f"UID {each.uid}" if each.uid == each.last else f"{messages}, UID {each.uid} to {each.last}"
    lines: list[str | Markup] = [which]
    if each.subject is not None:
        new_line = element("br")
        lines = [element("strong", each.subject or "(no subject)"), new_line, each.sender or "", new_line, which]
    if each.date:
        lines.append(f", {output.mail_date(each.date)}")
    days = list(dict.fromkeys(_day(each.snapshots[place]) for place in (0, -1)))
    when = (element("span", day, class_="whole") for day in days)
    return element(
        "tr",
        element("td", f"{each.account}: {each.mailbox}"),
        element("td", *lines),
        element("td", each.what if each.certain else f"perhaps: {each.what}"),
        element("td", f"{output.count(len(each.snapshots), 'snapshot')}, ", *_between(when, " to ")),
    )


def _between(parts: Iterable[Markup], text: str) -> Iterator[str | Markup]:
    for place, part in enumerate(parts):
        if place:
            yield text
        yield part


def _day(snapshot: str) -> str:
    return f"{snapshot[:4]}-{snapshot[4:6]}-{snapshot[6:8]}"


def _checked(report: AuditReport) -> Iterator[Markup]:
    left = {text.split(":")[0] for text in report.left_out}
    failed = {each.level for each in report.findings if each.severity in ("critical", "unknown")}
    rows = []
    for level in LEVELS:
        if not report.level.includes(level) or level.value in left:
            state, words = "note", "not checked"
        elif level in failed:
            state, words = "critical", "no"
        else:
            state, words = ("note", "in part") if _in_part(report, level) else ("ok", "yes")
        rows.append(element("tr", element("td", words, class_=f"word {state}"), element("td", _MEANS[level])))
    yield _table(("Proved?", "What"), rows)
    if report.left_out:
        yield element("p", "Not looked at:")
        yield element("ul", *(element("li", each) for each in report.left_out))


def _in_part(report: AuditReport, level: Level) -> bool:
    """Whether a level was looked at for some of the bytes, or of the accounts, and not for all."""
    if level in (Level.STORAGE, Level.CONTENT):
        return report.coverage is not None and report.coverage.never > 0
    if level is Level.DRILL:
        return any(each.drill is None or not each.drill.full for each in report.accounts)
    return level is Level.SOURCE and any(each.source is None for each in report.accounts)


def _accounts(accounts: Iterable[AuditedAccount]) -> Markup:
    rows = []
    for each in accounts:
        status = each.status
        age = "unknown" if status and status.proved else "never"
        if status and status.age is not None:
            age = f"{output.age(timedelta(seconds=status.age))} ago"
        cells = [each.account, age]
        cells.append(f"{status.messages:,}" if status else "")
        cells.append(output.size(status.octets) if status else "")
        cells.append(f"{each.snapshots:,}")
        if each.source:
            found = each.source
            since = f"since then {found.new:,} new, {found.gone:,} gone, {found.changed:,} changed"
            cells.append(f"{found.agreed:,} agree, {found.bodies:,} of them byte by byte; {since}")
        else:
            cells.append("not asked")
        if each.drill:
            tried = each.drill
            sample = f"{output.count(tried.messages, 'message')} in {_span(tried.seconds)}"
            how = "measured" if tried.full else f"reckoned from {sample}"
            cells.append(f"{_span(tried.total_seconds)} ({how})")
        else:
            cells.append("not tried")
        rows.append(element("tr", *(element("td", cell, class_=_class(place)) for place, cell in enumerate(cells))))
    heads = ("Account", "Backed up", "Messages", "Size", "Snapshots", "Server", "Restoring all of it takes")
    return _table(heads, rows, classes=_class)


def _class(place: int) -> str:
    """Of a column in the table of accounts."""
    return "number" if 2 <= place <= 4 else ""


def _table(heads: Iterable[str], rows: Iterable[Markup], *, classes: Callable[[int], str] = lambda _: "") -> Markup:
    cells = (element("th", head, class_=classes(place)) for place, head in enumerate(heads))
    return element("table", element("thead", element("tr", *cells)), element("tbody", joined(*rows)))
