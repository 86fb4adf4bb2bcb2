"""Several prunes at the same time, which do not know the same: what one of them removes must not be what another one
leaves. Each rule by itself, as in test_prune_races.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from backupd.errors import Overtaken
from backupd.operations.messages import MessageStore
from backupd.repository import marks, names, needs
from backupd.repository.repository import Repository
from tests.support import archive
from tests.support.archive import Box, Mail
from tests.support.mail import message, noise
from tests.support.pruning import (
    ATTACHED,
    DROPPED,
    HOUR,
    KEPT,
    before,
    blob,
    can_be_read,
    count,
    entries,
    garbage,
    is_there,
    opened,
    pruned,
    store,
    untrue,
)
from tests.support.scene import Scene
from tests.support.simulated_world import View

RIGHT = timedelta()
"""By how much the clocks of these prunes are wrong."""


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def go_on(scene: Scene, repository: Repository, hours: float) -> None:
    """A run works for so many hours, and looks at marks as it must."""
    for _ in range(round(2 * hours)):
        scene.world.wait(0.5)
        assert repository.erasure_of(blob(repository, KEPT)) is None


# -- needs and their marks ---------------------------------------------------------------------------------------------


def test_a_prune_that_reads_needs_when_another_one_has_removed_them_with_their_mark_removes_nothing(
    scene: Scene,
) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        pruned(scene)
        go_on(scene, repository, 4)
        # The second listing of needs: the first one asks what time it is.
        other = lambda view: before(view, "list", names.NEEDS, lambda: pruned(scene), skip=1)  # noqa: E731
        pruned(scene, meanwhile=other)
        store(repository, DROPPED, hours=2)
    assert is_there(scene, DROPPED)


def test_a_need_for_a_mark_that_came_while_a_prune_lasted_is_left_alone(scene: Scene) -> None:
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))

        def another_marks_and_is_answered() -> None:
            pruned(scene)
            go_on(scene, repository, 0.5)

        pruned(scene, meanwhile=lambda view: before(view, "list", names.SNAPSHOTS, another_marks_and_is_answered))
        go_on(scene, repository, 4)
        pruned(scene)
        store(repository, DROPPED, hours=2)
    assert is_there(scene, DROPPED)


def test_what_needs_say_is_not_believed_for_longer_because_reading_them_took_long(scene: Scene) -> None:
    """Whoever copies to a repository says what it needs, and waits an hour."""
    garbage(scene, DROPPED)
    pruned(scene)
    scene.world.wait(4)
    slow = lambda view: before(view, "list", names.MARKS, lambda: scene.world.wait(0.5), skip=1)  # noqa: E731
    assert pruned(scene, meanwhile=slow).removed == 0
    assert pruned(scene).removed > 0


def test_a_mark_of_which_something_stays_goes_when_that_was_said_for_an_hour(scene: Scene) -> None:
    """For as long as one prune may be removing what another one leaves, nobody must rely on it."""
    garbage(scene, DROPPED)
    pruned(scene)
    (mark,) = marks.read(View(scene.storage))
    scene.world.wait(4)
    damaged = names.index("0" * 64)

    def another_leaves_everything_and_a_run_comes() -> None:
        scene.storage.objects[damaged], scene.storage.stored[damaged] = b"which nobody can read", 0.0
        assert pruned(scene).needed
        assert mark.name in scene.storage.objects
        del scene.storage.objects[damaged], scene.storage.stored[damaged]
        with opened(scene, 2) as repository, repository.running(None):
            store(repository, DROPPED, hours=2)

    other = lambda view: before(view, "delete", "", another_leaves_everything_and_a_run_comes)  # noqa: E731
    assert pruned(scene, meanwhile=other).removed > 0
    assert is_there(scene, DROPPED)
    assert untrue(scene) == []


def test_a_mark_of_which_something_stays_is_kept_for_that_hour_and_no_longer(scene: Scene) -> None:
    with opened(scene) as repository:
        store(repository, KEPT)
    packs = [name for name in scene.storage.objects if name.startswith(names.PACKS)]
    marks.put(View(scene.storage), packs, "forged", scene.world.time())
    for hours, left in ((4, (1, 1)), (0.5, (1, 1)), (0.6, (0, 0))):
        assert pruned(scene, 0, hours=hours).needed == packs
        assert (count(scene, names.MARKS), count(scene, names.NEEDS)) == left


def test_what_stays_is_told_of_anew_only_when_that_was_said_for_an_hour(scene: Scene) -> None:
    """One index object, which is marked, tells of it, and of something that waits for that object to go."""
    with opened(scene) as repository:
        store(repository, KEPT)
        large = [message(f"Large {number}", noise(number, 9000).hex()) for number in range(9, 15)]
        repository.remove_snapshot(store(repository, *large, hours=1))
    pruned(scene)
    view = View(scene.storage)
    (mark,) = marks.read(view)
    first, *_ = [name for name in mark.mark.objects if name.startswith(names.PACKS)]
    scene.world.wait(4)

    def another_one_is_told() -> None:
        needs.put(view, mark.name, [first], scene.world.time())
        pruned(scene)

    pruned(scene, meanwhile=lambda slow: before(slow, "delete", "", another_one_is_told))
    assert untrue(scene) == []


# -- what is in several places -----------------------------------------------------------------------------------------


def twice(scene: Scene) -> list[tuple[str, str]]:
    """A message that a snapshot needs is stored twice: (pack, index object), the one first that is the home of it when
    both are marked, or none is."""
    with opened(scene) as repository:
        store(repository, KEPT)
        before = set(scene.storage.objects)
        mails = MessageStore(repository)
        for _ in range(2):
            repository.distrust(blob(repository, DROPPED))
            mails.store(DROPPED)
            repository.flush()
        new = set(scene.storage.objects) - before
        indexes = [name for name in new if name.startswith(names.INDEX)]
        found = [(names.pack(each.name.hex()), name) for name in indexes for each in entries(repository, name)]
        store(repository, DROPPED, hours=1)
    return sorted(found, key=lambda each: (len(scene.storage.objects[each[0]]), each[0]), reverse=True)


def test_two_prunes_that_know_different_marks_do_not_remove_both_places_of_a_blob(scene: Scene) -> None:
    home, second = twice(scene)
    view = View(scene.storage)
    marks.put(view, list(home), "the other place is whole", scene.world.time())
    scene.world.wait(4)

    def another_place_is_marked() -> None:
        marks.put(view, list(second), "the other place is whole", scene.world.time())
        scene.world.wait(4)

    def meanwhile(slow: View) -> None:
        before(slow, "list", names.INDEX, another_place_is_marked)
        before(slow, "delete", "", lambda: pruned(scene, now=RIGHT))

    pruned(scene, 0, meanwhile=meanwhile)
    for _ in range(3):
        assert can_be_read(scene, DROPPED)
        pruned(scene, hours=4, now=RIGHT)
    assert is_there(scene, DROPPED)


def test_two_prunes_that_know_different_marks_do_not_remove_both_indexes_of_a_pack(scene: Scene) -> None:
    view = View(scene.storage)
    with opened(scene) as repository:
        store(repository, KEPT)
        ours = sorted(name for name in scene.storage.objects if name.startswith(names.INDEX))
        told = repository.add_index([entry for name in ours for entry in entries(repository, name)])
    (pack,) = (name for name in scene.storage.objects if name.startswith(names.PACKS))
    first = marks.put(view, [*ours, pack], "another one tells the same", scene.world.time())
    needs.put(view, first, [pack], scene.world.time())
    scene.world.wait(4)

    def the_other_one_is_marked() -> None:
        marks.put(view, told, "another one tells the same", scene.world.time())
        scene.world.wait(2.95)

    def two_others() -> None:
        """For one of them the second mark is too young, so that the first one ends."""
        pruned(scene, now=RIGHT)
        pruned(scene, hours=0.1, now=RIGHT)

    def meanwhile(slow: View) -> None:
        before(slow, "list", names.INDEX, the_other_one_is_marked)
        before(slow, "delete", "", two_others)

    pruned(scene, 0, meanwhile=meanwhile)
    assert can_be_read(scene, KEPT)


def test_what_a_run_relies_on_is_answered_for_also_when_it_was_moved(scene: Scene) -> None:
    """It is in the new pack too, but the run does not look after that."""
    with opened(scene) as repository:
        for hours, mail in enumerate((KEPT, ATTACHED)):
            store(repository, mail, hours=hours)
        dropped = store(repository, DROPPED, hours=2)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        records = [archive.record(repository, b"INBOX", Box({1: Mail(DROPPED)}))]
        assert pruned(scene).moved > 0
        go_on(scene, repository, 1)
        with opened(scene, 1) as other:
            other.remove_snapshot(dropped)
        assert pruned(scene).marked > 0
        for _ in range(3):
            go_on(scene, repository, 4)
            pruned(scene)
        repository.put_snapshot(archive.snapshot(records, time=archive.NOON + 9 * HOUR))
    assert can_be_read(scene, DROPPED)


def test_a_machine_that_stood_still_does_not_go_on_because_what_it_relied_on_was_moved(scene: Scene) -> None:
    with opened(scene) as repository:
        for hours, mail in enumerate((KEPT, ATTACHED, DROPPED)):
            store(repository, mail, hours=hours)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        assert pruned(scene).moved > 0
        pruned(scene, hours=4)
        with pytest.raises(Overtaken):
            store(repository, DROPPED, hours=3)


# -- parents that a mark did not know ----------------------------------------------------------------------------------


def parent_beside_a_mark(scene: Scene) -> str:
    """A snapshot that was stored while a prune lasted, whose mark names what it needs; its object's name."""
    garbage(scene, DROPPED)
    with opened(scene, 2) as repository, repository.running(None):
        assert repository.relies(blob(repository, DROPPED))
        parents = []
        stored = lambda: parents.append(store(repository, DROPPED, hours=2))  # noqa: E731
        pruned(scene, meanwhile=lambda view: before(view, "list", names.INDEX, stored))
    assert count(scene, names.NEEDS) == 0
    return parents[0].name


