"""Commands on a repository in a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS


@pytest.fixture
def in_bucket(configured: Path, seaweedfs: SeaweedFS, tmp_path: Path) -> Path:
    """The configuration, with the repository in a bucket."""
    s3 = (
        f"{{endpoint_url: '{seaweedfs.endpoint_url}', region: us-east-1, access_key_id: {ACCESS_KEY},"
        f" secret_access_key: {SECRET_KEY}, retry_for: 10s}}"
    )
    url = f"url: s3://{seaweedfs.bucket()}/mail\n  s3: {s3}"
    configured.write_text(configured.read_text().replace(f"url: {tmp_path}/repository", url))
    return configured


def test_status_says_what_is_stored_and_what_was_asked_for(run: Run, in_bucket: Path, account: Account) -> None:
    account.deliver("INBOX", [message("One")])
    assert run("init").code == 0
    assert run("backup", "alice").code == 0

    first = run("status", "--json").document["repository"]  # type: ignore[index]
    assert first["objects"] == 6, "description, key, pack, index, snapshot, an entry of the record"
    assert first["octets"] > 1000
    today = first["requests"]["today"]
    assert (today["writes"] >= 5, today["reads"] > 0, first["requests"]["average"]) == (True, True, None)

    assert run("backup", "alice").code == 0
    second = run("status", "--json").document["repository"]  # type: ignore[index]
    assert second["requests"]["today"]["writes"] == today["writes"]
    assert second["requests"]["today"]["reads"] > today["reads"]
    assert f"{first['url']}: {first['objects']} objects" in run("status").out
