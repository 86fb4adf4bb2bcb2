"""`backupd backup` and servers that want less of it: what it says, its exit code, and what the next call knows."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.operations.state import State
from tests.support.command import Place, hashes, imap, mail_of, when
from tests.support.dovecot_account import Account
from tests.support.mail import large_message, message
from tests.support.scripted_imap import PASSWORD, USER, ScriptedImap, done
from tests.support.scripted_reading import BODY_FETCH, box_of

QUOTA = b"[OVERQUOTA] Account exceeded command or bandwidth limits"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.create()
    return found


@pytest.fixture
def server() -> Iterator[ScriptedImap]:
    with ScriptedImap({b"INBOX": box_of()}) as running:
        yield running


def scripted(server: ScriptedImap, **more: object) -> dict[str, object]:
    values = {"port": server.port, "tls": "none", "username": USER, "password": PASSWORD, "connections": 1}
    return {"host": server.host, **values, **more}


def test_a_quota_that_is_used_up_ends_the_run_and_is_remembered(place: Place, server: ScriptedImap) -> None:
    box = server.boxes[b"INBOX"]

    def ten_and_no_more(command: bytes) -> bytes:
        some = b"".join(server.fetched(box, uid, command) for uid in range(1, 11))
        return some + b"%TAG% NO " + QUOTA + b"\r\n"

    server.on(BODY_FETCH, ten_and_no_more, times=1)
    place.configure({"alice": scripted(server)})

    said = ["alice: ", "used up what the server allows", "bandwidth limits", "what was read is kept", " UTC goes on"]
    place.failed(3, "backup", saying=said)
    connections = server.connections
    place.failed(3, "backup", saying=["alice: left alone until ", "used up", "backupd backup --now"])
    assert server.connections == connections
    assert "ended before all was read" in place.run("status").out

    asked = len(server.received(BODY_FETCH))
    assert "20 new" in place.done("backup", "--now").out
    assert server.received(BODY_FETCH)[asked].startswith(b"UID FETCH 11:30 ")
    place.done("backup")
    assert place.restored("alice@latest") == hashes(box.messages.values())


def test_a_login_that_is_put_off_is_no_wrong_password(place: Place, server: ScriptedImap) -> None:
    server.on(rb"AUTHENTICATE", b"%TAG% NO Request is throttled. Suggested Backoff Time: 1800000 milliseconds\r\n")
    with ScriptedImap({b"INBOX": box_of(2)}) as other:
        place.configure({"alice": scripted(server), "bob": scripted(other)})
        result = place.run("backup", "--json")
    assert result.code == 3
    alice, bob = result.document["runs"]  # type: ignore[index]
    assert bob["messages"] == 2
    assert alice["error"]["kind"] == "Throttled"
    assert alice["error"]["pause"] == 1800
    assert "asks to wait 1,800 s" in alice["error"]["message"]


def test_a_short_pause_is_only_a_pause(place: Place, server: ScriptedImap) -> None:
    wish = b"Request is throttled. Suggested Backoff Time: 50 milliseconds\r\n"
    server.on(rb"AUTHENTICATE", b"%TAG% NO " + wish, times=1)
    server.on(rb"EXAMINE", b"%TAG% NO " + wish, times=1)
    server.on(BODY_FETCH, b"%TAG% NO " + wish, times=1)
    server.on(rb"LIST", lambda command: done(b"%TAG%", b'* LIST () "/" INBOX\r\n', b"[THROTTLED] slowly"), times=1)
    place.configure({"alice": scripted(server)})
    assert "30 new" in place.done("backup").out


def test_a_daily_limit_ends_the_run_and_says_when_it_goes_on(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"number {number}", size=30_000) for number in range(60)])
    place.configure({"alice": imap(account, daily_limit="500kB", connections=1)})

    result = place.failed(
        3, "backup", saying=["alice: the daily limit of 500 kB is used up", "in the last 24 hours", " UTC goes on"]
    )
    assert re.search(r"a run after \d{4}-\d\d-\d\d \d\d:00 UTC", result.err)
    place.failed(3, "backup", saying=["alice: left alone until ", "daily limit of 500 kB"])
    assert place.done("backup", "--now").out.count("new") == 1
    assert place.restored("alice@latest") == mail_of(account)


def test_what_was_downloaded_is_remembered_even_by_a_killed_process(place: Place, account: Account) -> None:
    account.append_many("INBOX", [large_message(1 << 20, seed=number) for number in range(40)])
    place.configure({"alice": imap(account, daily_limit="20MB", connections=1)}, more={"bandwidth": "10 MB/s"})
    place.state.mkdir()
    state = State(place.state)

    def counted() -> int:
        return sum(state.downloads("alice").values())

    process = place.start("backup")
    assert when(process, lambda: counted() > 0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = counted()
    assert before >= 4 << 20
    place.failed(3, "backup", saying=["the daily limit of 20 MB is used up"])
    # Of what the killed one read, nothing is forgotten: this run had so much less.
    assert 20_000_000 <= counted() < 20_000_000 + (4 << 20)
    state.close()
