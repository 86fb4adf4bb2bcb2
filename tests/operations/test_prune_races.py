"""What a run relies on stays, whatever is forgotten and pruned elsewhere while it lasts: each rule by itself.

test_machines.py lets anything happen in any order; here is what must happen, step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from backupd.errors import Overtaken, StorageDenied
from backupd.operations.messages import MessageStore
from backupd.operations.retention import Rules
from backupd.repository import marks, names, needs
from backupd.repository.keys import Role
from backupd.storage.base import Buffer, ObjectInfo
from tests.support import archive
from tests.support.mail import message, noise
from tests.support.pruning import (
    ATTACHED,
    DROPPED,
    FILE,
    HOUR,
    KEPT,
    blob,
    count,
    entries,
    garbage,
    is_there,
    opened,
    pruned,
    store,
    untrue,
)
from tests.support.reading import whole
from tests.support.scene import Scene
from tests.support.simulated_world import View


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def test_what_no_snapshot_needs_goes_in_two_steps(scene: Scene) -> None:
    garbage(scene, DROPPED)
    first = pruned(scene)
    assert (first.unneeded, first.removed) == (1, 0)
    assert pruned(scene, hours=2.9).removed == 0
    assert pruned(scene, hours=0.2).removed > 0
    assert not is_there(scene, DROPPED)
    assert is_there(scene, KEPT)
    assert (count(scene, names.MARKS), count(scene, names.NEEDS)) == (0, 0)


def test_whoever_comes_after_a_mark_does_not_rely_on_what_it_names(scene: Scene) -> None:
    garbage(scene, DROPPED)
    pruned(scene)
    with opened(scene, 2) as repository, repository.running(None):
        assert not repository.relies(blob(repository, DROPPED))
        assert repository.relies(blob(repository, KEPT))
        store(repository, DROPPED, hours=2)
    assert count(scene, names.NEEDS) == 0
    pruned(scene, hours=4)
    assert is_there(scene, DROPPED)


def test_a_mark_that_comes_while_a_run_lasts_is_answered_and_the_run_may_last_for_days(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        pruned(scene)
        for _ in range(100):
            scene.world.wait(0.5)
            assert repository.relies(blob(repository, KEPT))  # it goes on working
        assert count(scene, names.NEEDS) == 1
        needed = pruned(scene).needed
        assert [name.split("/")[0] for name in needed] == ["index", "packs"]  # the pack, and what tells of it
        assert (count(scene, names.NEEDS), count(scene, names.MARKS)) == (0, 0)
        assert pruned(scene).unneeded == 1  # and it is marked anew
        scene.world.wait(0.5)
        assert repository.relies(blob(repository, KEPT))
        assert count(scene, names.NEEDS) == 1
        store(repository, DROPPED, hours=2)
    pruned(scene, hours=4)
    assert is_there(scene, DROPPED)


def test_what_a_run_has_stored_itself_is_answered_for_too(scene: Scene) -> None:
    garbage(scene)
    with opened(scene, 2) as repository, repository.running(None):
        MessageStore(repository).store(DROPPED)
        repository.flush()
        assert pruned(scene).unneeded == 2
        for _ in range(8):
            scene.world.wait(0.5)
            repository.relies(blob(repository, KEPT))
        pruned(scene)
        store(repository, DROPPED, hours=2)
    assert is_there(scene, DROPPED)


def test_a_machine_that_stood_still_stores_no_snapshot_of_what_is_gone(scene: Scene) -> None:
    garbage(scene, DROPPED)
    before = count(scene, names.SNAPSHOTS)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        pruned(scene)
        pruned(scene, hours=4)
        with pytest.raises(Overtaken):
            store(repository, DROPPED, hours=2)
        with pytest.raises(Overtaken):  # and nothing else: what it took to be stored may be gone
            store(repository, KEPT, hours=3)
    assert count(scene, names.SNAPSHOTS) == before
    with opened(scene, 2) as repository:
        store(repository, DROPPED, hours=2)
    assert is_there(scene, DROPPED)


def test_a_machine_that_stood_still_while_nothing_was_removed_goes_on(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        scene.world.wait(100)
        store(repository, DROPPED, hours=2)
    assert is_there(scene, DROPPED)


def test_a_machine_that_stood_still_while_it_looked_looks_again_before_it_stores(scene: Scene) -> None:
    """Nobody shall see a snapshot that is about to be taken back."""
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        view, stored = repository.storage, list[str]()
        listing, putting = view.list, view.put

        def slow(prefix: str = "") -> Iterator[ObjectInfo]:
            if prefix == names.INDEX:  # the marks were read, and nobody has been answered yet
                view.list = listing  # type: ignore[method-assign]
                pruned(scene, hours=4)
            return listing(prefix)

        def put(name: str, data: Sequence[Buffer]) -> None:
            stored.append(name)
            putting(name, data)
            if name.startswith(names.INDEX):
                pruned(scene)
                scene.world.wait(0.5)
                view.list = slow  # type: ignore[method-assign]

        view.put = put  # type: ignore[method-assign]
        with pytest.raises(Overtaken):
            store(repository, KEPT, DROPPED, hours=2)
    assert not any(name.startswith(names.SNAPSHOTS) for name in stored)


def test_a_snapshot_that_was_stored_too_late_is_taken_back(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        pruned(scene)
        view = repository.storage
        plain = view.put

        def slow(name: str, data: object) -> None:
            if name.startswith(names.SNAPSHOTS):
                pruned(scene, hours=4)
            plain(name, data)  # type: ignore[arg-type]

        view.put = slow  # type: ignore[method-assign]
        with pytest.raises(Overtaken):
            store(repository, DROPPED, hours=2)
    assert count(scene, names.SNAPSHOTS) == 1


def test_who_may_not_take_it_back_says_so(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        view = repository.storage
        plain = view.put

        def slow(name: str, data: object) -> None:
            if name.startswith(names.SNAPSHOTS):
                pruned(scene)
                pruned(scene, hours=4)
            plain(name, data)  # type: ignore[arg-type]

        def denied(name: str) -> None:
            raise StorageDenied("the service does not permit this", subject=name)

        view.put, view.delete = slow, denied  # type: ignore[method-assign]
        with pytest.raises(Overtaken) as raised:
            store(repository, DROPPED, hours=2)
    assert "should be removed" in raised.value.__notes__[0]


def test_as_long_as_its_parent_is_there_a_run_need_answer_for_nothing_it_takes_over(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository:
        parent = store(repository, ATTACHED, hours=2)
        with repository.running(parent):
            assert repository.erasure_of(blob(repository, KEPT)) is None  # it looks, and relies on nothing
            pruned(scene)
            scene.world.wait(0.5)
            assert repository.erasure_of(blob(repository, KEPT)) is None
            assert count(scene, names.NEEDS) == 0


def test_when_its_parent_is_forgotten_a_run_answers_every_mark(scene: Scene) -> None:
    garbage(scene)
    with opened(scene, 2) as repository:
        parent = store(repository, ATTACHED, hours=2)
        records = repository.snapshot(parent).mailboxes
        with repository.running(parent):
            repository.relies(blob(repository, KEPT))
            with opened(scene, 1) as other:
                other.remove_snapshot(parent)
            pruned(scene)
            for _ in range(8):
                scene.world.wait(0.5)
                repository.relies(blob(repository, KEPT))
            pruned(scene)
            repository.put_snapshot(archive.snapshot(records, time=archive.NOON + 9 * HOUR))
    assert is_there(scene, ATTACHED)


def test_a_run_whose_parent_went_before_it_began_to_store_ends(scene: Scene) -> None:
    garbage(scene)
    with opened(scene, 2) as repository:
        parent = store(repository, ATTACHED, hours=2)
        records = repository.snapshot(parent).mailboxes
    with opened(scene, 2) as repository, repository.running(parent):
        with opened(scene, 1) as other:
            other.remove_snapshot(parent)
        pruned(scene)
        with pytest.raises(Overtaken):
            repository.put_snapshot(archive.snapshot(records, time=archive.NOON + 9 * HOUR))


def test_a_recipe_whose_parts_are_gone_is_not_relied_on(scene: Scene) -> None:
    """It stays in its block, for a neighbour is needed; what it is joined from goes."""
    with opened(scene) as repository:
        mails = MessageStore(repository)
        for mail in (KEPT, ATTACHED):
            mails.store(mail)
        repository.flush()
        store(repository, KEPT)
    with opened(scene) as repository:
        assert repository.relies(blob(repository, ATTACHED))
    pruned(scene)
    assert pruned(scene, hours=4).removed > 0
    for role in (Role.READER, Role.WRITER):
        with opened(scene, role=role) as repository:
            assert repository.has(blob(repository, ATTACHED))
            assert not repository.has(blob(repository, FILE))
            assert not repository.relies(blob(repository, ATTACHED))
            assert not MessageStore(repository).is_whole(blob(repository, ATTACHED))
    with opened(scene, 2) as repository:
        MessageStore(repository).store(ATTACHED)
        repository.flush()
        assert repository.relies(blob(repository, ATTACHED))
        assert whole(MessageStore(repository).load(blob(repository, ATTACHED))) == ATTACHED


@pytest.mark.parametrize("days", [-400, 400])
def test_a_machine_whose_clock_is_wrong_by_a_year_removes_nothing_too_early(scene: Scene, days: int) -> None:
    garbage(scene, DROPPED)
    skew = timedelta(days=days)
    pruned(scene)
    assert pruned(scene, now=skew).removed == 0
    assert pruned(scene, hours=1, now=skew).removed == 0
    assert is_there(scene, DROPPED) is False  # it is marked, and there
    pruned(scene, hours=3, now=skew)
    pruned(scene, hours=4)
    assert (pruned(scene, hours=4).removed, count(scene, names.MARKS)) == (0, 0)


def test_an_index_that_somebody_else_wrote_meanwhile_keeps_what_it_tells_of(scene: Scene) -> None:
    """Whoever writes relies on what an index tells, so packs go after it."""
    garbage(scene, DROPPED)
    with opened(scene, 2) as other:
        pruned(scene)
        old = [name for name in marks.objects(marks.read(View(scene.storage))) if name.startswith(names.INDEX)]
        # As a prune that began before the mark was made.
        other.add_index([entry for name in old for entry in entries(other, name)])
    report = pruned(scene, hours=4)
    assert untrue(scene) == [], "no index tells of a pack that is gone"
    assert report.waiting > 0
    for _ in range(3):
        pruned(scene, hours=4)
    assert (count(scene, names.MARKS), untrue(scene)) == (0, [])
    assert is_there(scene, DROPPED) is False


def test_needs_that_name_no_mark_are_cleared_away_and_forged_ones_do_no_harm(scene: Scene) -> None:
    garbage(scene, DROPPED)
    view = View(scene.storage)
    needs.put(view, "marks/20260101T000000000Z-00000000", ["packs/aa"], scene.world.time())
    scene.storage.put("needs/20260101T000000000Z-00000000", [b"{}"])
    scene.storage.stored["needs/20260101T000000000Z-00000000"] = 0.0
    pruned(scene)
    pruned(scene, hours=4)
    assert is_there(scene, KEPT)
    assert [name for name in scene.storage.objects if name.startswith(names.NEEDS)] == [
        "needs/20260101T000000000Z-00000000"
    ]


def test_what_is_needed_of_a_mark_does_not_keep_the_rest_of_it_for_ever(scene: Scene) -> None:
    """One index object tells of both, and stayed as long as it alone told of the one."""
    with opened(scene) as repository:
        store(repository, KEPT)
        large = [message(f"Large {number}", noise(number, 9000).hex()) for number in (9, 10)]
        dropped = store(repository, *large, hours=1)
        repository.remove_snapshot(dropped)
    pruned(scene)
    (mark,) = marks.read(View(scene.storage))
    packs = [name for name in mark.mark.objects if name.startswith(names.PACKS)]
    assert len(packs) > 1
    needs.put(View(scene.storage), mark.name, packs[:1], scene.world.time())
    first = pruned(scene, hours=4)
    assert packs[0] in first.needed
    pruned(scene, hours=4)
    assert {info.name for info in scene.storage.list(names.PACKS)}.intersection(packs) <= {packs[0]}
    pruned(scene, hours=4)
    pruned(scene, hours=4)
    assert not {info.name for info in scene.storage.list(names.PACKS)}.intersection(packs)
    assert is_there(scene, KEPT)


def test_a_message_that_the_state_knows_under_an_id_is_read_again_when_it_is_gone(scene: Scene) -> None:
    account = scene.common  # which has EMAILIDs
    account.create(b"Other")
    account.append(b"INBOX", ATTACHED, KEPT)
    scene.back_up(0, View(scene.storage), common=True)
    stored = account.boxes[b"INBOX"].messages.pop(1)
    account._tick(b"INBOX")
    scene.back_up(0, View(scene.storage), common=True)
    scene.forget(1, View(scene.storage), Rules(keep_last=1))
    pruned(scene)
    pruned(scene, hours=4)
    account._place(b"Other", stored)  # back again, under the EMAILID that it had
    scene.back_up(0, View(scene.storage), common=True)
    scene.check()
    assert is_there(scene, ATTACHED)
