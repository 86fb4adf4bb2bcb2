"""The least that a role needs to do in a bucket, as an IAM policy.

Only the pruner may delete, and it is no role of backups: whoever has the credentials of a writer can neither remove nor
replace what is stored. Nor may a writer store erasures, for what these name a prune removes. The repairer brings back
what was lost, out of versions too.

Amazon can insist on `If-None-Match` (condition keys s3:if-none-match and s3:ObjectCreationOperation) and limit the time
of locks; other services need not know these keys, so there they are left out.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

Role = Literal["writer", "reader", "auditor", "copier", "pruner", "eraser", "repairer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Statement = dict[str, Any]

_VERSION: Final = "2012-10-17"
_WRITTEN: Final = ("packs/", "index/", "snapshots/", "holds/", "log/", "needs/", "parity/", "probe/")
"""What backups store, and `doctor`. The description and the keys come once, from whoever sets the repository up."""
_ERASED: Final = (*_WRITTEN, "erasures/")
_COPIED: Final = (*_ERASED, "keys/", "repository.json")
_PRUNED: Final = (*_WRITTEN, "marks/")
_OF_ROLE: Final = {"writer": _WRITTEN, "copier": _COPIED, "pruner": _PRUNED, "eraser": _ERASED, "repairer": _COPIED}


def policy(
    bucket: str, prefix: str, role: Role, *, conditions: bool, lock_days: int | None = None
) -> dict[str, Any]:
    """The policy as JSON's values.

    Args:
        prefix: empty, or ending with a slash.
        conditions: whether the service knows Amazon's condition keys.
        lock_days: how long objects are locked; None for no locks.
    """
    place = f"arn:aws:s3:::{bucket}"
    everything = f"{place}/{prefix}*"
    written = [f"{place}/{prefix}{part}*" for part in _OF_ROLE.get(role, ())]
    statements = [_listing("List", "s3:ListBucket", place, prefix), _allow("Read", "s3:GetObject", everything)]
    if role == "repairer":
        statements.append(_listing("ListVersions", "s3:ListBucketVersions", place, prefix))
        statements.append(_allow("ReadVersions", "s3:GetObjectVersion", everything))
    if written:
        statements += _storing(place, written, conditions=conditions and role != "repairer")
        if lock_days is not None:
            locked = [f"{place}/{prefix}{part}*" for part in dict.fromkeys((*_COPIED, *_OF_ROLE[role]))]
            statements += _locking(locked, lock_days, conditions=conditions)
    if role == "pruner":
        statements.append(_allow("Remove", "s3:DeleteObject", *written))
    return {"Version": _VERSION, "Statement": statements}


def _listing(name: str, action: str, place: str, prefix: str) -> Statement:
    statement = _allow(name, action, place)
    if prefix:
        statement["Condition"] = {"StringLike": {"s3:prefix": f"{prefix}*"}}
    return statement


def _storing(place: str, objects: list[str], *, conditions: bool) -> list[Statement]:
    unfinished = [
        _allow("FindUnfinishedUploads", "s3:ListBucketMultipartUploads", place),
        _allow("EndUploads", "s3:AbortMultipartUpload", *objects),
    ]
    if not conditions:
        return [_allow("Store", "s3:PutObject", *objects), *unfinished]
    # Beginning an upload and sending its parts makes no object, and cannot have the condition.
    new = _allow("StoreWhatIsNotThere", "s3:PutObject", *objects)
    part = _allow("SendParts", "s3:PutObject", *objects)
    new["Condition"] = {"Null": {"s3:if-none-match": "false"}}
    part["Condition"] = {"Bool": {"s3:ObjectCreationOperation": "false"}}
    return [new, part, *unfinished]


def _locking(objects: list[str], days: int, *, conditions: bool) -> list[Statement]:
    lock = _allow("Lock", "s3:PutObjectRetention", *objects)
    if conditions:
        # Whoever has these credentials cannot make the bucket's owner pay for a hundred years.
        lock["Condition"] = {"NumericLessThanEquals": {"s3:object-lock-remaining-retention-days": str(days)}}
    return [lock, _allow("SeeLocks", "s3:GetObjectRetention", *objects)]


def _allow(name: str, action: str, *resources: str) -> Statement:
    resource = resources[0] if len(resources) == 1 else list(resources)
    return {"Sid": name, "Effect": "Allow", "Action": action, "Resource": resource}
