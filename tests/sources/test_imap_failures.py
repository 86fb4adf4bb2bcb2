"""Connections that end and servers that want less of us: nothing half is taken, nothing goes on for ever."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backupd.errors import ConnectionLost, Interrupted, ProtocolError, ServerRefused, Throttled
from backupd.model import MailboxStatus, MessageState
from backupd.sources.base import Fetched, Known
from backupd.sources.imap import ImapSource
from backupd.wire.imap_connection import ImapSettings
from backupd.wire.throttling import EXHAUSTED, PATIENCE, SLOWER
from tests.support.scripted_imap import CAPABILITIES, PASSWORD, USER, Cut, ScriptedImap
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
    with pytest.raises(Throttled, match="throttling") as refused:
        list(open_session(server, patience=100).fetch(INBOX, every(server)))
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert (refused.value.pause, refused.value.guessed) == (SLOWER, True)


def test_a_pause_too_long_for_a_run_is_left_to_the_next(
    server: ScriptedImap, open_session: Open, pauses: list[float]
) -> None:
    server.on(BODY_FETCH, b"%TAG% NO Request is throttled. Suggested Backoff Time: 299000 milliseconds\r\n")
    with pytest.raises(Throttled) as refused:
        list(open_session(server, patience=PATIENCE).fetch(INBOX, every(server)))
    assert pauses == []
    assert (refused.value.pause, refused.value.guessed) == (299.0, False)


def test_an_exhausted_quota_ends_the_reading_at_once(
    server: ScriptedImap, open_session: Open, pauses: list[float]
) -> None:
    server.on(BODY_FETCH, b"%TAG% NO [OVERQUOTA] Account exceeded command or bandwidth limits\r\n")
    with pytest.raises(Throttled, match="bandwidth limits") as refused:
        list(open_session(server).fetch(INBOX, every(server)))
    assert (refused.value.pause, pauses) == (EXHAUSTED, [])
    assert len(server.received(BODY_FETCH)) == 1


@pytest.mark.parametrize("command", [rb"EXAMINE", rb"LIST", rb"STATUS", rb"UID FETCH .*FLAGS"])
@pytest.mark.parametrize("text", [b"[OVERQUOTA] enough", b"Request is throttled. Suggested Backoff Time: 9000000 ms"])
def test_a_pause_is_wanted_whatever_was_asked(
    server: ScriptedImap, open_session: Open, command: bytes, text: bytes
) -> None:
    server.on(command, b"%TAG% NO " + text + b"\r\n")
    session = open_session(server)
    states = [MessageState(uid, (), (), None) for uid in every(server)]
    known = Known(MailboxStatus(COUNT, COUNT + 1, 7), every(server), lambda: iter(states))
    with pytest.raises(Throttled):
        session.discover() if command in (b"LIST", b"STATUS") else session.scan(INBOX, known)


def test_who_is_told_to_stop_does_not_wait_for_the_end_of_a_pause(server: ScriptedImap) -> None:
    server.on(BODY_FETCH, b"%TAG% NO Request is throttled. Suggested Backoff Time: 60000 milliseconds\r\n")
    settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5)
    stop = threading.Event()
    with closing(ImapSource(settings, sleep=stop.wait).open()) as session:
        stop.set()
        with pytest.raises(Interrupted):
            list(session.fetch(INBOX, every(server)))


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
