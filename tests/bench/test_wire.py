"""The two programs that stand for the raw wire read and write every message, or their figures would flatter us."""

from __future__ import annotations

from pathlib import Path

from bench.append import append
from bench.drain import drain
from bench.mailboxes import total
from bench.spool import write_spool
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import nasty_mail, office_mail


def test_the_drain_reads_every_message_of_every_mailbox(account: Account) -> None:
    mail = office_mail(40)
    account.create("empty", "of/many", 'with "quotes" and \\')
    for mailbox, part in (("INBOX", mail[:10]), ("of/many", mail[10:30]), ('with "quotes" and \\', mail[30:])):
        account.append_many(mailbox, part)
    octets = sum(map(len, mail))
    assert octets < drain(account.host, account.port, account.username, account.password) < octets + 20_000


def test_the_drain_is_not_deceived_by_mail_that_looks_like_an_answer(account: Account) -> None:
    account.append_many("INBOX", nasty_mail().values())
    octets = sum(map(len, nasty_mail().values()))
    assert drain(account.host, account.port, account.username, account.password) > octets


def test_the_append_writes_every_message_of_every_mailbox(dovecot: Dovecot, tmp_path: Path) -> None:
    mail = office_mail(12)
    write_spool(tmp_path / "spool", [(("INBOX", "a/b", "Ä")[number % 3], raw) for number, raw in enumerate(mail)])
    account = dovecot.account()
    append(account.host, account.port, account.username, account.password, tmp_path / "spool")
    assert total(account) == 12
    assert [one.raw for one in account.messages("a/b")] == mail[1::3]
