"""What tests of prunes and runs beside each other have in common: one repository of a Scene, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from backupd.operations.messages import MessageStore
from backupd.operations.prune import prune
from backupd.operations.prune_report import PruneReport
from backupd.repository import index, names
from backupd.repository.index import PackEntry
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef
from tests.support import archive
from tests.support.archive import Box, Mail
from tests.support.mail import Attachment, message, noise
from tests.support.reading import whole
from tests.support.scene import SIZES, Scene
from tests.support.simulated_world import View

HOUR = timedelta(hours=1)
KEPT = message("Kept", noise(1, 500).hex())
DROPPED = message("Dropped", noise(2, 500).hex())
FILE = noise(3, 9000)
ATTACHED = message("Attached", attachments=[Attachment("plan.pdf", FILE)])


@contextmanager
def opened(scene: Scene, number: int = 0, *, role: Role = Role.READER) -> Iterator[Repository]:
    """The repository as a machine has it that goes on for long."""
    machine = scene.machines[number]
    clocks = (lambda: scene.world.seconds, lambda: scene.world.time(machine.skew).timestamp())
    with Repository(View(scene.storage), scene.secrets.for_role(role), sizes=SIZES, clocks=clocks) as repository:
        yield repository


def store(repository: Repository, *mails: bytes, hours: float = 0) -> SnapshotRef:
    """A snapshot of these."""
    box = Box({number: Mail(mail) for number, mail in enumerate(mails, 1)})
    return archive.put(repository, {b"INBOX": box}, time=archive.NOON + timedelta(hours=hours))


def pruned(
    scene: Scene,
    number: int = 1,
    *,
    hours: float = 0,
    now: timedelta | None = None,
    fewest: int = 2,
    meanwhile: Callable[[View], None] = lambda _view: None,
) -> PruneReport:
    """A prune on another machine, so many hours from now. fewest: packs or indexes that are joined. meanwhile: may have
    its requests interrupted."""
    scene.world.wait(hours)
    machine = scene.machines[number]
    with opened(scene, number, role=machine.role) as repository:
        assert isinstance(repository.storage, View)
        meanwhile(repository.storage)
        return prune(
            repository,
            now=scene.world.time(machine.skew if now is None else now),
            grace=3 * HOUR,
            fewest=fewest,
            max_unused=0,
            sizes=SIZES,
            seconds=lambda: scene.world.seconds,
        )


def before(view: View, method: str, prefix: str, happening: Callable[[], object], *, skip: int = 0) -> None:
    """Before one request of the view to objects that begin so, after so many others, this happens."""
    plain, left = getattr(view, method), [skip]

    def request(name: str = "", *rest: object) -> object:
        if name.startswith(prefix):
            left[0] -= 1
            if left[0] == -1:
                happening()
        return plain(name, *rest)

    setattr(view, method, request)


def garbage(scene: Scene, *mails: bytes) -> None:
    """These are stored, and no snapshot needs them."""
    with opened(scene) as repository:
        store(repository, KEPT)
        dropped = store(repository, *mails, hours=1)
        repository.remove_snapshot(dropped)


def blob(repository: Repository, mail: bytes) -> bytes:
    return repository.secrets.content_id(mail)


def count(scene: Scene, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in scene.storage.objects)


def is_there(scene: Scene, mail: bytes) -> bool:
    """Whether somebody who comes now finds the message whole, and may rely on it."""
    with opened(scene) as repository:
        return repository.relies(blob(repository, mail)) and can_be_read(scene, mail)


def can_be_read(scene: Scene, mail: bytes) -> bool:
    """Whether the message is there and whole, marked or not."""
    with opened(scene) as repository:
        there = repository.has(blob(repository, mail))
        return there and whole(MessageStore(repository).load(blob(repository, mail))) == mail


def entries(repository: Repository, name: str) -> list[PackEntry]:
    """What an index object tells."""
    return index.unseal(repository.storage.get(name), repository.secrets, name)


def untrue(scene: Scene) -> list[str]:
    """Packs that an index object tells of and that are not there."""
    with opened(scene) as repository:
        told = {names.pack(pack.hex()) for pack in repository.index.packs()}
    return sorted(told - scene.storage.objects.keys())
