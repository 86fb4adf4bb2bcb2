"""How an account stands: its newest snapshot, when it was last backed up, what its last run came to.

The repository knows most of it and the run history the rest. Whoever asks often - the daemon's status, its metrics -
cannot read a thousand accounts' snapshots each time, so each run leaves here what it knows, and the state keeps it.
Deleted, it is read from the repository again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec

from backupd.errors import Damaged, ObjectMissing
from backupd.operations.backup_report import BackupReport
from backupd.operations.history import History
from backupd.operations.state import Run, State
from backupd.repository import holds
from backupd.repository.repository import Repository
from backupd.repository.snapshots import IMPORT, Loss, Snapshot, SnapshotRef

LOOKED_AT = 100
"""Newest snapshots of an account that are searched for sudden losses."""
_KIND = "standing"


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an account stands. Times are RFC 3339 in UTC.

    repository: its id; what was learnt of another one counts for nothing.
    snapshot, time: the newest snapshot and when it began; complete, checkpoint, messages, octets, problems: of it.
    proved: when the account was last known to be backed up from its server, by a snapshot or by a run that found
    nothing changed (mail that was imported tells nothing of the server); whole: the same, with nothing left out.
    losses: sudden losses whose pinned snapshot was there when this was learnt.
    """

    repository: str
    snapshot: str | None = None
    time: str | None = None
    complete: bool = False
    checkpoint: bool = False
    messages: int = 0
    octets: int = 0
    problems: int = 0
    proved: str | None = None
    whole: str | None = None
    losses: list[Loss] = []
    last_run: Run | None = None


_decode = msgspec.json.Decoder(Standing).decode


def kept(state: State, account: str | None = None) -> dict[str, Standing]:
    """What the state knows, by account; of one, or of all. What an earlier version kept otherwise is not known."""
    found = {}
    for name, value in state.kept(_KIND, account).items():
        try:
            found[name] = _decode(value)
        except msgspec.DecodeError:
            continue
    return found


def keep(state: State, account: str, standing: Standing) -> None:
    """Have the state know this."""
    state.keep(_KIND, account, msgspec.json.encode(standing))


def learn(repository: Repository, state: State, account: str) -> Standing:
    """What the state knows of the account, or else what the repository does, which the state knows from then on.

    In a bucket, where each snapshot that is read is a request, only those since the newest complete one are searched.
    """
    known = kept(state, account).get(account)
    if known is None or known.repository != repository.secrets.repository.hex():
        thorough = repository.storage.requests is None
        known, _ = read(repository, state, account, thorough=thorough, accepted=accepted_losses(repository))
        keep(state, account, known)
    return known


def accepted_losses(repository: Repository) -> frozenset[str]:
    """Snapshots whose losses somebody has accepted; none as long as a hold cannot be read, which `forget` tells."""
    try:
        return holds.read(repository).accepted
    except Damaged:
        return frozenset()


def forget_losses(state: State, account: str) -> None:
    """The account's losses are accepted."""
    if (known := kept(state, account).get(account)) is not None:
        keep(state, account, msgspec.structs.replace(known, losses=[]))


def read(
    repository: Repository,
    state: State | None,
    account: str,
    *,
    thorough: bool = True,
    accepted: Collection[str] = (),
) -> tuple[Standing, list[SnapshotRef]]:
    """How the account stands by repository and run history, and which of its newest snapshots are damaged.

    state: None where no run history is known. thorough: look for losses in older snapshots than the newest complete
    one, too. accepted: ids of snapshots whose losses somebody has accepted.
    """
    refs = repository.refs(account)
    found: list[tuple[SnapshotRef, Snapshot]] = []
    damaged = []
    for ref in reversed(refs[-LOOKED_AT:]):
        try:
            found.append((ref, repository.snapshot(ref)))
        except (Damaged, ObjectMissing):
            damaged.append(ref)
            continue
        if found[-1][1].complete and found[-1][1].origin.kind != IMPORT and not thorough:
            break
    runs = state.runs(account, LOOKED_AT) if state else []
    newest = found[0] if found else None
    there = {ref.id for ref in refs}
    # A run whose snapshot is gone, or is in another repository, proves nothing any more.
    good = [run for run in runs if run.outcome in ("stored", "unchanged") and run.snapshot in there]
    of_server = [each for each in found if each[1].origin.kind != IMPORT]
    return (
        Standing(
            repository=repository.secrets.repository.hex(),
            snapshot=newest[0].id if newest else None,
            time=newest[1].started if newest else None,
            complete=bool(newest and newest[1].complete),
            checkpoint=bool(newest and newest[1].checkpoint),
            messages=newest[1].messages if newest else 0,
            octets=newest[1].octets if newest else 0,
            problems=len(newest[1].problems) if newest else 0,
            proved=_proved([each for each in of_server if not each[1].checkpoint], good),
            whole=_proved(
                [each for each in of_server if each[1].complete], [run for run in good if not run.problems]
            ),
            losses=[
                loss
                for ref, snapshot in reversed(found)
                if ref.id not in accepted
                for loss in snapshot.losses
                if loss.pinned in there
            ],
            last_run=runs[0] if runs else None,
        ),
        damaged[::-1],
    )


