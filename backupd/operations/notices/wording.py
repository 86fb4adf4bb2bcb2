"""A message as text: a subject that is understood on a phone, and a body with what happened, since when, what is at
stake, and the command to run next. Plain text, short, and without secrets or characters that play tricks.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Literal

import msgspec

from backupd.mail.names import UNSAFE
from backupd.operations.notices.causes import Member
from backupd.operations.notices.deciding import Entry, Message
from backupd.redaction import scrub

MOST_NAMES = 10
LONGEST_SUBJECT = 100
LONGEST_LINE = 400
MOST_ENTRIES = 12
"""Entries that are told in full in one message; of the others their subjects."""

_CAUSES = {
    "network": "{place} cannot be reached",
    "certificate": "the certificate of {place} is not trusted",
    "storage": "the repository cannot be used",
    "login": "the login is refused",
    "throttled": "the server wants to be left alone",
    "server": "the server refuses",
    "configuration": "the configuration or a key is wrong",
    "busy": "another backup is in the way",
    "bug": "an error in backupd itself",
}
_NEXT = {
    "network": "backupd doctor",
    "certificate": "backupd doctor",
    "storage": "backupd doctor",
    "login": "backupd doctor",
    "server": "backupd doctor",
    "throttled": "backupd status",
    "configuration": "backupd config check",
    "reload": "backupd config check",
    "busy": "backupd status",
    "incomplete": "backupd status",
    "bug": "journalctl -u backupd -n 100",
}


class Text(msgspec.Struct, frozen=True):
    """A message as it is sent. severity: the worst of what it says, in the words of Apprise."""

    subject: str
    body: str
    severity: Literal["info", "success", "warning", "failure"]


def worded(message: Message, machine: str, zone: tzinfo | None = None) -> Text:
    """The message as text. machine: the name of this one. zone: in which times are told; None for the system's."""
    subjects = [_subject(entry) for entry in message.entries]
    bodies = [_body(entry, message.at, zone) for entry in message.entries[:MOST_ENTRIES]]
    if len(bodies) > 1:
        headed = enumerate(zip(subjects, bodies, strict=False), 1)
        bodies = [f"{number}. {subject}\n{body}" for number, (subject, body) in headed]
    if more := subjects[MOST_ENTRIES:]:
        bodies.append("\n".join(["And besides:", *(f"- {subject}" for subject in more[:50])]))
        if len(more) > 50:
            bodies[-1] += f"\n- and {len(more) - 50:,} more"
    bodies.append(f"backupd on {machine}, {_clock(message.at, zone)}")
    return Text(_cut(_whole(message.entries, subjects), LONGEST_SUBJECT), "\n\n".join(bodies), _severity(message))


def _severity(message: Message) -> Literal["info", "success", "warning", "failure"]:
    whats = {entry.what for entry in message.entries}
    if whats == {"recovered"}:
        return "success"
    kinds = {entry.kind for entry in message.entries if entry.what != "recovered"}
    causes = {entry.cause for entry in message.entries if entry.what != "recovered"}
    mild = kinds <= {"expiry", "lock"} or causes <= {"incomplete", "reload", "throttled", "busy"}
    return "warning" if mild else "failure"


def _whole(entries: Sequence[Entry], subjects: list[str]) -> str:
    still = all(entry.what == "still" for entry in entries)
    if len(subjects) == 1:
        return ("still: " if still else "") + subjects[0]
    if all(entry.what == "recovered" for entry in entries):
        return f"{len(entries):,} troubles are over: {subjects[0]}, ..."
    return f"{'still ' if still else ''}{len(entries):,} troubles: {subjects[0]}, ..."


# -- subjects ----------------------------------------------------------------------------------------------------------


def _subject(entry: Entry) -> str:
    """What an entry says, in a line without a full stop."""
    return _clean(_recovered(entry) if entry.what == "recovered" else _news(entry))


def _news(entry: Entry) -> str:
    who, one = _who(entry), _count(entry) == 1
    match entry.kind:
        case "failure" if entry.cause == "reload":
            return "the changed configuration is wrong, the one before stays in force"
        case "failure" if entry.cause == "incomplete":
            return f"{who}: some mail could not be backed up"
        case "failure":
            cause = _CAUSES.get(entry.cause, entry.cause).format(place=entry.place or "the server")
            if entry.what == "flapping":
                return f"backups of {who} fail again and again: {cause}"
            if not _accounts(entry):
                return cause
            return f"{who} {'is' if one else 'are'} not backed up: {cause}"
        case "loss":
            return f"sudden loss of mail: {who}"
        case "objective":
            return f"{who} {'is' if one else 'are'} older than {'its' if one else 'their'} objective"
        case "expiry":
            return f"{who}: {entry.members[0].trouble.what} expires soon"
        case "lock":
            return "Object Locks run out, and are not renewed"
        case _:
            return f"{who} failed" if entry.what != "flapping" else f"{who} fails again and again"


def _recovered(entry: Entry) -> str:
    who, one = _who(entry), _count(entry) == 1
    match entry.kind:
        case "failure" if entry.cause == "reload":
            return "the configuration is right again, and in force"
        case "failure" if not _accounts(entry):
            return "the repository can be used again"
        case "failure":
            return f"{who} {'is' if one else 'are'} backed up again"
        case "objective":
            return f"{who} {'meets its' if one else 'meet their'} objective again"
        case "expiry":
            return f"{who}: {entry.members[0].trouble.what} is renewed"
        case "lock":
            return "Object Locks are renewed again"
        case _:
            return f"{who} went well again"


