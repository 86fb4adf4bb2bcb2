"""Servers that do not deliver: each of their ways costs the messages it concerns, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from backupd.errors import ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.sources.base import Fetched
from tests.support.mail import message
from tests.support.scripted_imap import Box, ScriptedImap, done, uids_of
from tests.support.scripted_reading import (
    BODY_FETCH,
    COUNT,
    INBOX,
    Open,
    all_but,
    answer_for,
    box_of,
    every,
    holds,
    read,
)


def test_all_messages_come_as_they_are(server: ScriptedImap, open_session: Open) -> None:
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})
    assert not server.received(rb"SELECT|STORE|.*BODY\[|.*RFC822[^.]|EXPUNGE|CLOSE")


def test_opening_and_reading_a_mailbox_is_one_round_trip(server: ScriptedImap, open_session: Open) -> None:
    session = open_session(server)
    before = session._link.connection.stream.round_trips
    assert len(list(session.fetch(INBOX, every(server)))) == COUNT
    assert session._link.connection.stream.round_trips - before == 1


def test_a_mailbox_that_cannot_be_opened_leaves_the_session_in_step(server: ScriptedImap, open_session: Open) -> None:
    session = open_session(server)
    nowhere = Mailbox(raw_name=b"nowhere", name="nowhere", delimiter=b"/")
    for _ in range(2):
        with pytest.raises(ServerRefused, match="no such mailbox"):
            list(session.fetch(nowhere, UidSet.from_ranges([(1, 5000)])))
    assert read(session, every(server)) == (all_but(server), {}, {})
    with pytest.raises(ServerRefused, match="no such mailbox"):
        list(session.headers(nowhere, every(server)))
    assert len(list(session.describe(INBOX, every(server)))) == COUNT


def test_a_pause_asked_for_when_opening_is_kept(server: ScriptedImap, open_session: Open, pauses: list[float]) -> None:
    server.on(rb"EXAMINE", b"%TAG% NO Request is throttled. Suggested Backoff Time: 2000 milliseconds\r\n", times=2)
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})
    assert pauses == [2.0, 2.0]


def test_a_range_refused_for_one_message_costs_that_message(server: ScriptedImap, open_session: Open) -> None:
    """Yahoo answers NO [UNAVAILABLE] for a range with one message in it that it cannot find."""
    server.on(
        BODY_FETCH,
        lambda command: (
            b"%TAG% NO [UNAVAILABLE] cannot\r\n"
            if holds(command, 17)
            else answer_for(server, command, lambda uid, line: line)
        ),
    )
    bodies, refused, _ = read(open_session(server), every(server))
    assert bodies == all_but(server, 17)
    assert list(refused) == [17]
    assert "cannot" in refused[17]


def test_many_bad_messages_among_many_good_ones_are_told_apart(open_session: Open) -> None:
    bad = {3, 400, 401, 1234}
    with ScriptedImap({b"INBOX": box_of(1500)}) as server:

        def reply(command: bytes) -> bytes:
            if bad & set(uids_of(command, list(range(1, 1501)))):
                return b"%TAG% NO [SERVERBUG] internal error\r\n"
            return answer_for(server, command, lambda uid, line: line)

        server.on(BODY_FETCH, reply)
        bodies, refused, _ = read(open_session(server), every(server))
        assert set(refused) == bad
        assert bodies == all_but(server, *bad)
        assert len(server.received(BODY_FETCH)) < 200


@pytest.mark.parametrize(
    "instead",
    [
        pytest.param(lambda uid, line: b"", id="no answer at all"),
        pytest.param(lambda uid, line: b"* %d FETCH (UID %d FLAGS ())\r\n" % (uid, uid), id="no literal"),
        pytest.param(
            lambda uid, line: re.sub(rb"BODY\[\] \{.*\Z", b"BODY[] NIL)\r\n", line, flags=re.DOTALL), id="NIL"
        ),
        pytest.param(
            lambda uid, line: re.sub(rb"BODY\[\] \{.*\Z", b'BODY[] "")\r\n', line, flags=re.DOTALL), id="empty string"
        ),
        pytest.param(
            lambda uid, line: re.sub(rb"BODY\[\] \{.*\Z", b"BODY[] {0}\r\n)\r\n", line, flags=re.DOTALL),
            id="empty literal",
        ),
    ],
)
def test_ok_without_the_message_is_asked_again_alone_and_then_unreadable(
    server: ScriptedImap, open_session: Open, instead: Callable[[int, bytes], bytes]
) -> None:
    server.on(
        BODY_FETCH,
        lambda command: answer_for(server, command, lambda uid, line: instead(uid, line) if uid == 9 else line),
    )
    bodies, refused, _ = read(open_session(server), every(server))
    assert bodies == all_but(server, 9)
    assert list(refused) == [9]
    assert [command for command in server.received(BODY_FETCH) if b"FETCH 9 " in command]


def test_what_comes_at_the_second_try_is_no_problem(server: ScriptedImap, open_session: Open) -> None:
    server.on(
        BODY_FETCH,
        lambda command: answer_for(server, command, lambda uid, line: b"" if uid in (4, 5) else line),
        times=1,
    )
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_a_notice_in_place_of_the_message_is_never_taken_for_it(server: ScriptedImap, open_session: Open) -> None:
    notice = (
        b"Subject: Retrieval using the IMAP4 protocol failed for the following message: 25\r\n\r\n"
        b"The server couldn't retrieve the following message:\r\n"
    )
    server.boxes[b"INBOX"].messages[12] = notice
    bodies, refused, _ = read(open_session(server), every(server))
    assert bodies == all_but(server, 12)
    assert list(refused) == [12]


def test_a_message_about_such_a_notice_is_a_message(server: ScriptedImap, open_session: Open) -> None:
    server.boxes[b"INBOX"].messages[12] = message("FW: Retrieval using the IMAP4 protocol failed for the following")
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_a_size_that_does_not_fit_is_asked_again_and_noted(server: ScriptedImap, open_session: Open) -> None:
    server.boxes[b"INBOX"].sizes[8] = 12345
    bodies, refused, notes = read(open_session(server), every(server))
    assert (bodies, refused) == (all_but(server), {})
    assert list(notes) == [8]
    assert "12345" in notes[8]
    assert len([command for command in server.received(BODY_FETCH) if holds(command, 8)]) == 2


def test_a_message_cut_short_once_comes_whole_the_second_time(server: ScriptedImap, open_session: Open) -> None:
    def short(uid: int, line: bytes) -> bytes:
        return re.sub(rb"BODY\[\] \{.*\Z", b"BODY[] {5}\r\nshort)\r\n", line, flags=re.DOTALL) if uid == 8 else line

    server.on(BODY_FETCH, lambda command: answer_for(server, command, short), times=1)
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_a_server_that_estimates_sizes_is_not_asked_twice_for_everything(
    server: ScriptedImap, open_session: Open
) -> None:
    box = server.boxes[b"INBOX"]
    box.sizes.update({uid: len(raw) + 100 for uid, raw in box.messages.items()})
    bodies, _, notes = read(open_session(server), every(server))
    assert bodies == all_but(server)
    assert set(notes) == set(bodies)
    assert sum(len(uids_of(command, sorted(box.messages))) for command in server.received(BODY_FETCH)) == COUNT + 3


def test_an_empty_message_is_a_message(server: ScriptedImap, open_session: Open) -> None:
    server.boxes[b"INBOX"].messages[2] = b""
    server.on(
        BODY_FETCH,
        lambda command: answer_for(server, command, lambda uid, line: line.replace(b"BODY[] {0}\r\n", b"BODY[] NIL")),
    )
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_expunged_meanwhile_is_left_out_and_no_problem(server: ScriptedImap, open_session: Open) -> None:
    session, uids = open_session(server), every(server)
    del server.boxes[b"INBOX"].messages[5], server.boxes[b"INBOX"].messages[6]
    server.on(
        BODY_FETCH,
        lambda command: answer_for(server, command, lambda uid, line: line).replace(
            b"%TAG% OK", b"%TAG% NO [EXPUNGEISSUED]"
        ),
        times=1,
    )
    assert read(session, uids) == (all_but(server), {}, {})


def test_a_server_that_lists_the_expunged_until_it_may_tell_is_let_tell(
    server: ScriptedImap, open_session: Open
) -> None:
    """Servers hold back EXPUNGE until a command that allows it, and list the message until then."""
    session, uids = open_session(server), every(server)
    raw = server.boxes[b"INBOX"].messages[5]
    server.on(BODY_FETCH, lambda command: answer_for(server, command, lambda uid, line: b"" if uid == 5 else line))

    def noop(command: bytes) -> bytes:
        server.boxes[b"INBOX"].messages.pop(5, None)
        return done(b"%TAG%", b"* 5 EXPUNGE\r\n")

    server.on(rb"NOOP", noop)
    bodies, refused, _ = read(session, uids)
    assert (set(bodies), refused) == (set(uids) - {5}, {})
    assert raw not in bodies.values()


def test_answers_twice_apart_unasked_and_without_uid_are_sorted_out(server: ScriptedImap, open_session: Open) -> None:
    def odd(uid: int, line: bytes) -> bytes:
        if uid == 1:  # twice
            return line + line
        if uid == 2:  # in two answers
            head, body = line.split(b" BODY[]", 1)
            return head + b")\r\n" + b"* 2 FETCH (UID 2 BODY[]" + body
        if uid == 3:  # news of others in between
            news = b"* 0 FETCH (FLAGS (\\Seen))\r\n* 7 FETCH (UID 7 FLAGS (\\Answered))\r\n"
            news += b"* 999 FETCH (UID 999 FLAGS ())\r\n"
            return (
                news
                + b"* 31 EXISTS\r\n* OK still here\r\n"
                + line
                + b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (99))\r\n"
            )
        return line

    server.on(BODY_FETCH, lambda command: answer_for(server, command, odd))
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_items_in_any_order_and_case_are_read(server: ScriptedImap, open_session: Open) -> None:
    def other(uid: int, line: bytes) -> bytes:
        raw = server.boxes[b"INBOX"].messages[uid]
        body = b"{%d}\r\n%s" % (len(raw), raw)
        if uid % 3 == 0:
            return b"* %d FETCH (BODY[] %s UID %d RFC822.SIZE %d FLAGS (\\Seen))\r\n" % (uid, body, uid, len(raw))
        if uid % 3 == 1:
            return b'* %d fetch (flags (\\seen) uid %d body[] %s internaldate "x")\r\n' % (uid, uid, body)
        return b'* %d FETCH (UID %d X-NEW (1 (2 "3")) FLAGS NIL FLAGS () BODY[] %s)\r\n' % (uid, uid, body)

    server.on(BODY_FETCH, lambda command: answer_for(server, command, other))
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_messages_that_look_like_answers_stay_messages(server: ScriptedImap, open_session: Open) -> None:
    box = server.boxes[b"INBOX"]
    for uid in box.messages:
        box.messages[uid] = b")\r\nb5 OK done\r\n* %d FETCH (UID 1 BODY[] {3}\r\nabc)\r\n* BYE\r\n" % uid
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})


def test_large_messages_are_not_held_in_memory(open_session: Open, tmp_path: Path) -> None:
    raw = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 400_000
    with ScriptedImap({b"INBOX": Box({1: raw, 2: message("small")})}) as server:
        session = open_session(server, spool=tmp_path)
        found = {one.facts.uid: one for one in session.fetch(INBOX, every(server)) if isinstance(one, Fetched)}
        assert not isinstance(found[1].body, bytes)
        assert b"".join(found[1].body.chunks()) == raw
        assert found[2].body == server.boxes[b"INBOX"].messages[2]
