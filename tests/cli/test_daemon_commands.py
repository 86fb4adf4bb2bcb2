"""`backupd status` and `backupd trigger` with a daemon, with one that is not there, and with one that has died."""

from __future__ import annotations

import http.client
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from backupd.daemon.control import Control
from backupd.errors import BackupdError
from tests.support.command import Place, kill, mail_of
from tests.support.daemon import Daemon, configure, running, until
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.ports import free_ports

NEXT_YEAR = "0 0 1 1 *"
NOT_RUNNING = "the daemon is not running (systemctl start backupd, or backupd run)"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.create()
    return found


@pytest.fixture
def alice(dovecot: Dovecot) -> Account:
    account = dovecot.account()
    account.append("INBOX", message("first"))
    return account


class Running(NamedTuple):
    """A daemon with alice, and broken, whose password is wrong. Each was tried, and is due next year."""

    place: Place
    daemon: Daemon
    alice: Account


@pytest.fixture(scope="module")
def running_one(tmp_path_factory: pytest.TempPathFactory, dovecot: Dovecot) -> Iterator[Running]:
    place, alice = Place(tmp_path_factory.mktemp("daemon")), dovecot.account()
    place.create()
    alice.append("INBOX", message("first"))
    configure(place, {"alice": alice, "broken": dovecot.account()}, schedule=NEXT_YEAR)
    change(place, lambda document: document["accounts"]["broken"]["imap"].update(password="wrong"))
    with running(place) as daemon:
        assert place.run("trigger", "--wait").code == 1
        yield Running(place, daemon, alice)


def change(place: Place, how: Any) -> None:
    document = msgspec.json.decode(place.config.read_bytes())
    how(document)
    place.config.write_bytes(msgspec.json.encode(document))


def status(place: Place, *arguments: str) -> Any:
    return place.done("status", "--json", *arguments).document


def test_status_shows_what_the_daemon_does_and_what_is_wrong(running_one: Running) -> None:
    place = running_one.place
    shown = place.done("status").out.splitlines()
    titles, alice, broken = (line.split() for line in shown[:3])
    assert titles[-2:] == ["NEXT", "RUN"]
    assert (alice[:2], alice[-3], alice[-1]) == (["alice", "ok"], "in", "days")
    assert broken[:3] == ["broken", "critical", "never"]
    assert "held" in broken[-3]
    text = "\n".join(shown[3:])
    assert "broken: never backed up" in text
    assert "refused the login" in text
    assert "check username and password" in text
    assert "(login), next try in" in text
    assert "daemon: running for" in text
    assert "2 accounts, 1 held, 1 failing" in text
    assert re.search(rf"{place.repository}: \d+ packs?, ", text)


def test_its_document_has_all_it_had_and_the_daemon_beside(running_one: Running) -> None:
    place, daemon, _ = running_one
    found = status(place)
    assert found["daemon"]["pid"] == daemon.process.pid
    assert [job["name"] for job in found["daemon"]["jobs"]]
    account = found["accounts"][0]
    assert (account["account"], account["level"], account["octets"] > 0) == ("alice", "ok", True)
    assert account["live"]["runs"] >= 1
    assert account["live"]["next_run"]
    assert [each["account"] for each in status(place, "--trouble")["accounts"]] == ["broken"]
    assert [each["account"] for each in status(place, "alice")["accounts"]] == ["alice"]


def test_what_a_run_by_hand_did_is_shown_at_once(running_one: Running) -> None:
    place, _, alice = running_one
    before = status(place, "alice")["accounts"][0]["messages"]
    alice.append("INBOX", message("by hand"))
    place.done("backup", "alice", "--quiet")
    assert status(place, "alice")["accounts"][0]["messages"] == before + 1


def test_status_needs_no_passphrase_where_the_daemon_answers(running_one: Running) -> None:
    """As where it is a credential that systemd gives to the daemon alone."""
    place = running_one.place
    secret = (place.folder / "passphrase").rename(place.folder / "elsewhere")
    try:
        assert "alice" in place.done("status").out
    finally:
        secret.rename(place.folder / "passphrase")


def test_trigger_has_an_account_backed_up_now_and_waits_for_it(running_one: Running) -> None:
    place, _, alice = running_one
    alice.append("INBOX", message("triggered"))
    count = alice.status("INBOX")["MESSAGES"]
    assert place.done("trigger", "alice", "--wait").out == f"alice: {count} messages, backed up\n"
    assert place.restored("alice@latest") == mail_of(alice)


def test_trigger_exits_as_the_runs_do(running_one: Running) -> None:
    place = running_one.place
    result = place.run("trigger", "--wait")
    assert (result.code, result.out[:7], result.out.count("\n")) == (1, "alice: ", 1)
    place.clear(result, saying=["broken: ", "refused the login", "check username and password"])
    document: Any = place.run("trigger", "alice", "--wait", "--json").document
    assert (document["exit_code"], document["runs"][0]["outcome"]) == (0, "done")


def test_trigger_does_not_wait_unasked(running_one: Running) -> None:
    place = running_one.place
    assert place.done("trigger", "alice").out == "1 account will be backed up; backupd status shows how it goes\n"
    place.failed(2, "trigger", "nobody", saying=["nobody: no such account", "there are: alice, broken"])
    place.failed(2, "trigger", "--copy", "1", saying=["copy"])