def _accounts(entry: Entry) -> list[str]:
    return sorted({member.trouble.account for member in entry.members} - {""})


def _count(entry: Entry) -> int:
    return len(_accounts(entry)) or len(entry.members)


def _who(entry: Entry) -> str:
    accounts = _accounts(entry)
    if len(accounts) > 1:
        return f"{len(accounts):,} accounts"
    subject = entry.members[0].trouble.subject
    if accounts:
        return accounts[0]
    return f"the job {subject}" if entry.kind == "audit" else subject


# -- bodies ------------------------------------------------------------------------------------------------------------


def _body(entry: Entry, now: float, zone: tzinfo | None) -> str:
    lines: list[str] = []
    accounts = _accounts(entry)
    if len(accounts) > 1:
        lines.append(f"Accounts: {_listed(accounts)}.")
    since = f"{_when(entry.since, now, zone)} ({span(now - entry.since)})"
    if entry.what == "recovered":
        lines.append(f"The trouble began {since} and is over.")
        if entry.flips:
            lines.append("It had come and gone, and has now been away for hours.")
        return "\n".join(lines)
    said = entry.kind not in ("expiry", "objective")  # of these the subject says it all
    whats = list(dict.fromkeys(member.trouble.what for member in entry.members if member.trouble.what and said))
    lines += [_sentence(what) for what in whats[:3]]
    if len(whats) > 3:
        lines.append(f"And {len(whats) - 3:,} more like that.")
    if entry.what == "flapping":
        lines.append(f"It came and went {entry.flips} times since {_when(entry.since, now, zone)}; you will hear of it")
        lines[-1] += " again when it has stayed away for hours."
    elif entry.kind == "loss":
        lines.append(f"Seen {_when(entry.since, now, zone)}.")
    elif entry.kind not in ("expiry", "lock"):
        lines.append(f"Since {since}.")
    lines += _stake(entry.members, now, zone)
    remedies = list(dict.fromkeys(member.trouble.remedy for member in entry.members if member.trouble.remedy))
    lines += [_sentence(f"What to do: {remedy}") for remedy in remedies[:2]]
    lines.append(f"Next: {_next(entry)}")
    return "\n".join(_clean(_cut(line, LONGEST_LINE)) for line in lines)


def _stake(members: Sequence[Member], now: float, zone: tzinfo | None) -> Iterable[str]:
    """What is lost if it all ends now."""
    troubles = [member.trouble for member in members]
    objectives = [trouble.objective for trouble in troubles if trouble.objective]
    if any(trouble.account and trouble.kind in ("failure", "objective") for trouble in troubles):
        goods = [trouble.last_good for trouble in troubles if trouble.last_good]
        missed = any(
            trouble.last_good and trouble.objective and now - trouble.last_good > trouble.objective
            for trouble in troubles
        )
        objective = f", objective {span(min(objectives))}{', missed' if missed else ''}" if objectives else ""
        if goods:
            oldest = "Oldest last" if len(troubles) > 1 else "Last"
            yield f"{oldest} good snapshot {span(now - min(goods))} ago{objective}."
        elif all(trouble.cause != "incomplete" for trouble in troubles) and objectives:
            yield f"No good snapshot yet{objective}."
    for at in {trouble.at for trouble in troubles if trouble.at}:
        yield f"Ends {_when(at, now, zone)}, in {span(at - now)}." if at > now else "It has ended."


def _next(entry: Entry) -> str:
    trouble = entry.members[0].trouble
    if entry.kind == "loss":
        account, _, mailbox = trouble.subject.partition("/")
        # What strangers called a mailbox will be pasted into a shell.
        only = f" --mailbox {shlex.quote(mailbox)}" if mailbox else ""
        back = f"backupd restore {trouble.cause} imap:{account} --missing-only{only}"
        return f"backupd diff {trouble.cause} {account}@latest, and to have it back: {back}"
    if entry.kind == "expiry":
        return f"backupd auth login {trouble.account}"
    if entry.kind == "audit":
        return "backupd status"
    if entry.kind == "lock":
        return "backupd doctor"
    return _NEXT.get(entry.cause, "backupd status")


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else shown


# -- small parts -------------------------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A length of time in its largest units: 42 s, 5 min, 3 h 20 min, 12 days."""
    seconds = max(0, int(seconds))
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600 and seconds != 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{seconds // 86400} days"


def _local(time: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(time, UTC).astimezone(zone)


def _when(time: float, now: float, zone: tzinfo | None) -> str:
    """A time of day; with the day where it is another than today."""
    then = _local(time, zone)
    return f"{then:%H:%M}" if then.date() == _local(now, zone).date() else _clock(time, zone)


def _clock(time: float, zone: tzinfo | None) -> str:
    return f"{_local(time, zone):%Y-%m-%d %H:%M}"


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def _clean(text: str) -> str:
    escaped: Callable[..., str] = lambda match: match[0].encode("unicode-escape").decode("ascii")  # noqa: E731
    return UNSAFE.sub(escaped, scrub(text))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
