"""Reading from a scripted IMAP server, for tests of what it does to messages."""

from __future__ import annotations

from collections.abc import Callable

from backupd.mail.uidset import UidSet
from backupd.model import Mailbox
from backupd.sources.base import Fetched, Unreadable
from backupd.sources.imap.session import ImapSession
from tests.support.mail import message
from tests.support.scripted_imap import Box, ScriptedImap, done, uids_of

INBOX = Mailbox(raw_name=b"INBOX", name="INBOX", delimiter=b"/")
COUNT = 30

Open = Callable[..., ImapSession]


def box_of(count: int = COUNT) -> Box:
    return Box({uid: message(f"number {uid}", size=300 + uid) for uid in range(1, count + 1)})


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
"""Matches the command that asks for whole messages."""