def test_trigger_tells_that_the_daemon_ended_meanwhile(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        server = {"host": "127.0.0.1", "port": port, "tls": "none", "username": "a", "password": "pw-silent"}
        place.configure({"slow": server})
        with running(place) as daemon:
            waiting = place.start("trigger", "--wait")
            until(lambda: status(place)["accounts"][0]["doing"] == "running")
            kill(daemon.process)
            daemon.process.wait()
            result = place.end(waiting)
    place.clear(result, saying=["the daemon"])
    assert result.code == 1


def test_without_a_daemon_status_reads_the_repository(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice}, schedule=NEXT_YEAR)
    place.done("backup")
    result = place.run("status")
    assert result.code == 0
    place.clear(result, saying=[NOT_RUNNING])
    assert "LAST RUN" in result.out
    assert "stored" in result.out
    assert re.search(rf"{place.repository}: \d+ objects, ", result.out)
    document: Any = place.run("status", "--json").document
    assert (document["daemon"], document["accounts"][0]["live"]) == (None, None)


def test_nobody_is_told_of_a_daemon_who_has_cron(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice})
    change(place, lambda document: document.pop("schedule"))
    place.done("backup")
    assert place.done("status").err == ""


def test_trigger_without_a_daemon_says_what_to_do(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice})
    place.failed(1, "trigger", saying=[str(place.state), NOT_RUNNING])


def test_a_second_daemon_is_refused_and_the_first_goes_on(running_one: Running) -> None:
    place, daemon, _ = running_one
    place.failed(11, "run", saying=["another daemon runs", str(place.state)])
    assert status(place)["daemon"]["pid"] == daemon.process.pid


def test_a_daemon_that_was_killed_is_in_nobodys_way(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice}, schedule=NEXT_YEAR)
    first = Daemon(place)
    first.says("running")
    kill(first.process)
    first.process.wait()
    place.failed(1, "trigger", saying=[NOT_RUNNING])
    with running(place) as second:
        assert status(place)["daemon"]["pid"] == second.process.pid


def test_health_is_told_while_the_repository_cannot_be_reached(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice}, schedule=NEXT_YEAR)
    closed, port = free_ports(2)
    change(
        place,
        lambda document: document.update(
            health={"listen": f"127.0.0.1:{port}"},
            repository={
                "url": "s3://bucket/mail",
                "passphrase": "correct horse battery",
                "s3": {
                    "endpoint_url": f"http://127.0.0.1:{closed}", "region": "us-east-1", "retry_for": "1s",
                    "access_key_id": "id", "secret_access_key": "key",
                },
            },
        ),
    )  # fmt: skip
    daemon = Daemon(place)
    daemon.says("the repository cannot be reached")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    assert answer.status == 503
    assert b"the repository cannot be reached" in answer.read()
    connection.close()
    result = place.run("status", "--json")
    document: Any = result.document
    assert "cannot be reached" in document["daemon"]["not_ready"]
    place.failed(1, "trigger", saying=["the daemon cannot do that now", "cannot be reached"])
    assert daemon.end() == 0


def test_what_was_wrong_of_the_repository_is_mended_by_a_reload(place: Place, alice: Account) -> None:
    configure(place, {"alice": alice}, schedule=NEXT_YEAR)
    right = place.config.read_bytes()
    (closed,) = free_ports(1)
    change(
        place,
        lambda document: document.update(
            repository={
                "url": "s3://bucket/mail",
                "passphrase": "correct horse battery",
                "s3": {
                    "endpoint_url": f"http://127.0.0.1:{closed}", "region": "us-east-1", "retry_for": "1s",
                    "access_key_id": "id", "secret_access_key": "key",
                },
            },
        ),
    )  # fmt: skip
    daemon = Daemon(place)
    daemon.says("the repository cannot be reached")
    wrong = place.config.read_bytes()
    place.config.write_bytes(wrong[:100])
    kill(daemon.process, signal.SIGHUP)
    daemon.says("was not reloaded")
    place.config.write_bytes(right)
    Control(place.state).reload()
    daemon.says("configuration reloaded")
    daemon.says("running", f"repository={place.repository}")
    assert daemon.end() == 0


def test_reload_moves_the_health_port_and_refuses_what_cannot_be(running_one: Running) -> None:
    place, daemon, _ = running_one
    (port,) = free_ports(1)
    change(place, lambda document: document.update(health={"listen": f"127.0.0.1:{port}"}))
    seen = daemon.lines
    kill(daemon.process, signal.SIGHUP)
    daemon.says("configuration reloaded", after=seen)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        change(place, lambda document: document.update(health={"listen": f"127.0.0.1:{taken.getsockname()[1]}"}))
        kill(daemon.process, signal.SIGHUP)
        daemon.says("was not reloaded", "Address already in use", after=seen)
    change(place, lambda document: document.pop("health"))


def test_reload_over_the_control_socket_says_what_is_wrong(running_one: Running) -> None:
    place = running_one.place
    control = Control(place.state)
    control.reload()
    change(place, lambda document: document.update(acounts={}))
    with pytest.raises(BackupdError, match=r"keeps its configuration: .*acounts: unknown key; did you mean accounts"):
        control.reload()
    change(place, lambda document: document.pop("acounts"))
    control.reload()
