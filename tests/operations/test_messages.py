"""Messages in and out of the repository: the same bytes, whatever they are and however large."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from backupd.errors import Damaged, StorageDenied, StorageUnavailable
from backupd.mail.base64lines import Encoder
from backupd.operations import messages as module
from backupd.operations.messages import MessageStore
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from tests.support.mail import Attachment, large_message, message, messages, nasty_mail, nasty_octets, noise
from tests.support.reading import whole


class Chunks:
    """A message that comes in pieces, as large ones do."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.size = len(raw)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self.size, 1000):
            yield self._raw[start : start + 1000]


@given(raw=messages())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_message_comes_back(repository: Repository, raw: bytes) -> None:
    store = MessageStore(repository)
    stored = store.store(raw)
    repository.flush()

    assert stored.size == len(raw)
    assert stored.id == repository.secrets.content_id(raw)
    assert whole(store.load(stored.id)) == raw


@pytest.mark.parametrize("name", sorted({**nasty_mail(), **nasty_octets()}))
def test_large_messages_come_back_and_have_the_same_id(
    repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {**nasty_mail(), **nasty_octets()}[name]
    small = MessageStore(repository).store(raw)
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    other = MessageStore(repository)

    large = other.store(Chunks(raw))
    repository.flush()

    assert large.id == small.id
    assert large.header == small.header
    assert whole(other.load(large.id)) == raw


@pytest.mark.parametrize("limit", [module.IN_MEMORY, 10])
def test_what_a_message_is_stored_in_can_be_told_without_storing_it(
    repository: Repository, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", limit)
    taken: set[bytes] = set()
    put = repository.put
    monkeypatch.setattr(repository, "put", lambda blob, *rest: taken.add(blob) or put(blob, *rest))
    attached = message("With files", attachments=[Attachment("a.pdf", noise(1, 50_000), "application/pdf")])
    store = MessageStore(repository)

    for raw in [attached, *nasty_mail().values(), *nasty_octets().values()]:
        taken.clear()
        body = Chunks(raw) if limit < len(raw) else raw
        told, blobs = store.blobs_of(body)
        stored = store.store(body)
        assert told == stored.id
        assert taken <= blobs
        assert store.id_of(body) == stored.id
        repository.flush()
        assert repository.packs_of(blobs)  # each of them is there


def test_a_message_larger_than_memory_should_hold_is_given_in_chunks(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = large_message(300_000)
    monkeypatch.setattr(module, "IN_MEMORY", 100_000)
    store = MessageStore(repository)
    stored = store.store(Chunks(raw))
    repository.flush()

    body = store.load(stored.id)

    assert not isinstance(body, bytes)
    assert body.size == len(raw)
    assert b"".join(body.chunks()) == raw == b"".join(body.chunks())
    assert stored.attachments == (b"large.bin",)


def test_an_attachment_is_stored_once_whoever_sent_it_on_and_however_it_was_wrapped(repository: Repository) -> None:
    file = noise("file", 200_000)
    store = MessageStore(repository)
    for number, length in enumerate((60, 72, 76)):
        store.store(message(f"Fwd {number}", attachments=[Attachment("a.pdf", file, line_length=length)]))
    repository.flush()

    assert repository.has(repository.secrets.content_id(file))
    assert repository.bytes_stored < 1.1 * len(file)


def test_a_message_that_is_stored_already_is_described_as_at_the_first_time(repository: Repository) -> None:
    raw = message("twice", attachments=[Attachment("a.pdf", noise("file", 20_000)), Attachment("b.txt", b"short")])
    store = MessageStore(repository)
    first = store.store(raw)

    again = store.store(raw)

    assert again == first
    assert again.attachments == (b"a.pdf", b"b.txt")


@pytest.mark.parametrize("spoil", [lambda text: text[:-1], lambda text: text + b"A", lambda text: text.swapcase()])
def test_a_message_whose_recipe_would_give_other_bytes_is_stored_as_it_is(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    class Spoiling(Encoder):
        def encode(self, piece: bytes | memoryview) -> bytes:
            return spoil(super().encode(piece))

    monkeypatch.setattr(module, "Encoder", Spoiling)
    raw = message("a file", attachments=[Attachment("a.pdf", noise("file", 20_000))])
    stored = MessageStore(repository).store(raw)
    repository.flush()

    assert repository.read(stored.id)[0] is BlobKind.PLAIN
    assert whole(MessageStore(repository).load(stored.id)) == raw


def test_a_message_that_changes_while_it_is_read_is_not_stored(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_MEMORY", 10)

    class Changing(Chunks):
        def chunks(self) -> Iterator[bytes]:
            self._raw = self._raw + b"x"
            yield self._raw

    with pytest.raises(Damaged, match="changed while it was read"):
        MessageStore(repository).store(Changing(b"Subject: x\r\n\r\nbody\r\n"))


def test_a_blob_that_is_no_message_is_not_given_as_one(repository: Repository) -> None:
    run = repository.put_run(BlobKind.ENVELOPES, b"\x90")
    repository.flush()
    with pytest.raises(Damaged, match="not a message"):
        MessageStore(repository).load(run)


def test_a_recipe_that_joins_to_something_else_is_damage(repository: Repository) -> None:
    identity = repository.secrets.content_id(b"what it says it is")
    repository.put(identity, BlobKind.RECIPE, b"\x91\x92\x00\xc4\x01x")  # [[0, b"x"]]
    repository.flush()
    with pytest.raises(Damaged, match="does not join to its id"):
        MessageStore(repository).load(identity)


class TestALargeMessageThatIsReadWithoutBeingKept:
    @pytest.fixture(autouse=True)
    def _large_is_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "IN_MEMORY", 100_000)

    def test_it_is_the_same_each_time(self, repository: Repository) -> None:
        raw = large_message(300_000)
        store = MessageStore(repository)
        stored = store.store(Chunks(raw))
        repository.flush()

        body = store.open(stored.id, len(raw))

        assert not isinstance(body, bytes)
        assert body.size == len(raw)
        assert b"".join(body.chunks()) == raw == b"".join(body.chunks())

    def test_another_message_ends_as_damage(self, repository: Repository) -> None:
        identity = repository.secrets.content_id(b"what it says it is")
        repository.put(identity, BlobKind.RECIPE, b"\x91\x92\x00\xc4\x01x")  # [[0, b"x"]]
        repository.flush()
        body = MessageStore(repository).open(identity, 200_000)
        assert not isinstance(body, bytes)
        chunks = body.chunks()
        assert next(chunks) == b"x"
        with pytest.raises(Damaged, match="does not join to its id"):
            next(chunks)

    @pytest.mark.parametrize(
        ("error", "seen"),
        [
            (Damaged("altered"), Damaged),
            (StorageDenied("no permission"), Damaged),
            (StorageUnavailable("fails for now"), StorageUnavailable),
        ],
    )
    def test_a_part_that_cannot_be_read_is_damage_unless_it_may_pass(
        self, repository: Repository, monkeypatch: pytest.MonkeyPatch, error: Exception, seen: type[Exception]
    ) -> None:
        store = MessageStore(repository)
        stored = store.store(Chunks(large_message(300_000)))
        repository.flush()
        body = store.open(stored.id, 300_000)
        assert not isinstance(body, bytes)

        def fail(blob_id: bytes) -> None:
            raise error

        monkeypatch.setattr(repository, "read", fail)
        with pytest.raises(seen, match=str(error)):
            list(body.chunks())

    def test_a_small_one_is_proved_at_once(self, repository: Repository) -> None:
        identity = repository.secrets.content_id(b"what it says it is")
        repository.put(identity, BlobKind.RECIPE, b"\x91\x92\x00\xc4\x01x")
        repository.flush()
        with pytest.raises(Damaged, match="does not join to its id"):
            MessageStore(repository).open(identity, 1)
