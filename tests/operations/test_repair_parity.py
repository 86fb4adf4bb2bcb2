"""Parity heals what changed within its bounds; what it cannot heal is named, and left as it is."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.operations.audit import Means, Wish, audit
from backupd.operations.audit_report import Level
from backupd.operations.repair import RepairReport, repair
from backupd.operations.repair_report import PARITY
from backupd.repository import names, parity
from backupd.repository.keys import Secrets
from backupd.repository.parity_storage import ParityStorage
from backupd.repository.repository import Repository
from backupd.storage.base import Storage
from backupd.storage.s3 import S3Storage
from tests.operations.conftest import Backup
from tests.operations.test_repair import LONG_AGO, flipped, one
from tests.support.mail import Attachment, message, nasty_mail, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.seaweedfs import SeaweedFS
from tests.support.simulated_account import SimulatedAccount

WHOLE = 4_000
"""Octets up to which an object is stored twice here, so that there are some that are not."""


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def protected(
    take: Backup, account: SimulatedAccount, storage: MemoryStorage, secrets: Secrets
) -> dict[str, bytes]:
    """Two snapshots, all with parity."""
    for number in range(2):
        attached = [Attachment("a.bin", noise(number, 20_000))]
        account.append(b"INBOX", message(f"Message {number}", attachments=attached), *nasty_mail().values())
        take()
    run(storage, secrets)
    return dict(storage.objects)


def run(storage: MemoryStorage, secrets: Secrets, *, per_cent: int | None = 5, **options: object) -> RepairReport:
    def opened(where: Storage) -> Repository:
        return Repository(where, secrets)

    where = ParityStorage(storage, per_cent, whole=WHOLE) if per_cent else storage
    return repair(where, [], opened, **options)  # type: ignore[arg-type]


def objects(storage: dict[str, bytes]) -> list[str]:
    return [name for name in sorted(storage) if not name.startswith(names.PARITY)]


def test_what_was_stored_without_parity_gets_it_with_the_next_repair(
    take: Backup, account: SimulatedAccount, storage: MemoryStorage, secrets: Secrets
) -> None:
    account.append(b"INBOX", *nasty_mail().values())
    take()
    before = dict(storage.objects)
    planned = run(storage, secrets, dry_run=True)
    assert storage.objects == before
    report = run(storage, secrets)
    assert planned.parity == report.parity == len(before)
    assert {names.parity(name) for name in before} | before.keys() == storage.objects.keys()
    again = run(storage, secrets)
    assert (again.parity, again.is_whole) == (0, True)


@pytest.mark.parametrize("prefix", [names.DESCRIPTION, names.KEYS, names.PACKS, names.INDEX, names.SNAPSHOTS])
def test_a_flipped_bit_in_any_object_is_healed(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets, prefix: str
) -> None:
    name = one(storage, prefix)
    storage.objects[name] = flipped(protected[name])
    assert [each.object for each in run(storage, secrets, dry_run=True, per_cent=None).mended] == [name]
    report = run(storage, secrets, per_cent=None)  # what is there is of use whatever the configuration says
    assert [(each.object, each.why, each.source) for each in report.mended] == [(name, "damaged", PARITY)]
    assert report.is_whole
    assert storage.objects == protected


def test_a_small_object_comes_back_even_if_it_is_gone_and_a_large_one_does_not(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets
) -> None:
    snapshot = one(storage, names.SNAPSHOTS)
    for name in [*(name for name in storage.objects if name.startswith(names.KEYS)), names.DESCRIPTION, snapshot]:
        del storage.objects[name]
    assert run(storage, secrets).is_whole
    assert snapshot not in storage.objects  # somebody may have meant to remove it
    assert run(storage, secrets, removed_since=LONG_AGO).is_whole
    assert storage.objects == protected

    pack = max(objects(protected), key=lambda name: len(protected[name]))
    del storage.objects[pack]
    report = run(storage, secrets)
    assert [each.object for each in report.lost] == [pack]
    assert report.affected


def test_parity_that_was_left_behind_goes_only_when_nothing_is_lost(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets
) -> None:
    gone = names.parity(names.pack("ab" * 32))
    storage.objects[gone] = protected[names.parity(one(storage, names.PACKS))]
    pack = max(objects(protected), key=lambda name: len(protected[name]))
    del storage.objects[pack]
    assert not run(storage, secrets).is_whole
    assert gone in storage.objects
    storage.objects[pack] = protected[pack]
    run(storage, secrets, dry_run=True)
    assert gone in storage.objects
    assert run(storage, secrets).is_whole
    assert storage.objects == protected


def test_damaged_parity_is_made_anew(protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets) -> None:
    for name in (names.parity(one(storage, prefix)) for prefix in (names.PACKS, names.SNAPSHOTS, names.KEYS)):
        storage.objects[name] = flipped(protected[name])
    assert run(storage, secrets).parity == 3
    assert storage.objects == protected


def test_parity_under_the_name_of_another_object_is_made_anew(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets
) -> None:
    first, second = [name for name in sorted(protected) if name.startswith(names.PARITY + names.PACKS)][:2]
    storage.objects[first] = protected[second]
    assert run(storage, secrets).parity == 1
    assert storage.objects == protected


def test_an_audit_proves_parity_without_a_key(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets
) -> None:
    def found() -> list[str]:
        report = audit(storage, None, Wish(Level.STORAGE, {}), Means(None, lambda: LONG_AGO))
        return [each.subject for each in report.findings]

    assert found() == []
    name = names.parity(one(storage, names.PACKS))
    storage.objects[name] = flipped(protected[name])
    assert found() == [name]
    storage.objects[name] = protected[name]
    index, slot = names.parity(one(storage, names.INDEX)), one(storage, names.KEYS)
    storage.objects[name] = protected[index]
    assert found() == [name]
    storage.objects[name] = protected[name]
    storage.objects[names.parity(slot)] = protected[index]
    assert found() == [slot]
    storage.objects[names.parity(slot)] = protected[names.parity(slot)]
    storage.objects[names.parity(names.pack("ab" * 32))] = protected[name]
    assert found() == [storage.url, names.parity(names.pack("ab" * 32))]
    del storage.objects[names.parity(names.pack("ab" * 32))]
    del storage.objects[index]
    assert found() == [storage.url]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_what_is_put_back_is_what_was_there_and_the_rest_stays_as_it_is(
    protected: dict[str, bytes], storage: MemoryStorage, secrets: Secrets, data: st.DataObject
) -> None:
    storage.objects = dict(protected)
    for name in data.draw(st.lists(st.sampled_from(sorted(protected)), max_size=4, unique=True)):
        good = protected[name]
        spoilt = bytearray(good)
        for place in data.draw(st.lists(st.integers(0, len(good) - 1), min_size=1, max_size=8)):
            spoilt[place] ^= 0x40
        storage.objects[name] = bytes(spoilt[: data.draw(st.sampled_from([len(good), len(good) - 1]))])
    damaged = dict(storage.objects)
    report = repair(storage, [], _locked_out)
    lost = {each.object for each in report.lost}
    for name in objects(protected):
        spoilt_parity = not names.proves(names.parity(name), [damaged[names.parity(name)]])
        if names.proves(name, [damaged[name]]) is None and spoilt_parity:
            continue  # of the description and the keys nothing else tells what they were
        within = parity.heal(damaged[name], damaged[names.parity(name)]) is not None
        assert storage.objects[name] == (damaged[name] if name in lost else protected[name])
        if damaged[name] != protected[name]:
            assert (name in lost) is not within
    assert {name: each for name, each in storage.objects.items() if name.startswith(names.PARITY)} == {
        name: each for name, each in damaged.items() if name.startswith(names.PARITY)
    }


def _locked_out(_storage: Storage) -> Repository:
    from backupd.errors import WrongKey

    raise WrongKey("opens nothing")


def test_it_is_the_same_in_a_bucket(protected: dict[str, bytes], secrets: Secrets, seaweedfs: SeaweedFS) -> None:
    bucket = S3Storage(f"s3://{seaweedfs.bucket()}/prefix", seaweedfs.settings())
    where = ParityStorage(bucket, 5, whole=WHOLE)
    for name in objects(protected):
        where.put(name, [protected[name]])
    pack = max(objects(protected), key=lambda name: len(protected[name]))
    for name in (pack, one_of(protected, names.SNAPSHOTS)):
        bucket.replace(name, [flipped(protected[name])])
    report = repair(where, [], lambda storage: Repository(storage, secrets))
    assert {each.source for each in report.mended} == {PARITY}
    assert report.is_whole
    assert {info.name: bucket.get(info.name) for info in bucket.list()} == protected
    where.delete(pack)
    assert {pack, names.parity(pack)} & {info.name for info in bucket.list()} == set()


def one_of(storage: dict[str, bytes], prefix: str) -> str:
    return next(name for name in objects(storage) if name.startswith(prefix))
