"""Restoring into servers that refuse, lie, or hang up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from backupd.errors import ConnectionLost, ServerRefused
from backupd.targets.base import Outcome, Outgoing
from tests.support.imap_targets import target_on
from tests.support.mail import message
from tests.support.restoring import mailbox, outgoing, present
from tests.support.scripted_imap import Box, Cut, Reply, ScriptedImap, done

INBOX = mailbox(b"INBOX")
BASE = b"IMAP4rev1 LITERAL+"
MAIL = [outgoing(message(f"m{uid}"), uid) for uid in range(1, 8)]


def server_with(
    append: Reply, *, capabilities: bytes = BASE, permanent: bytes = rb"\Seen \*", boxes: dict[bytes, Box] | None = None
) -> ScriptedImap:
    """A server that answers APPEND this way."""
    server = ScriptedImap(boxes, capabilities=capabilities)
    server.on(b"SELECT", done(b"%TAG%", b"* 0 EXISTS\r\n* OK [PERMANENTFLAGS (" + permanent + b")] these\r\n"))
    server.on(b"APPEND", append)
    return server


def appended(command: bytes) -> list[bytes]:
    """The subjects in an APPEND command."""
    return re.findall(rb"Subject: (\S+)", command)


def write(server: ScriptedImap, messages: list[Outgoing]) -> Iterator[Outcome]:
    target = target_on(server)
    try:
        yield from target.write(INBOX, iter(messages))
    finally:
        target.close()


def results(server: ScriptedImap, messages: list[Outgoing]) -> dict[int, str]:
    return {each.message.uid: each.result for each in write(server, messages)}


def test_only_what_was_answered_counts_when_the_connection_is_cut() -> None:
    counter = count(1)
    with server_with(lambda _: done(b"%TAG%") if next(counter) <= 3 else Cut()) as server:
        outcomes: list[Outcome] = []
        with pytest.raises(ConnectionLost):
            outcomes.extend(write(server, MAIL))
    assert {each.message.uid for each in outcomes} <= {1, 2, 3}


def test_a_refused_batch_is_sent_again_without_the_message_to_blame() -> None:
    stored: list[bytes] = []

    def append(command: bytes) -> bytes:
        if b"m5" in appended(command):
            return b"%TAG% NO message contains something\r\n"
        stored.extend(appended(command))
        return done(b"%TAG%")

    with server_with(append, capabilities=BASE + b" MULTIAPPEND") as server:
        outcomes = list(write(server, MAIL))
        assert len(appended(server.received(b"APPEND")[0])) == 7
    assert {each.message.uid for each in outcomes if each.result == "refused"} == {5}
    assert "contains something" in next(each.what for each in outcomes if each.result == "refused")
    assert sorted(stored) == [b"m1", b"m2", b"m3", b"m4", b"m6", b"m7"]


def test_the_limit_is_kept_without_asking() -> None:
    large = outgoing(message("large", size=5_000), 9)
    with server_with(done(b"%TAG%"), capabilities=BASE + b" APPENDLIMIT=4000") as server:
        assert results(server, [MAIL[0], large]) == {1: "written", 9: "refused"}
        assert len(server.received(b"APPEND")) == 1


def test_the_limit_of_one_mailbox_is_asked_for() -> None:
    large = outgoing(message("large", size=5_000), 9)
    with server_with(done(b"%TAG%"), capabilities=BASE + b" APPENDLIMIT") as server:
        server.on(b"STATUS", done(b"%TAG%", b"* STATUS INBOX (APPENDLIMIT 4000)\r\n"))
        assert results(server, [MAIL[0], large]) == {1: "written", 9: "refused"}


def test_keywords_the_mailbox_does_not_store_are_never_sent() -> None:
    flagged = outgoing(message("m"), 1, (b"\\Seen", b"allowed", b"other"))
    with server_with(done(b"%TAG%"), permanent=rb"\Seen allowed") as server:
        (outcome,) = write(server, [flagged])
        assert server.received(rb'APPEND "INBOX" \(\\Seen allowed\)')
    assert outcome.result == "altered"
    assert "other" in outcome.what


def test_a_refused_keyword_is_found_and_left_out_from_then_on() -> None:
    def append(command: bytes) -> bytes:
        return b"%TAG% BAD no such keyword\r\n" if b"bad" in command.split(b"Subject")[0] else done(b"%TAG%")

    sent = [outgoing(message(f"m{uid}", size=5_000), uid, (b"bad", b"good", b"\\Seen")) for uid in range(1, 500)]
    with server_with(append) as server:
        outcomes = list(write(server, sent))
        tries = len(server.received(b"APPEND"))
    assert {each.result for each in outcomes} == {"altered"}
    assert all("bad" in each.what and "good" not in each.what for each in outcomes)
    assert tries < 1_200


def test_a_large_message_is_offered_before_it_is_sent_where_literals_must_be_small() -> None:
    large = outgoing(message("large", size=5_000), 9)
    with server_with(done(b"%TAG%"), capabilities=b"IMAP4rev1 LITERAL-") as server:
        server.refuse_literals = b"NO [TOOBIG] too big"
        outcomes = list(write(server, [MAIL[0], large, MAIL[1]]))
        assert [appended(each) for each in server.received(b"APPEND")] == [[b"m1"], [b"m2"]]
    assert {each.message.uid: each.result for each in outcomes} == {1: "written", 9: "refused", 2: "written"}
    assert "TOOBIG" in next(each.what for each in outcomes if each.result == "refused")


def test_a_mailbox_that_vanished_is_made_again() -> None:
    def append(_: bytes) -> bytes:
        return done(b"%TAG%") if server.received(b"CREATE") else b"%TAG% NO [TRYCREATE] gone\r\n"

    with server_with(append) as server:
        server.on(b"CREATE", done(b"%TAG%"))
        box = mailbox(b"Gone")
        target = target_on(server)
        assert [each.result for each in target.write(box, iter(MAIL[:2]))] == ["written", "written"]
        target.close()
        assert len(server.received(b"CREATE")) == 1


def test_a_server_that_is_busy_is_asked_twice() -> None:
    answers = iter([b"%TAG% NO [INUSE] locked\r\n"])
    with server_with(lambda _: next(answers, done(b"%TAG%"))) as server:
        assert results(server, MAIL[:1]) == {1: "written"}


def test_when_there_is_no_room_the_rest_is_not_tried() -> None:
    with server_with(b"%TAG% NO [OVERQUOTA] full\r\n") as server:
        messages = [outgoing(message(f"m{uid}", size=50_000 - 40 * uid), uid) for uid in range(1, 1_000)]
        outcomes = list(write(server, messages))
        assert len(server.received(b"APPEND")) < 500
    assert len(outcomes) == 999
    assert {each.result for each in outcomes} == {"refused"}


def test_line_ends_a_server_refuses_are_changed_and_reported() -> None:
    def append(command: bytes) -> bytes:
        text = command.split(b"\r\n", 1)[-1]
        return b"%TAG% NO Message contains bare newlines\r\n" if re.search(rb"(?<!\r)\n", text) else done(b"%TAG%")

    with server_with(append) as server:
        outcomes = list(write(server, [outgoing(b"Subject: lf\n\nx\n", 1), MAIL[1]]))
        assert any(b"Subject: lf\r\n\r\nx\r\n" in each for each in server.received(b"APPEND"))
    assert {each.message.uid: each.result for each in outcomes} == {1: "altered", 2: "written"}
    assert "CRLF" in next(each.what for each in outcomes if each.message.uid == 1)


def test_a_message_the_server_tells_of_twice_counts_once() -> None:
    box = Box({uid: message(f"m{uid}") for uid in (1, 2)})
    with ScriptedImap({b"INBOX": box}) as server:
        items = b"UID RFC822.SIZE BODY.PEEK[HEADER]"
        answers = [server.fetched(box, uid, items) for uid in (1, 1, 2, 2)]
        server.on(b"UID FETCH", done(b"%TAG%", b"".join(answers)))
        target = target_on(server)
        assert target.present(INBOX) == Counter([present(message("m1")), present(message("m2"))])
        target.close()


def test_a_message_the_server_cannot_read_does_not_hide_the_others() -> None:
    box = Box({uid: message(f"m{uid}") for uid in range(1, 6)})
    with ScriptedImap({b"INBOX": box}) as server:
        items = b"UID RFC822.SIZE BODY.PEEK[HEADER]"
        first = server.fetched(box, 1, items)
        server.on(rb"UID FETCH 1:\*", first + b"%TAG% NO [UNAVAILABLE] message 2 is broken\r\n")
        server.on(rb"UID FETCH 2 ", b"%TAG% NO [UNAVAILABLE] broken\r\n")
        target = target_on(server)
        assert target.present(INBOX) == Counter(present(message(f"m{uid}")) for uid in (1, 3, 4, 5))
        target.close()


def test_a_mailbox_that_is_there_though_not_listed_is_used() -> None:
    with server_with(done(b"%TAG%")) as server:
        server.on(b"CREATE", b"%TAG% NO exists\r\n")
        server.on(b"STATUS", done(b"%TAG%"))
        target = target_on(server)
        target.prepare(mailbox(b"Hidden"))
        assert target.name_of(mailbox(b"Hidden")) == "Hidden"
        target.close()


def test_a_mailbox_that_cannot_be_made_is_named() -> None:
    with server_with(done(b"%TAG%")) as server:
        server.on(b"CREATE", b"%TAG% NO [NOPERM] not for you\r\n")
        target = target_on(server)
        with pytest.raises(ServerRefused, match=r"Shared: .*not for you"):
            target.prepare(mailbox(b"Shared"))
        assert len(server.received(b"CREATE")) == 1
        target.close()


def test_the_special_use_is_asked_for_where_the_server_can() -> None:
    with server_with(done(b"%TAG%"), capabilities=BASE + b" CREATE-SPECIAL-USE") as server:
        server.on(b"CREATE", done(b"%TAG%"))
        target = target_on(server)
        target.prepare(mailbox(b"Old/Sent", special_use=(b"\\Sent",)))
        target.close()
        assert server.received(rb'CREATE "Old/Sent" \(USE \(\\Sent\)\)\Z')


def test_a_subscription_that_is_refused_is_reported_with_the_first_message() -> None:
    with server_with(done(b"%TAG%")) as server:
        server.on(b"SUBSCRIBE", b"%TAG% NO too many\r\n")
        target = target_on(server)
        box = mailbox(b"INBOX", subscribed=True)
        target.prepare(box)
        outcomes = list(target.write(box, MAIL[:2]))
        target.close()
    assert [each.result for each in outcomes] == ["altered", "written"]
    assert "subscribed" in outcomes[0].what
