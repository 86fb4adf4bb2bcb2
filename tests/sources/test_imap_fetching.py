"""Servers that do not deliver: each of their ways costs the messages it concerns, and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupd.errors import ConnectionFailed, ConnectionLost, ProtocolError, ServerRefused
from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.sources.base import Fetched, Unreadable
from backupd.sources.imap import ImapSource
from backupd.sources.imap.session import ImapSession
from backupd.wire.imap_connection import ImapSettings
from tests.support.mail import message
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Box, Cut, ScriptedImap, done, uids_of

INBOX = Mailbox(raw_name=b"INBOX", name="INBOX", delimiter=b"/")
COUNT = 30

Open = Callable[..., ImapSession]


def box_of(count: int = COUNT) -> Box:
    return Box({uid: message(f"number {uid}", size=300 + uid) for uid in range(1, count + 1)})


@pytest.fixture
def server() -> Iterator[ScriptedImap]:
    with ScriptedImap({b"INBOX": box_of()}) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def open_session(pauses: list[float]) -> Iterator[Open]:
    opened: list[ImapSession] = []

    def start(server: ScriptedImap, *, spool: Path | None = None, patience: float = 600) -> ImapSession:
        settings = ImapSettings(
            server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5, spool_folder=spool
        )
        opened.append(ImapSource(settings, sleep=pauses.append, patience=patience).open())
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def every(server: ScriptedImap) -> UidSet:
    return UidSet.from_uids(server.boxes[b"INBOX"].messages)


def read(session: ImapSession, uids: UidSet) -> tuple[dict[int, bytes], dict[int, str], dict[int, str]]:
    """(bytes by UID, reason by unreadable UID, notes by UID). Nothing may come twice."""
    bodies: dict[int, bytes] = {}
    refused: dict[int, str] = {}
    notes: dict[int, str] = {}
    for one in session.fetch(INBOX, uids):
        if isinstance(one, Unreadable):
            assert one.uid not in refused
            refused[one.uid] = one.what
            continue
        assert isinstance(one, Fetched)
        assert one.facts.uid not in bodies
        bodies[one.facts.uid] = one.body if isinstance(one.body, bytes) else b"".join(one.body.chunks())
        if one.note:
            notes[one.facts.uid] = one.note
    assert not bodies.keys() & refused.keys()
    return bodies, refused, notes


def all_but(server: ScriptedImap, *missing: int) -> dict[int, bytes]:
    return {uid: raw for uid, raw in server.boxes[b"INBOX"].messages.items() if uid not in missing}


def holds(command: bytes, uid: int) -> bool:
    return b"BODY" in command and uid in uids_of(command, list(range(1, COUNT + 1)))


def answer_for(server: ScriptedImap, command: bytes, change: Callable[[int, bytes], bytes]) -> bytes:
    """The answers to a FETCH, each changed by UID."""
    box = server.boxes[b"INBOX"]
    lines = (change(uid, server.fetched(box, uid, command)) for uid in uids_of(command, sorted(box.messages)))
    return done(b"%TAG%", b"".join(lines))


BODY_FETCH = rb"UID FETCH .*BODY\.PEEK\[\]"


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


# -- connections that end ----------------------------------------------------------------------------------------------


def cut_in_the_middle(server: ScriptedImap, at: int) -> Callable[[bytes], bytes | Cut]:
    def reply(command: bytes) -> bytes | Cut:
        whole = answer_for(server, command, lambda uid, line: line)
        return Cut(whole[: whole.index(b"number %d" % at) + 3]) if holds(command, at) else whole

    return reply


def test_a_connection_cut_in_a_literal_gives_no_half_message(server: ScriptedImap, open_session: Open) -> None:
    server.on(BODY_FETCH, cut_in_the_middle(server, 11))
    session, got = open_session(server), []
    with pytest.raises(ConnectionLost):
        got.extend(session.fetch(INBOX, every(server)))
    assert all(isinstance(one, Fetched) for one in got)
    assert [one.facts.uid for one in got if isinstance(one, Fetched)] == list(range(1, 11))
    with pytest.raises(ConnectionLost):
        list(session.fetch(INBOX, every(server)))


def test_bye_in_the_middle_is_a_lost_connection_with_the_servers_words(
    server: ScriptedImap, open_session: Open
) -> None:
    server.on(BODY_FETCH, Cut(b"* BYE Session expired, please login again.\r\n"))
    with pytest.raises(ConnectionLost, match="Session expired"):
        list(open_session(server).fetch(INBOX, every(server)))


@pytest.mark.parametrize("lie", [-40, -1, 1, 7, 10_000_000, 99_999_999_999])
def test_a_literal_that_lies_about_its_size_is_never_stored(
    server: ScriptedImap, open_session: Open, lie: int, tmp_path: Path
) -> None:
    def lying(uid: int, line: bytes) -> bytes:
        size = int(re.search(rb"BODY\[\] \{(\d+)\}", line)[1])  # type: ignore[index]
        return line.replace(b"{%d}" % size, b"{%d}" % (size + lie)) if uid == 6 else line

    server.on(
        BODY_FETCH, lambda command: Cut(answer_for(server, command, lying)) if holds(command, 6) else b"%TAG% OK\r\n"
    )
    got = []
    with pytest.raises((ProtocolError, ConnectionLost)):
        got.extend(open_session(server, spool=tmp_path).fetch(INBOX, every(server)))
    assert [one.facts.uid for one in got if isinstance(one, Fetched)] == [1, 2, 3, 4, 5]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [b"-1", b"-5000000"])
def test_a_negative_literal_ends_the_connection(server: ScriptedImap, open_session: Open, size: bytes) -> None:
    server.on(BODY_FETCH, b"* 1 FETCH (UID 1 FLAGS () BODY[] {%s}\r\n)\r\n%%TAG%% OK\r\n" % size)
    with pytest.raises(ProtocolError):
        list(open_session(server).fetch(INBOX, every(server)))


def test_reading_stopped_early_never_mixes_with_the_next_answers(server: ScriptedImap, open_session: Open) -> None:
    session = open_session(server)
    messages = session.fetch(INBOX, every(server))
    next(messages)
    messages.close()  # type: ignore[attr-defined]
    with pytest.raises(ConnectionLost):
        list(session.fetch(INBOX, every(server)))


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_suggested_pause_is_kept_and_the_rest_comes_then(
    server: ScriptedImap, open_session: Open, pauses: list[float]
) -> None:
    server.on(BODY_FETCH, b"%TAG% NO Request is throttled. Suggested Backoff Time: 92000 milliseconds\r\n", times=2)
    assert read(open_session(server), every(server)) == (all_but(server), {}, {})
    assert pauses == [92.0, 92.0]


def test_throttled_inside_an_ok_slows_down_and_loses_nothing(
    server: ScriptedImap, open_session: Open, pauses: list[float]
) -> None:
    server.on(
        BODY_FETCH,
        lambda command: answer_for(server, command, lambda uid, line: line).replace(b"OK done", b"OK [THROTTLED] slow"),
        times=1,
    )
    session = open_session(server)
    assert read(session, every(server)) == (all_but(server), {}, {})
    assert pauses == [1.0]


def test_a_server_that_throttles_without_end_is_left_for_later(
    server: ScriptedImap, open_session: Open, pauses: list[float]
) -> None:
    server.on(BODY_FETCH, b"%TAG% NO [THROTTLED] not now\r\n")
    with pytest.raises(ConnectionFailed, match="throttling"):
        list(open_session(server, patience=100).fetch(INBOX, every(server)))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]


def test_an_exhausted_quota_ends_the_reading_at_once(server: ScriptedImap, open_session: Open) -> None:
    server.on(BODY_FETCH, b"%TAG% NO [OVERQUOTA] Account exceeded command or bandwidth limits\r\n")
    with pytest.raises(ServerRefused, match="bandwidth limits") as refused:
        list(open_session(server).fetch(INBOX, every(server)))
    assert refused.value.code == b"OVERQUOTA"
    assert len(server.received(BODY_FETCH)) == 1


def test_uids_that_mean_others_now_are_not_read(server: ScriptedImap) -> None:
    settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5)
    source = ImapSource(settings)
    first, second = source.open(), source.open()
    uids = first.scan(INBOX, None).uids
    server.boxes[b"INBOX"].uidvalidity = 8
    with pytest.raises(ServerRefused, match="UIDVALIDITY went from 7 to 8"):
        list(second.fetch(INBOX, uids))
    assert len(list(first.fetch(INBOX, uids))) == COUNT
    first.close()
    second.close()


def test_gmail_ids_and_labels_come_along(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of(3)}, capabilities=CAPABILITIES + b" X-GM-EXT-1") as server:
        extra = b'X-GM-MSGID 12%d X-GM-LABELS ("\\\\Inbox" "two words" plain &AOQ-) '
        server.on(
            rb"UID FETCH .*X-GM-MSGID",
            lambda command: answer_for(
                server, command, lambda uid, line: line.replace(b"(UID", b"(" + extra % uid + b"UID", 1)
            ),
        )
        for one in open_session(server).fetch(INBOX, every(server)):
            assert isinstance(one, Fetched)
            assert one.facts.server_id == b"X-GM-MSGID:12%d" % one.facts.uid
            assert one.state.labels == (b"&AOQ-", b"\\Inbox", b"plain", b"two words")


def test_object_ids_come_along(open_session: Open) -> None:
    with ScriptedImap({b"INBOX": box_of(3)}, capabilities=CAPABILITIES + b" OBJECTID") as server:
        server.on(
            rb"UID FETCH .*EMAILID",
            lambda command: answer_for(
                server, command, lambda uid, line: line.replace(b"(UID", b"(EMAILID (M%d) UID" % uid, 1)
            ),
        )
        described = list(open_session(server).describe(INBOX, every(server)))
        assert [one.facts.server_id for one in described] == [b"EMAILID:M1", b"EMAILID:M2", b"EMAILID:M3"]
