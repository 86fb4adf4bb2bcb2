"""What changed between two snapshots."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.operations.diff import Difference, Pair, diff
from backupd.repository import segments
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from tests.support import archive
from tests.support.archive import Box, Mail
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage

ONE, TWO, THREE = (Mail(message(subject)) for subject in ("one", "two", "three"))


def between(repository: Repository, before: dict[bytes, Box], after: dict[bytes, Box]) -> Difference:
    old, new = (
        archive.snapshot([archive.record(repository, name, box) for name, box in boxes.items()])
        for boxes in (before, after)
    )
    repository.flush()
    return diff(repository, old, new)


def uids(pairs: list[Pair]) -> list[int]:
    return [row.uid for row, _ in pairs]


def test_equal_snapshots_do_not_differ(repository: Repository) -> None:
    boxes = {b"INBOX": Box({1: ONE, 2: TWO}), b"Empty": Box({})}
    assert between(repository, boxes, boxes) == Difference([], [])


def test_new_gone_and_flagged_messages(repository: Repository) -> None:
    flagged = ONE._replace(flags=(b"\\Flagged",))
    found = between(repository, {b"INBOX": Box({1: ONE, 2: TWO})}, {b"INBOX": Box({1: flagged, 3: THREE})})
    (inbox,) = found.mailboxes
    assert (uids(inbox.new), uids(inbox.gone)) == ([3], [2])
    assert [(change.before[1].flags, change.after[1].flags) for change in inbox.flags] == [((), (b"\\Flagged",))]


def test_a_message_that_went_to_another_mailbox_is_moved_and_neither_new_nor_gone(repository: Repository) -> None:
    found = between(
        repository,
        {b"INBOX": Box({1: ONE, 2: TWO}), b"Archive": Box({})},
        {b"INBOX": Box({1: ONE}), b"Archive": Box({9: TWO})},
    )
    (moved,) = found.moved
    assert (moved.from_mailbox, moved.before[0].uid, moved.to_mailbox, moved.after[0].uid) == ("INBOX", 2, "Archive", 9)
    assert not any(mailbox.new or mailbox.gone for mailbox in found.mailboxes)


def test_of_two_equal_messages_that_went_one_may_be_moved_and_one_gone(repository: Repository) -> None:
    found = between(repository, {b"A": Box({1: ONE, 2: ONE}), b"B": Box({})}, {b"A": Box({}), b"B": Box({5: ONE})})
    assert len(found.moved) == 1
    assert [len(mailbox.gone) for mailbox in found.mailboxes] == [1, 0]


def test_mailboxes_that_came_and_went(repository: Repository) -> None:
    found = between(repository, {b"Old": Box({1: ONE}, 5)}, {b"New": Box({1: TWO}, 6)})
    new, old = found.mailboxes
    assert (new.before, new.name, uids(new.new)) == (None, "New", [1])
    assert (old.after, old.name, uids(old.gone)) == (None, "Old", [1])


def test_a_renamed_mailbox_is_known_by_its_id_even_when_it_is_empty(repository: Repository) -> None:
    found = between(repository, {b"Old": Box({}, 5, b"id-1")}, {b"New": Box({}, 5, b"id-1")})
    (mailbox,) = found.mailboxes
    assert mailbox.renamed


def test_a_renamed_mailbox_is_known_by_its_uidvalidity_and_messages(repository: Repository) -> None:
    found = between(repository, {b"Old": Box({1: ONE, 2: TWO}, 5)}, {b"New": Box({1: ONE, 2: TWO, 3: THREE}, 5)})
    (mailbox,) = found.mailboxes
    assert mailbox.renamed
    assert uids(mailbox.new) == [3]


def test_another_mailbox_under_the_same_name_is_not_the_same(repository: Repository) -> None:
    found = between(
        repository,
        {b"Work": Box({1: ONE}, 5, b"id-1")},
        {b"Work": Box({1: TWO}, 6, b"id-2"), b"Old work": Box({1: ONE}, 5, b"id-1")},
    )
    assert {(each.name, each.renamed, each.before is None) for each in found.mailboxes} == {
        ("Work", False, True),
        ("Old work", True, False),
    }


def test_a_uidvalidity_reset_says_how_many_messages_are_the_same(repository: Repository) -> None:
    seen = TWO._replace(flags=(b"\\Seen",))
    found = between(repository, {b"INBOX": Box({1: ONE, 2: TWO}, 5)}, {b"INBOX": Box({7: ONE, 8: seen, 9: THREE}, 6)})
    (inbox,) = found.mailboxes
    assert (inbox.reset, inbox.recognised) == (True, 2)
    assert (uids(inbox.new), uids(inbox.gone), len(inbox.flags)) == ([9], [], 1)


def test_subscription_and_special_use_are_told(repository: Repository) -> None:
    found = between(repository, {b"A": Box({}, subscribed=True)}, {b"A": Box({}, special_use=(b"\\Archive",))})
    assert found.mailboxes[0].properties == ["no longer subscribed", "special use none is now \\Archive"]


def test_equal_segments_are_not_read(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {uid: Mail(message(f"mail {uid}")) for uid in range(1, 41)}
    monkeypatch.setattr(segments, "ROWS", 4)
    before = archive.record(repository, b"INBOX", Box(many))
    after = archive.record(repository, b"INBOX", Box({**many, 17: many[17]._replace(flags=(b"\\Seen",))}))
    repository.flush()
    counting = _Counting(repository)
    found = diff(counting, archive.snapshot([before]), archive.snapshot([after]))
    assert len(found.mailboxes[0].flags) == 1
    assert counting.reads == 4  # a membership and a state run on either side, of ten segments


class _Counting:
    def __init__(self, repository: Repository) -> None:
        self.reads, self._repository = 0, repository

    def put_run(self, kind: BlobKind, data: bytes) -> bytes:
        raise AssertionError("a diff writes nothing")

    def get_run(self, blob_id: bytes, kind: BlobKind) -> bytes | memoryview:
        self.reads += 1
        return self._repository.get_run(blob_id, kind)


_MAILS = [Mail(message(f"mail {number}"), flags) for number in range(5) for flags in ((), (b"\\Seen",))]
_BOXES = st.dictionaries(
    st.sampled_from([b"A", b"B", b"C"]),
    st.builds(Box, st.dictionaries(st.integers(1, 9), st.sampled_from(_MAILS), max_size=6), st.integers(1, 2)),
)


@settings(max_examples=60, deadline=None)
@given(_BOXES, _BOXES)
def test_what_was_plus_what_changed_is_what_is(before: dict[bytes, Box], after: dict[bytes, Box]) -> None:
    with Repository(storage := MemoryStorage(), create(storage, "x", argon2=Argon2(1, 8, 1))) as repository:
        found = between(repository, before, after)
        secrets = repository.secrets

    def all_of(boxes: dict[bytes, Box]) -> Counter[bytes]:
        return Counter(secrets.content_id(mail.raw) for box in boxes.values() for mail in box.messages.values())

    came = Counter(row.message for mailbox in found.mailboxes for row, _ in mailbox.new)
    went = Counter(row.message for mailbox in found.mailboxes for row, _ in mailbox.gone)
    assert all_of(before) + came == all_of(after) + went
