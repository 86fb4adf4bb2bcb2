"""What the daemon answers: over TCP and a Unix socket what it tells, over the control socket also what it does."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backupd.config.health import Health
from backupd.daemon.asked import CONTROL_SOCKET
from backupd.daemon.control import Control
from backupd.daemon.report import Facts
from backupd.daemon.sockets import listen_unix
from backupd.daemon.web import Web, is_ours
from backupd.errors import BackupdError, Busy, ConfigError, NoDaemon, StorageError, UsageError
from tests.support.daemon_facts import ACCOUNTS, facts
from tests.support.ports import free_ports

Answer = tuple[int, str]


def at(place: str, *hosts: str) -> Health:
    """Health at this place, asked for by these names too."""
    return Health.model_validate({"listen": place, "hosts": hosts})


class Recorded:
    """Actions that remember what was asked for."""

    def __init__(self) -> None:
        self.triggered: list[list[str]] = []
        self.reloaded = 0
        self.why: str | None = None

    def trigger(self, names: Sequence[str]) -> list[str]:
        self.triggered.append(list(names))
        return []

    def reload(self) -> str | None:
        self.reloaded += 1
        return self.why


class Served:
    """A Web, and how it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.actions = folder, Recorded()
        self.why, self.advances = "", True
        made = facts(folder)
        self.facts: Facts = replace(made, not_ready=lambda: self.why, alive=lambda: self.advances)
        self.web = Web(self.facts, self.actions, folder)
        (self.port,) = free_ports(1)
        self.control = Control(folder)

    def over_tcp(self, method: str, path: str, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        return self._answer(connection, method, path, headers)

    def over(self, path: Path, method: str, asked: str) -> Answer:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(path))
        return self._answer(connection, method, asked, {})

    @staticmethod
    def _answer(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> Answer:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    made.web.start(at(f"127.0.0.1:{made.port}", "backup.example.com"))
    yield made
    made.web.close()
    made.facts.state.close()


def test_alive_as_long_as_work_advances(served: Served) -> None:
    assert served.over_tcp("GET", "/healthz") == (200, "ok\n")
    served.advances = False
    assert served.over_tcp("GET", "/healthz") == (503, "work does not advance\n")


def test_ready_or_why_not_in_a_line(served: Served) -> None:
    assert served.over_tcp("GET", "/readyz") == (200, "ok\n")
    served.why = "the repository cannot be reached: s3://mail:\nno route to host"
    assert served.over_tcp("GET", "/readyz") == (503, "the repository cannot be reached: s3://mail: no route to host\n")


def test_metrics_and_status(served: Served) -> None:
    status, page = served.over_tcp("GET", "/metrics")
    assert status == 200
    assert 'backupd_account_messages{account="fine"} 1000.0' in page
    status, text = served.over_tcp("GET", "/status")
    found: Any = json.loads(text)
    assert [account["account"] for account in found["accounts"]] == list(ACCOUNTS)
    assert found["level"] == "critical"


def test_status_of_some_accounts(served: Served) -> None:
    _, text = served.over_tcp("GET", "/status?account=fine&account=held&account=nobody")
    assert [account["account"] for account in json.loads(text)["accounts"]] == ["fine", "held"]


def test_head_is_answered_and_other_methods_are_not(served: Served) -> None:
    assert served.over_tcp("HEAD", "/metrics") == (200, "")
    assert served.over_tcp("POST", "/metrics") == (405, "only GET, HEAD\n")
    assert served.over_tcp("GET", "/") == (404, "no such page\n")
    assert served.over_tcp("GET", "/status/../trigger") == (404, "no such page\n")


def test_nothing_can_be_done_over_tcp(served: Served) -> None:
    for path in ("/trigger", "/reload"):
        assert served.over_tcp("POST", path) == (404, "no such page\n")
    assert (served.actions.triggered, served.actions.reloaded) == ([], 0)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:9847", "[::1]:9847", "192.0.2.7:80", "LOCALHOST", "backup.example.com:9847"]
)
def test_it_answers_to_addresses_and_to_its_own_names(served: Served, host: str) -> None:
    assert served.over_tcp("GET", "/healthz", Host=host)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9847", "", "a:b:c"])
def test_a_web_page_cannot_read_it_under_a_name_of_its_own(served: Served, host: str) -> None:
    assert served.over_tcp("GET", "/status", Host=host)[0] == 421


def test_names_are_told_from_addresses_whatever_their_spelling() -> None:
    assert is_ours("[fe80::1]", ())
    assert is_ours("Backup.Example.com.", {"backup.example.com"})
    assert not is_ours("0x7f000001", ())
    assert not is_ours("[evil.example]", ())


def test_a_unix_socket_tells_what_tcp_does_and_nothing_more(tmp_path: Path) -> None:
    made = Served(tmp_path)
    path = tmp_path / "health.sock"
    made.web.start(at(f"unix:{path}"))
    assert made.over(path, "GET", "/healthz") == (200, "ok\n")
    assert made.over(path, "POST", "/trigger") == (404, "no such page\n")
    made.web.close()
    assert not path.exists()
    made.facts.state.close()


# -- control -----------------------------------------------------------------------------------------------------------


def test_what_runs_is_backed_up_once_more_after_that(served: Served) -> None:
    found = served.control.trigger(["fine", "running"])
    assert served.actions.triggered == [["fine", "running"]]
    assert found.runs == {"fine": 5, "running": 2}


