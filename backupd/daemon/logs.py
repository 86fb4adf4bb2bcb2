"""The daemon's log: structlog on standard error, in the form that whoever reads it there can use.

The journal gets `<3>backup failed account=alice why="..."`: a priority and key=value, and no time, which it has
itself. That is written to standard error, and not sent by the journal's own protocol, because it also works where
there is no journal (a container, a pipe, a test), keeps the order with whatever else the process says, and needs no
way to fall back. What the protocol would add, fields that journalctl can match, `--grep account=alice` gives as well.

Warnings of libraries, by `logging` and `warnings`, and the deaths of threads come out in the same way: nothing that
this process writes goes around the redaction. Logging never raises, and never stops work: what cannot be written is
counted, and told when writing works again.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import structlog
from structlog.typing import EventDict

from backupd.daemon.log_lines import Event, Format, line, trace_of

Threshold = Literal["debug", "info", "warning", "error"]

_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
Write = Callable[[bytes], object]


class _Pipe:
    """Where all events go: rendered, and written a whole event at a time."""

    def __init__(self) -> None:
        self.threshold = _NUMBERS["info"]
        self._form: Format = "text"
        self._colour = False
        self._write: Write = _to_standard_error
        self._lock = threading.Lock()
        self._lost = 0

    def direct(self, form: Format, colour: bool, threshold: int, write: Write) -> None:
        self._form, self._colour, self.threshold, self._write = form, colour, threshold, write

    def put(self, event: Event) -> None:
        """Write an event. Never raises."""
        try:
            text = line(event, self._form, colour=self._colour)
        except Exception as error:  # noqa: BLE001 - a value that cannot be shown must not cost a backup
            shown = Event(event.time, event.level, event.name, {"unshown": type(error).__name__})
            text = line(shown, self._form)
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                if self._lost:
                    lost = Event(event.time, "warning", "log lines were lost", {"events": self._lost})
                    self._write(line(lost, self._form).encode())
                    self._lost = 0
                self._write(data)
            except (OSError, ValueError):  # a full disk, a closed pipe
                self._lost += 1


def _to_standard_error(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


_pipe = _Pipe()


class Log(structlog.BoundLoggerBase):
    """What `structlog.get_logger(NAME)` gives once the log is set up. An event is a short text; what varies is fields:
    log.info("backed up", account="alice", seconds=1.2). What is below the level costs no more than asking for it."""

    def debug(self, event: str, **fields: object) -> None:
        """What only somebody who looks for a fault wants."""
        if _pipe.threshold <= 10:
            self._put("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """What went as it should, and is worth a line."""
        if _pipe.threshold <= 20:
            self._put("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """What stops nothing, and should be looked at."""
        if _pipe.threshold <= 30:
            self._put("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """What failed."""
        if _pipe.threshold <= 40:
            self._put("error", event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """What failed, with the traceback of the exception that is being handled."""
        self._put("error", event, {"exc_info": True, **fields})

    def critical(self, event: str, **fields: object) -> None:
        """What ends the daemon."""
        self._put("critical", event, fields)

    def _put(self, level: str, event: str, fields: dict[str, object]) -> None:
        try:
            self._proxy_to_logger(level, event, **fields)
        except Exception as error:  # noqa: BLE001 - no log line is worth a backup
            _pipe.put(Event(datetime.now(UTC), level, event, {"unshown": type(error).__name__}))


class _Output:
    """structlog's last step: whatever the level, the processor has written the event already."""

    def __init__(self, *names: str) -> None:
        self.name = names[0] if names else ""

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level.startswith("_"):
            raise AttributeError(level)
        return _nothing


def _nothing(*arguments: object, **fields: object) -> None:
    return None


def _render(logger: Any, level: str, event: EventDict) -> str:
    name = str(event.pop("event", ""))
    error = _error_of(event.pop("exc_info", None))
    trace = trace_of(error) if error else ""
    _pipe.put(Event(datetime.now(UTC), level, name, event, trace, getattr(logger, "name", "")))
    return ""


def _error_of(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple) and len(info) == 3:
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


class _FromLibraries(logging.Handler):
    """What libraries say by `logging`, as events named after who says it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their format
            said = str(record.msg)
        level = next((name for name, number in reversed(_NUMBERS.items()) if record.levelno >= number), "debug")
        error = _error_of(record.exc_info)
        when = datetime.fromtimestamp(record.created, UTC)
        trace = trace_of(error) if error else ""
        _pipe.put(Event(when, level, record.name, {"said": said}, trace, record.name))


def set_up(
    form: Literal["auto", "text", "journal", "json"] = "auto",
    level: Threshold = "info",
    *,
    environ: Mapping[str, str] | None = None,
    write: Write | None = None,
) -> None:
    """Send the log of this process to standard error from now on. May be called again, to change form or level.

    Args:
        environ: of this process; JOURNAL_STREAM and NO_COLOR are looked at.
        write: takes each event's line instead of standard error.
    """
    environ = os.environ if environ is None else environ
    found, colour = chosen(form, environ)
    _pipe.direct(found, colour and write is None, _NUMBERS[level], write or _to_standard_error)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _render],
        wrapper_class=Log,
        logger_factory=_Output,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _FromLibraries):
            root.removeHandler(handler)
    root.addHandler(_FromLibraries())
    # At their lowest level some libraries write whole requests, with all that is in them.
    root.setLevel(logging.INFO if level == "debug" else max(logging.WARNING, _NUMBERS[level]))
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    threading.excepthook = _thread_died
    sys.unraisablehook = _unraisable
    sys.excepthook = _process_died


def chosen(form: str, environ: Mapping[str, str], descriptor: int = 2) -> tuple[Format, bool]:
    """The form that is meant, and whether in colour."""
    if form == "auto":
        form = "journal" if is_journal(environ, descriptor) else "text"
    colour = form == "text" and os.isatty(descriptor) and not environ.get("NO_COLOR")
    return form, colour  # type: ignore[return-value]


def is_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether the journal reads what is written there: JOURNAL_STREAM names the device and inode of its socket
    (systemd.exec(5)). That it is set is not enough, for a program's children inherit it whatever their output is."""
    try:
        device, inode = (int(each) for each in environ.get("JOURNAL_STREAM", "").split(":"))
        found = os.fstat(descriptor)
    except (OSError, ValueError):
        return False
    return (found.st_dev, found.st_ino) == (device, inode)


def _died(name: str, error: BaseException | None, **fields: object) -> None:
    trace = trace_of(error) if error else ""
    _pipe.put(Event(datetime.now(UTC), "critical", name, fields, trace, "backupd"))


def _thread_died(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is not SystemExit:
        _died("a thread died", arguments.exc_value, thread=arguments.thread.name if arguments.thread else "")


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    _died("an error that nobody could be told", found.exc_value, where=str(found.err_msg or ""))


def _process_died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _died("the process died", error)
