"""Lists of what is in the repository."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from backupd.errors import Damaged, ObjectMissing, UsageError, WrongKey
from backupd.operations import look
from backupd.repository import segments
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from tests.support import archive
from tests.support.archive import NOON, Box, Mail
from tests.support.mail import Attachment, message
from tests.support.memory_storage import MemoryStorage

HELLO = Mail(message("Grüße", attachments=[Attachment("plan.pdf", b"x" * 100)]), (b"\\Seen", b"work"))
OTHER = Mail(message("Other"))


def test_snapshots_are_listed_oldest_first_of_one_account_or_all(repository: Repository) -> None:
    late = archive.put(repository, {b"INBOX": Box({1: HELLO})}, time=NOON + timedelta(hours=1))
    early = archive.put(repository, time=NOON)
    bobs = archive.put(repository, account="bob", time=NOON + timedelta(hours=2))
    assert {line.id for line in look.snapshots(repository)} == {early.id, late.id, bobs.id}
    assert [line.id for line in look.snapshots(repository, "alice")] == [early.id, late.id]
    assert look.snapshots(repository, "alice")[1].messages == 1


def test_a_damaged_snapshot_is_in_the_list_and_says_so(storage: MemoryStorage, repository: Repository) -> None:
    good, bad = archive.put(repository), archive.put(repository, time=NOON + timedelta(hours=1))
    storage.delete(bad.name)
    storage.put(bad.name, [b"no snapshot"])
    lines = look.snapshots(repository)
    assert [bool(line.damaged) for line in lines] == [False, True]
    assert lines[0].id == good.id


def test_messages_are_listed_with_what_their_headers_say(repository: Repository) -> None:
    ref = archive.put(repository, {b"INBOX": Box({3: HELLO, 7: OTHER})})
    first, second = archive.listed(repository, look.find_mailbox(repository.snapshot(ref), "inbox"))
    assert (first.uid, first.subject, first.from_) == (3, "Grüße", "Alice <alice@example.com>")
    assert first.flags == ["\\Seen", "work"]
    assert (second.uid, second.size, second.date) == (7, len(OTHER.raw), archive.DATE.decode())


def test_a_writer_sees_the_messages_but_nothing_that_people_wrote(
    storage: MemoryStorage, repository: Repository
) -> None:
    ref = archive.put(repository, {b"INBOX": Box({3: HELLO})})
    with Repository(storage, repository.secrets.for_role(Role.WRITER)) as writers:
        snapshot = writers.snapshot(ref)
        (line,) = archive.listed(writers, look.find_mailbox(snapshot, "INBOX"))
        assert (line.uid, line.size) == (3, len(HELLO.raw))
        assert line.subject is None
        assert line.from_ is None
        found = look.find_message(writers, snapshot, "INBOX:3")
        with pytest.raises(WrongKey):
            look.Lines(writers).envelope(found.pair[0])


def test_a_mailbox_is_found_by_any_of_its_names(repository: Repository) -> None:
    ref = archive.put(repository, {b"Entw&APw-rfe": Box({}, name="Entwürfe"), b"INBOX": Box({})})
    snapshot = repository.snapshot(ref)
    assert look.find_mailbox(snapshot, "Entwürfe") == look.find_mailbox(snapshot, "Entw&APw-rfe")
    with pytest.raises(UsageError, match="there are INBOX, Entwürfe"):
        look.find_mailbox(snapshot, "Drafts")


def test_mailboxes_that_look_alike_are_told_apart_by_what_the_server_writes(repository: Repository) -> None:
    ref = archive.put(repository, {b"one": Box({}, name="same"), b"two": Box({1: HELLO}, name="same")})
    snapshot = repository.snapshot(ref)
    with pytest.raises(UsageError, match="one or two"):
        look.find_mailbox(snapshot, "same")
    assert look.find_mailbox(snapshot, "two").messages == 1


def test_a_message_is_found_by_mailbox_and_uid_or_by_its_id(repository: Repository) -> None:
    ref = archive.put(repository, {b"INBOX": Box({3: HELLO, 7: OTHER}), b"a:b": Box({9: HELLO})})
    snapshot = repository.snapshot(ref)
    by_uid = look.find_message(repository, snapshot, "a:b:9")
    identity = by_uid.pair[0].message.hex()
    by_id = look.find_message(repository, snapshot, identity[:9])
    assert by_uid.record.mailbox.name == "a:b"
    assert (by_id.record.mailbox.name, by_id.pair[0].uid, by_id.also_in) == ("INBOX", 3, [("a:b", 9)])
    for wrong in ("INBOX:4", "Nowhere:3", "abc", "no message", "0" * 64):
        with pytest.raises(UsageError):
            look.find_message(repository, snapshot, wrong)


LOST = bytes(32)
"""The id of no run."""


def test_a_message_without_its_envelope_is_listed_and_says_so(repository: Repository) -> None:
    record = archive.record(repository, b"INBOX", Box({3: HELLO, 7: OTHER}))
    pairs = list(segments.read(repository, record.segments[0]))
    rows = [msgspec.structs.replace(pairs[0][0], envelopes=LOST), pairs[1][0]]
    record = msgspec.structs.replace(record, segments=segments.write(repository, rows, [state for _, state in pairs]))
    ref = repository.put_snapshot(archive.snapshot([record]))
    first, second = archive.listed(repository, record)
    assert (first.uid, first.size, first.flags, first.subject) == (3, len(HELLO.raw), ["\\Seen", "work"], None)
    assert first.damaged
    assert (second.subject, second.damaged) == ("Other", "")
    assert look.find_message(repository, repository.snapshot(ref), first.id[:10]).pair[0].uid == 3


def test_what_cannot_be_listed_is_told_and_the_rest_is_listed(repository: Repository) -> None:
    record = archive.record(repository, b"INBOX", Box({3: HELLO}))
    lost = msgspec.structs.replace(record.segments[0], first=4, last=9, messages=5, membership=LOST)
    record = msgspec.structs.replace(record, segments=[*record.segments, lost], messages=6)
    snapshot = repository.snapshot(repository.put_snapshot(archive.snapshot([record])))
    unlisted: list[look.Unlisted] = []
    (line,) = look.messages(repository, record, unlisted.append)
    assert line.subject == "Grüße"
    ((first, last, messages, why),) = map(msgspec.structs.astuple, unlisted)
    assert (first, last, messages) == (4, 9, 5)
    assert why
    found = look.find_message(repository, snapshot, line.id[:10])
    assert (found.pair[0].uid, found.unread) == (3, 1)
    with pytest.raises((Damaged, ObjectMissing)):  # it may be among those
        look.find_message(repository, snapshot, "0123456789")
