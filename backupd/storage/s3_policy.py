"""The least that a role needs to do in a bucket, as an IAM policy.

Only the pruner may delete, and it is no role of backups: whoever has the credentials of a writer can neither remove nor
replace what is stored. Amazon can insist on `If-None-Match` (condition keys s3:if-none-match and
s3:ObjectCreationOperation); other services need not know these keys, so there they are left out.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

Role = Literal["writer", "reader", "auditor", "copier", "pruner"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)

Statement = dict[str, Any]

_VERSION: Final = "2012-10-17"
_WRITTEN: Final = ("packs/", "index/", "snapshots/")
"""What backups store. The description and the keys come once, from whoever sets the repository up."""
_COPIED: Final = (*_WRITTEN, "keys/", "repository.json")
_PRUNED: Final = (*_WRITTEN, "marks/")


def policy(bucket: str, prefix: str, role: Role, *, conditions: bool) -> dict[str, Any]:
    """The policy as JSON's values.

    Args:
        prefix: empty, or ending with a slash.
        conditions: whether the service knows Amazon's condition keys for conditional writes.
    """
    place = f"arn:aws:s3:::{bucket}"
    statements = [_listing(place, prefix), _allow("Read", "s3:GetObject", f"{place}/{prefix}*")]
    if role == "writer":
        statements += _storing(place, prefix, _WRITTEN, conditions=conditions)
    elif role == "copier":
        statements += _storing(place, prefix, _COPIED, conditions=conditions)
    elif role == "pruner":
        statements += _storing(place, prefix, _PRUNED, conditions=conditions)
        statements.append(_allow("Remove", "s3:DeleteObject", *(f"{place}/{prefix}{part}*" for part in _PRUNED)))
    return {"Version": _VERSION, "Statement": statements}


def _listing(place: str, prefix: str) -> Statement:
    statement = _allow("List", "s3:ListBucket", place)
    if prefix:
        statement["Condition"] = {"StringLike": {"s3:prefix": f"{prefix}*"}}
    return statement


def _storing(place: str, prefix: str, parts: tuple[str, ...], *, conditions: bool) -> list[Statement]:
    objects = [f"{place}/{prefix}{part}*" for part in parts]
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


def _allow(name: str, action: str, *resources: str) -> Statement:
    resource = resources[0] if len(resources) == 1 else list(resources)
    return {"Sid": name, "Effect": "Allow", "Action": action, "Resource": resource}
