"""Whoever is measured with POP3 must have done the work: the reader read all, and each result holds every message."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.pop3_drain import Drain, drain
from bench.pop3_mail import Expected, in_batch, in_files, mailbox, numbered
from bench.process import Failed
from bench.spool import write_spool
from tests.support.dovecot_account import Account
from tests.support.mail import nasty_mail, office_mail

MAIL = [numbered(number, raw) for number, raw in enumerate(office_mail(5))]


@pytest.fixture
def expected(tmp_path: Path) -> Expected:
    write_spool(tmp_path / "spool", [("INBOX", raw) for raw in MAIL])
    return Expected(tmp_path / "spool")


def test_the_drain_reads_every_message_and_leaves_it_there(account: Account) -> None:
    account.append_many("INBOX", [*nasty_mail().values(), *office_mail(30)])
    octets = sum(map(len, [*nasty_mail().values(), *office_mail(30)]))
    port = account.server.ports.pop3
    assert drain(account.host, port, account.username, account.password) > octets
    assert account.status("INBOX")["MESSAGES"] == len(nasty_mail()) + 30


def test_the_drain_notices_that_messages_did_not_come(account: Account) -> None:
    account.append_many("INBOX", office_mail(3))
    connection = Drain(account.host, account.server.ports.pop3, account.username, account.password)
    with pytest.raises(RuntimeError, match="3 messages of 4 came"):
        connection.messages(4)


def test_the_drain_notices_a_refused_login(account: Account) -> None:
    with pytest.raises(RuntimeError, match="-ERR"):
        Drain(account.host, account.server.ports.pop3, account.username, "wrong")


def test_other_line_ends_are_no_alteration(expected: Expected) -> None:
    assert expected.altered("who", [raw.replace(b"\r\n", b"\n") for raw in reversed(MAIL)]) == 0


def test_altered_messages_are_counted(expected: Expected) -> None:
    assert expected.altered("who", [MAIL[0] + b"more", b"X-Own: field\r\n" + MAIL[1], *MAIL[2:]]) == 2


def test_a_missing_message_ends_the_run(expected: Expected) -> None:
    with pytest.raises(Failed, match="4 messages of 5"):
        expected.altered("who", MAIL[1:])


def test_a_message_that_came_twice_ends_the_run(expected: Expected) -> None:
    with pytest.raises(Failed, match="message 2 is there once too often"):
        expected.altered("who", [*MAIL, MAIL[2]])


def test_a_message_that_arrived_later_is_expected_too(expected: Expected) -> None:
    new = numbered(5, b"Subject: new\r\n\r\nnew\r\n")
    expected.add(new)
    assert expected.altered("who", [*MAIL, new]) == 0
    with pytest.raises(Failed, match="5 messages of 6"):
        expected.altered("who", MAIL)


def test_messages_come_out_of_a_file_of_smtp_commands_as_they_were(tmp_path: Path, expected: Expected) -> None:
    raw = numbered(5, nasty_mail()["dots"])
    expected.add(raw)
    stuffed = [each.replace(b"\r\n.", b"\r\n..") for each in (*MAIL, raw)]
    commands = b"".join(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n%s.\r\n" % each for each in stuffed)
    (tmp_path / "batch").write_bytes(commands + b"QUIT\r\n")
    assert expected.altered("who", in_batch(tmp_path / "batch")) == 0


def test_a_message_without_a_header_gets_its_number_too(tmp_path: Path) -> None:
    (tmp_path / "1.eml").write_bytes(numbered(7, b"no line is empty here"))
    write_spool(tmp_path / "spool", [("INBOX", numbered(7, b"no line is empty here"))])
    assert Expected(tmp_path / "spool").altered("who", in_files(tmp_path)) == 0


def test_the_mailbox_has_as_many_messages_as_were_asked_for_and_all_are_different(tmp_path: Path) -> None:
    made = [raw for _, raw in mailbox(tmp_path, 700)]
    assert len(set(made)) == 700
    assert max(map(len, made)) > 10_000
