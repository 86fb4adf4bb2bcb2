"""How to reach a bucket: what an s3:// address says, and what stands beside it in the configuration."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from backupd.errors import ConfigError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}\Z")
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[!-~ ]+\Z")
"""Of a prefix: printable ASCII, and no "." or ".." that a server would resolve."""

Fetch = Callable[[], str]
"""Fetches a secret when it is needed. Raises ConfigError."""


@dataclass(frozen=True)
class S3Settings:
    """What is not given is found as boto3 finds it: in its environment variables, its files, or the machine's role.

    Args:
        endpoint_url: the service, unless it is Amazon's.
        addressing: whether the bucket is in the path or in the host's name; auto: path where endpoint_url is given.
        storage_class: of new objects, such as STANDARD_IA.
        encryption: of new objects at rest, by the service; kms_key: the key for aws:kms.
        lock_mode: of new objects: COMPLIANCE or GOVERNANCE; None for no lock. lock_seconds: how long.
        ca_file: PEM file with the certificate authorities to believe instead of the system's.
        timeout: seconds the service may be silent.
        retry_seconds: how long a request that fails is tried again, before StorageUnavailable.
        connections: most connections at once; further threads wait for one.
    """

    endpoint_url: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    storage_class: str | None = None
    encryption: str | None = None
    kms_key: str | None = None
    lock_mode: Literal["COMPLIANCE", "GOVERNANCE"] | None = None
    lock_seconds: float = 0.0
    ca_file: Path | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: Fetch | None = field(default=None, repr=False)
    session_token: Fetch | None = field(default=None, repr=False)
    timeout: float = 60.0
    retry_seconds: float = 300.0
    connections: int = 16

    def of_new_objects(self) -> dict[str, str]:
        """Parameters of the requests that make an object."""
        wishes = {
            "StorageClass": self.storage_class,
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key,
        }
        return {name: value for name, value in wishes.items() if value is not None}


def parse(url: str) -> tuple[str, str]:
    """Bucket and prefix of s3://bucket/prefix; the prefix is empty, or ends with a slash. Raises ConfigError."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    segments = prefix.strip("/").split("/") if prefix.strip("/") else []
    if not url.startswith("s3://") or not _BUCKET.match(bucket) or not all(map(_SEGMENT.match, segments)):
        # The address is not shown: somebody may have written a key into it.
        raise ConfigError("not the address of a bucket", subject="repository.url", remedy="write s3://bucket/prefix")
    return bucket, "".join(f"{segment}/" for segment in segments)
