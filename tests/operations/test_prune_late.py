"""Whoever stood still stores no index object that tells of what others have removed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from backupd.errors import Overtaken
from backupd.operations.messages import MessageStore
from backupd.repository import marks, names
from backupd.storage.base import Buffer
from tests.support.mail import message, noise
from tests.support.pruning import (
    ATTACHED,
    DROPPED,
    KEPT,
    before,
    blob,
    garbage,
    opened,
    pruned,
    store,
    untrue,
)
from tests.support.scene import Scene
from tests.support.simulated_world import View

RIGHT = timedelta()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def watched(scene: Scene, view: View) -> None:
    """Whenever an index object is stored through this view, all that it tells of is there."""
    plain = view.put

    def put(name: str, data: Sequence[Buffer]) -> None:
        plain(name, data)
        if name.startswith(names.INDEX):
            assert untrue(scene) == []

    view.put = put  # type: ignore[method-assign]


def test_a_run_that_stood_still_while_it_stored_packs_tells_of_none_that_has_gone(scene: Scene) -> None:
    garbage(scene)
    large = [message(f"Large {number}", noise(number, 9000).hex()) for number in (9, 10, 11)]
    with opened(scene, 2) as repository, repository.running(None):
        for mail in large:
            MessageStore(repository).store(mail)
        repository.relies(blob(repository, KEPT))

        def a_leftover_goes() -> None:
            scene.world.wait(50)
            with opened(scene, 1) as other:  # the leftover is not the last object
                store(other, ATTACHED, hours=3)
            assert pruned(scene, now=RIGHT).leftovers > 0
            pruned(scene, hours=4, now=RIGHT)

        view = repository.storage
        assert isinstance(view, View)
        watched(scene, view)
        plain = view.put

        def put(name: str, data: Sequence[Buffer]) -> None:
            if name.startswith(names.PACKS) and threading.current_thread() is threading.main_thread():
                a_leftover_goes()  # the last pack is about to be stored, by whoever flushes
            plain(name, data)

        view.put = put  # type: ignore[method-assign]
        with pytest.raises(Overtaken):
            repository.flush()
    assert untrue(scene) == []


def test_a_prune_that_stood_still_while_it_read_what_it_tells_anew_tells_of_nothing_that_has_gone(scene: Scene) -> None:
    with opened(scene) as repository:
        told = {}
        for number in range(3):
            known = set(scene.storage.objects)
            ref = store(repository, message(f"Large {number}", noise(number, 9000).hex()), hours=number)
            (name,) = (name for name in scene.storage.objects.keys() - known if name.startswith(names.INDEX))
            told[name] = ref
    first = told[min(told)]

    def the_first_one_goes() -> None:
        with opened(scene, 1) as other:
            other.remove_snapshot(first)
        for hours in (0, 4):
            pruned(scene, hours=hours, now=RIGHT, fewest=100)

    def meanwhile(view: View) -> None:
        watched(scene, view)
        # When it has moved what is small, it reads the first one once more, and then this.
        then = lambda: before(view, "get", names.INDEX, the_first_one_goes, skip=1)  # noqa: E731
        before(view, "put", names.PACKS, then)

    pruned(scene, 0, meanwhile=meanwhile)
    assert untrue(scene) == []


def test_a_prune_that_stood_still_for_days_while_it_moved_tells_of_no_pack_that_was_taken_for_a_leftover(
    scene: Scene,
) -> None:
    with opened(scene) as repository:
        for number in range(8):
            store(repository, message(f"Message {number}", noise(number, 2000).hex()), hours=number)

    def a_leftover_goes() -> None:
        scene.world.wait(50)
        with opened(scene, 1) as other:  # the leftover is not the last object
            store(other, ATTACHED, hours=9)
        assert pruned(scene, now=RIGHT, fewest=100).leftovers == 1
        pruned(scene, hours=4, now=RIGHT, fewest=100)

    def meanwhile(view: View) -> None:
        watched(scene, view)
        before(view, "put", names.PACKS, lambda: before(view, "get", names.PACKS, a_leftover_goes))

    assert pruned(scene, 0, meanwhile=meanwhile).moved > 0
    assert untrue(scene) == []


def test_a_prune_moves_nothing_into_a_pack_that_others_may_be_removing(scene: Scene) -> None:
    """One that died has made the same pack, and another one has marked what it left."""
    with opened(scene) as repository:
        for hours, mail in enumerate((KEPT, DROPPED)):
            store(repository, mail, hours=hours)
    objects, stored = dict(scene.storage.objects), dict(scene.storage.stored)
    assert pruned(scene).into == 1
    (left,) = {name for name in scene.storage.objects if name.startswith(names.PACKS)} - objects.keys()
    objects[left], stored[left] = scene.storage.objects[left], 0.0
    scene.storage.objects, scene.storage.stored = objects, stored
    marks.put(View(scene.storage), [left], "a leftover", scene.world.time())
    assert pruned(scene, hours=4).into == 0
    with opened(scene) as repository:
        assert bytes.fromhex(left[-64:]) not in repository.index.packs()