def _proved(snapshots: Sequence[tuple[SnapshotRef, Snapshot]], runs: Sequence[Run]) -> str | None:
    """When the newest of these snapshots, or the last of these runs, began. Both: newest first."""
    times = [run.started for run in runs[:1]]
    # The run that took a snapshot, or found that it still holds, knows better when that was: see operations/backup.py.
    if snapshots and not (runs and runs[0].snapshot == snapshots[0][0].id):
        times.append(snapshots[0][1].started)
    return max(times, key=datetime.fromisoformat, default=None)


def record(
    state: State, repository: Repository, history: History, run: Run, report: BackupReport | None = None
) -> None:
    """Have the state know what a run came to. report: of one that went well. Called under the account's lock."""
    state.record(run)
    known = kept(state, run.account).get(run.account)
    if known is None or known.repository != repository.secrets.repository.hex():
        known = before(repository, history)
    keep(state, run.account, after(known, run, report, history.there))


def before(repository: Repository, history: History) -> Standing:
    """How an account stood before a run, as far as the run has read of it."""
    parent, baseline = history.parent, history.baseline[1] if history.baseline else None
    of_server = baseline if baseline and baseline.origin.kind != IMPORT else None
    unknown = Standing(repository.secrets.repository.hex())
    if parent is None:
        return unknown
    accepted = accepted_losses(repository)
    told = [(history.parent_id, parent)]
    if history.baseline:
        told.insert(0, (history.baseline[0].id, history.baseline[1]))
    losses = [loss for identifier, snapshot in told if identifier not in accepted for loss in snapshot.losses]
    return msgspec.structs.replace(
        unknown,
        snapshot=history.parent_id,
        time=parent.started,
        complete=parent.complete,
        checkpoint=parent.checkpoint,
        messages=parent.messages,
        octets=parent.octets,
        problems=len(parent.problems),
        proved=of_server.started if of_server else None,
        whole=of_server.started if of_server and of_server.complete else None,
        losses=list(dict.fromkeys(losses)),
    )


def after(known: Standing, run: Run, report: BackupReport | None, there: Collection[str]) -> Standing:
    """How an account stands after a run that had found it standing so.

    report: of a run that went well. there: ids of the snapshots that the account had.
    """
    if report is None:
        # Of a run that did not end, the newest snapshot is a checkpoint, if it has made one.
        left_one = run.snapshot is not None and run.snapshot != known.snapshot
        began = {"snapshot": run.snapshot, "time": run.started, "complete": False, "checkpoint": True, "problems": 0}
        return msgspec.structs.replace(known, last_run=run, **(began if left_one else {}))
    losses = [loss for loss in known.losses if loss.pinned in there]
    imported = run.outcome == "imported"
    return Standing(
        repository=known.repository,
        snapshot=run.snapshot,
        time=report.started if report.snapshot else known.time,
        complete=report.complete,
        messages=report.messages,
        octets=report.octets,
        problems=len(report.problems),
        proved=known.proved if imported else run.started,
        whole=run.started if report.complete and not imported else known.whole,
        losses=[*losses, *(loss for loss in report.losses if loss not in losses)],
        last_run=run,
    )
