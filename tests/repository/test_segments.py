"""Segments behave like a plain table of messages, whatever happens to it, and rewrite only what changed."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backupd.mail.uidset import UidSet
from backupd.model import MessageState
from backupd.repository import segments
from backupd.repository.payload import BlobKind
from backupd.repository.runs import MessageRow
from backupd.repository.segments import Segment


class Runs:
    """Where runs are kept, in memory."""

    def __init__(self) -> None:
        self.runs: dict[bytes, tuple[BlobKind, bytes]] = {}
        self.written = 0

    def put_run(self, kind: BlobKind, data: bytes) -> bytes:
        self.written += 1
        name = b"%d" % len(self.runs)
        self.runs[name] = (kind, data)
        return name

    def get_run(self, blob_id: bytes, kind: BlobKind) -> bytes:
        found, data = self.runs[blob_id]
        assert found is kind
        return data


def row(uid: int) -> MessageRow:
    return MessageRow(uid, b"%032d" % uid, b"date", uid % 97, b"%016d" % uid, None, bytes(32), 0)


class Mailbox(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Runs()
        self.segments: list[Segment] = []
        self.table: dict[int, tuple[bytes, ...]] = {}

    def _update(self, gone: set[int], flags: dict[int, tuple[bytes, ...]], new: dict[int, tuple[bytes, ...]]) -> None:
        for uid in gone:
            self.table.pop(uid, None)
        self.table.update({uid: value for uid, value in flags.items() if uid in self.table})
        self.table.update(new)
        self.segments = segments.update(
            self.store,
            self.segments,
            vanished=UidSet.from_uids(gone),
            changed={uid: MessageState(uid, value) for uid, value in flags.items() if uid not in gone},
            added=[(row(uid), MessageState(uid, new[uid])) for uid in sorted(new)],
        )

    @rule(count=st.integers(1, 300), gap=st.integers(1, 5))
    def new_mail(self, count: int, gap: int) -> None:
        first = max(self.table, default=0) + gap
        self._update(set(), {}, dict.fromkeys(range(first, first + count), (b"\\Recent",)))

    @rule(data=st.data())
    def anything(self, data: st.DataObject) -> None:
        there = sorted(self.table)
        some = st.sets(st.sampled_from(there), max_size=40) if there else st.just(set())
        gone = data.draw(some)
        flags = dict.fromkeys(data.draw(some) - gone, (b"\\Seen",))
        free = set(range(1, (there[-1] if there else 0) + 20)) - set(there)
        new = data.draw(st.sets(st.sampled_from(sorted(free)), max_size=20))
        self._update(gone, flags, dict.fromkeys(new, (b"\\Draft",)))

    @rule()
    def everything_goes(self) -> None:
        self._update(set(self.table), {}, {})

    @invariant()
    def it_is_the_table(self) -> None:
        found = {each.uid: state.flags for part in self.segments for each, state in segments.read(self.store, part)}
        assert found == self.table
        assert list(found) == sorted(found)
        assert sum(part.messages for part in self.segments) == len(self.table)
        assert sum(part.octets for part in self.segments) == sum(row(uid).size for uid in self.table)
        ranges = segments.uid_ranges(self.store, self.segments)
        assert UidSet.from_ranges(ranges) == UidSet.from_uids(self.table)

    @invariant()
    def they_do_not_overlap_and_none_is_too_large(self) -> None:
        for one, two in zip(self.segments, self.segments[1:], strict=False):
            assert one.last < two.first
        assert all(part.rows <= segments.ROWS for part in self.segments)


TestMailbox = Mailbox.TestCase
TestMailbox.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


def test_a_flag_in_a_large_mailbox_costs_one_run() -> None:
    store = Runs()
    uids = range(1, 100_001)
    some = segments.write(store, [row(uid) for uid in uids], [MessageState(uid, ()) for uid in uids])
    store.written = 0

    after = segments.update(store, some, changed={50_000: MessageState(50_000, (b"\\Seen",))})

    assert store.written == 1
    assert sum(one != two for one, two in zip(some, after, strict=True)) == 1


def test_new_mail_one_at_a_time_leaves_few_segments_and_writes_each_message_a_few_times() -> None:
    store = Runs()
    some: list[Segment] = []
    for uid in range(1, 2_001):
        some = segments.update(store, some, added=[(row(uid), MessageState(uid, ()))])

    assert len(some) < 12
    assert store.written < 2_000 * 2 * 4
