"""Maildirs that a real Dovecot wrote are read as Dovecot serves them."""

from __future__ import annotations

from collections import Counter

import pytest

from backupd.mail import dates
from backupd.sources.local import maildir as reader
from tests.support.corpus import crlf
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.imap_wire import Delivery
from tests.support.local_mail import octets, read
from tests.support.mail import message, nasty_mail

# Dovecot files lines with LF, so CR CR LF becomes CR LF: such a file is taken as it lies (see the last test).
NASTY = [crlf(raw) for raw in nasty_mail().values() if b"\r\r\n" not in crlf(raw)]

Fact = tuple[bytes, tuple[bytes, ...], float | None]


def served(account: Account, name: str) -> list[Fact]:
    return [(each.raw, each.flags, dates.timestamp(each.internaldate)) for each in account.messages(name)]


def found(account: Account) -> dict[str, list[Fact]]:
    """What we read from the account's Maildir."""
    messages, problems = read(reader.FORMAT.open(account.home / "Maildir", exact=False))
    assert problems == []
    by_name: dict[str, list[Fact]] = {}
    for each in messages:
        assert each.stored is not None
        by_name.setdefault(each.mailboxes[0].name, []).append(
            (octets(each.body), each.flags, float(int(each.stored.timestamp())))
        )
    return by_name


@pytest.mark.parametrize("format_", ["maildir", "maildir-fs"])
def test_messages_flags_keywords_dates_and_subscriptions(dovecot: Dovecot, format_: str) -> None:
    account = dovecot.account(format_)
    names = ["INBOX", "Sent", "Work/2009", "Größe & mehr"]
    account.create(*names[1:])
    account.subscribe(names[1], names[2])
    flags = [(), (b"\\Seen",), (b"\\Answered", b"\\Deleted", b"\\Draft", b"\\Flagged"), (b"$Forwarded", b"NonJunk")]
    for name in names:
        raws = [message(f"{name} {number}") for number in range(6)] + NASTY
        account.append_many(
            name,
            [
                Delivery(raw, flags[number % 4], b"%2d-Jul-1996 02:44:25 -0700" % (number % 28 + 1))
                for number, raw in enumerate(raws)
            ],
        )
    account.store("INBOX", "1:3", [b"later", b"\\Flagged"])
    account.expunge("INBOX", "4")
    expected = {name: served(account, name) for name in names}
    actual = found(account)
    for name in names:
        assert Counter(actual.pop(name)) == Counter(expected[name])
    assert actual == {}
    boxes = reader.FORMAT.open(account.home / "Maildir", exact=False).mailboxes()
    assert sorted(box.name for box in boxes if box.subscribed) == ["Sent", "Work/2009"]
    assert {box.name: box.special_use for box in boxes}["Sent"] == (b"\\Sent",)


def test_messages_come_in_the_order_of_their_uids(dovecot: Dovecot) -> None:
    account = dovecot.account("maildir")
    account.append_many("INBOX", [message(f"{number}") for number in range(30)])
    assert [raw for raw, _, _ in found(account)["INBOX"]] == [raw for raw, _, _ in served(account, "INBOX")]


@pytest.mark.parametrize("method", ["gz", "bz2", "zstd"])
def test_what_dovecot_compressed_is_read(dovecot: Dovecot, method: str) -> None:
    fields = ("userdb_mail_plugins=zlib", f"userdb_plugin/zlib_save={method}", f"userdb_zlib_save={method}")
    account = dovecot.account("maildir", fields=fields)
    account.append("INBOX", message("compressed") + b"0123456789\r\n" * 2000, [b"\\Seen"])
    (path,) = (account.home / "Maildir" / "cur").iterdir()
    assert path.stat().st_size < 5000
    assert found(account)["INBOX"] == served(account, "INBOX")


def test_a_file_with_ends_of_both_kinds_is_read_as_dovecot_serves_it(dovecot: Dovecot) -> None:
    account = dovecot.account("maildir")
    account.append("INBOX", b"Subject: cr\r\n\r\ntwo\r\r\nthree\r\n")
    (raw,) = [raw for raw, _, _ in found(account)["INBOX"]]
    assert raw == b"Subject: cr\r\n\r\ntwo\r\nthree\r\n"
    assert [raw] == [raw for raw, _, _ in served(account, "INBOX")]
