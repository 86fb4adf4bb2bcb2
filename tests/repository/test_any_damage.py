"""One harm to one object, wherever: what is still read is right, and all else is said to be damaged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged, NoRepository, ObjectMissing, StorageUnavailable, WrongKey
from backupd.operations.messages import MessageStore
from backupd.repository import segments
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create, unlock
from tests.repository.conftest import CHEAP, PASSPHRASE
from tests.support.archive import Box, Mail, record, snapshot
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import whole

Found = dict[tuple[str, int], bytes]


def back_up(storage: MemoryStorage, count: int) -> None:
    with Repository(storage, unlock(storage, PASSPHRASE), sizes=Sizes(block=400, pack=1500)) as repository:
        mails = {uid: Mail(message(f"Message {uid}", size=500)) for uid in range(1, count + 1)}
        repository.put_snapshot(snapshot([record(repository, b"INBOX", Box(mails))]))


@pytest.fixture(scope="module")
def objects() -> dict[str, bytes]:
    storage = MemoryStorage()
    create(storage, PASSPHRASE, argon2=CHEAP)
    for count in (4, 8):
        back_up(storage, count)
    return storage.objects


def readable(storage: MemoryStorage) -> Iterator[tuple[tuple[str, int], bytes]]:
    """All messages of all snapshots that can be read, leaving out what is damaged piece by piece."""
    with Repository(storage, unlock(storage, PASSPHRASE)) as repository:
        store = MessageStore(repository)
        for ref in repository.refs():
            with contextlib.suppress(Damaged):
                for mailbox in repository.snapshot(ref).mailboxes:
                    for segment in mailbox.segments:
                        for row, _ in segments.read(repository, segment):
                            with contextlib.suppress(Damaged, ObjectMissing):
                                yield (ref.id, row.uid), whole(store.load(row.message))


@st.composite
def harms(draw: st.DrawFn, data: bytes) -> bytes:
    place = draw(st.integers(0, len(data) - 1))
    kind = draw(st.sampled_from(["bit", "octets", "cut", "lengthened", "replaced"]))
    if kind == "bit":
        return data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
    if kind == "octets":
        octets = draw(st.binary(min_size=1, max_size=40))
        return data[:place] + octets + data[place + len(octets) :]
    if kind == "cut":
        return data[:place]
    return data + draw(st.binary(min_size=1, max_size=40)) if kind == "lengthened" else draw(st.binary(max_size=200))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_harm_gives_a_wrong_message_or_an_error_that_is_not_one_of_ours(
    objects: dict[str, bytes], draw: st.DataObject
) -> None:
    storage = MemoryStorage()
    storage.objects = dict(objects)
    truth = dict(readable(storage))
    assert len(truth) == 12
    name = draw.draw(st.sampled_from(sorted(objects)))
    storage.objects[name] = draw.draw(harms(objects[name]))

    found: Found = {}
    with contextlib.suppress(Damaged, WrongKey, NoRepository, ObjectMissing):
        found = dict(readable(storage))

    assert found.items() <= truth.items()


@pytest.mark.parametrize("last", range(1, 7))
def test_a_storage_that_stores_and_then_says_it_could_not_costs_nothing(last: int) -> None:
    class Unsure(MemoryStorage):
        left = last

        def put(self, name: str, data: object) -> None:
            super().put(name, data)  # type: ignore[arg-type]
            self.left -= 1
            if self.left == 0:
                raise StorageUnavailable("no answer")

    storage = Unsure()
    storage.left = 0
    create(storage, PASSPHRASE, argon2=CHEAP)
    storage.left = last
    with contextlib.suppress(StorageUnavailable):
        back_up(storage, 8)
    storage.left = 0
    taken = [uid for _, uid in dict(readable(storage))]
    assert taken in ([], list(range(1, 9)))
    back_up(storage, 8)
    assert [uid for _, uid in dict(readable(storage))][-8:] == list(range(1, 9))
