"""The repository as those above it know it: blobs, snapshots, keys and roles; crashes and damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backupd.errors import Damaged, NoRepository, ObjectExists, ObjectMissing, StorageError, UsageError, WrongKey
from backupd.operations.messages import MessageStore
from backupd.repository import names, segments, slots
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create, describe, list_slots, unlock
from backupd.storage.local import LocalStorage
from tests.repository.conftest import CHEAP, PASSPHRASE
from tests.support.archive import Box, Mail, record, snapshot
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents

DATA = Path(__file__).parents[1] / "data"
SMALL = Sizes(block=400, pack=1500)


def filled(storage: MemoryStorage, secrets: Secrets) -> None:
    """Two snapshots, several packs."""
    for times in (1, 2):
        with Repository(storage, secrets, sizes=SMALL) as repository:
            mails = {uid: Mail(message(f"Message {uid}", size=600)) for uid in range(1, 6 * times)}
            repository.put_snapshot(snapshot([record(repository, b"INBOX", Box(mails))]))


def everything(storage: MemoryStorage, secrets: Secrets) -> list[object]:
    with Repository(storage, secrets) as repository:
        return [contents(repository, repository.snapshot(ref)) for ref in repository.refs("alice")]


class TestStoredRepository:
    """A repository that was written once, and must be readable by every later version."""

    def test_every_message_of_every_snapshot_is_read_byte_for_byte(self) -> None:
        expected = json.loads((DATA / "repository.json").read_text())
        storage = LocalStorage(DATA / "repository")
        secrets = unlock(storage, "correct horse battery staple")
        found = {}
        with Repository(storage, secrets) as repository:
            for ref in repository.refs("alice"):
                found[ref.id] = {
                    name.hex(): {
                        str(uid): [hashlib.sha256(raw).hexdigest(), [flag.decode() for flag in flags], date.decode()]
                        for uid, (raw, flags, date) in messages.items()
                    }
                    for name, messages in contents(repository, repository.snapshot(ref)).items()
                }
        assert found == expected

    def test_every_object_is_what_its_name_says(self) -> None:
        storage = LocalStorage(DATA / "repository")
        proved = {info.name: names.proves(info.name, [storage.get(info.name)]) for info in storage.list()}
        assert all(proved[name] for name in proved if not name.startswith(("keys/", "repository.json")))
        assert len([name for name, good in proved.items() if good]) >= 6


class TestBlobs:
    def test_a_blob_is_stored_once(self, storage: MemoryStorage, secrets: Secrets) -> None:
        with Repository(storage, secrets) as repository:
            identity = secrets.content_id(b"data")
            assert repository.put(identity, BlobKind.PLAIN, b"data")
            assert not repository.put(identity, BlobKind.PLAIN, b"data")
            repository.flush()
            assert not repository.put(identity, BlobKind.PLAIN, b"data")
        with Repository(storage, secrets) as again:
            assert again.has(identity)
            assert bytes(again.read(identity)[1]) == b"data"

    def test_the_cache_of_the_index_is_only_a_cache(
        self, storage: MemoryStorage, secrets: Secrets, tmp_path: Path
    ) -> None:
        filled(storage, secrets)
        cache = tmp_path / "state.sqlite"
        truth = everything(storage, secrets)
        for _ in range(2):
            with Repository(storage, secrets, cache=cache) as repository:
                assert [contents(repository, repository.snapshot(ref)) for ref in repository.refs("alice")] == truth
        cache.unlink()
        with Repository(storage, secrets, cache=cache) as repository:
            assert len(repository.refs()) == 2
        # Another repository in its place: nothing of the old one is believed.
        other = MemoryStorage()
        with Repository(other, create(other, PASSPHRASE, argon2=CHEAP), cache=cache) as repository:
            assert not repository.has(secrets.content_id(message("Message 1", size=600)))

    def test_an_index_object_that_is_gone_is_forgotten(
        self, storage: MemoryStorage, secrets: Secrets, tmp_path: Path
    ) -> None:
        with Repository(storage, secrets, cache=tmp_path / "s") as repository:
            identity = secrets.content_id(b"data")
            repository.put(identity, BlobKind.PLAIN, b"data")
            repository.flush()
        for name in [name for name in storage.objects if name.startswith("index/")]:
            storage.delete(name)
        with Repository(storage, secrets, cache=tmp_path / "s") as again:
            assert not again.has(identity)

    def test_two_writers_at_once_lose_nothing(self, storage: MemoryStorage, secrets: Secrets) -> None:
        with Repository(storage, secrets) as one, Repository(storage, secrets) as two:
            for number in range(40):
                data = b"%d" % number * 50
                for repository in (one, two):
                    repository.put(secrets.content_id(data), BlobKind.PLAIN, data)
            one.flush()
            two.flush()
        with Repository(storage, secrets) as repository:
            for number in range(40):
                data = b"%d" % number * 50
                assert bytes(repository.read(secrets.content_id(data))[1]) == data


class TestRoles:
    def test_a_writer_writes_and_reads_metadata_and_no_content(self, storage: MemoryStorage, secrets: Secrets) -> None:
        writer = secrets.for_role(Role.WRITER)
        raw = message("Secret")
        with Repository(storage, writer) as repository:
            repository.put_snapshot(snapshot([record(repository, b"INBOX", Box({1: Mail(raw)}))]))
        with Repository(storage, writer) as repository:
            taken = repository.snapshot(repository.refs("alice")[0])
            ((row, _),) = segments.read(repository, taken.mailboxes[0].segments[0])
            for blob in (row.message, row.envelopes):
                with pytest.raises(WrongKey):
                    repository.read(blob)
        with Repository(storage, secrets) as repository:
            assert MessageStore(repository).load(row.message) == raw

    def test_a_writer_cannot_make_itself_a_reader(self, secrets: Secrets) -> None:
        with pytest.raises(WrongKey):
            secrets.for_role(Role.WRITER).for_role(Role.READER)

    def test_no_object_holds_a_name_or_an_address_in_the_open(self, storage: MemoryStorage, secrets: Secrets) -> None:
        filled(storage, secrets)
        everything_stored = b"".join(storage.objects.values()) + "".join(storage.objects).encode()
        for word in (b"alice", b"INBOX", b"Message 1", b"example.com", secrets.writer_secret, secrets.private_key[:32]):
            assert word not in everything_stored

    def test_secrets_are_not_shown(self, secrets: Secrets) -> None:
        assert secrets.writer_secret.hex() not in repr(secrets)
        assert repr(secrets) == f"Secrets(repository={secrets.repository.hex()}, role=reader)"


class TestSlots:
    def test_a_passphrase_opens_and_another_does_not(self, storage: MemoryStorage, secrets: Secrets) -> None:
        assert unlock(storage, PASSPHRASE) == secrets
        with pytest.raises(WrongKey) as caught:
            unlock(storage, PASSPHRASE.upper())
        assert PASSPHRASE.upper() not in str(caught.value)

    def test_add_rotate_remove(self, storage: MemoryStorage, secrets: Secrets) -> None:
        key = slots.new_key_file(os.urandom)
        with Repository(storage, secrets) as repository:
            repository.add_slot("daemon", key, Role.WRITER)
            assert unlock(storage, key).role is Role.WRITER
            with pytest.raises(UsageError):
                repository.add_slot("daemon", "other passphrase", Role.READER, argon2=CHEAP)
            repository.rotate_slot("default", "a new passphrase", argon2=CHEAP)
            assert unlock(storage, "a new passphrase") == secrets
            with pytest.raises(WrongKey):
                unlock(storage, PASSPHRASE)
            repository.remove_slot("daemon")
            with pytest.raises(WrongKey):
                unlock(storage, key)
            with pytest.raises(UsageError, match="last slot of the reader role"):
                repository.remove_slot("default")

    def test_an_exported_key_opens_without_any_slot(self, storage: MemoryStorage, secrets: Secrets) -> None:
        text = slots.export(secrets)
        for name, _ in list(list_slots(storage)):
            storage.delete(name)
        assert unlock(storage, text) == secrets
        with pytest.raises(WrongKey):
            unlock(storage, text[:-20] + "\n")

    def test_a_swapped_public_key_is_noticed(self, storage: MemoryStorage, secrets: Secrets) -> None:
        other = MemoryStorage()
        create(other, PASSPHRASE, argon2=CHEAP)
        forged = json.loads(storage.objects["repository.json"])
        forged["public_key"] = json.loads(other.objects["repository.json"])["public_key"]
        storage.objects["repository.json"] = json.dumps(forged).encode()
        with pytest.raises(WrongKey, match="altered"):
            unlock(storage, PASSPHRASE)

    @pytest.mark.parametrize(("key", "value"), [("id", "v" * 32), ("id", "00"), ("public_key", "AAAA")])
    def test_a_description_whose_id_or_key_cannot_be_one_is_damaged(
        self, storage: MemoryStorage, secrets: Secrets, key: str, value: str
    ) -> None:
        spoilt = json.loads(storage.objects["repository.json"]) | {key: value}
        storage.objects["repository.json"] = json.dumps(spoilt).encode()
        with pytest.raises(Damaged, match="makes no sense"):
            describe(storage)

    def test_a_repository_is_not_made_over_another(self, storage: MemoryStorage, secrets: Secrets) -> None:
        with pytest.raises(UsageError):
            create(storage, PASSPHRASE, argon2=CHEAP)
        assert unlock(storage, PASSPHRASE) == secrets

    def test_where_there_is_none(self) -> None:
        with pytest.raises(NoRepository) as caught:
            describe(MemoryStorage())
        assert caught.value.exit_code == 10


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 64]) + data[place + 1 :]


KINDS = ["repository.json", "keys/", "packs/", "index/", "snapshots/"]
HARM = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "flipped at the start": lambda data: _flipped(data, 0),
    "flipped in the middle": lambda data: _flipped(data, len(data) // 2),
    "flipped at the end": lambda data: _flipped(data, len(data) - 1),
    "longer": lambda data: data + b"x",
    "other bytes": lambda data: os.urandom(len(data)),
}


@pytest.mark.parametrize("harm", sorted(HARM))
@pytest.mark.parametrize("kind", KINDS)
def test_damage_to_any_object_is_told_and_never_gives_wrong_mail(
    storage: MemoryStorage, secrets: Secrets, kind: str, harm: str
) -> None:
    filled(storage, secrets)
    truth = everything(storage, secrets)
    harmless: list[str] = []
    for name in [name for name in storage.objects if name.startswith(kind)]:
        whole = storage.objects[name]
        harmed = HARM[harm](whole)
        if harmed is None:
            del storage.objects[name]
        else:
            storage.objects[name] = harmed
        with contextlib.suppress(Damaged, WrongKey, NoRepository, ObjectMissing):
            found = everything(storage, unlock(storage, PASSPHRASE))
            # It did no harm: bytes nobody reads, such as a space in JSON, or a snapshot that is gone.
            assert found == truth or (kind == "snapshots/" and harm == "missing" and len(found) == 1)
            harmless.append(name)
        storage.objects[name] = whole
    assert everything(storage, secrets) == truth
    # A pack's first octets and what may follow its last block are read by nobody but an audit.
    if kind == "index/" or (kind == "packs/" and harm not in ("flipped at the start", "longer")):
        assert harmless == []


class Crash(StorageError):
    """The process dies here."""


class CrashingRepository(RuleBasedStateMachine):
    """Backups that die at any write: what was a snapshot stays one, and the next run goes on."""

    @initialize()
    def start(self) -> None:
        self.storage = MemoryStorage()
        self.secrets = create(self.storage, PASSPHRASE, argon2=CHEAP)
        self.mails: dict[int, Mail] = {}
        self.taken: list[dict[int, bytes]] = []

    def _backup(self) -> None:
        with Repository(self.storage, self.secrets, sizes=SMALL) as repository:
            repository.put_snapshot(snapshot([record(repository, b"INBOX", Box(self.mails))]))

    @rule(count=st.integers(1, 6))
    def mail_comes(self, count: int) -> None:
        for _ in range(count):
            uid = len(self.mails) + 1
            self.mails[uid] = Mail(message(f"Message {uid}", size=400))

    @rule(puts=st.integers(0, 6))
    def a_backup_that_may_die(self, puts: int) -> None:
        if not self.mails:
            return
        left = puts

        def before_put(name: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash("crash")

        self.storage.before_put = before_put
        try:
            self._backup()
            self.taken.append({uid: mail.raw for uid, mail in self.mails.items()})
        except (Crash, ObjectExists):
            pass
        finally:
            self.storage.before_put = lambda _name: None

    @rule()
    def a_backup(self) -> None:
        if self.mails:
            before = self.storage.puts
            self._backup()
            self.taken.append({uid: mail.raw for uid, mail in self.mails.items()})
            if len(self.taken) > 1 and self.taken[-1] == self.taken[-2]:
                assert self.storage.puts <= before + 3  # all of it was there; at most a pack of runs, its index, it

    @invariant()
    def every_snapshot_is_whole(self) -> None:
        with Repository(self.storage, self.secrets) as repository:
            refs = repository.refs("alice")
            found = sorted(
                (
                    {uid: raw for uid, (raw, _, _) in contents(repository, repository.snapshot(ref))[b"INBOX"].items()}
                    for ref in refs
                ),
                key=len,
            )
        assert found == sorted(self.taken, key=len)


TestCrashes = CrashingRepository.TestCase
TestCrashes.settings = settings(max_examples=25, stateful_step_count=10, deadline=None)
