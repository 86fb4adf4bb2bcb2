"""What the printed policies allow, as IAM reads them: an Allow whose action, resource and every condition match."""

from __future__ import annotations

import pytest

from backupd.storage.s3_policy import ROLES, Role, policy
from tests.support.iam import allows

BUCKET = "arn:aws:s3:::mail"
OBJECTS = ("packs/ab/" + 64 * "a", "index/" + 64 * "b", "snapshots/" + 16 * "c" + "/20260101T000000000Z-00000000")
FIXED = ("repository.json", "keys/admin-00000000.json")
KEPT_FROM_ALL = (
    "s3:DeleteObjectVersion", "s3:PutBucketPolicy", "s3:PutObjectAcl", "s3:PutLifecycleConfiguration",
    "s3:BypassGovernanceRetention", "s3:PutBucketVersioning", "s3:DeleteBucket",
)  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("prefix", ["", "backup/", "a/b/"])
def test_every_role_lists_and_reads_the_repository_and_nothing_beside_it(role: Role, prefix: str) -> None:
    document = policy("mail", prefix, role, conditions=True)

    assert allows(document, "s3:ListBucket", BUCKET, prefix=f"{prefix}packs/")
    assert all(allows(document, "s3:GetObject", f"{BUCKET}/{prefix}{name}") for name in (*OBJECTS, *FIXED))
    if prefix:
        assert not allows(document, "s3:ListBucket", BUCKET, prefix="")
        assert not allows(document, "s3:GetObject", f"{BUCKET}/other/secret")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_undo_what_protects_the_bucket(role: Role) -> None:
    document = policy("mail", "", role, conditions=True)

    for action in KEPT_FROM_ALL:
        assert not allows(document, action, BUCKET)
        assert not allows(document, action, f"{BUCKET}/{OBJECTS[0]}")


def test_a_writer_stores_what_is_new_and_neither_replaces_nor_removes() -> None:
    document = policy("mail", "backup/", "writer", conditions=True)

    for name in OBJECTS:
        place = f"{BUCKET}/backup/{name}"
        assert allows(document, "s3:PutObject", place, if_none_match="*", ObjectCreationOperation="true")
        assert not allows(document, "s3:PutObject", place, ObjectCreationOperation="true")
        assert allows(document, "s3:PutObject", place, ObjectCreationOperation="false"), "parts of an upload"
        assert not allows(document, "s3:DeleteObject", place)
    for name in FIXED:
        assert not allows(document, "s3:PutObject", f"{BUCKET}/backup/{name}", if_none_match="*")


@pytest.mark.parametrize("role", ["reader", "auditor"])
def test_whoever_only_reads_stores_nothing(role: Role) -> None:
    document = policy("mail", "", role, conditions=True)

    assert not any(allows(document, "s3:PutObject", f"{BUCKET}/{name}", if_none_match="*") for name in OBJECTS)


def test_only_a_pruner_removes_and_it_leaves_keys_and_description() -> None:
    document = policy("mail", "", "pruner", conditions=True)

    assert all(allows(document, "s3:DeleteObject", f"{BUCKET}/{name}") for name in OBJECTS)
    assert not any(allows(document, "s3:DeleteObject", f"{BUCKET}/{name}") for name in FIXED)


def test_only_who_may_erase_or_copy_stores_erasures() -> None:
    """A prune removes what they name, so a writer that was stolen could have mail removed."""
    for role in ROLES:
        allowed = allows(policy("mail", "", role, conditions=False), "s3:PutObject", f"{BUCKET}/erasures/x")
        assert allowed == (role in ("copier", "eraser", "repairer"))
        assert allows(policy("mail", "", role, conditions=False), "s3:GetObject", f"{BUCKET}/erasures/x")


def test_a_service_that_does_not_know_amazons_conditions_gets_none() -> None:
    document = policy("mail", "", "writer", conditions=False)

    assert allows(document, "s3:PutObject", f"{BUCKET}/{OBJECTS[0]}")
    assert all("Condition" not in statement for statement in document["Statement"])


@pytest.mark.parametrize("role", ["writer", "copier", "pruner", "eraser", "repairer"])
def test_whoever_stores_may_lock_for_as_long_as_is_configured_and_no_longer(role: Role) -> None:
    place = f"{BUCKET}/{OBJECTS[0]}"
    assert not allows(policy("mail", "", role, conditions=True), "s3:PutObjectRetention", place)
    document = policy("mail", "", role, conditions=True, lock_days=30)

    for name in (*OBJECTS, *FIXED):  # the locks of all of them are renewed, whoever stored them
        assert allows(document, "s3:PutObjectRetention", f"{BUCKET}/{name}", object_lock_remaining_retention_days="30")
    assert not allows(document, "s3:PutObjectRetention", place, object_lock_remaining_retention_days="31")
    assert allows(document, "s3:GetObjectRetention", place)
    assert not allows(document, "s3:BypassGovernanceRetention", place)


def test_a_repairer_reads_versions_and_replaces_what_is_damaged() -> None:
    document = policy("mail", "backup/", "repairer", conditions=True)

    assert allows(document, "s3:ListBucketVersions", BUCKET, prefix="backup/packs/")
    for name in (*OBJECTS, *FIXED):
        place = f"{BUCKET}/backup/{name}"
        assert allows(document, "s3:GetObjectVersion", place)
        assert allows(document, "s3:PutObject", place, ObjectCreationOperation="true")
        assert not allows(document, "s3:DeleteObject", place)
