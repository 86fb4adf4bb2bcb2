"""The index made anew from packs: what they hold is found again, whatever else is lost."""

from __future__ import annotations

from collections import Counter

from backupd.operations.messages import MessageStore
from backupd.repository import mending, names, recipe
from backupd.repository.keys import Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import whole


def packs_of(repository: Repository, message_id: bytes) -> list[str]:
    """Names of the packs that a message's recipe, and then its parts, are in."""
    pieces = recipe.decode(repository.read(message_id)[1], "x")
    blobs = [blob for piece in pieces if not isinstance(piece, recipe.Literal) for blob in piece.blobs]
    places = [repository.index.find(blob) for blob in (message_id, *blobs)]
    return [names.pack(place.pack.hex()) for place in places if place]


def test_all_messages_that_no_lost_pack_has_a_part_of_are_found_when_the_index_is_lost_too(
    storage: MemoryStorage, secrets: Secrets
) -> None:
    mails = [
        message(f"{n}", attachments=[Attachment("a", noise(n, 3000)), Attachment("b", noise(-n, 3000))])
        for n in range(1, 25)
    ]
    with Repository(storage, secrets, sizes=Sizes(block=2000, pack=9000)) as repository:
        store = MessageStore(repository)
        stored = {store.store(mail).id: mail for mail in mails}
        repository.flush()
        needed = {each: packs_of(repository, each) for each in stored}
    # One of parts and of few recipes, so that joining recipes that are there fails, while others are adopted.
    recipes = Counter(some[0] for some in needed.values())
    parts = {name for some in needed.values() for name in some[1:] if name != some[0]}
    lost = min(parts, key=lambda name: (recipes[name], name))
    assert any(lost in some[1:] and lost != some[0] for some in needed.values())
    for name in [lost, *(name for name in storage.objects if name.startswith("index/"))]:
        storage.delete(name)
    left = tuple(name for name in storage.objects if name.startswith("packs/"))

    with Repository(storage, secrets) as repository:
        assert not any(repository.has(each) for each in stored)
        assert mending.adopt(repository, left, MessageStore(repository).identify) == len(left)

    with Repository(storage, secrets) as again:
        store = MessageStore(again)
        found = {each: whole(store.load(each)) for each in stored if again.has(each)}
    assert found == {each: mail for each, mail in stored.items() if lost not in needed[each]}
