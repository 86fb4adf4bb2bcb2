"""One prune, from what the snapshots need to what is marked (see prune.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain
from typing import Final, NamedTuple, NoReturn

from backupd.errors import Interrupted, Overtaken
from backupd.operations.counting import count
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.operations.prune_removal import Removal, names_of, remove
from backupd.operations.prune_report import PruneReport
from backupd.repository import condemning, marks
from backupd.repository.condemning import Condemned
from backupd.repository.erasures import Erasures
from backupd.repository.index import TOLD_TOGETHER, PackEntry
from backupd.repository.keys import Role
from backupd.repository.moving import Mover
from backupd.repository.pack_writer import PACK_MAGIC, Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.planning import Limits, PackUse, plan
from backupd.repository.planning import Plan as PackPlan
from backupd.repository.reliance import LATE_SECONDS, LOOK_SECONDS
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef
from backupd.repository.survey import Survey
from backupd.repository.surveyed import Pack
from backupd.repository.sweeping import Sweep
from backupd.repository.walking import Walked, walk

UNINDEXED: Final = timedelta(days=2)
"""After so long, a pack that no index object tells of is of a run that was killed."""
SMALL_INDEX: Final = 256 << 10
_NEEDS_SECONDS: Final = 600.0
_DURABLE_OCTETS: Final = 512 << 20
"""After so much was moved, it is indexed and marked, so that an interruption costs no more; or when an index object
is full, so that no more than one of them is in memory."""

_SHOWN: Final = 5


class _Moved(NamedTuple):
    """gone: packs that were moved. fresh: what indexes are to tell of new packs, where none does yet. octets: of blocks
    that were moved; into: new packs. marked: names of those that were moved and are marked already."""

    gone: list[Pack]
    fresh: list[PackEntry]
    octets: int
    into: int
    marked: set[str]


class PruneRun:
    """What a prune works with. `run` may be called again."""

    def __init__(
        self,
        repository: Repository,
        now: datetime,
        grace: timedelta,
        limits: Limits,
        sizes: Sizes,
        observer: Observer = ignore,
        stop: threading.Event | None = None,
        seconds: Callable[[], float] = lambda: 0.0,
        *,
        dry_run: bool = False,
    ) -> None:
        self._repository, self._storage, self._now, self._grace = repository, repository.storage, now, grace
        self._limits, self._sizes, self._observer, self._dry_run = limits, sizes, observer, dry_run
        self._stop, self._seconds = stop or threading.Event(), seconds

    def run(self) -> PruneReport:
        """Do it once."""
        self._looked = self._told_at = self._seconds()
        self._condemned: Condemned = condemning.NOTHING
        self._known = marks.read(self._storage)
        ours = [each for each in self._known if not marks.for_locks(each)]
        seconds = self._grace.total_seconds()
        removal = Removal(self._storage, self._now, seconds, self._seconds, dry_run=self._dry_run)
        ripe = marks.older(self._storage, ours, seconds, self._now, ask=not self._dry_run)
        # After that: whoever stores a snapshot that is not listed here has seen the marks that are ripe. Before the
        # indexes, so that what the snapshots need is known.
        refs = self._repository.refs()
        erased = self._repository.erased.look()
        with closing(Survey(self._repository, marks.objects(ours))) as survey:
            survey.look()
            survey.learn_parts()
            walked = walk(self._repository, survey, refs, self._stop, erased=erased)
            hindrances = self._reckon(survey, walked, erased)
            if hindrances and self._others_were_at_work(refs, erased):
                raise Overtaken(
                    "others forgot or erased, and pruned meanwhile", subject=self._storage.url, remedy="run it again"
                )
            whole = walked.is_whole and not walked.missing and not hindrances
            left = self._condemn(survey, erased)
            swept = removal.sweep(survey, ours, ripe, unindexed_may_go=whole)
            report = self._renew(survey, removal, swept, hindrances + left, len(refs), whole=whole)
        if not self._dry_run:
            self._repository.refresh()
        if self._stop.is_set():
            raise Interrupted("stopped", subject=self._storage.url, remedy="the next prune goes on")
        return report

    def _others_were_at_work(self, refs: list[SnapshotRef], erased: Erasures) -> bool:
        """Whether what is missing may be so because nobody needs it by now."""
        return bool(set(refs) - set(self._repository.refs())) or self._repository.erased.look() is not erased

    def _reckon(self, survey: Survey, walked: Walked, erased: Erasures) -> list[str]:
        """What is not known to be superfluous is needed; why that is more than it need be."""
        found = [f"snapshot {each} cannot be read" for each in walked.unreadable]
        found += [f"a list of messages of snapshot {each} is lost" for each in walked.lost]
        found += [f"{each.name} cannot be read" for each in survey.indexes if not each.readable]
        found += [f"{name} cannot be read" for name in erased.damaged]
        if found:
            survey.need_kinds(list(BlobKind))
        elif survey.unknown:
            survey.need_kinds([BlobKind.PLAIN])
            found = [f"{count(survey.unknown, 'message')} of unknown parts; a prune with a reader's key finds them out"]
        if walked.missing:
            found.append(f"snapshots need {count(walked.missing, 'blob')} (messages, parts, lists) that no pack has")
        return found

    def _condemn(self, survey: Survey, erased: Erasures) -> list[str]:
        """Let what was erased go, wherever it lies; why not all of it can. Raises Overtaken where it can by now."""
        if not erased.messages:
            return []
        self._condemned = condemning.condemn(survey, erased)
        stuck = len(self._condemned.stuck)
        may_part = self._repository.secrets.role is Role.READER and not self._dry_run
        if stuck and may_part and condemning.store_anew(self._repository, survey, self._condemned):
            raise Overtaken("what stood beside erased mail was stored anew", subject=self._storage.url)
        found = ["erasures were made at the same time; `backupd erase --finish` joins them"] if erased.forks() else []
        if stuck:
            found.append(f"erased mail lies beside {count(stuck, 'needed blob')}; `backupd erase --finish` parts them")
        return found

    # What becomes superfluous

    def _renew(
        self,
        survey: Survey,
        removal: Removal,
        swept: Sweep,
        hindrances: list[str],
        snapshots: int,
        *,
        whole: bool,
    ) -> PruneReport:
        mover = Mover(self._repository, survey, self._sizes, self._stop)
        decided = self._decide(survey, mover)
        leftovers = self._leftovers(survey) if whole else []
        unneeded = [survey.packs[number] for number in decided.gone] + leftovers
        moving = [survey.packs[number] for number in chain(decided.small, decided.partly)]
        partly, small = set(decided.partly), set(decided.small)
        done = _Moved([], [], 0, 0, set())
        if self._dry_run:
            octets = sum(survey.needed_octets(pack) for pack in moving)
            done = _Moved(moving, [], octets, -(-octets // self._sizes.pack), set())
        elif moving:
            done = self._move(mover, moving, partly)
        superfluous = unneeded + done.gone
        going = {pack.number for pack in superfluous} | _untold(survey, swept, whole=whole)
        rewriting = self._rewriting(survey, going)
        if not self._dry_run:
            alone = _only_marked(survey, swept, removal.unsettled)
            self._store(survey, done, superfluous, going, rewriting, alone)
        return PruneReport(
            repository=self._storage.url,
            dry_run=self._dry_run,
            snapshots=snapshots,
            packs=sum(pack.number in small for pack in done.gone),
            octets=sum(pack.size for pack in done.gone if pack.number in small),
            repacked=sum(pack.number in partly for pack in done.gone),
            repacked_octets=sum(pack.size for pack in done.gone if pack.number in partly),
            moved=done.octets,
            into=done.into,
            unneeded=len(unneeded),
            unneeded_octets=sum(pack.size for pack in unneeded),
            leftovers=len(leftovers),
            marked=len(superfluous) + len(rewriting),
            marked_octets=sum(pack.size for pack in superfluous),
            removed=len(removal.removed),
            freed=removal.freed,
            waiting=len((names_of(survey) & set(survey.marked)) - removal.removed - {*swept.needed}),
            locked_until=removal.locked_until,
            needed=swept.needed,
            unused=decided.unused,
            beside=sum(survey.beside(pack) for pack in survey.packs if _is_used(survey, pack)),
            over=decided.over,
            damaged=sorted(mover.damaged),
            hindrances=hindrances,
        )

    def _decide(self, survey: Survey, mover: Mover) -> PackPlan:
        """A plan that relies on no damaged pack."""
        while True:
            decided = plan((self._use(survey, pack) for pack in survey.packs if _is_used(survey, pack)), self._limits)
            concerned = chain(decided.gone, decided.small, decided.partly)
            homes = {home for number in concerned for home in survey.replaced.get(number, ())}
            bad = [] if self._dry_run else [each for each in sorted(homes) if not mover.is_good(survey.packs[each])]
            if not bad:
                return decided
            for number in bad:
                survey.leave_out(survey.packs[number])

    def _use(self, survey: Survey, pack: Pack) -> PackUse:
        octets = survey.needed_octets(pack)
        must_go = bool(octets) and self._condemned.must_go(survey, pack)
        return PackUse(pack.number, pack.size, octets + len(PACK_MAGIC) if octets else 0, must_go)

    def _leftovers(self, survey: Survey) -> list[Pack]:
        # By whichever clock is behind: this machine's, or the storage's, which is not before what was stored last.
        latest = max((pack.stored for pack in survey.packs if pack.stored is not None), default=0.0)
        before = min(self._now.timestamp(), latest) - UNINDEXED.total_seconds()
        return [
            pack
            for pack in survey.packs
            if not pack.told and not pack.marked and pack.stored is not None and pack.stored < before
        ]

    def _move(self, mover: Mover, packs: list[Pack], partly: set[int]) -> _Moved:
        url = self._storage.url
        self._observer(Plan(url, len(packs), sum(pack.size for pack in packs)))
        gone: list[Pack] = []
        fresh: list[PackEntry] = []
        octets = into = first = waiting = weight = 0
        self._told_at = self._seconds()
        batches = mover.move(
            packs,
            lambda name, size: self._observer(Advance(url, name, 1, size)),
            even_one=lambda pack: pack.number in partly,
        )
        for batch in batches:
            gone += batch.gone
            fresh.append(batch.entry)
            into, octets, waiting = into + 1, octets + batch.octets, waiting + batch.octets
            weight += batch.entry.weight
            if waiting >= _DURABLE_OCTETS or weight >= TOLD_TOGETHER:
                self._repository.add_index(fresh, before=self._mind_the_move)
                marks.put(self._storage, [pack.object for pack in gone[first:]], "moved", self._now)
                fresh, first, waiting, weight, self._told_at = [], len(gone), 0, 0, self._seconds()
        return _Moved(gone, fresh, octets, into, {pack.object for pack in gone[:first]})

    def _rewriting(self, survey: Survey, going: set[int]) -> list[str]:
        """Names of index objects that are to be written anew: that tell of packs that go, or leave out what is known by
        now; and if these are enough, small ones."""
        usable = [each for each in survey.indexes if each.readable and not each.marked]
        wanted = {
            each.name
            for each in usable
            if not going.isdisjoint(each.packs) or (each.unknown and survey.has_learnt(each))
        }
        small = {each.name for each in usable if each.size < SMALL_INDEX}
        return sorted(wanted | small if len(wanted | small) >= self._limits.fewest else wanted)

    def _store(
        self,
        survey: Survey,
        moved: _Moved,
        superfluous: list[Pack],
        going: set[int],
        rewriting: list[str],
        marked: list[str],
    ) -> None:
        """Index what was moved, tell anew what stays, and mark what does not. marked: index objects that are marked,
        and alone tell of what stays after all."""
        if moved.fresh or rewriting or marked:
            newly = self._newly_marked()
            going = going | {pack.number for pack in survey.packs if pack.object in newly}
            entries = chain(moved.fresh, self._told(survey, rewriting, marked, going))
            told = self._repository.add_index(entries, before=self._mind_both)
            try:
                self._mind_both()
            except Overtaken:
                for name in told:
                    remove(self._storage, name)
                raise
        every = sorted({pack.object for pack in superfluous} - moved.marked) + rewriting
        if every:
            marks.put(self._storage, every, "moved, or needed by no snapshot", self._now)

    def _mind_the_time(self) -> None:
        """Raises Overtaken if it stood still: what it tells anew may be gone by now."""
        if self._seconds() - self._looked > LATE_SECONDS:
            self._give_up()

    def _mind_the_move(self) -> None:
        """The same of new packs, which nobody removes before they have been there for two days, and no index told of
        them: it may take hours to store them."""
        if self._seconds() - self._told_at > UNINDEXED.total_seconds() / 2:
            self._give_up()

    def _mind_both(self) -> None:
        self._mind_the_time()
        self._mind_the_move()

    def _give_up(self) -> NoReturn:
        raise Overtaken(
            "this prune stood still, and others may have removed what it was about to tell of",
            subject=self._storage.url,
            remedy="run it again",
        )

    def _newly_marked(self) -> frozenset[str]:
        """What others have marked since this began, if that is long ago."""
        if self._seconds() - self._looked < LOOK_SECONDS:
            return frozenset()
        self._looked = self._seconds()
        return marks.objects(marks.read(self._storage, {each.name for each in self._known}))

    def _told(
        self, survey: Survey, rewriting: list[str], marked: list[str], going: set[int]
    ) -> Iterator[PackEntry]:
        """What takes the place of index objects: what they tell of packs that stay, unless another one tells it."""
        kept = {each.name for each in survey.indexes if not each.marked} - set(rewriting)
        told = set(going)
        for name in rewriting + marked:
            for entry in survey.entries(name):
                pack = survey.by_name[entry.name]
                if pack.number in told or (name in marked and not pack.listed):
                    continue
                if any(survey.indexes[each].name in kept for each in pack.told):
                    continue
                told.add(pack.number)
                yield survey.completed(entry)


def _untold(survey: Survey, swept: Sweep, *, whole: bool) -> set[int]:
    """Packs that an index object must not tell of: that are marked, or gone and missed by nobody."""
    return {
        pack.number
        for pack in survey.packs
        if (pack.marked and pack.object not in swept.needed) or (whole and not pack.listed)
    }


def _only_marked(survey: Survey, swept: Sweep, unsettled: set[str]) -> list[str]:
    """Names of marked index objects that alone tell of packs which were marked and stay, and tell of others that wait
    for them to go: as long as no other one tells of the former, the latter would stay too, for ever. What is unsettled
    another prune may be removing."""
    waiting, needed = set(swept.waiting), set(swept.needed) - unsettled
    alone = {pack.number for pack in survey.packs if pack.object in needed and _is_told_by_marked(survey, pack)}
    return sorted(
        each.name
        for each in survey.indexes
        if each.marked
        and not alone.isdisjoint(each.packs)
        and any(survey.packs[number].object in waiting for number in each.packs)
    )


def _is_told_by_marked(survey: Survey, pack: Pack) -> bool:
    return all(survey.indexes[each].marked for each in pack.told)


def _is_used(survey: Survey, pack: Pack) -> bool:
    """Whether there is something to decide about it."""
    return pack.good and not pack.marked and any(not survey.indexes[each].marked for each in pack.told)
