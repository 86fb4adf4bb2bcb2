"""Restoring into a real server."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator

import msgspec
import pytest

from backupd.mail import dates
from backupd.model import Mailbox
from backupd.targets.base import Outcome, Outgoing
from backupd.targets.imap.clearing import clear
from backupd.wire.imap_settings import ImapSettings
from tests.conftest import StartDovecot
from tests.support.corpus import crlf, spread
from tests.support.dovecot_account import FORMATS, Account
from tests.support.file_targets import restore as write_missing
from tests.support.imap_targets import target_of
from tests.support.imap_wire import Delivery
from tests.support.mail import large_message, message, nasty_mail
from tests.support.restoring import Chunks, mailbox, outgoing, present

INBOX = mailbox(b"INBOX")
NASTY = list(nasty_mail().values())


def restore(account: Account, box: Mailbox, messages: list[Outgoing], *, into: str = "") -> list[Outcome]:
    target = target_of(account, into=into)
    try:
        return write_missing(target, box, messages)
    finally:
        target.close()


def raws_in(account: Account, name: str | bytes = "INBOX") -> Counter[bytes]:
    return Counter(each.raw for each in account.messages(name))


def served_by_a_server(account: Account, raws: list[bytes]) -> list[bytes]:
    """The messages as a server gave them to the archive: Dovecot changes some line ends when it stores a message."""
    account.create("source")
    account.append_many("source", [crlf(raw) for raw in raws if raw])
    given = [each.raw for each in account.messages("source")]
    return [raw for raw in given if not re.search(rb"\r\r\n|\r\Z", raw)]  # which it would change once more


def test_bytes_flags_keywords_and_dates_are_the_same(account: Account) -> None:
    raws = served_by_a_server(account, [*nasty_mail().values(), *(each.raw for each in spread("nasty", 200))])
    flags = [(), (b"\\Seen",), (b"$Forwarded", b"\\Answered"), (b"NonJunk", b"\\Flagged"), (b"\\Deleted", b"\\Draft")]
    sent = [
        outgoing(raw, uid, flags[uid % 5], b"%2d-Nov-%d 10:%02d:00 -0330" % (uid % 28 + 1, 1990 + uid % 30, uid % 60))
        for uid, raw in enumerate(raws, 1)
    ]
    assert [each.what for each in restore(account, INBOX, sent) if each.result != "written"] == []
    target = target_of(account)
    assert target.present(INBOX) == Counter(present(raw) for raw in raws)
    target.close()
    found = account.messages("INBOX")
    assert [(each.raw, each.flags) for each in found] == [(each.body, each.flags) for each in sent]
    assert [dates.parse(each.internaldate) for each in found] == [dates.parse(each.internaldate) for each in sent]


def test_twice_gives_no_duplicates(account: Account) -> None:
    sent = [outgoing(raw, uid) for uid, raw in enumerate(served_by_a_server(account, NASTY), 1)]
    restore(account, INBOX, sent)
    assert restore(account, INBOX, sent) == []
    assert raws_in(account) == Counter(each.body for each in sent)


@pytest.mark.parametrize(
    "hide",
    [("MULTIAPPEND",), ("LITERAL+",), ("MULTIAPPEND", "LITERAL+", "UIDPLUS", "BINARY", "UNSELECT"),
     ("LIST-EXTENDED", "SPECIAL-USE", "NAMESPACE", "LIST-STATUS", "ESEARCH")],
)  # fmt: skip
def test_a_server_that_can_less_gets_the_same(start_dovecot: StartDovecot, hide: tuple[str, ...]) -> None:
    account = start_dovecot(hide=hide).account()
    sent = [outgoing(raw, uid, (b"kw",)) for uid, raw in enumerate(served_by_a_server(account, NASTY), 1)]
    assert {each.result for each in restore(account, INBOX, sent)} == {"written"}
    assert [(each.raw, each.flags) for each in account.messages("INBOX")] == [(each.body, (b"kw",)) for each in sent]
    assert restore(account, INBOX, sent) == []


def test_a_large_message_is_streamed(account: Account) -> None:
    raw = large_message(20_000_000)
    sent = [
        outgoing(message("before"), 1),
        msgspec.structs.replace(outgoing(raw, 2), body=Chunks(raw, 1 << 20)),
        outgoing(message("after"), 3),
    ]
    assert [each.result for each in restore(account, INBOX, sent)] == ["written"] * 3
    assert [each.raw for each in account.messages("INBOX")] == [message("before"), raw, message("after")]


def test_mailboxes_are_made_and_subscribed_once(account: Account) -> None:
    box = mailbox(b"Projects/Gr&APwA3w-e", subscribed=True)
    for _ in range(2):
        restore(account, box, [outgoing(message("p"))])
    assert b"Projects/Gr&APwA3w-e" in account.mailboxes()
    assert account.subscriptions() == [b"Projects/Gr&APwA3w-e"]
    assert raws_in(account, b"Projects/Gr&APwA3w-e") == Counter([message("p")])


@pytest.mark.parametrize("format", FORMATS)
def test_names_of_every_shape_find_a_place_and_are_found_again(account: Account, format: str) -> None:  # noqa: A002
    account = account.server.account(format)
    names: list[tuple[bytes, bytes | None]] = [
        (b"inbox", b"/"), (b"..", b"/"), (b"../x", b"/"), (b"/abs", b"/"), (b"a//b", b"/"), (b"a/", b"/"), (b".", b"/"),
        (b"new\nline", b"/"), (b"&AAo-", b"/"), (b"\xff\xfe", b"/"), (b"Gr\xc3\xbc\xc3\x9fe", b"/"), (b"a&b", b"/"),
        (b"a&-b", b"/"), (b"john.doe", b"/"), (b"john/doe", b"."), (b"a\\b", b"\\"), (b"flat/name", None),
        (b"x" * 300, b"/"), (b"y" * 200 + b"/" + b"z" * 200, b"/"), (b"~root", b"/"), (b" ", b"/"),
        (b"two  spaces ", b"/"), (b"50%", b"/"), (b"100%25", b"/"), (b"star*", b"/"), (b'q"uote', b"/"),
        (b"NIL", b"/"), (b"INBOX/Sub", b"/"),
        (b"Archive.2024", b"."), (b"cur", b"/"), (b"(brackets)", b"/"), (b"{5}", b"/"), (b"nul\0", b"/"), (b"", b"/"),
    ]  # fmt: skip
    for expected in (["written"], []):
        target = target_of(account)
        for name in names:
            outcomes = write_missing(target, mailbox(*name), [outgoing(message(repr(name)))])
            assert [each.result for each in outcomes] == expected, name
        target.close()
    stored = Counter(raw for name in account.mailboxes() for raw in raws_in(account, name).elements())
    assert stored == Counter(message(repr(name)) for name in names)


def test_ordinary_names_come_through_every_pair_of_delimiters(account: Account) -> None:
    for format, delimiter, expected in (  # noqa: A001
        ("sdbox", b"/", b"Archive/2024"), ("sdbox", b".", b"Archive/2024"),
        ("maildir-prefix", b"/", b"INBOX.Archive.2024"), ("maildir-prefix", b".", b"INBOX.Archive.2024"),
    ):  # fmt: skip
        other = account.server.account(format)
        restore(other, mailbox(delimiter.join([b"Archive", b"2024"]), delimiter), [outgoing(message("x"))])
        assert raws_in(other, expected) == Counter([message("x")])
    courier = account.server.account("maildir-prefix")
    restore(courier, mailbox(b"INBOX.Archive", b"."), [outgoing(message("y"))])
    assert raws_in(courier, b"INBOX.Archive") == Counter([message("y")])


def test_into_puts_all_below_a_prefix(account: Account) -> None:
    restore(account, INBOX, [outgoing(message("in"))], into="Restored/Größe")
    restore(account, mailbox(b"A.B", b"."), [outgoing(message("ab"))], into="Restored/Größe")
    assert raws_in(account, "Restored/Größe/INBOX") == Counter([message("in")])
    assert raws_in(account, "Restored/Größe/A/B") == Counter([message("ab")])
    assert raws_in(account) == Counter()


def test_sent_mail_goes_to_the_mailbox_that_is_for_sent_mail_here(start_dovecot: StartDovecot) -> None:
    server = start_dovecot(
        extra="namespace inbox {\n  mailbox Gesendet {\n    special_use = \\Sent\n    auto = create\n  }\n}\n"
    )
    account = server.account()
    box = mailbox(b"Sent Items", special_use=(b"\\Sent",))
    target = target_of(account)
    assert target.name_of(box) == "Gesendet"
    target.close()
    for _ in range(2):
        restore(account, box, [outgoing(message("sent"))])
    assert raws_in(account, "Gesendet") == Counter([message("sent")])
    account.create("Sent Items")
    restore(account, box, [outgoing(message("sent"))])
    assert raws_in(account, "Sent Items") == Counter([message("sent")])


def test_over_quota_what_fits_is_written_and_the_rest_is_named(account: Account) -> None:
    small = account.server.account(fields=["userdb_quota_rule=*:storage=300K"])
    sent = [outgoing(message(f"m{n}", size=10_000), n) for n in range(1, 60)]
    outcomes = restore(small, INBOX, sent)
    assert len(outcomes) == len(sent)
    written = [each for each in outcomes if each.result == "written"]
    refused = [each for each in outcomes if each.result == "refused"]
    assert 20 < len(written) < 31
    assert raws_in(small) == Counter(each.message.body for each in written)
    assert any("OVERQUOTA" in each.what for each in refused)
    assert sum("not tried" in each.what for each in refused) > 10


def test_a_message_too_large_costs_that_message_alone(start_dovecot: StartDovecot) -> None:
    account = start_dovecot(extra="plugin {\n  quota_max_mail_size = 100k\n}\n").account()
    sent = [outgoing(message(f"m{n}", size=200_000 if n == 7 else 500), n) for n in range(1, 20)]
    outcomes = restore(account, INBOX, sent)
    assert {each.message.uid for each in outcomes if each.result == "refused"} == {7}
    assert raws_in(account) == Counter(each.body for each in sent if each.uid != 7)


def test_a_keyword_the_server_refuses_costs_that_keyword(account: Account) -> None:
    too_long = b"k" * 100
    sent = [
        outgoing(message(f"m{n}"), n, (b"\\Seen", b"good", *([too_long] if n % 5 == 0 else []))) for n in range(1, 21)
    ]
    outcomes = restore(account, INBOX, sent)
    assert {each.message.uid for each in outcomes if each.result == "altered"} == {5, 10, 15, 20}
    assert all("kkkk" in each.what for each in outcomes if each.result == "altered")
    assert {each.flags for each in account.messages("INBOX")} == {(b"\\Seen", b"good")}
    assert raws_in(account) == Counter(each.body for each in sent)


def test_flags_that_no_command_can_hold_are_left_out(account: Account) -> None:
    sent = [
        outgoing(message("m"), 1, (b"two words", b"br{ace", b"\xfc", b"\\Strange", b"\\Seen", b"fine", b"new\r\nline"))
    ]
    (outcome,) = restore(account, INBOX, sent)
    assert outcome.result == "altered"
    assert "two words" in outcome.what
    assert [each.flags for each in account.messages("INBOX")] == [(b"\\Seen", b"fine")]


def test_an_absurd_date_is_brought_near_and_reported(account: Account) -> None:
    dates = [b"", b"30-Dec-1899 00:00:00 +0000", b"00-Jan-0000 00:00:00 +0000", b"1-Jan-2020 10:00:00 +0000"]
    outcomes = restore(account, INBOX, [outgoing(message(repr(d)), n, date=d) for n, d in enumerate(dates, 1)])
    assert [each.result for each in outcomes] == ["altered"] * 3 + ["written"]
    assert "1899" in outcomes[1].what
    assert [each.internaldate for each in account.messages("INBOX")][3] == b"01-Jan-2020 10:00:00 +0000"


def test_nul_goes_as_binary_where_that_is_known_and_is_refused_elsewhere(start_dovecot: StartDovecot) -> None:
    raw = b"Subject: nul\r\n\r\na\0b\r\n"
    able = start_dovecot().account()
    assert [each.result for each in restore(able, INBOX, [outgoing(raw), outgoing(message("x"), 2)])] == ["written"] * 2
    assert raws_in(able) == Counter([crlf(raw), message("x")])
    unable = start_dovecot(hide=("BINARY",)).account()
    outcomes = restore(unable, INBOX, [outgoing(raw), outgoing(message("x"), 2)])
    assert [(each.message.uid, each.result) for each in outcomes] == [(1, "refused"), (2, "written")]
    assert "NUL" in outcomes[0].what


def test_an_empty_message_is_named_and_costs_no_other(account: Account) -> None:
    outcomes = restore(account, INBOX, [outgoing(message("a"), 1), outgoing(b"", 2), outgoing(message("b"), 3)])
    assert {each.message.uid: each.result for each in outcomes} == {1: "written", 2: "refused", 3: "written"}
    assert raws_in(account) == Counter([message("a"), message("b")])


def test_looking_changes_nothing(account: Account) -> None:
    account.append_many("INBOX", [Delivery(message(f"{n}")) for n in range(3)])
    before = account.status("INBOX"), account.messages("INBOX"), account.mailboxes()
    target = target_of(account)
    assert target.present(INBOX).total() == 3
    assert target.present(mailbox(b"Nowhere")) == Counter()
    target.close()
    assert (account.status("INBOX"), account.messages("INBOX"), account.mailboxes()) == before


def test_line_ends_the_server_changes_are_reported_and_known_the_next_time(account: Account) -> None:
    odd = [b"Subject: lf\n\nbody\n", b"Subject: crs\r\r\n\r\nbody\r\r\r\n", b"Subject: end\r\n\r\nbody\r\r\r"]
    kept = b"Subject: cr alone\r\n\r\none\rtwo\r\n"
    sent = [outgoing(raw, uid) for uid, raw in enumerate([message("a"), *odd, kept, message("b")], 1)]
    first = restore(account, INBOX, sent)
    assert [each.result for each in first] == ["written", "altered", "altered", "altered", "written", "written"]
    assert "18 octets became 21" in first[1].what
    again = restore(account, INBOX, sent)
    assert [(each.message.uid, each.result) for each in again] == [(2, "altered"), (3, "altered"), (4, "altered")]
    assert all("there before" in each.what for each in again)
    assert account.status("INBOX")["MESSAGES"] == len(sent)


def test_a_restore_that_was_stopped_is_completed_without_duplicates(account: Account) -> None:
    sent = [outgoing(message(f"m{uid}", size=20_000), uid) for uid in range(1, 400)]
    target = target_of(account)
    target.prepare(INBOX)
    outcomes = target.write(INBOX, iter(sent))
    certain = [next(outcomes).message.uid for _ in range(60)]
    assert isinstance(outcomes, Generator)
    outcomes.close()  # commands are under way, and nobody will hear what became of them
    target.close()
    assert certain == list(range(1, 61))
    restore(account, INBOX, sent)
    assert raws_in(account) == Counter(each.body for each in sent)
    assert raws_in(account).total() == len(sent)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_trial_left_is_removed_with_the_levels_above_it(start_dovecot: StartDovecot, kind: str) -> None:
    account = start_dovecot().account(kind)
    for into in ("", "drill-10"):
        restore(account, mailbox(b"X/Y/Z"), [outgoing(message("it stays"))], into=into)
    before = account.mailboxes()
    for name in (b"X/Y/Z", b"INBOX", b"X"):
        restore(account, mailbox(name), [outgoing(message("it goes"))], into="drill-1")
    restore(account, mailbox(b"U/V/W"), [outgoing(message("it goes"))], into="drill-1")
    settings = ImapSettings(account.host, account.username, account.password, account.port, "none")
    assert clear(settings, "drill-1") == []
    assert account.mailboxes() == before
