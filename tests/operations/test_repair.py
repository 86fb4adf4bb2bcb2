"""What is damaged or missing is put back from where it is good, and nothing else is touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.errors import Interrupted, NoRepository, UsageError, WrongKey
from backupd.operations.copy import copy
from backupd.operations.repair import RepairReport, repair
from backupd.repository import names
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository, create, unlock
from backupd.storage.base import Storage, Version
from tests.operations.conftest import CHEAP, Backup
from tests.support.mail import message, nasty_mail
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class Versioned(MemoryStorage):
    """Keeps what is replaced and removed, as a bucket does; the time goes on by a second with each change."""

    url = "memory:versioned"

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[bytes | None]] = {}
        self.times: dict[str, list[float]] = {}
        self.time = LONG_AGO.timestamp() + 86400

    @property
    def versions(self) -> Versioned.Versions:  # type: ignore[override]
        self.keep()
        return Versioned.Versions(self)

    def keep(self) -> None:
        """Note what has changed since the last time."""
        for name in {*self.history, *self.objects}:
            now, past = self.objects.get(name), self.history.setdefault(name, [])
            if not past or past[-1] != now:
                past.append(now)
                self.times.setdefault(name, []).append(self.time)
        self.time += 1

    class Versions:
        def __init__(self, storage: Versioned) -> None:
            self._storage = storage

        def list(self, prefix: str = "") -> Iterator[Version]:
            for name in sorted(self._storage.history):
                past = self._storage.history[name]
                for place in range(len(past) - 1, -1, -1) if name.startswith(prefix) else ():
                    data, stored = past[place], self._storage.times[name][place]
                    yield Version(name, str(place), len(data or b""), stored, place == len(past) - 1, data is None)

        def get(self, version: Version) -> bytes:
            data = self._storage.history[version.name][int(version.id)]
            assert data is not None
            return data


@pytest.fixture
def storage() -> Versioned:
    return Versioned()


@pytest.fixture
def second() -> MemoryStorage:
    other = MemoryStorage()
    other.url = "memory:second"
    return other


@pytest.fixture
def backed_up(take: Backup, account: SimulatedAccount, storage: Versioned, second: MemoryStorage) -> dict[str, bytes]:
    """Three snapshots of some mail, in the repository and in a copy; all objects as they are to be."""
    for number in range(3):
        account.append(b"INBOX", message(f"Message {number}"), *list(nasty_mail().values())[number::3])
        take()
    copy(storage, second)
    storage.keep()
    return dict(storage.objects)


def run(storage: MemoryStorage, copies: list[MemoryStorage], **options: object) -> RepairReport:
    def opened(storage: Storage) -> Repository:
        return Repository(storage, unlock(storage, "a passphrase"))

    return repair(storage, copies, opened, **options)  # type: ignore[arg-type]


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def one(storage: MemoryStorage, prefix: str) -> str:
    return next(name for name in sorted(storage.objects) if name.startswith(prefix))


KINDS = [names.DESCRIPTION, names.KEYS, names.PACKS, names.INDEX, names.SNAPSHOTS]


def test_where_nothing_is_amiss_nothing_is_done(
    backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage
) -> None:
    storage.before_put = lambda name: pytest.fail(f"{name} was stored")
    report = run(storage, [second])
    assert (report.mended, report.lost, report.notes) == ([], [], [])
    assert (report.objects, report.octets) == (len(backed_up), sum(map(len, backed_up.values())))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spoil", ["flipped", "cut", "emptied", "swapped"])
def test_what_is_damaged_is_put_back_from_a_copy(
    backed_up: dict[str, bytes], second: MemoryStorage, kind: str, spoil: str
) -> None:
    storage = MemoryStorage()
    storage.objects.update(backed_up)
    name = one(storage, kind)
    good = backed_up[name]
    spoiled = {"flipped": flipped(good), "cut": good[: len(good) // 2], "emptied": b"", "swapped": b"{}"}[spoil]
    if kind in (names.DESCRIPTION, names.KEYS) and spoil == "flipped":
        spoiled = b"#" + good[1:]  # the last octet of these is an end of line, and says nothing
    storage.objects[name] = spoiled

    assert [each.object for each in run(storage, [second], dry_run=True).mended] == [name]
    assert storage.objects[name] == spoiled
    report = run(storage, [second])

    assert [(each.object, each.why, each.source) for each in report.mended] == [(name, "damaged", second.url)]
    assert report.lost == []
    assert storage.objects == backed_up


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_replaced_is_put_back_from_its_first_version(
    backed_up: dict[str, bytes], storage: Versioned, kind: str
) -> None:
    name = one(storage, kind)
    for junk in (b"your files have been encrypted", b"pay"):
        storage.objects[name] = junk
        storage.keep()
    report = run(storage, [])
    assert [(each.object, each.why, each.source) for each in report.mended] == [(name, "damaged", storage.url)]
    assert storage.objects == backed_up


@pytest.mark.parametrize("kind", [names.DESCRIPTION, names.KEYS])
def test_a_description_or_key_slot_of_somebody_else_is_not_taken_for_ours(
    backed_up: dict[str, bytes], storage: Versioned, kind: str
) -> None:
    foreign = MemoryStorage()
    create(foreign, "another passphrase", argon2=CHEAP)
    storage.objects[one(storage, kind)] = foreign.objects[one(foreign, kind)]
    assert [each.why for each in run(storage, []).mended] == ["damaged"]
    assert storage.objects == backed_up


@pytest.mark.parametrize("from_copy", [False, True])
def test_a_pack_that_is_missing_is_missed_and_put_back(
    backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage, from_copy: bool
) -> None:
    for name in [name for name in storage.objects if name.startswith(names.PACKS)]:
        storage.delete(name)
    report = run(storage, [second] if from_copy else [], quick=True)
    assert {each.why for each in report.mended} == {"missing"}
    assert {each.source for each in report.mended} == {second.url if from_copy else storage.url}
    assert storage.objects == backed_up


def test_what_is_good_nowhere_is_named_and_left_as_it_is(
    backed_up: dict[str, bytes], second: MemoryStorage
) -> None:
    storage = MemoryStorage()
    storage.objects.update(backed_up)
    name = one(storage, names.PACKS)
    storage.objects[name] = second.objects[name] = flipped(backed_up[name])
    report = run(storage, [second])
    assert (report.mended, [(each.object, each.why) for each in report.lost]) == ([], [(name, "damaged")])
    assert storage.objects[name] == flipped(backed_up[name])


def test_what_was_removed_since_a_time_is_brought_back_and_what_was_forgotten_before_is_not(
    backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage
) -> None:
    forgotten = one(storage, names.SNAPSHOTS)
    storage.delete(forgotten)
    storage.keep()
    attack = datetime.fromtimestamp(storage.time, UTC)
    for name in list(storage.objects):
        storage.delete(name)

    # Neither from versions nor from the copy, which has it and does not know better.
    for copies in ([], [second]):
        report = run(storage, copies, removed_since=attack)
        assert report.lost == []
        assert storage.objects == {name: data for name, data in backed_up.items() if name != forgotten}
        for name in list(storage.objects):
            storage.delete(name)

    run(storage, [], removed_since=LONG_AGO)
    assert storage.objects == backed_up


def test_a_repository_that_is_gone_is_built_anew_from_a_copy(
    backed_up: dict[str, bytes], second: MemoryStorage, account: SimulatedAccount, secrets: Secrets
) -> None:
    empty = MemoryStorage()
    with pytest.raises(NoRepository, match="--removed-since"):
        run(empty, [second])
    planned = run(empty, [second], removed_since=LONG_AGO, dry_run=True)
    assert empty.objects == {}
    report = run(empty, [second], removed_since=LONG_AGO)
    assert empty.objects == backed_up
    assert {each.object for each in planned.mended} == {each.object for each in report.mended} == set(backed_up)
    with Repository(empty, secrets) as repository:
        assert contents(repository, newest(repository)) == account.contents()


def test_key_slots_that_a_copy_still_has_come_back_only_where_there_is_none(
    backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage
) -> None:
    second.objects["keys/revoked-00000000.json"] = second.objects[one(second, names.KEYS)]
    plain = MemoryStorage()
    plain.objects.update(backed_up)
    run(plain, [second], removed_since=LONG_AGO)
    assert plain.objects == backed_up
    plain.delete(one(plain, names.KEYS))
    run(plain, [second])
    assert plain.objects == {**backed_up, "keys/revoked-00000000.json": second.objects["keys/revoked-00000000.json"]}


def test_without_a_key_damage_is_mended_and_it_says_what_was_not_looked_for(
    backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage
) -> None:
    name = one(storage, names.INDEX)
    storage.objects[name] = b"x"

    def locked_out(_storage: Storage) -> Repository:
        raise WrongKey("opens nothing")

    report = repair(storage, [second], locked_out)
    assert [each.object for each in report.mended] == [name]
    assert any("not looked for" in note for note in report.notes)


def test_a_copy_of_another_repository_is_refused(backed_up: dict[str, bytes], storage: Versioned) -> None:
    foreign = MemoryStorage()
    create(foreign, "another passphrase", argon2=CHEAP)
    with pytest.raises(UsageError, match="another repository"):
        run(storage, [foreign], removed_since=LONG_AGO)


def test_it_stops_when_it_is_told_to(backed_up: dict[str, bytes], storage: Versioned, second: MemoryStorage) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        run(storage, [second], stop=stop)
    assert storage.objects == backed_up


def test_mail_can_be_read_again_where_the_damage_was_known(
    take: Backup, account: SimulatedAccount, repository: Repository, storage: Versioned, second: MemoryStorage
) -> None:
    account.append(b"INBOX", message("One"))
    take()
    copy(storage, second)
    for name in [name for name in storage.objects if name.startswith(names.PACKS)]:
        storage.delete(name)
    account.expunge(b"INBOX", 1)
    take()  # which takes the lost pack out of account
    kept = min(repository.refs())

    repair(storage, [second], lambda where: Repository(where, repository.secrets))

    with Repository(storage, repository.secrets) as anew:
        assert len(contents(anew, anew.snapshot(kept))[b"INBOX"]) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_was_done_to_it_a_good_copy_makes_it_whole(
    backed_up: dict[str, bytes], second: MemoryStorage, data: st.DataObject
) -> None:
    storage = MemoryStorage()
    storage.objects.update(backed_up)
    for name in data.draw(st.lists(st.sampled_from(sorted(backed_up)), max_size=6, unique=True)):
        good = backed_up[name]
        match data.draw(st.sampled_from(["remove", "cut", "flip", "other"])):
            case "remove":
                del storage.objects[name]
            case "cut":
                storage.objects[name] = good[: data.draw(st.integers(0, len(good) - 2))]
            case "flip":
                place = data.draw(st.integers(0, len(good) - 1))
                storage.objects[name] = good[:place] + bytes([good[place] ^ 0x80]) + good[place + 1 :]
            case _:
                storage.objects[name] = backed_up[data.draw(st.sampled_from(sorted(backed_up)))]
    if not storage.objects:
        return
    report = run(storage, [second], removed_since=datetime.now(UTC) - timedelta(days=1))
    assert report.lost == []
    proved = {name for name in backed_up if names.proves(name, [backed_up[name]]) is not None}
    assert {name: storage.objects[name] for name in proved} == {name: backed_up[name] for name in proved}
    assert storage.objects.keys() == backed_up.keys()
