"""Messages to real servers by Apprise arrive as they were written; or why not is told, in time and without secrets."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.operations.notices.sending import NotDelivered, send, shown
from backupd.operations.notices.wording import Text
from backupd.redaction import learn
from tests.support.listeners import HttpListener, SmtpListener, nobody, silent

TEXT = Text(
    "alice is not backed up: the login is refused", "Since 14:05.\nNext: backupd doctor\n\nzwölf < 13 & so", "failure"
)


@pytest.fixture(scope="module")
def smtp() -> Iterator[SmtpListener]:
    server = SmtpListener()
    yield server
    server.close()


@pytest.fixture(scope="module")
def http() -> Iterator[HttpListener]:
    server = HttpListener()
    yield server
    server.close()


def mailto(port: int, password: str = "") -> str:
    login = f"bob:{password}@" if password else ""
    return f"mailto://{login}127.0.0.1:{port}?from=backupd@example.com&to=me@example.com&mode=insecure"


def test_a_mail_arrives_as_it_was_written(smtp: SmtpListener) -> None:
    send(mailto(smtp.port), TEXT)
    mail = smtp.next()
    assert mail["Subject"] == f"backupd: {TEXT.subject}"
    assert "me@example.com" in mail["To"]
    plain = mail.get_body(("plain",))
    assert plain is not None
    assert plain.get_content().replace("\r\n", "\n").strip() == TEXT.body


def test_a_webhook_gets_subject_body_and_severity(http: HttpListener) -> None:
    send(http.url("json", "/hook"), TEXT)
    path, body = http.next()
    document = json.loads(body)
    assert (path, document["title"], document["message"], document["type"]) == (
        "/hook", f"backupd: {TEXT.subject}", TEXT.body, "failure"
    )  # fmt: skip


def refused(url: str, seconds: float = 15.0) -> str:
    with pytest.raises(NotDelivered) as caught:
        send(url, TEXT, seconds=seconds)
    said = str(caught.value)
    assert said.isprintable()
    return said


def test_why_a_message_did_not_arrive_is_told_and_no_secret_of_it(smtp: SmtpListener, http: HttpListener) -> None:
    secret = "hunter2-is-the-password"
    learn(secret)
    smtp.refuse = True
    try:
        said = [refused(mailto(smtp.port)), refused(mailto(nobody(), secret))]
    finally:
        smtp.refuse = False
    http.answers = [500]
    said.append(refused(http.url("json", f"/{secret}")))
    said.append(refused(f"json://bob:{secret}@127.0.0.1:{nobody()}/{secret}"))
    assert refused(f"nonsense://{secret}") == "not an address that Apprise knows"
    for each in said:
        assert each not in ("", "Apprise does not say why")
        assert secret not in each
    assert "500" in said[2] or "Server" in said[2]


def test_a_server_that_never_answers_is_left_in_time() -> None:
    began = time.monotonic()
    with silent() as port:
        assert refused(mailto(port), seconds=1.5) == "no end within 1.5 seconds"
    assert time.monotonic() - began < 8


def test_whoever_ends_meanwhile_waits_for_nothing() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    with silent() as port, pytest.raises(NotDelivered, match="ended meanwhile"):
        send(mailto(port), TEXT, stop=stop)
    assert time.monotonic() - began < 5


def test_the_address_is_in_no_list_of_processes() -> None:
    stop = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not stop.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    text = path.read_text(errors="replace") + path.with_name("environ").read_text(errors="replace")
                except OSError:
                    continue
                if "sender.py" in text:
                    seen.append(text)

    watcher = threading.Thread(target=look)
    watcher.start()
    with silent() as port:
        refused(mailto(port, "hunter2-in-the-address"), seconds=1.0)
    stop.set()
    watcher.join()
    assert seen
    assert not any("hunter2" in text for text in seen)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mailtos://bob:hunter2@mx.example.com:465?to=me@example.com", "mailtos://mx.example.com:465"),
        ("json://user:hunter2@127.0.0.1:8080/token", "json://127.0.0.1:8080"),
        ("ntfys://ntfy.example.com/topic", "ntfys://ntfy.example.com"),
        ("ntfy://topic-as-good-as-a-password", "ntfy://..."),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://..."),
        ("tgram://123456789:abcdefg_hijklmnop/12315544", "tgram://..."),
        ("https://hooks.slack.com/services/T1/A1/x", "https://hooks.slack.com"),
        ("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", "discord://..."),
        ("hunter2", "(not an address)"),
        ("json://[::1/x", "(not an address)"),
    ],
)
def test_of_an_address_only_kind_and_host_are_shown(url: str, said: str) -> None:
    assert shown(url) == said