@pytest.mark.parametrize("looks", [True, False])
def test_a_run_ends_when_its_parent_is_forgotten_that_an_earlier_mark_may_not_have_known(
    scene: Scene, looks: bool
) -> None:
    name = parent_beside_a_mark(scene)
    with opened(scene, 2) as repository:
        parent = next(ref for ref in repository.refs() if ref.name == name)
        records = repository.snapshot(parent).mailboxes
        with repository.running(parent):
            go_on(scene, repository, 3.5)
            with opened(scene, 1) as other:
                other.remove_snapshot(parent)
            if looks:
                with pytest.raises(Overtaken):
                    go_on(scene, repository, 0.5)
            pruned(scene)
            stored = list[str]()
            assert isinstance(repository.storage, View)
            before(repository.storage, "put", names.SNAPSHOTS, lambda: stored.append("one that nobody should see"))
            with pytest.raises(Overtaken):
                repository.put_snapshot(archive.snapshot(records, time=archive.NOON + 9 * HOUR))
    assert stored == []


def test_a_snapshot_whose_parent_went_while_it_was_stored_is_taken_back(scene: Scene) -> None:
    name = parent_beside_a_mark(scene)
    with opened(scene, 2) as repository:
        parent = next(ref for ref in repository.refs() if ref.name == name)
        records = repository.snapshot(parent).mailboxes
        with repository.running(parent):
            go_on(scene, repository, 3.5)

            def others_at_work() -> None:
                with opened(scene, 1) as other:
                    other.remove_snapshot(parent)
                pruned(scene)

            assert isinstance(repository.storage, View)
            before(repository.storage, "put", names.SNAPSHOTS, others_at_work)
            with pytest.raises(Overtaken):
                repository.put_snapshot(archive.snapshot(records, time=archive.NOON + 9 * HOUR))
    assert count(scene, names.SNAPSHOTS) == 1
