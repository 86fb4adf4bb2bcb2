"""A copy is the same repository in another place, and what happens to the first does not happen to it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Interrupted, NoRepository, StorageUnavailable, UsageError
from backupd.operations.copy import _side_by_side, copy
from backupd.repository import names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository, unlock
from backupd.storage.base import Buffer, ObjectInfo
from tests.operations.conftest import CHEAP, Backup
from tests.support.mail import Attachment, message, nasty_mail, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount

SECRET = "the passphrase of a test"


class Second(MemoryStorage):
    """Another place, which may fail at its so many-th write."""

    url = "memory:second"

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at, self.written = fails_at, list[str]()

    def put(self, name: str, data: Sequence[Buffer]) -> None:
        if len(self.written) == self.fails_at:
            raise StorageUnavailable("the line is cut", subject=self.url)
        super().put(name, data)
        self.written.append(name)


@pytest.fixture
def filled(take: Backup, account: SimulatedAccount, storage: MemoryStorage) -> MemoryStorage:
    account.append(b"INBOX", *nasty_mail().values())
    take()
    account.append(b"INBOX", message("Large", attachments=[Attachment("noise.bin", noise(1, 300_000))]))
    take()
    return storage


def test_a_copy_has_the_same_objects_and_a_second_one_writes_nothing(filled: MemoryStorage) -> None:
    second = Second()
    done = copy(filled, second)
    assert second.objects == filled.objects
    assert (done.copied, done.copied_octets, done.problems) == (done.objects, done.octets, [])

    second.written.clear()
    again = copy(filled, second)
    assert (again.copied, again.gone, second.written) == (0, 0, [])


def test_mail_is_read_from_a_copy(filled: MemoryStorage, account: SimulatedAccount, repository: Repository) -> None:
    second = Second()
    copy(filled, second)
    with Repository(second, repository.secrets) as at_copy:
        assert contents(at_copy, newest(at_copy)) == account.contents()


def test_only_what_is_new_is_copied(take: Backup, account: SimulatedAccount, filled: MemoryStorage) -> None:
    second = Second()
    copy(filled, second)
    second.written.clear()
    account.append(b"INBOX", message("One more"))
    take()
    copy(filled, second)
    # The record tells of it, and comes when it is there.
    assert [name.split("/")[0] for name in second.written][-2:] == ["snapshots", "log"]
    assert 3 <= len(second.written) <= 4


def test_wherever_it_is_cut_the_copy_is_valid_and_the_next_goes_on(
    filled: MemoryStorage, account: SimulatedAccount, repository: Repository
) -> None:
    count = len(filled.objects)
    for fails_at in range(1, count):
        second = Second(fails_at)
        with pytest.raises(StorageUnavailable):
            copy(filled, second, connections=1)
        assert second.written[0] == names.DESCRIPTION
        with Repository(second, repository.secrets) as at_copy:
            for ref in at_copy.refs():
                contents(at_copy, at_copy.snapshot(ref))  # each that is there has all its mail
        second.fails_at = None
        there = len(filled.objects.keys() & second.objects.keys())
        assert copy(filled, second).copied == count - there
        assert second.objects.items() >= filled.objects.items()
        # The record comes all at once, before it comes piece by piece; that may have stayed.
        assert all(name.startswith(names.LOG) for name in second.objects.keys() - filled.objects.keys())


def test_stopped_it_says_how_to_go_on(filled: MemoryStorage) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted, match="goes on from there"):
        copy(filled, Second(), stop=stop)


def test_damage_is_told_and_not_copied(filled: MemoryStorage) -> None:
    second = Second()
    pack = next(info.name for info in filled.list(names.PACKS))
    sound = filled.objects[pack]
    filled.objects[pack] = sound[:-1] + bytes([sound[-1] ^ 1])

    done = copy(filled, second)

    assert [problem.object for problem in done.problems] == [pack]
    assert pack not in second.objects
    filled.objects[pack] = sound
    assert copy(filled, second).problems == []
    assert second.objects == filled.objects


def test_an_object_of_another_size_in_the_copy_is_told(filled: MemoryStorage) -> None:
    second = Second()
    copy(filled, second)
    pack = next(info.name for info in filled.list(names.PACKS))
    second.objects[pack] = b"short"
    (problem,) = copy(filled, second).problems
    assert problem.object == pack


def test_what_is_destroyed_in_the_first_stays_in_the_copy(filled: MemoryStorage) -> None:
    second = Second()
    copy(filled, second)
    before = dict(second.objects)
    filled.objects = {names.DESCRIPTION: filled.objects[names.DESCRIPTION]}
    done = copy(filled, second, revoke=True)
    assert second.objects == before
    assert (done.gone, done.revoked) == (len(before) - 1, [])


def test_a_key_slot_that_was_removed_is_told_and_removed_where_that_is_wished(
    repository: Repository, storage: MemoryStorage
) -> None:
    second = Second()
    repository.add_slot("stolen", SECRET, Role.WRITER, argon2=CHEAP)
    copy(storage, second)
    repository.remove_slot("stolen")

    told = copy(storage, second)
    assert [slot.rsplit("-", 1)[0] for slot in told.key_slots] == ["keys/stolen"]
    assert unlock(second, SECRET).role is Role.WRITER
    done = copy(storage, second, revoke=True)

    assert (done.revoked, done.key_slots) == (told.key_slots, [])
    assert second.objects == storage.objects


def test_another_repository_is_not_mixed_with_this_one(filled: MemoryStorage) -> None:
    second = Second()
    second.put(names.DESCRIPTION, [b"{}"])
    with pytest.raises(UsageError, match="another repository"):
        copy(filled, second)
    with pytest.raises(NoRepository):
        copy(MemoryStorage(), Second())
    with pytest.raises(UsageError, match="beside itself"):
        copy(filled, filled)


SIZES = st.dictionaries(st.text("abc/", min_size=1, max_size=3), st.integers(0, 3))


@given(SIZES, SIZES)
def test_two_listings_side_by_side(first: dict[str, int], second: dict[str, int]) -> None:
    listings = [iter([ObjectInfo(*each) for each in sorted(sizes.items())]) for sizes in (first, second)]
    assert list(_side_by_side(*listings)) == [
        (name, first.get(name), second.get(name)) for name in sorted({*first, *second})
    ]
