"""Runs of envelopes, what lists show of messages, made anew from the messages themselves.

A run's id is the hash of its bytes, and these follow from its messages and their order, which membership runs tell. So
what comes out is the very run that was lost, for all snapshots that refer to it, or nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from backupd.errors import Damaged, Erased, ObjectMissing
from backupd.mail import headers
from backupd.operations.messages import MessageStore, Stored
from backupd.repository import runs
from backupd.repository.keys import Role
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope
from backupd.repository.snapshots import SnapshotRef


def envelope_of(stored: Stored) -> Envelope:
    """What lists show of a message that was stored."""
    return headers.envelope(stored.header, stored.attachments)


def rebuild(
    repository: Repository,
    refs: Iterable[SnapshotRef],
    lost: Collection[bytes],
    known: Mapping[bytes, Envelope],
) -> int:
    """Store lost runs again, as far as their messages can be had; how many. Durable when this returns.

    known: envelopes by message id. Those of others are made from what is stored, if the key can read it.
    """
    store, made = MessageStore(repository), 0
    for lost_run, messages in _messages(repository, refs, lost).items():
        if sorted(messages) != list(range(len(messages))):
            continue  # some rows of it are in snapshots that are forgotten
        # Where something was erased, a run without it has taken the place of the first one.
        run = repository.erased.now.places(lost_run)[0]
        envelopes = [known.get(messages[at]) or _made(repository, store, messages[at]) for at in range(len(messages))]
        if None in envelopes:
            continue
        data = runs.encode_envelopes([each for each in envelopes if each is not None])
        if repository.secrets.content_id(data) == run:
            repository.distrust(run)
            repository.put(run, BlobKind.ENVELOPES, data)
            made += 1
    if made:
        repository.flush()
    return made


def foreseen(
    repository: Repository, refs: Iterable[SnapshotRef], lost: Collection[bytes], promised: Collection[bytes]
) -> set[bytes]:
    """Which of these runs `rebuild` would make again. Stores nothing.

    promised: ids of messages that would be fetched again before.
    """
    store, found = MessageStore(repository), set()
    for lost_run, messages in _messages(repository, refs, lost).items():
        if sorted(messages) == list(range(len(messages))) and all(
            each in promised or _made(repository, store, each) for each in messages.values()
        ):
            found.add(lost_run)
    return found


def _made(repository: Repository, store: MessageStore, message: bytes) -> Envelope | None:
    if message in repository.erased.now:
        return Envelope()
    if repository.secrets.role is not Role.READER:
        return None
    try:
        return envelope_of(store.store(store.load(message)))  # which is there, so nothing is stored
    except (Damaged, Erased, ObjectMissing):
        return None


def _messages(
    repository: Repository, refs: Iterable[SnapshotRef], lost: Collection[bytes]
) -> dict[bytes, dict[int, bytes]]:
    """Of each lost run the ids of its messages, by their number in it."""
    found: dict[bytes, dict[int, bytes]] = {}
    seen: set[bytes] = set()
    for ref in refs:
        try:
            snapshot = repository.snapshot(ref)
        except (Damaged, ObjectMissing):
            continue
        for segment in (segment for record in snapshot.mailboxes for segment in record.segments):
            if segment.membership in seen:
                continue
            seen.add(segment.membership)
            try:
                data = repository.get_run(segment.membership, BlobKind.MEMBERSHIP)
                rows = runs.decode_membership(data, f"run {segment.membership.hex()[:16]}")
            except (Damaged, ObjectMissing):
                continue
            for row in rows:
                if row.envelopes in lost:
                    found.setdefault(row.envelopes, {})[row.envelope] = row.message
    return found
