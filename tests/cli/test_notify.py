"""`backupd notify`: who is told, what is open, and whether messages arrive; secrets stay hidden."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd import config
from backupd.operations.notices import events
from backupd.operations.notices.causes import Memory
from backupd.operations.notices.notifier import Notifier
from backupd.operations.notices.sending import NotDelivered
from backupd.operations.notices.store import NoticeStore, Waiting
from backupd.operations.notices.wording import Text
from backupd.operations.notify import findings
from backupd.operations.state import State
from tests.cli.conftest import Run
from tests.support.config import GOOD, write
from tests.support.listeners import HttpListener, SmtpListener, nobody

SECRET = "hunter2-in-the-address"


@pytest.fixture
def http() -> Iterator[HttpListener]:
    server = HttpListener()
    yield server
    server.close()


@pytest.fixture
def smtp() -> Iterator[SmtpListener]:
    server = SmtpListener()
    yield server
    server.close()


def configure(folder: Path, extra: str) -> Path:
    """The configuration that the command reads."""
    (folder / "passphrase").write_text("x")
    (folder / "passphrase").chmod(0o600)
    return write(folder, GOOD.replace("/var/lib/backupd", "state") + extra)


def test_a_test_message_says_for_each_target_whether_it_arrived(
    run: Run, tmp_path: Path, http: HttpListener, smtp: SmtpListener
) -> None:
    (tmp_path / "phone").write_text(http.url("json", f"/{SECRET}"))
    mail = f"mailto://127.0.0.1:{smtp.port}?from=b@example.com&to=me@example.com&mode=insecure"
    configure(tmp_path, f"notify:\n- {{name: phone, url: {{file: phone}}}}\n- {{url: '{mail}'}}\n")
    result = run("notify", "--test")
    assert (result.code, result.err) == (0, "")
    assert result.out == (
        f"phone (json://127.0.0.1:{http.port}): arrived\n2 (mailto://127.0.0.1:{smtp.port}): arrived\n"
    )
    assert '"title": "backupd: this is a test"' in http.next().body
    assert smtp.next()["Subject"] == "backupd: this is a test"

    port = nobody()
    (tmp_path / "phone").write_text(f"json://bob:{SECRET}@127.0.0.1:{port}/{SECRET}")
    result = run("notify", "--test")
    assert result.code == 1
    assert result.out == f"2 (mailto://127.0.0.1:{smtp.port}): arrived\n"
    assert result.err.startswith(f"backupd: phone (json://127.0.0.1:{port}): not arrived: ")
    assert SECRET not in result.err
    (tmp_path / "phone").unlink()
    document = run("notify", "--test", "--json").document
    assert isinstance(document, dict)
    assert document["exit_code"] == 1
    assert [each["arrived"] for each in document["results"]] == [False, True]


def test_targets_pings_and_open_trouble_are_listed_without_secrets(run: Run, tmp_path: Path) -> None:
    path = configure(
        tmp_path,
        f"notify:\n- {{name: phone, url: 'ntfys://x.example.com/{SECRET}', on: [failure, loss], accounts: [al*]}}\n"
        f"- {{url: 'slack://{SECRET}/b/c'}}\n"
        f"pings: {{url: 'https://hc.example.com/{SECRET}', accounts: {{alice: 'https://hc.example.com/{SECRET}2'}}}}\n",
    )
    now = [datetime(2026, 11, 24, 12, 0, tzinfo=UTC)]

    def send(*arguments: object, **options: object) -> None:
        raise NotDelivered("no route")

    def request(url: str, body: str) -> None:
        pass

    state = State(tmp_path / "state")
    notifier = Notifier(state, config.load(path), clock=lambda: now[0], send=send, request=request)
    notifier.tell(events.Failed("alice", "login", "the password was refused\x1b[31m"))
    assert notifier.settle(10)
    now[0] += timedelta(minutes=20)
    assert notifier.settle(10)
    notifier.close(1)
    state.close()

    result = run("notify")
    assert result.code == 0
    assert SECRET not in result.out + result.err
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[1] == "phone ntfys://x.example.com failure, loss al*"
    assert lines[2].startswith("2 slack://... everything *")
    assert "all accounts https://hc.example.com" in lines
    assert "alice https://hc.example.com" in lines
    assert any(line.startswith("phone 2026-11-24 12:00:00 2026-11-24 12:20:00 alice: the password") for line in lines)
    assert any("not arrived, will be tried again after 1 attempt" in line for line in lines)
    assert "\x1b" not in result.out
    document = run("notify", "--json").document
    assert isinstance(document, dict)
    assert {each["target"] for each in document["open"]} == {"phone", "2"}
    assert document["open"][0]["subjects"] == ["alice"]


def test_nobody_is_told(run: Run, tmp_path: Path) -> None:
    configure(tmp_path, "")
    for arguments in (["notify"], ["notify", "--test"]):
        result = run(*arguments)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith("nobody is told of trouble")


def test_the_configuration_check_and_the_doctor_find_addresses_that_cannot_be(run: Run, tmp_path: Path) -> None:
    path = configure(tmp_path, f"notify: [{{name: phone, url: 'nonsense://{SECRET}'}}]\n")
    result = run("config", "check")
    assert result.code == 2
    assert result.err == (
        "backupd: notify phone: not an address that Apprise knows (see docs/commands/notify.md for addresses)\n"
    )
    path = configure(tmp_path, f"pings: {{url: 'ftp://x/{SECRET}'}}\n")
    assert "ping of all accounts: the address of a ping is not http:// or https://" in run("config", "check").err
    path = configure(tmp_path, "notify: [{url: 'json://example.com'}]\npings: {url: 'https://x.example.com/y'}\n")
    assert run("config", "check").code == 0
    assert [each.level for each in findings(config.load(path))] == ["ok", "ok"]


def test_without_apprise_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = config.load(configure(tmp_path, "notify: [{url: 'json://example.com'}]\n"))
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr("backupd.operations.notify.find_spec", lambda name: None)
    (found,) = findings(loaded)
    assert (found.what, found.remedy) == ("Apprise is not installed", "pip install 'backupd[notify]'")


def test_messages_that_never_arrived_are_told_by_status(run: Run, configured: Path, tmp_path: Path) -> None:
    assert run("init").code == 0
    assert "did not arrive" not in run("status").out
    state = State(tmp_path / "state")
    store = NoticeStore(state.path)
    (waiting,) = store.save("x", Memory(), Memory(), [Waiting(0, "x", 1.0, Text("alice fails", "", "failure"))])
    store.not_arrived(Waiting(waiting.number, "x", 1.0, waiting.text, 9, "no route", True))
    store.close()
    state.close()
    told = "1 message about trouble did not arrive, the last: alice fails; see backupd notify"
    assert told in run("status").out.splitlines()
