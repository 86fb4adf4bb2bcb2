"""Standard output and standard error: text that cannot harm a terminal, tables, and the one JSON document.

Names of mailboxes, subjects and what servers say are written by strangers. Whatever is printed goes through `clean`,
and rich never reads markup in it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backupd.errors import BackupdError, Throttled
from backupd.mail.names import UNSAFE
from backupd.operations.counting import count as count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_WIDE = 10_000
_NARROWEST = 10
_BETWEEN = 2
_INTERNALDATE = re.compile(r"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d\d:\d\d)")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def clean(text: str) -> str:
    r"""The text with controls, escapes and marks that reorder or hide text made visible, as \x1b or \u202e."""
    return UNSAFE.sub(lambda match: match[0].encode("unicode-escape").decode("ascii"), text)


def line(text: str = "") -> None:
    """One line on standard output."""
    sys.stdout.write(clean(text) + "\n")


def remark(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"backupd: {clean(text)}\n")


def console(*, error: bool = False) -> Console:
    """A console that takes all text as it is. Where no terminal is, nothing is cut to a width."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


class Column:
    """A column of a table. right: numbers; shrink: one that gives way when the terminal is narrow. The last one does so
    by taking more lines, any other is cut."""

    def __init__(self, title: str, *, right: bool = False, shrink: bool = False) -> None:
        self.title, self.right, self.shrink = title, right, shrink


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Print a table on standard output. styles: of the rows, in turn; "" for none."""
    shown = console()
    made = make_table(columns, rows, styles, width=shown.width)
    # Where it does not fit for all that, the terminal may break its lines: half an id or a date is worth nothing.
    needed = sum(column.width or 0 for column in made.columns) + _BETWEEN * (len(columns) - 1)
    shown.width = max(needed, shown.width)
    with shown.capture() as capture:
        shown.print(made)
    for each in capture.get().splitlines():
        sys.stdout.write(each.rstrip() + "\n")


def make_table(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], styles: Sequence[str] = (), *, width: int = _WIDE
) -> Table:
    """A table without frames, its cells cleaned. width: columns that may give way do so until it fits."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, _BETWEEN, 0, 0), header_style="bold")
    for place, column in enumerate(columns, 1):
        folds = column.shrink and place == len(columns)
        made.add_column(
            Text(column.title),
            justify="right" if column.right else "left",
            no_wrap=not folds,
            overflow="fold" if folds else "ellipsis",
        )
    kept = [[clean(cell) for cell in row] for row in rows]
    widest = [
        max([len(column.title), *(cell_len(row[place]) for row in kept)]) for place, column in enumerate(columns)
    ]
    room = width - _BETWEEN * (len(columns) - 1)
    for place, share in enumerate(_fitted(widest, [column.shrink for column in columns], room)):
        made.columns[place].width = share
    for number, row in enumerate(kept):
        made.add_row(*(Text(cell) for cell in row), style=styles[number] if number < len(styles) else "")
    return made


def _fitted(widest: Sequence[int], gives_way: Sequence[bool], room: int) -> list[int]:
    """Widths of columns. Only those give way that may: numbers and ids are worthless in part."""
    widths = list(widest)
    while sum(widths) > room:
        place = max((place for place, may in enumerate(gives_way) if may), key=widths.__getitem__, default=None)
        if place is None or widths[place] <= _NARROWEST:
            break
        widths[place] -= 1
    return widths


def size(octets: int) -> str:
    """Octets for people: 999 B, 1.2 kB, 34 MB."""
    value = float(octets)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def local_time(rfc3339: str) -> str:
    """A stored time in the time zone of this machine, to the second."""
    if not rfc3339:
        return ""
    return datetime.fromisoformat(rfc3339).astimezone().isoformat(sep=" ", timespec="seconds")[:19]


def mail_date(internaldate: str) -> str:
    """An INTERNALDATE as it was written by the server, in the order that sorts; as it is when it is odd."""
    match = _INTERNALDATE.match(internaldate)
    if not match or match[2].lower() not in _MONTHS:
        return internaldate
    return f"{match[3]}-{_MONTHS.index(match[2].lower()) + 1:02}-{int(match[1]):02} {match[4]}"


def age(span: timedelta) -> str:
    """A span of time in its largest units: 42 s, 5 min, 3 h 20 min, 12 days."""
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 2 * 3600 and seconds != 3600:
        return f"{seconds // 60} min"
    if seconds < 48 * 3600:
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours} h {minutes} min" if minutes and hours < 10 else f"{hours} h"
    return f"{seconds // 86400} days"


def document(value: object) -> None:
    """The one JSON document of a command with --json."""
    write_raw(encode(value) + b"\n")


class Told(BackupdError):
    """An error that is in the JSON document already, which cannot be told twice."""

    def __init__(self, error: BackupdError) -> None:
        super().__init__(error.what, subject=error.subject, remedy=error.remedy)
        self.exit_code = error.exit_code


def bug(error: Exception) -> BackupdError:
    """An error that nobody expected, as one that can be shown."""
    what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    return BackupdError(
        f"this is a bug in backupd: {what}", remedy="the same command with --debug shows where; please report it"
    )


def describe_error(error: BackupdError) -> dict[str, object]:
    """An error in a JSON document."""
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "what": error.what,
        "subject": error.subject,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
        **({"pause": error.pause} if isinstance(error, Throttled) else {}),
    }


def encode(value: object) -> bytes:
    r"""JSON; bytes (raw mailbox names, labels) become text in which what is not UTF-8 stands as \xff."""
    import msgspec

    return msgspec.json.encode(plain(value))


def plain(value: object) -> object:
    """The value in types that JSON has."""
    import msgspec

    return _decoded(msgspec.to_builtins(value, builtin_types=(bytes,)))


def encode_indented(value: object) -> bytes:
    """JSON for people to read."""
    import msgspec

    return msgspec.json.format(encode(value))


def _decoded(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {str(key): _decoded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_decoded(each) for each in value]
    return value


def write_raw(data: bytes) -> None:
    """Octets on standard output as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
