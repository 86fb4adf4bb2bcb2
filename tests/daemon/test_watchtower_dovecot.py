"""A real server tells of every change, by NOTIFY, by IDLE, or not at all; and it may be restarted at any time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from backupd.daemon.watchtower import Watchtower
from backupd.sources.imap.watching import Watch, watch
from backupd.wire.imap_connection import ImapSettings
from tests.conftest import StartDovecot
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.told import Told


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def tower(told: Told) -> Iterator[Watchtower]:
    running = Watchtower(told.changed, told.state, chance=lambda: 0.0)
    yield running
    running.close()


def settings(account: Account, *, tls: bool = False, **more: object) -> ImapSettings:
    where = {"port": account.tls_port, "ca_file": account.ca_file} if tls else {"port": account.port, "tls": "none"}
    values = {"username": account.username, "password": account.password, **where, **more}
    return ImapSettings(account.host, **values)  # type: ignore[arg-type]


def begun(tower: Watchtower, told: Told, account: Account, how: str, *mailboxes: str, tls: bool = False) -> None:
    """Watch the account as "it"; the beginning itself counts as a change for each connection."""
    tower.add("it", settings(account, tls=tls), mailboxes)
    told.is_in(how, "it")
    connections = 1 if how == "notify" else len({"INBOX", *mailboxes})
    told.until(lambda: told.changes["it"] >= connections)


def test_notify_tells_of_all_mailboxes(tower: Watchtower, told: Told, account: Account) -> None:
    account.create("Work", "Häuser")
    account.append("Work", message("one"))
    begun(tower, told, account, "notify")

    told.after("it", lambda: account.append("INBOX", message("delivered")))
    told.after("it", lambda: account.append("Häuser", message("its name is a literal")))
    told.after("it", lambda: account.store("Work", 1, [b"\\Seen"]))
    told.after("it", lambda: account.expunge("Work", 1))
    told.after("it", lambda: account.create("New"))
    told.after("it", lambda: account.append("New", message("one")))
    told.after("it", lambda: account.subscribe("New"))
    told.after("it", lambda: account.delete("New"))


@pytest.mark.parametrize("hide", [(), ("NOTIFY",)])
def test_changes_come_through_tls_as_well(
    tower: Watchtower, told: Told, start_dovecot: StartDovecot, hide: tuple[str, ...]
) -> None:
    account = start_dovecot(hide=hide).account()
    begun(tower, told, account, "idle" if hide else "notify", tls=True)
    told.after("it", lambda: account.append("INBOX", message("delivered")))


def test_idle_tells_of_the_mailboxes_that_are_watched(
    tower: Watchtower, told: Told, start_dovecot: StartDovecot
) -> None:
    account = start_dovecot(hide=("NOTIFY",)).account("maildir-prefix")
    account.create("INBOX.Work", "INBOX.Work.Äpfel", "INBOX.Other")
    begun(tower, told, account, "idle", "INBOX/Work/Äpfel")

    told.after("it", lambda: account.append("INBOX", message("delivered")))
    told.after("it", lambda: account.store("INBOX", 1, [b"\\Seen"]))
    told.after("it", lambda: account.expunge("INBOX", 1))
    told.after("it", lambda: account.append("INBOX.Work.Äpfel", message("delivered")))
    while not told.quiet(0.3):
        pass
    account.append("INBOX.Other", message("nobody watches this one"))
    assert told.quiet(1.0)


def test_a_mailbox_that_is_not_there_does_not_keep_the_others_from_being_watched(
    tower: Watchtower, told: Told, start_dovecot: StartDovecot
) -> None:
    account = start_dovecot(hide=("NOTIFY",)).account()
    tower.add("it", settings(account), ["Nowhere"])
    told.until(lambda: told.states.get("it", ("", None))[1] is not None)
    how, error = told.states["it"]
    assert how == "idle"
    assert "Nowhere: cannot be watched" in str(error)
    told.after("it", lambda: account.append("INBOX", message("delivered")))


def test_a_server_that_tells_of_nothing_is_left_to_be_polled(
    tower: Watchtower, told: Told, start_dovecot: StartDovecot
) -> None:
    account = start_dovecot(hide=("NOTIFY", "IDLE")).account()
    tower.add("it", settings(account))
    told.is_in("polling", "it")
    assert told.states["it"] == ("polling", None)
    assert told.changes["it"] == 0


def test_a_server_that_was_restarted_is_watched_again(told: Told) -> None:
    seconds = [1000.0]
    with Dovecot() as server:
        account = server.account()
        # The port is another after each start, so the way to the server is looked up anew.
        ports = [server.ports.imap]

        def connect(settings: ImapSettings, *arguments: Any, **more: Any) -> Watch | None:
            return watch(replace(settings, port=ports[-1]), *arguments, **more)

        def later() -> None:
            seconds[0] += 60
            tower.wake()

        tower = Watchtower(told.changed, told.state, connect=connect, clock=lambda: seconds[0])
        tower.add("it", settings(account))
        told.is_in("notify", "it")
        server.doveadm("kick", account.username)  # by itself it takes ten seconds to tell those who wait that it ends
        told.is_in("lost", "it")
        with server.stopped():
            later()
            told.until(lambda: "cannot connect" in str(told.states["it"][1]))
        ports.append(server.ports.imap)
        before = told.changes["it"]
        later()
        told.is_in("notify", "it")
        told.until(lambda: told.changes["it"] > before)  # for something may have come meanwhile
        told.after("it", lambda: account.append("INBOX", message("delivered")))
        tower.close()


def test_what_was_removed_is_told_of_no_more(tower: Watchtower, told: Told, account: Account) -> None:
    begun(tower, told, account, "notify")
    tower.add("it", settings(account), ("INBOX",))  # just so already
    tower.remove("it")
    tower.remove("nobody")
    while not told.quiet(0.3):
        pass
    account.append("INBOX", message("delivered"))
    assert told.quiet(1.0)
