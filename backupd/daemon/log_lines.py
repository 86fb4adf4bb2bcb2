r"""An event of the log as text: a line for people, a line for the journal, a JSON document. Nothing here does I/O.

What is in an event was partly written by strangers: names of mailboxes, answers of servers, texts of exceptions. So
whatever comes out is without secrets (backupd/redaction.py), bounded, and its line ends, controls and marks that turn
the direction of text are written out (\n, \x1b, \u202e): nobody can forge a line of the log or a priority in it.
Tracebacks keep their lines; each begins with "    | ", so none can be taken for an event.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, Literal, NamedTuple

import msgspec

from backupd.mail.names import UNSAFE
from backupd.redaction import HIDDEN, names_a_secret, scrub

Format = Literal["text", "journal", "json"]
Level = Literal["debug", "info", "warning", "error", "critical"]

PRIORITIES: dict[str, int] = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Levels of syslog (sd-daemon(3)); the journal takes them from <3> at the beginning of a line."""

LONGEST = 2_000
"""Characters of a value; what an error says is shorter."""

MOST_LINES = 120
"""Lines of a traceback; the first and the last are kept."""

_READ = 20_000
"""Characters that are looked through for secrets before the value is cut: no half of a secret is left at the end."""
_DEEPEST = 4
_MOST_ITEMS = 50
_BARE = re.compile(r"[^\s\"'=\\]+\Z")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_COLOURS: dict[str, str] = {
    "debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[1;31m"
}  # fmt: skip
_DIM, _BOLD, _PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[0m"


class Event(NamedTuple):
    """What is logged. time: aware. trace: a traceback as Python prints it, or empty. origin: the logger's name."""

    time: datetime
    level: str
    name: str
    fields: Mapping[str, object]
    trace: str = ""
    origin: str = ""


def line(event: Event, form: Format, *, colour: bool = False) -> str:
    """The event as it is written, with the line end. colour: for a terminal; only with the form "text"."""
    if form == "json":
        return _json(event)
    fields = [(_name(key), _shown(plain(value, key))) for key, value in event.fields.items()]
    name = _clean(safe(event.name))
    if form == "journal":
        head = f"<{PRIORITIES.get(event.level, 6)}>"
        rest = "".join(f" {key}={value}" for key, value in fields)
        lines = [f"{name}{rest}", *_trace_lines(event.trace)]
    else:
        head = ""
        when = event.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        if colour:
            rest = "".join(f" {_DIM}{key}={_PLAIN}{value}" for key, value in fields)
            first = (
                f"{_DIM}{when}{_PLAIN} {_COLOURS.get(event.level, '')}{event.level:<8}{_PLAIN} {_BOLD}{name}{_PLAIN}"
            )
        else:
            rest = "".join(f" {key}={value}" for key, value in fields)
            first = f"{when} {event.level:<8} {name}"
        lines = [first + rest, *_trace_lines(event.trace)]
    return "".join(f"{head}{each}\n" for each in lines)


def safe(text: str) -> str:
    """The text without secrets, and not too long."""
    text = scrub(text[:_READ])
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def plain(value: object, name: str = "", depth: int = 0) -> Any:
    """A value of a field in types that JSON has, without secrets. name: of the field, which may say that it is one."""
    if name and names_a_secret(name):
        return HIDDEN
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, Enum):
        return plain(value.value, name, depth)
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return safe(bytes(value[:_READ]).decode("utf-8", "backslashreplace"))
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if depth < _DEEPEST:
        if isinstance(value, msgspec.Struct):
            value = msgspec.structs.asdict(value)
        if isinstance(value, Mapping):
            some = list(value.items())[:_MOST_ITEMS]
            return {safe(str(key)): plain(each, str(key), depth + 1) for key, each in some}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(each, "", depth + 1) for each in list(value)[:_MOST_ITEMS]]
    return safe(str(value))


def trace_of(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it, as Python prints it, without values of variables."""
    try:
        return "".join(traceback.TracebackException.from_exception(error).format())
    except Exception as worse:  # noqa: BLE001 - exceptions of others may fail when they are shown
        return f"{type(error).__name__} (which cannot be shown: {type(worse).__name__})\n"


def _clean(text: str) -> str:
    return UNSAFE.sub(_written_out, text)


def _written_out(match: re.Match[str]) -> str:
    return match[0].encode("unicode-escape").decode("ascii")


def _name(key: str) -> str:
    return _NOT_IN_NAMES.sub("_", key)


def _shown(value: object) -> str:
    """A value in key=value: bare where that is clear, else in quotes."""
    if isinstance(value, list) and value and all(isinstance(each, str) and _BARE.match(each) for each in value):
        value = ",".join(value)
    elif isinstance(value, list | dict):
        value = msgspec.json.encode(_encodable(value)).decode()
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if _BARE.match(text) and not UNSAFE.search(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_clean(escaped)}"'


def _trace_lines(trace: str) -> Iterator[str]:
    if not trace:
        return
    lines = scrub(trace).rstrip("\n").split("\n")
    if len(lines) > MOST_LINES:
        left_out = len(lines) - MOST_LINES
        lines = [*lines[: MOST_LINES // 3], f"... {left_out} lines ...", *lines[-2 * MOST_LINES // 3 :]]
    for each in lines:
        yield f"    | {_clean(each[:LONGEST])}"


def _json(event: Event) -> str:
    document: dict[str, object] = {
        "time": event.time.astimezone().isoformat(timespec="milliseconds"),
        "level": event.level,
        "event": safe(event.name),
    }
    for key, value in event.fields.items():
        name = _name(key)
        document[f"{name}_" if name in ("time", "level", "event", "logger", "traceback") else name] = plain(value, key)
    if event.origin:
        document["logger"] = event.origin
    if event.trace:
        document["traceback"] = "\n".join(each[6:] for each in _trace_lines(event.trace))
    text = msgspec.json.encode(_encodable(document)).decode()
    # What is safe in JSON may not be so on the terminal of whoever reads it; \u0085 means the same and is.
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"


def _encodable(value: object) -> object:
    """Without lone surrogates, which are in file names and headers, and not in UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    return value
