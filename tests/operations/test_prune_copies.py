"""What a copy brings stays, whatever is pruned there while it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from backupd.errors import Damaged
from backupd.operations.prune import prune
from backupd.repository import names, needs
from backupd.repository.repository import Repository
from backupd.storage.base import Buffer
from tests.support.pruning import ATTACHED, DROPPED, HOUR, KEPT, before, opened, store
from tests.support.scene import SIZES, Scene
from tests.support.simulated_world import View


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def test_what_a_prune_of_the_copy_is_about_to_remove_is_asked_for_before_snapshots_come_that_need_it(
    scene: Scene,
) -> None:
    with opened(scene) as repository:
        store(repository, KEPT)
        store(repository, DROPPED, hours=1)
    scene.copy(0, View(scene.storage), View(scene.second))
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        there.remove_snapshot(there.refs()[-1])
        prune(there, now=scene.world.time(), grace=3 * HOUR, fewest=2, max_unused=0, sizes=SIZES)
    report = scene.copy(0, View(scene.storage), View(scene.second))
    assert report
    assert (report.waiting, len(needs.read(View(scene.second)))) == (1, 1)
    scene.world.wait(0.5)
    report = scene.copy(0, View(scene.storage), View(scene.second))
    assert report
    assert report.waiting == 1
    scene.world.wait(0.6)
    report = scene.copy(0, View(scene.storage), View(scene.second))
    assert report
    assert report.waiting == 0
    scene.world.wait(4)
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        prune(there, now=scene.world.time(), grace=3 * HOUR, fewest=2, max_unused=0, sizes=SIZES)
    scene.check()


def test_a_copy_that_stood_still_looks_once_more(scene: Scene) -> None:
    with opened(scene) as repository:
        store(repository, KEPT)
        store(repository, DROPPED, hours=1)
    scene.copy(0, View(scene.storage), View(scene.second))
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        there.remove_snapshot(there.refs()[-1])

    def prune_the_copy() -> None:
        for hours in (0, 4):
            scene.world.wait(hours)
            scene.prune(2, View(scene.second))

    second = View(scene.second)
    plain = second.put

    def slow(name: str, data: object) -> None:
        if name.startswith(names.SNAPSHOTS):
            second.put = plain  # type: ignore[method-assign]
            prune_the_copy()
        plain(name, data)  # type: ignore[arg-type]

    second.put = slow  # type: ignore[method-assign]
    scene.copy(0, View(scene.storage), second)
    scene.check()


def test_what_was_removed_from_the_copy_while_it_was_made_is_copied_again(scene: Scene) -> None:
    with opened(scene) as repository:
        store(repository, KEPT)
        store(repository, DROPPED, hours=1)
    scene.copy(0, View(scene.storage), View(scene.second))
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        there.remove_snapshot(there.refs()[-1])

    scene.prune(2, View(scene.second))
    scene.world.wait(4)
    with opened(scene) as repository:
        store(repository, ATTACHED, hours=2)

    def prune_the_copy() -> None:
        scene.prune(2, View(scene.second))

    # After it has listed what there is.
    scene.copy(0, View(scene.storage, {7: ([prune_the_copy], False)}), View(scene.second))
    scene.check()
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        assert len(there.refs()) == 3


def test_a_copy_that_stood_still_before_it_wrote_brings_no_snapshot_that_lacks_anything(scene: Scene) -> None:
    with opened(scene) as repository:
        store(repository, KEPT)
        store(repository, DROPPED, hours=1)
    scene.copy(0, View(scene.storage), View(scene.second))
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        there.remove_snapshot(there.refs()[-1])

    def prune_the_copy() -> None:
        for hours in (0, 4):
            scene.world.wait(hours)
            scene.prune(2, View(scene.second))

    first, second = View(scene.storage), View(scene.second)
    before(first, "get", names.SNAPSHOTS, prune_the_copy)  # it has looked at marks, and is about to write
    plain = second.put
    lacking = list[str]()

    def put(name: str, data: Sequence[Buffer]) -> None:
        plain(name, data)
        try:
            scene.check()
        except Damaged:  # which would be taken for a problem of the copy
            lacking.append(name)

    second.put = put  # type: ignore[method-assign]
    scene.copy(0, first, second)
    assert lacking == []
    scene.check()
    with Repository(View(scene.second), scene.secrets, sizes=SIZES) as there:
        assert len(there.refs()) == 2


def test_pieces_of_the_record_that_others_join_while_it_is_copied_come_whole_or_not_at_all(scene: Scene) -> None:
    """The second one is the earlier by its name, as that machine's clock is behind."""
    scene.machines[0].account.append(b"INBOX", KEPT)
    scene.back_up(0, View(scene.storage))
    scene.copy(0, View(scene.storage), View(scene.second))
    scene.check_record()
    for number, mail in ((0, DROPPED), (2, ATTACHED)):
        scene.machines[number].account.append(b"INBOX", mail)
        scene.back_up(number, View(scene.storage))
    first, second = View(scene.storage), View(scene.second)

    before(first, "get", names.LOG, lambda: scene.prune(1, View(scene.storage)), skip=1)
    plain = second.put

    def put(name: str, data: Sequence[Buffer]) -> None:
        plain(name, data)
        scene.check_record()

    second.put = put  # type: ignore[method-assign]
    assert scene.copy(0, first, second)
    scene.check_record()
