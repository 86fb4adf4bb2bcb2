"""`backupd copy`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.errors import BackupdError, Interrupted, UsageError

if TYPE_CHECKING:
    from backupd.operations.copy import CopyReport

INCOMPLETE = 3


def command(*copies: str, revoke: bool = False, context: Here) -> int:
    """Make the configured copies equal to the repository. Needs no key; only what a copy lacks is written.

    Parameters
    ----------
    copies
        Their addresses in the configuration, or their numbers there, from 1; none means all.
    revoke
        Remove key slots from the copies that the repository no longer has, because they were removed or rotated.
    """
    from backupd.cli.progress import shown
    from backupd.operations.copy import copy
    from backupd.operations.locks import renew_locks
    from backupd.operations.opening import at_copy, find_copy

    context.not_at_a_copy("copy")
    chosen = [find_copy(context.config, each) for each in copies] or list(context.config.copies)
    if not chosen:
        raise UsageError("the configuration names no copy", remedy="add copies: [{url: ...}]")
    results: list[CopyReport | BackupdError] = []
    with shown(context) as observer, context.stopping() as stop:
        for each in chosen:
            try:
                target = context.storage(at_copy(context.config, each.url))
                report = copy(context.storage(), target, revoke=revoke, observer=observer, stop=stop)
                if target.locks:
                    with context.state() as state:
                        renew_locks(target, state, datetime.now(UTC), stop=stop)
                results.append(report)
            except Interrupted:
                raise
            except BackupdError as error:  # the other copies are made all the same
                results.append(error)
    code = _exit_code(results)
    if context.json:
        documents = [{"error": output.describe_error(one)} if isinstance(one, BackupdError) else one for one in results]
        output.document({"copies": documents, "exit_code": code})
    for result in results:
        _tell(context, result)
    return code


def _exit_code(results: list[CopyReport | BackupdError]) -> int:
    failed = [result.exit_code for result in results if isinstance(result, BackupdError)]
    if failed:
        return failed[0] if len(set(failed)) == 1 and len(failed) == len(results) else 1
    return INCOMPLETE if any(not isinstance(one, BackupdError) and one.problems for one in results) else 0


def _tell(context: Context, result: CopyReport | BackupdError) -> None:
    if isinstance(result, BackupdError):
        output.remark(str(result))
        return
    copied = f"{output.count(result.copied, 'object')} ({output.size(result.copied_octets)}) copied"
    done = copied if result.copied else "nothing to copy"
    context.say(f"{result.target}: {done}, {result.objects:,} in the repository")
    if result.revoked:
        slots = ", ".join(result.revoked)
        context.say(f"{result.target}: {output.count(len(result.revoked), 'key slot')} removed: {slots}")
    if result.key_slots:
        slots = ", ".join(result.key_slots)
        output.remark(f"{result.target}: key slots that the repository no longer has open it: {slots}; use --revoke")
    if result.gone > len(result.key_slots):
        rest = output.count(result.gone - len(result.key_slots), "object")
        context.note(f"{result.target}: {rest} there that the repository no longer has")
    if result.waiting:
        rest = output.count(result.waiting, "object")
        context.note(
            f"{result.target}: {rest} come with the next copy, an hour from now or later: whoever prunes this copy has "
            "to learn first that they are needed"
        )
    for problem in result.problems:
        output.remark(f"{result.target}: {problem.object}: {problem.what}")
