"""Watched servers that are hostile, crowded or gone: nobody else is kept waiting, and each is tried again in time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.daemon import watch_pauses
from backupd.daemon.watchtower import RENEWAL_SECONDS, Watchtower
from backupd.errors import (
    BackupdError,
    CertificateRefused,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    LoginRefused,
    ProtocolError,
    ServerRefused,
    Throttled,
)
from backupd.sources.imap.watching import EVENTS
from backupd.wire.imap_connection import ImapSettings
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Cut, ScriptedImap
from tests.support.tls import Authority
from tests.support.told import Told

IDLE = CAPABILITIES + b" IDLE"
NOTIFY = IDLE + b" NOTIFY"


class Clock:
    """Seconds, which a test lets go by. The tower looks at it when it is woken."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> float:
        return self.seconds


class Watched:
    """A tower with a clock of its own, and who hears of it."""

    def __init__(self, **more: object) -> None:
        self.told, self.clock = Told(), Clock()
        self.tower = Watchtower(
            self.told.changed, self.told.state, clock=self.clock.now, chance=lambda: 0.5, **more  # type: ignore[arg-type]
        )

    def add(self, server: ScriptedImap, name: str = "it", *mailboxes: str, **more: object) -> None:
        values = {"password": PASSWORD, "port": server.port, "tls": "none", "timeout": 5.0, **more}
        self.tower.add(name, ImapSettings(server.host, USER, **values), mailboxes)  # type: ignore[arg-type]

    def later(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.tower.wake()


@pytest.fixture
def watched() -> Iterator[Watched]:
    running = Watched()
    yield running
    running.tower.close()


Server = Callable[..., ScriptedImap]


@pytest.fixture
def serve() -> Iterator[Server]:
    running: list[ScriptedImap] = []

    def start(capabilities: bytes = IDLE, **more: object) -> ScriptedImap:
        running.append(ScriptedImap(capabilities=capabilities, **more))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for one in running:
        one.close()


# -- what is said ------------------------------------------------------------------------------------------------------


def test_nothing_but_reading_is_ever_asked_for(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.is_in("idle", "it")
    verbs = [command.split()[0] for command in server.commands]
    assert verbs == [b"CAPABILITY", b"AUTHENTICATE", b"ID", b"EXAMINE", b"IDLE"]


def test_a_sign_of_life_is_no_change(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.until(lambda: watched.told.changes["it"] == 1)  # the beginning
    server.say(b"* OK Still here\r\n")
    assert watched.told.quiet(0.2)
    server.say(b"* 3 EXI")
    assert watched.told.quiet(0.1)
    server.say(b"STS\r\n")
    watched.told.until(lambda: watched.told.changes["it"] == 2)


def test_events_that_the_server_does_not_know_are_left_out(watched: Watched, serve: Server) -> None:
    server = serve(NOTIFY)
    server.on(rb"NOTIFY SET .*SubscriptionChange", b"%TAG% NO [BADEVENT SubscriptionChange] no\r\n")
    server.on(rb"NOTIFY SET .*MailboxName", b"%TAG% NO [BADEVENT MailboxName] no\r\n")
    watched.add(server)
    watched.told.is_in("notify", "it")
    assert server.received(rb"NOTIFY")[-1] == b"NOTIFY SET (personal (%s))" % EVENTS[2]
    assert not server.received(rb"IDLE|EXAMINE")


def test_notify_that_is_refused_leaves_idle(watched: Watched, serve: Server) -> None:
    server = serve(NOTIFY)
    server.on(rb"NOTIFY", b"%TAG% BAD what?\r\n")
    watched.add(server)
    watched.told.is_in("idle", "it")
    assert len(server.received(rb"NOTIFY")) == 1


def test_idle_that_is_refused_leaves_polling(watched: Watched, serve: Server) -> None:
    server = serve()
    server.on(rb"IDLE", b"%TAG% NO not here\r\n", times=1)
    watched.add(server)
    watched.told.is_in("polling", "it")
    watched.later(watch_pauses.UNABLE_SECONDS)  # the server may have learnt it
    watched.told.is_in("idle", "it")


@pytest.mark.parametrize("capabilities", [IDLE, NOTIFY])
def test_a_sign_of_life_is_asked_for_before_half_an_hour_is_over(
    watched: Watched, serve: Server, capabilities: bytes
) -> None:
    server = serve(capabilities)
    watched.add(server)
    watched.told.until(lambda: watched.told.changes["it"] == 1)
    begun = len(server.commands)
    for _ in range(3):
        watched.later(RENEWAL_SECONDS[1])
        expected = begun + (2 if capabilities == IDLE else 1)
        watched.told.until_true(lambda wanted=expected: len(server.commands) >= wanted)  # type: ignore[misc]
        begun = len(server.commands)
        server.say(b"* 9 EXISTS\r\n")
        watched.told.until(lambda: watched.told.changes["it"] > 1)
        watched.told.changes["it"] = 1
    assert set(server.commands[-2:]) == ({b"DONE", b"IDLE"} if capabilities == IDLE else {b"NOOP"})
    assert RENEWAL_SECONDS[1] < 29 * 60
    assert watched.told.states["it"][1] is None


@pytest.mark.parametrize("capabilities", [IDLE, NOTIFY])
def test_a_server_that_gives_no_sign_of_life_is_left(watched: Watched, serve: Server, capabilities: bytes) -> None:
    server = serve(capabilities)
    server.on(rb"DONE|NOOP", b"")
    watched.add(server)
    watched.told.until(lambda: watched.told.changes["it"] == 1)
    watched.later(RENEWAL_SECONDS[1])
    watched.told.until_true(lambda: bool(server.received(rb"DONE|NOOP")))
    watched.later(31)
    watched.told.is_in("lost", "it")
    assert "no sign of life" in str(watched.told.states["it"][1])
    watched.later(10)
    watched.told.is_in("notify" if capabilities == NOTIFY else "idle", "it")


# -- servers that mean harm --------------------------------------------------------------------------------------------

HARM = {
    "a line without end": b"x" * (2 << 20),
    "a literal without measure": b"* STATUS {4000000000}\r\n",
    "goodbye": b"* BYE it was nice\r\n",
    "an answer to nothing": b"b99 OK done\r\n",
    "an overflow": b"* OK [NOTIFICATIONOVERFLOW] too much\r\n",
    "changes without end": b"* 1 EXISTS\r\n" * 200_000,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
def test_whoever_means_harm_is_left_and_the_others_are_watched(
    watched: Watched, serve: Server, harm: bytes
) -> None:
    good, bad = serve(), serve()
    watched.add(good, "good")
    watched.add(bad, "bad")
    watched.told.until(lambda: watched.told.changes["good"] == watched.told.changes["bad"] == 1)
    sending = threading.Thread(target=_said, args=(bad, harm), daemon=True)
    sending.start()
    watched.told.is_in("lost", "bad")
    good.say(b"* 4 EXISTS\r\n")
    watched.told.until(lambda: watched.told.changes["good"] == 2)


def _said(server: ScriptedImap, octets: bytes) -> None:
    try:
        server.say(octets)
    except OSError:
        return


@pytest.mark.parametrize("half", [b"* STATUS {900}\r\nhalf a name", b"* 3 EX", b"* LIST ("])
def test_whoever_stops_in_the_middle_of_an_answer_holds_nobody_up(
    watched: Watched, serve: Server, half: bytes
) -> None:
    good, bad = serve(), serve()
    watched.add(good, "good")
    watched.add(bad, "bad")
    watched.told.until(lambda: watched.told.changes["good"] == watched.told.changes["bad"] == 1)
    bad.say(half)
    good.say(b"* 4 EXISTS\r\n")
    watched.told.until(lambda: watched.told.changes["good"] == 2)
    watched.later(RENEWAL_SECONDS[1])
    watched.told.until_true(lambda: bool(bad.received(rb"DONE")))
    watched.later(31)  # the end of DONE is, to us, the middle of a name
    watched.told.is_in("lost", "bad")


def test_half_a_tls_record_holds_nobody_up(
    watched: Watched, serve: Server, authority: Authority, tmp_path: Path
) -> None:
    authority.write(tmp_path)
    good, bad = serve(certificate=tmp_path), serve(certificate=tmp_path)
    trusted = {"tls": "implicit", "ca_file": tmp_path / "ca.pem"}
    watched.add(good, "good", **trusted)
    watched.add(bad, "bad", **trusted)
    watched.told.until(lambda: watched.told.changes["good"] == watched.told.changes["bad"] == 1)
    bad.beneath().sendall(b"\x17\x03\x03\x01\x00" + b"\0" * 100)  # application data: 256 octets, of which 100
    assert watched.told.quiet(0.2)
    good.say(b"* 4 EXISTS\r\n" * 3000)  # in several records
    watched.told.until(lambda: watched.told.changes["good"] > 1)
    bad.beneath().sendall(b"\0" * 156)  # and it is no record at all
    watched.told.is_in("lost", "bad")


def test_octets_that_drip_are_put_together(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.until(lambda: watched.told.changes["it"] == 1)
    for octet in b"* STATUS {5}\r\nINBOX (MESSAGES 4)\r\n* OK x\r\n":
        server.say(bytes([octet]))
    watched.told.until(lambda: watched.told.changes["it"] == 2)


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_connection_that_broke_is_made_again_and_counts_as_a_change(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.until(lambda: watched.told.changes["it"] == 1)
    server.hang_up()
    watched.told.is_in("lost", "it")
    assert isinstance(watched.told.states["it"][1], ConnectionLost)
    watched.later(2)
    watched.told.is_in("idle", "it")
    watched.told.until(lambda: watched.told.changes["it"] == 2)


def test_pauses_grow_while_nothing_lasts_and_begin_anew_when_something_has(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.is_in("idle", "it")
    for pause in (2, 4, 8):
        watched.told.until_true(lambda: len(server.received(rb"IDLE")) == server.connections)
        server.hang_up()
        watched.told.is_in("lost", "it")
        watched.later(pause - 1.5)
        assert watched.told.quiet(0.1)
        watched.later(1.5)
        watched.told.is_in("idle", "it")
    watched.later(watch_pauses.STABLE_SECONDS)
    watched.told.until_true(lambda: len(server.received(rb"IDLE")) == server.connections)
    server.hang_up()
    watched.told.is_in("lost", "it")
    watched.later(2)
    watched.told.is_in("idle", "it")


def test_a_wrong_password_is_not_tried_over_and_over(watched: Watched, serve: Server) -> None:
    server = serve()
    server.on(rb"AUTHENTICATE", b"%TAG% NO [AUTHENTICATIONFAILED] wrong\r\n", times=1)
    watched.add(server)
    watched.told.is_in("lost", "it")
    assert isinstance(watched.told.states["it"][1], LoginRefused)
    watched.later(600)
    assert watched.told.quiet(0.1)
    assert server.connections == 1
    watched.add(server, timeout=6.0)  # the configuration was mended
    watched.told.is_in("idle", "it")


def test_a_password_is_fetched_at_each_login_and_never_told(watched: Watched, serve: Server) -> None:
    passwords = iter(["first-secret", PASSWORD])

    def password() -> str:
        return next(passwords)

    server = serve()
    server.on(rb"AUTHENTICATE", b"%TAG% NO no first-secret\r\n", times=1)
    watched.add(server, password=password)
    watched.told.is_in("lost", "it")
    assert "first-secret" not in str(watched.told.states["it"][1])
    watched.later(7 * 3600)
    watched.told.is_in("idle", "it")


def test_a_secret_that_cannot_be_had_is_told_as_the_error_it_is(watched: Watched, serve: Server) -> None:
    def password() -> str:
        raise ConfigError("the command failed", subject="accounts.it.imap.password")

    watched.add(serve(), password=password)
    watched.told.is_in("lost", "it")
    assert "the command failed" in str(watched.told.states["it"][1])


def test_a_pause_that_the_server_wants_is_kept(watched: Watched, serve: Server) -> None:
    server = serve()
    wish = b"%TAG% NO Request is throttled. Suggested Backoff Time: 4000000 milliseconds\r\n"
    server.on(rb"EXAMINE", wish, times=1)
    watched.add(server)
    watched.told.is_in("lost", "it")
    watched.later(3990)
    assert watched.told.quiet(0.1)
    watched.later(20)
    watched.told.is_in("idle", "it")


def test_a_server_that_says_goodbye_at_the_door_is_tried_again(watched: Watched, serve: Server) -> None:
    server = serve(greeting=b"* BYE too many connections\r\n")
    watched.add(server)
    watched.told.is_in("lost", "it")
    assert "too many connections" in str(watched.told.states["it"][1])
    server.greeting = b"* OK ready\r\n"
    watched.later(2)
    watched.told.is_in("idle", "it")


# -- many --------------------------------------------------------------------------------------------------------------


def test_three_hundred_connections_take_one_thread(watched: Watched, serve: Server) -> None:
    server = serve(NOTIFY)
    names = [f"account{number}" for number in range(300)]
    for name in names:
        watched.add(server, name)
    watched.told.is_in("notify", *names)
    watched.told.until(lambda: all(watched.told.changes[name] == 1 for name in names))
    ours = {thread.name for thread in threading.enumerate() if thread.name.startswith("connect-")}
    assert len(ours) <= 16
    assert sum(thread.name == "watchtower" for thread in threading.enumerate()) == 1
    for connection in (5, 150, 299):
        server.say(b"* STATUS INBOX (MESSAGES 1)\r\n", connection)
    watched.told.until(lambda: sum(watched.told.changes.values()) == 303)
    assert sorted(watched.told.changes.values())[-4:] == [1, 2, 2, 2]


def test_a_host_that_never_answers_keeps_nobody_else_from_being_reached(watched: Watched, serve: Server) -> None:
    silent, good = serve(greeting=b""), serve()
    for number in range(40):
        watched.add(silent, f"silent{number}", timeout=20.0)
    # By another name, for places are counted by the host's name.
    watched.tower.add("good", ImapSettings("localhost", USER, PASSWORD, port=good.port, tls="none", timeout=5.0))
    watched.told.is_in("idle", "good")
    assert {state for name, (state, _) in watched.told.states.items() if name != "good"} == {"connecting"}


class Gate:
    """Room for so many, by host."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def acquire(self, host: str) -> bool:
        assert host == "127.0.0.1"
        if self.taken >= self.most:
            return False
        self.taken += 1
        return True

    def release(self, host: str) -> None:
        self.taken -= 1


def test_no_more_connections_are_made_than_a_host_has_room_for(serve: Server) -> None:
    gate, server = Gate(2), serve()
    watched = Watched(gate=gate)
    for name in ("one", "two", "three"):
        watched.add(server, name)
    watched.told.is_in("idle", "one", "two")
    watched.told.is_in("polling", "three")
    assert "no more connections" in str(watched.told.states["three"][1])
    watched.tower.remove("one")
    watched.later(31)
    watched.told.is_in("idle", "three")
    assert gate.taken == 2
    server.hang_up(-1)
    watched.told.is_in("lost", "three")
    watched.tower.close()
    assert gate.taken == 0


def test_whoever_is_removed_while_being_reached_is_let_go(serve: Server) -> None:
    gate, server = Gate(9), serve()
    reached, go_on = threading.Event(), threading.Event()

    def wait(command: bytes) -> bytes | Cut:
        reached.set()
        go_on.wait(10)
        return b"%TAG% OK [CAPABILITY " + IDLE + b"] in\r\n"

    server.on(rb"AUTHENTICATE", wait)
    watched = Watched(gate=gate)
    watched.add(server)
    assert reached.wait(10)
    watched.tower.remove("it")
    go_on.set()
    watched.told.until_true(lambda: gate.taken == 0)
    assert watched.told.states["it"] == ("connecting", None)
    assert not watched.told.changes
    watched.tower.close()


def test_goodbye_is_said_to_all(watched: Watched, serve: Server) -> None:
    server = serve()
    watched.add(server)
    watched.told.is_in("idle", "it")
    watched.tower.close()
    watched.tower.close()
    watched.told.until_true(lambda: bool(server.received(rb"LOGOUT")))
    assert server.commands[-2:] == [b"DONE", b"LOGOUT"]


def test_whoever_is_told_may_fail_and_the_watch_goes_on(serve: Server, caplog: pytest.LogCaptureFixture) -> None:
    told, server = Told(), serve()

    def changed(account: str) -> None:
        told.changed(account)
        raise RuntimeError("a bug")

    tower = Watchtower(changed, told.state)
    tower.add("it", ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none"))
    told.until(lambda: told.changes["it"] == 1)
    server.say(b"* 2 EXISTS\r\n")
    told.until(lambda: told.changes["it"] == 2)
    tower.close()
    assert "a bug" in caplog.text


# -- pauses ------------------------------------------------------------------------------------------------------------

ERRORS = [
    ConnectionFailed("x"), ConnectionLost("x"), LoginRefused("x"), CertificateRefused("x"), ServerRefused("x"),
    ProtocolError("x"), ConfigError("x"), Throttled("x", pause=700), Throttled("x", pause=10**6),
]  # fmt: skip


@given(st.sampled_from(ERRORS), st.integers(1, 10_000), st.floats(0, 1))
def test_pauses_are_bounded_and_never_shorter_than_asked_for(error: BackupdError, failures: int, chance: float) -> None:
    pause = watch_pauses.pause(error, failures, chance)
    asked = getattr(error, "pause", None) or 0
    assert pause >= max(1.0, asked)
    assert pause <= max(asked, 6 * 3600 * (1 + watch_pauses.JITTER))
    assert watch_pauses.pause(error, failures + 1, chance) >= pause


def test_what_lasts_is_tried_far_more_seldom_than_what_passes() -> None:
    passing = watch_pauses.pause(ConnectionLost("x"), 1, 0.5)
    for lasting in (LoginRefused("x"), CertificateRefused("x"), ServerRefused("x"), ConfigError("x")):
        assert watch_pauses.pause(lasting, 1, 0.5) > 100 * passing
