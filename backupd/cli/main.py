"""The entry: parses, runs the command, and turns whatever happens into one line and an exit code."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from backupd.cli import monitoring, output
from backupd.cli.context import Context
from backupd.errors import BackupdError, Interrupted, UsageError

if TYPE_CHECKING:
    from cyclopts import App

_M_ARENA_MAX = -8  # malloc.h
BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended: whoever read our output has had enough."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run backupd with these arguments (None: those of the process); its exit code."""
    _open_standard_streams()
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    wants = Context(json=_given(tokens, "--json"), debug=_given(tokens, "--debug"))
    plugin = monitoring.is_plugin(tokens)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _bound_memory()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        try:
            return _run(tokens)
        except BackupdError as error:
            return _failed(error, wants, plugin=plugin)
        except KeyboardInterrupt:
            return _failed(Interrupted("interrupted"), wants, plugin=plugin)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback reaches a user unasked
            return _failed(output.bug(error), wants, error, plugin=plugin)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return monitoring.UNKNOWN if plugin else BROKEN_PIPE
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_standard_streams() -> None:
    """Whoever starts us without standard input, output or error gets silence. A file that is opened would have its
    number otherwise, and what is said would be written into it: into the state, or into a pack."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _bound_memory() -> None:
    """Let threads share two heaps. glibc gives each a heap of its own, which keeps what was freed: a restore of large
    attachments took 299 MB so, and takes 184 MB with two, in the same time. Where there is no glibc, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _run(tokens: list[str]) -> int:
    from cyclopts import CycloptsError

    from backupd.cli.app import make_app

    app = make_app(_dispatch)
    try:
        result = app.meta(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        raise _usage(error) from None
    return result if isinstance(result, int) else 0


def _dispatch(context: Context, app: App, tokens: list[str]) -> int:
    """Parse what is left after the global options, and call the command with the context."""
    command, bound, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    extra = {"context": context} if "context" in ignored else {}
    try:
        result = command(*bound.args, **bound.kwargs, **extra)
    finally:
        context.record_requests()
    return result if isinstance(result, int) else 0


def _usage(error: Exception) -> UsageError:
    """A mistake in the command line as one line."""
    text = " ".join(str(error).split()).rstrip(".")
    return UsageError(
        text[:1].lower() + text[1:], remedy="`backupd --help` and `backupd COMMAND --help` show what there is"
    )


def _failed(error: BackupdError, wants: Context, cause: Exception | None = None, *, plugin: bool = False) -> int:
    """Tell what happened; the exit code. plugin: as a monitor expects it, which reads the first line on stdout."""
    if wants.debug:
        traceback.print_exception(cause or error, file=sys.stderr)
    if plugin and not isinstance(error, Interrupted):
        error.exit_code = monitoring.UNKNOWN
        if not wants.json:
            output.line(monitoring.unknown(error))
    output.remark(str(error))
    if wants.json and not isinstance(error, output.Told):
        output.document({"error": output.describe_error(error)})
    return error.exit_code


def _given(tokens: list[str], option: str) -> bool:
    """Whether a global option is there, looked up before anything is parsed: errors of parsing obey it too."""
    return option in (tokens[: tokens.index("--")] if "--" in tokens else tokens)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