def test_no_names_are_all(served: Served) -> None:
    assert list(served.control.trigger().runs) == list(ACCOUNTS)


def test_an_unknown_account_is_said_and_nothing_is_done(served: Served) -> None:
    with pytest.raises(UsageError, match="nobody: no such account"):
        served.control.trigger(["fine", "nobody"])
    assert served.actions.triggered == []


def test_nothing_is_triggered_before_the_repository_is_open(served: Served) -> None:
    served.why = "starting"
    with pytest.raises(BackupdError, match="cannot do that now: starting"):
        served.control.trigger()


def test_a_configuration_that_is_wrong_is_said_to_whoever_reloads(served: Served) -> None:
    served.control.reload()
    served.actions.why = "/etc/backupd/config.yaml:3: acounts: unknown key"
    with pytest.raises(BackupdError, match=r"keeps its configuration: /etc/backupd/config\.yaml:3: acounts"):
        served.control.reload()
    assert served.actions.reloaded == 2


def test_the_client_has_the_report_as_it_was_made(served: Served) -> None:
    assert served.control.status() == served.facts.report()
    assert [each.account for each in served.control.status(["held"]).accounts] == ["held"]


def test_a_state_that_cannot_be_read_is_said_in_a_line(
    served: Served, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def damaged(*_: object) -> None:
        raise StorageError("the state is damaged", subject="/var/lib/backupd", remedy="remove it")

    monkeypatch.setattr(type(served.facts.state), "kept", damaged)
    for path in ("/status", "/metrics"):
        assert served.over_tcp("GET", path) == (503, "/var/lib/backupd: the state is damaged (remove it)\n")
    with pytest.raises(BackupdError, match="cannot tell: /var/lib/backupd: the state is damaged") as found:
        served.control.status()
    assert not isinstance(found.value, NoDaemon), "there is one, and no restart mends it"
    assert "Traceback" not in capfd.readouterr().err


def test_many_accounts_are_asked_for_at_once(served: Served) -> None:
    names = [f"a-name-of-some-length-{number}@example.com" for number in range(2000)]
    assert [each.account for each in served.control.status([*names, "fine"]).accounts] == ["fine"]


@pytest.mark.parametrize("body", [b"[]", b'{"account": []}', b"\xff", b'{"accounts": [1]}'])
def test_a_body_that_is_no_request_does_nothing(served: Served, body: bytes) -> None:
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(str(served.folder / CONTROL_SOCKET))
    connection.request("POST", "/trigger", body)
    assert connection.getresponse().status == 400
    connection.close()
    assert served.actions.triggered == []


def test_the_control_socket_is_for_its_owner_alone(served: Served) -> None:
    assert (served.folder / CONTROL_SOCKET).stat().st_mode & 0o777 == 0o600


def test_a_second_web_on_the_same_state_is_refused_and_the_first_goes_on(served: Served) -> None:
    second = Web(served.facts, served.actions, served.folder)
    with pytest.raises(Busy):
        second.start(Health())
    second.close()
    assert served.control.status().daemon is not None


# -- without a daemon --------------------------------------------------------------------------------------------------


def test_no_daemon_is_said_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match=r"the daemon is not running \(systemctl start backupd, or backupd run\)"):
        Control(tmp_path).status()
    listen_unix(tmp_path / CONTROL_SOCKET, 0o600).socket.close()  # what a killed one leaves
    with pytest.raises(NoDaemon, match="not running"):
        Control(tmp_path).status()


def test_one_that_hangs_is_not_waited_for_forever(tmp_path: Path) -> None:
    bound = listen_unix(tmp_path / CONTROL_SOCKET, 0o600)
    with pytest.raises(NoDaemon, match="does not answer: timed out"):
        Control(tmp_path, seconds=0.2).status()
    bound.close()


def test_what_answers_otherwise_is_no_daemon_of_ours(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(*_: object, **__: object) -> tuple[int, bytes]:
        return 200, b'{"hello": 1}'

    monkeypatch.setattr(Control, "_answer", other)
    with pytest.raises(NoDaemon, match="no daemon of this version"):
        served.control.status()


# -- another configuration ---------------------------------------------------------------------------------------------


@pytest.fixture
def asked(served: Served) -> Callable[[int], bool]:
    def answers(port: int) -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            return False
        return True

    return answers


def test_it_moves_to_where_the_configuration_says_now(served: Served, asked: Callable[[int], bool]) -> None:
    (port,) = free_ports(1)
    served.web.follow(at(f"127.0.0.1:{port}"))
    assert (asked(port), asked(served.port)) == (True, False)
    served.web.follow(Health())
    assert not asked(port)


def test_where_it_cannot_it_stays(served: Served, asked: Callable[[int], bool]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError):
        served.web.follow(at(f"127.0.0.1:{taken.getsockname()[1]}"))
    assert asked(served.port)


def test_names_change_without_a_new_socket(served: Served) -> None:
    served.web.follow(at(f"127.0.0.1:{served.port}", "other.example.com"))
    assert served.over_tcp("GET", "/healthz", Host="other.example.com")[0] == 200
    assert served.over_tcp("GET", "/healthz", Host="backup.example.com")[0] == 421
