"""`backupd s3-policy`."""

from __future__ import annotations

from datetime import timedelta

from backupd.cli import output
from backupd.cli.context import Here
from backupd.errors import UsageError
from backupd.storage.s3_policy import Role, policy


def command(*, role: Role, context: Here) -> int:
    """Print the IAM policy with the least that a role needs to do in the repository's bucket. Asks no server.

    Parameters
    ----------
    role
        writer: takes snapshots, and can neither remove nor replace anything. reader: restores. auditor: checks what is
        stored. copier: makes the bucket a copy of another repository. pruner: removes what no snapshot needs. eraser:
        takes messages out of all snapshots. repairer: brings back what was lost or damaged.
    """
    from backupd.storage import s3_settings

    repository = context.config.repository
    if not repository.url.startswith("s3://"):
        raise UsageError(
            "the repository is not in a bucket", subject=repository.url, remedy="only s3://bucket/prefix has policies"
        )
    bucket, prefix = s3_settings.parse(repository.url)
    elsewhere = repository.s3 is not None and repository.s3.endpoint_url is not None
    lock = repository.s3.object_lock if repository.s3 else None
    lock_days = -(lock.keep // -timedelta(days=1)) if lock else None
    found = policy(bucket, prefix, role, conditions=not elsewhere, lock_days=lock_days)
    output.write_raw(output.encode_indented(found) + b"\n")
    return 0
