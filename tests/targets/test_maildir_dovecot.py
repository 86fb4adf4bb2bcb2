"""Dovecot, mounted on a Maildir that was restored, serves every message as it was."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from backupd.mail import dates
from backupd.targets.maildir import MaildirTarget
from tests.support.corpus import crlf, spread
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.imap_wire import Delivery, Stored
from tests.support.mail import message, nasty_mail
from tests.support.restoring import fingerprint, mailbox, outgoing

INBOX = mailbox(b"INBOX", subscribed=True)


@pytest.fixture
def served(dovecot: Dovecot) -> Account:
    """An account whose mail is the Maildir below its home."""
    return dovecot.account("maildir-fs")


def restored(account: Account) -> Path:
    return account.home / "Maildir"


def give(account: Account) -> None:
    """To the user Dovecot works as."""
    account.server.own(restored(account), *restored(account).rglob("*"))


def facts(messages: list[Stored]) -> list[tuple[bytes, tuple[bytes, ...], float | None]]:
    return [(each.raw, each.flags, dates.timestamp(each.internaldate)) for each in messages]


def test_bytes_flags_keywords_dates_and_order_are_the_same(served: Account) -> None:
    raws = [crlf(raw) for raw in nasty_mail().values()] + [crlf(each.raw) for each in spread("nasty", 200) if each.raw]
    flags = [
        (),
        (b"\\Seen",),
        (b"$Forwarded", b"\\Answered", b"\\Seen"),
        (b"NonJunk", b"\\Flagged"),
        (b"\\Draft", b"work"),
    ]
    zones = (b"-0700", b"+0000", b"+0530")
    sent = [
        outgoing(
            raw,
            uid,
            flags[uid % 5],
            b"%2d-Nov-%d 10:%02d:00 %s" % (uid % 28 + 1, 1990 + uid % 30, uid % 60, zones[uid % 3]),
        )
        for uid, raw in enumerate(raws, 1)
    ]
    target = MaildirTarget(restored(served), fingerprint)
    target.prepare(INBOX)
    assert {each.result for each in target.write(INBOX, sent)} == {"written"}
    target.close()
    give(served)
    expected = [(each.body, each.flags, dates.timestamp(each.internaldate)) for each in sent]
    assert facts(served.messages("INBOX")) == expected


def test_a_source_restored_to_a_maildir_is_the_same_mailbox(served: Account, account: Account) -> None:
    account.create("Archive/2024", "john.doe", "Größe & mehr", "50 %", 'what? *now*: "yes"')
    account.subscribe("Archive/2024", "Größe & mehr")
    names = [b"INBOX", *(name for name in account.mailboxes() if name != b"INBOX")]
    target = MaildirTarget(restored(served), fingerprint)
    for number, name in enumerate(names):
        account.append_many(name, [Delivery(message(f"{number} {n}"), (b"kw%d" % n,)) for n in range(3)])
        box = mailbox(name, subscribed=name in account.subscriptions())
        target.prepare(box)
        found = account.messages(name)
        outcomes = list(target.write(box, [outgoing(m.raw, m.uid, m.flags, m.internaldate) for m in found]))
        assert [each.result for each in outcomes] == ["written"] * 3
    target.close()
    give(served)
    assert served.mailboxes() == account.mailboxes()
    assert served.subscriptions() == account.subscriptions()
    for name in names:
        assert facts(served.messages(name)) == facts(account.messages(name)), name


def test_a_name_no_folder_can_have_is_served_under_another(served: Account) -> None:
    names = [
        b"..",
        b"../x",
        b".hidden",
        b"cur",
        b"INBOX/new",
        b"~x",
        b"dovecot-x",
        b"\xff",
        b"x" * 300,
        b"tab\there",
        b"a//b",
        b"a\\b",
    ]
    target = MaildirTarget(restored(served), fingerprint)
    for name in names:
        target.prepare(mailbox(name))
        assert [each.result for each in target.write(mailbox(name), [outgoing(message(repr(name)))])] == ["written"]
    target.close()
    give(served)
    found = [served.messages(name) for name in served.mailboxes()]
    assert Counter(each.raw for some in found for each in some) == Counter(message(repr(name)) for name in names)


def test_dovecot_and_a_second_restore_agree(served: Account) -> None:
    first = [outgoing(message("one"), 1, (b"\\Seen", b"kept")), outgoing(message("two"), 2, (b"other",))]
    target = MaildirTarget(restored(served), fingerprint)
    target.prepare(INBOX)
    list(target.write(INBOX, first))
    target.close()
    give(served)
    served.store("INBOX", 1, [b"\\Flagged", b"new-one"])
    served.append("INBOX", message("three"), [b"\\Seen"])
    target = MaildirTarget(restored(served), fingerprint)
    assert target.present(INBOX).total() == 3
    target.prepare(INBOX)
    assert [each.result for each in target.write(INBOX, [outgoing(message("four"), 4, (b"new-one", b"fourth"))])] == [
        "written"
    ]
    target.close()
    give(served)
    assert [(each.raw, each.flags) for each in served.messages("INBOX")] == [
        (message("one"), (b"\\Flagged", b"\\Seen", b"kept", b"new-one")),
        (message("two"), (b"other",)),
        (message("three"), (b"\\Seen",)),
        (message("four"), (b"fourth", b"new-one")),
    ]


def test_more_keywords_than_letters_are_reported(served: Account) -> None:
    sent = [outgoing(message(f"m{n}"), n + 1, (b"kw%02d" % n,)) for n in range(30)]
    target = MaildirTarget(restored(served), fingerprint)
    target.prepare(INBOX)
    outcomes = list(target.write(INBOX, sent))
    target.close()
    give(served)
    assert [each.result for each in outcomes] == ["written"] * 26 + ["altered"] * 4
    assert "kw29" in outcomes[-1].what
    kept = [each.flags for each in served.messages("INBOX")]
    assert kept == [each.flags for each in sent[:26]] + [()] * 4


def test_an_absurd_date_is_reported(tmp_path: Path) -> None:
    target = MaildirTarget(tmp_path, fingerprint)
    target.prepare(INBOX)
    (outcome,) = target.write(INBOX, [outgoing(message("old"), date=b"30-Dec-1899 00:00:00 +0000")])
    target.close()
    assert outcome.result == "altered"
    assert "30-Dec-1899" in outcome.what
