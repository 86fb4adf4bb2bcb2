"""`backupd run` as a process: it backs up by itself, follows its configuration, and ends in order."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backupd.operations.state_files import daemon_lock
from tests.conftest import StartDovecot
from tests.support.command import SECONDS, Place, imap, kill, mail_of
from tests.support.daemon import Daemon, configure, running, until
from tests.support.dovecot import Dovecot
from tests.support.mail import message, noise


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.create()
    return found


def test_mail_that_arrives_is_backed_up_by_itself(place: Place, dovecot: Dovecot) -> None:
    alice, bob = dovecot.account(), dovecot.account()
    alice.append("INBOX", message("first"))
    configure(place, {"alice": alice, "bob": bob})
    with running(place) as daemon:
        daemon.says("backed up", "alice", "new=1")
        seen = daemon.says("backed up", "bob")
        bob.append("INBOX", message("second"))
        daemon.says("backed up", "bob", "new=1", after=seen)
        # Other commands work meanwhile.
        assert place.run("snapshots").code == 0
    last = daemon.log.splitlines()[-1]
    assert "stopped" in last
    assert "seconds=" in last
    assert place.restored("alice@latest") == mail_of(alice)
    assert place.restored("bob@latest") == mail_of(bob)


def test_what_one_account_fails_of_touches_no_other(place: Place, dovecot: Dovecot) -> None:
    good, bad = dovecot.account(), dovecot.account()
    configure(place, {"good": good, "bad": bad})
    document = msgspec.json.decode(place.config.read_bytes())
    document["accounts"]["bad"]["imap"]["password"] = "wrong-password"
    document["accounts"]["gone"] = {"imap": imap(bad, port=1)}
    place.config.write_bytes(msgspec.json.encode(document))
    with running(place) as daemon:
        daemon.says("backup failed", "account=bad", "cause=login")
        seen = daemon.says("backup failed", "account=gone", "cause=network")
        good.append("INBOX", message("news"))
        daemon.says("backed up", "account=good", "new=1", after=seen)
        # A password that was refused is not tried again and again.
        assert sum("account=bad" in line and "failed" in line for line in daemon.log.splitlines()) == 1
        assert "wrong-password" not in daemon.log


def test_a_server_that_restarts_is_found_again(place: Place, start_dovecot: StartDovecot) -> None:
    dovecot = start_dovecot(extra="# restarted by test_service")
    alice = dovecot.account()
    configure(place, {"alice": alice})
    with running(place) as daemon:
        daemon.says("backed up", "alice")
        with dovecot.stopped():
            daemon.says("backup failed", "alice", "cause=network")
        alice.append("INBOX", message("after the restart"))
        kill(daemon.process, signal.SIGUSR1)  # rather than waiting for half a minute
        daemon.says("backed up", "alice", "new=1")


def test_a_changed_configuration_is_followed_and_a_wrong_one_refused(place: Place, dovecot: Dovecot) -> None:
    alice, bob = dovecot.account(), dovecot.account()
    configure(place, {"alice": alice})
    with running(place) as daemon:
        daemon.says("backed up", "alice")
        configure(place, {"alice": alice, "bob": bob})
        kill(daemon.process, signal.SIGHUP)
        daemon.says("configuration reloaded", "accounts=2")
        seen = daemon.says("backed up", "bob")

        place.config.write_text("accounts: [")
        kill(daemon.process, signal.SIGHUP)
        seen = daemon.says("was not reloaded", after=seen)
        configure(place, {"alice": alice}, state_dir=str(place.folder / "elsewhere"))
        kill(daemon.process, signal.SIGHUP)
        seen = daemon.says("was not reloaded", "state_dir", "restart", after=seen)
        bob.append("INBOX", message("still there"))
        seen = daemon.says("backed up", "bob", "new=1", after=seen)

        configure(place, {"alice": alice})
        kill(daemon.process, signal.SIGHUP)
        daemon.says("configuration reloaded", "bob", after=seen)


def test_a_reload_without_the_repository_changes_nothing(place: Place, dovecot: Dovecot) -> None:
    alice, bob = dovecot.account(), dovecot.account()
    configure(place, {"alice": alice})
    with running(place) as daemon:
        daemon.says("backed up", "alice")
        place.repository.rename(place.folder / "unmounted")
        alice.append("INBOX", message("meanwhile"))
        daemon.says("backup failed", "account=alice", "cause=storage")
        configure(place, {"bob": bob})
        kill(daemon.process, signal.SIGHUP)
        daemon.says("the one before stays", "no repository here")
        (place.folder / "unmounted").rename(place.repository)
        kill(daemon.process, signal.SIGUSR1)
        daemon.says("backed up", "account=alice", "new=1")
        kill(daemon.process, signal.SIGHUP)
        daemon.says("configuration reloaded", "changed=bob", "removed=alice")
        daemon.says("backed up", "account=bob")


def test_a_state_that_is_removed_ends_it_with_a_line_and_the_next_start_builds_it_anew(
    place: Place, dovecot: Dovecot
) -> None:
    alice = dovecot.account()
    alice.append("INBOX", message("first"))
    configure(place, {"alice": alice})
    daemon = Daemon(place)
    daemon.says("backed up", "alice")
    place.state.rename(place.folder / "elsewhere")
    assert daemon.process.wait(SECONDS) == 1
    daemon.end()
    assert "the state was removed, or replaced" in daemon.log
    alice.append("INBOX", message("second"))
    with running(place) as again:
        again.says("backed up", "alice", "new=1")
    assert place.restored("alice@latest") == mail_of(alice)


def test_a_state_that_is_damaged_is_begun_anew_by_whoever_opens_it_next(place: Place, dovecot: Dovecot) -> None:
    alice = dovecot.account()
    alice.append("INBOX", message("first"))
    configure(place, {"alice": alice})
    place.done("backup", "alice")
    database = place.state / "state.sqlite"

    database.write_bytes(b"damaged " * 4096)
    result = place.run("ls", "alice@latest")
    assert result.code == 0, result
    assert f"begun anew, and the damaged one is {database}.damaged" in result.err

    content = bytearray(database.read_bytes())
    content[8192:12288] = bytes(range(256)) * 16  # not what is read when it is opened
    database.write_bytes(content)
    alice.append("INBOX", message("second"))
    with running(place) as daemon:
        daemon.says("the state was damaged, and is begun anew")
        daemon.says("backed up", "alice", "new=1")
    # What a daemon has open nobody else moves away.
    with daemon_lock(place.state):
        database.write_bytes(b"damaged " * 4096)
        place.failed(1, "backup", saying=["the state is damaged", "restart the daemon"])


def test_told_to_end_it_writes_a_checkpoint_and_goes_on_from_there(place: Place, dovecot: Dovecot) -> None:
    alice = dovecot.account()
    alice.deliver("INBOX", [message(f"Message {number}", noise(number, 30_000).hex()) for number in range(1500)])
    configure(place, {"alice": alice})
    daemon = Daemon(place)
    daemon.says("running")
    until(lambda: bool(place.names("packs/")) or daemon.process.poll() is not None)
    began = time.monotonic()
    assert daemon.end() == 0
    assert time.monotonic() - began < 20
    assert [each["complete"] for each in place.snapshots()] == [False], "it was quicker than the signal"
    with running(place) as again:
        again.says("backed up", "alice")
    assert place.restored("alice@latest") == mail_of(alice)


def test_a_server_that_says_nothing_does_not_keep_it_from_ending(place: Place, dovecot: Dovecot) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        configure(place, {"alice": dovecot.account()})
        document = msgspec.json.decode(place.config.read_bytes())
        document["accounts"]["mute"] = {
            "imap": {"host": "127.0.0.1", "port": silent.getsockname()[1], "tls": "none", "username": "a",
                     "password": "some-password", "timeout": 600.0},
        }  # fmt: skip
        place.config.write_bytes(msgspec.json.encode(document))
        with running(place) as daemon:
            daemon.says("backed up", "alice")
            connection, _ = silent.accept()
            with connection:
                began = time.monotonic()
                assert daemon.end() in (0, 1)
                assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("break_it", "code", "words"),
    [
        (lambda place: place.config.write_text("a: b"), 2, "config.yaml:1: "),
        (lambda place: (place.repository / "repository.json").unlink(), 10, "repository"),
        (lambda place: (place.folder / "passphrase").write_text("another one"), 12, "passphrase"),
    ],
)
def test_where_it_cannot_begin_it_says_so_and_ends(
    place: Place, dovecot: Dovecot, break_it: Callable[[Place], object], code: int, words: str
) -> None:
    configure(place, {"alice": dovecot.account()})
    break_it(place)
    place.failed(code, "run", saying=[words])
