"""The log: for people, for the journal, for machines; nobody forges a line in it, and no secret gets in."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from backupd import redaction
from backupd.config.secrets import Secret
from backupd.daemon import log_lines, logs
from backupd.daemon.log_lines import Event, line
from backupd.errors import LoginRefused
from backupd.mail.names import UNSAFE

NOON = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SECRET = "correct-horse-battery"
FORMS = ("text", "journal", "json")

Logged = Callable[[], str]


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """What setting up changes in the whole process is put back."""
    root = logging.getLogger()
    before = (structlog.get_config(), root.handlers[:], root.level, logging.raiseExceptions)
    hooks = (threading.excepthook, sys.unraisablehook, sys.excepthook)
    yield
    structlog.reset_defaults()
    structlog.configure(**before[0])
    root.handlers[:], root.level, logging.raiseExceptions = before[1:]
    threading.excepthook, sys.unraisablehook, sys.excepthook = hooks
    logging.captureWarnings(False)


def logged(form: str, level: str = "info") -> Logged:
    """Set the log up in this form; what is called gives all that was written since."""
    written: list[bytes] = []

    def take() -> str:
        text = b"".join(written).decode()
        written.clear()
        return text

    logs.set_up(form, level, environ={}, write=written.append)  # type: ignore[arg-type]
    return take


def event(name: str = "backed up", level: str = "info", **fields: object) -> Event:
    return Event(NOON, level, name, fields)


class Colour(StrEnum):
    RED = "red"


# -- forms -------------------------------------------------------------------------------------------------------------


def test_the_journal_gets_a_priority_and_fields_and_no_time() -> None:
    said = line(event(account="alice", seconds=1.23456, new=3, why='the server said "no"'), "journal")
    assert said == '<6>backed up account=alice seconds=1.235 new=3 why="the server said \\"no\\""\n'
    priorities = [line(event("x", level), "journal") for level in ("debug", "info", "warning", "error", "critical")]
    assert priorities == ["<7>x\n", "<6>x\n", "<4>x\n", "<3>x\n", "<2>x\n"]


def test_people_get_the_time_and_colours_on_a_terminal_only() -> None:
    plain = line(event(account="alice"), "text")
    assert re.fullmatch(r"2026-11-24 \d\d:\d\d:00 info     backed up account=alice\n", plain)
    coloured = line(event(account="alice"), "text", colour=True)
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_machines_get_one_document_a_line() -> None:
    written = line(event(account="alice", boxes=["a", "b"], time="mine", at=NOON, took=timedelta(minutes=1)), "json")
    assert written.count("\n") == 1
    document = json.loads(written)
    assert datetime.fromisoformat(document.pop("time")) == NOON
    assert document == {
        "level": "info", "event": "backed up", "account": "alice", "boxes": ["a", "b"], "time_": "mine",
        "at": "2026-11-24T12:00:00+00:00", "took": 60.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"), (True, "true"), (12, "12"), (0.5, "0.5"), (Colour.RED, "red"), (b"\xffa", '"\\\\xffa"'),
        ("", '""'), ("a b", '"a b"'), ("a=b", '"a=b"'), (["a", "b"], "a,b"), ({"a": 1}, '"{\\"a\\":1}"'),
        (Path("/srv/x"), "/srv/x"), (float("nan"), "null"), (LoginRefused("no", subject="alice"), '"alice: no"'),
    ],
)  # fmt: skip
def test_values_of_every_kind_are_shown(value: object, shown: str) -> None:
    assert line(event(x=value), "journal") == f"<6>backed up x={shown}\n"


def test_the_form_follows_where_standard_error_goes(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        same = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert logs.chosen("auto", same, file.fileno()) == ("journal", False)
        assert logs.chosen("text", same, file.fileno()) == ("text", False)
        # A child of a unit inherits the variable, whatever its own standard error is.
        for other in ("", f"{found.st_dev}:{found.st_ino + 1}", "nonsense", "1:2:3"):
            assert logs.chosen("auto", {"JOURNAL_STREAM": other}, file.fileno()) == ("text", False)
    reader, terminal = os.openpty()
    assert logs.chosen("auto", {}, terminal) == ("text", True)
    assert logs.chosen("auto", {"NO_COLOR": "1"}, terminal) == ("text", False)
    assert logs.chosen("json", {}, terminal) == ("json", False)
    os.close(reader)
    os.close(terminal)


# -- nobody forges a line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text(max_size=60) | st.text("\n\r\x00\x1b\x85\u2028\u202e<>=\"'\\ a3", max_size=30))
def test_whatever_a_server_says_is_one_line_and_harms_no_terminal(form: str, text: str) -> None:
    said = line(event(why=text, account="alice"), form)  # type: ignore[arg-type]
    assert said.endswith("\n")
    assert not UNSAFE.search(said[:-1])
    said.encode()
    if form == "json":
        json.loads(said)
    else:
        assert said.rstrip("\n").endswith(" account=alice")


def test_a_json_document_gives_back_what_was_said() -> None:
    said = "\x1b[31m \u202e \u0085 zwölf 🖂"
    assert json.loads(line(event(why=said), "json"))["why"] == said


def test_an_error_cannot_forge_events_in_its_traceback() -> None:
    try:
        raise ValueError("first\n<0>forged\r\n2026-11-24 12:00:00 error forged\x1b[2J")
    except ValueError as error:
        trace = log_lines.trace_of(error)
    for form in ("text", "journal"):
        first, *rest = line(Event(NOON, "error", "failed", {}, trace), form).splitlines()  # type: ignore[arg-type]
        assert first.endswith("failed")
        assert any("<0>forged" in each for each in rest)
        assert all(re.match(r"(<3>)?    \| ", each) for each in rest)
        assert "\x1b" not in "".join(rest)


def test_nothing_grows_without_bound() -> None:
    def deeper(depth: int) -> None:
        if not depth:
            raise RecursionError("x" * 100_000)
        deeper(depth - 1)

    try:
        deeper(400)
    except RecursionError as error:
        trace = log_lines.trace_of(error)
    said = line(Event(NOON, "error", "failed", {"why": "x" * 10**6, "many": ["y"] * 10**5}, trace), "text")
    assert len(said) < 20_000
    assert "x..." in said


# -- no secret gets in -------------------------------------------------------------------------------------------------


class Careless(Exception):
    """Shows what it was given, as exceptions of libraries do."""

    def __init__(self, detail: str) -> None:
        super().__init__({"detail": detail})
        self.add_note(f"the request was {detail!r}")


def careless(secret: str) -> None:
    try:
        try:
            raise Careless(f"PLAIN \0alice\0{secret}")
        except Careless as error:
            raise OSError(5, f"cannot log in with {secret!r}") from error
    except OSError:
        raise ExceptionGroup("both", [ValueError(secret), KeyError(secret.encode())])  # noqa: B904 - the context counts


def every_path(secret: str) -> None:
    """Have the secret logged in every way in which something is logged in this process."""
    log = structlog.get_logger("test")
    log.info("logged in", why=f"password {secret} accepted", raw=secret.encode(), nested={"a": [secret]})
    log.warning(f"an event with {secret}")
    log.bind(account=secret).error("bound", error=Careless(secret))
    with structlog.contextvars.bound_contextvars(context=secret):
        log.error("in a context")
    try:
        careless(secret)
    except ExceptionGroup as error:
        log.exception("failed")
        log.error("failed", exc_info=error)
        logging.getLogger("apscheduler.executors").exception("job failed: %s", secret)
        logging.getLogger("apprise").error("failed to send to mailtos://bob:%s@example.com", secret)
    logging.getLogger("urllib3.connectionpool").warning("retrying %r", f"/ping?key={secret}")
    warnings.warn(f"deprecated: {secret}", UserWarning, stacklevel=1)
    thread = threading.Thread(target=careless, args=(secret,))
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError(secret), None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("secret", [SECRET, 'pa"ss\\wörd\n9', "0f9a3a0a-1b2c-4d5e"])
def test_no_path_into_the_log_shows_a_secret(form: str, secret: str) -> None:
    taken = logged(form, "debug")
    assert Secret(secret).resolve() == secret
    every_path(secret)
    said = taken()
    for written in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], repr(secret.encode())[2:-1]):
        assert written not in said
    assert said.count(redaction.HIDDEN) >= 20
    # Each path did write.
    for word in ("logged in", "an event with", "bound", "in a context", "job failed", "urllib3", "py.warnings",
                 "a thread died", "the process died", "PLAIN", "both"):  # fmt: skip
        assert word in said, word


def test_a_field_that_is_a_secret_by_its_name_is_hidden_though_nobody_knows_its_value() -> None:
    said = line(event(password="x1", token="y2", nested={"client_secret": "z3"}, tokens=4), "json")
    assert not re.search("x1|y2|z3", said)
    assert json.loads(said)["tokens"] == 4


def test_no_half_of_a_secret_is_left_where_a_value_is_cut() -> None:
    redaction.learn(SECRET)
    for length in range(log_lines.LONGEST - 30, log_lines.LONGEST + 2):
        assert "correct" not in line(event(why="x" * length + SECRET), "text")


# -- levels, libraries, failures ---------------------------------------------------------------------------------------


def test_what_is_below_the_level_is_left_out_and_the_level_can_change() -> None:
    taken = logged("journal", "warning")
    log = structlog.get_logger("test")
    log.info("left out")
    log.warning("kept")
    assert taken() == "<4>kept\n"
    again = logged("journal", "debug")
    log.debug("kept now")
    assert again() == "<7>kept now\n"


def test_what_is_below_the_level_is_not_even_looked_at() -> None:
    class Dear:
        def __str__(self) -> str:
            raise AssertionError("it was asked for")

    taken = logged("journal")
    log = structlog.get_logger("test")
    log.debug("never shown", dear=Dear())
    assert taken() == ""
    log.info("shown", dear=Dear())
    assert "AssertionError" in taken()


def test_libraries_are_heard_when_they_warn_and_their_chatter_is_not() -> None:
    taken = logged("journal", "debug")
    for name in ("botocore.auth", "urllib3.connectionpool", "apscheduler.scheduler"):
        logging.getLogger(name).debug("a request with all its headers")
    assert taken() == ""
    logging.getLogger("apscheduler.scheduler").warning("%s was missed by %s", "Job", "0:01")
    logging.getLogger("apscheduler.scheduler").warning("%d arguments do not fit", "these")
    assert taken() == (
        '<4>apscheduler.scheduler said="Job was missed by 0:01"\n'
        '<4>apscheduler.scheduler said="%d arguments do not fit"\n'
    )


def test_a_value_that_cannot_be_shown_costs_nothing_but_itself() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    class Worse(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    taken = logged("journal")
    log = structlog.get_logger("test")
    log.info("shown anyway", broken=Broken())
    assert taken() == "<6>shown anyway unshown=RuntimeError\n"
    try:
        raise Worse
    except Worse:
        log.exception("and this")
    assert taken().startswith("<3>and this\n<3>    | Traceback")


def test_what_could_not_be_written_is_counted_and_told_later() -> None:
    full = [True]
    written: list[bytes] = []

    def write(data: bytes) -> None:
        if full[0]:
            raise OSError(28, "No space left on device")
        written.append(data)

    logs.set_up("journal", environ={}, write=write)
    log = structlog.get_logger("test")
    log.info("one")
    log.info("two")
    full[0] = False
    log.info("three")
    assert b"".join(written) == b"<4>log lines were lost events=2\n<6>three\n"


def test_lines_of_many_threads_are_whole(tmp_path: Path) -> None:
    program = (
        "import threading, structlog\nfrom backupd.daemon.logs import set_up\nset_up('json')\n"
        "log = structlog.get_logger('test')\n"
        "def say(n):\n    for k in range(200): log.info('x' * 300, n=n, k=k)\n"
        "threads = [threading.Thread(target=say, args=(n,)) for n in range(4)]\n"
        "[t.start() for t in threads]\n[t.join() for t in threads]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    found = sorted((each["n"], each["k"]) for each in map(json.loads, done.stderr.splitlines()))
    assert found == [(n, k) for n in range(4) for k in range(200)]
