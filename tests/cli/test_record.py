"""`backupd record` and `backupd audit --record` as people use them, on a real repository on disk."""

from __future__ import annotations

from pathlib import Path

from backupd.cli.commands.record import _counted
from backupd.operations.record_listing import EntryLine
from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import message


def test_a_removal_is_seen_by_whoever_has_a_key_or_an_export(
    here: Run, configured: Path, account: Account, tmp_path: Path
) -> None:
    assert here("init").code == 0
    for number in range(2):
        account.deliver("INBOX", [message(f"Message {number}")])
        assert here("backup", "alice").code == 0
    first, _ = (each["id"] for each in here("snapshots", "--json").document)  # type: ignore[attr-defined]
    exported = here("record", "export", "record.txt")
    assert (exported.code, exported.out, "keep it elsewhere" in exported.err) == (0, "", True)
    assert here("record", "export", "record.txt").code == 2, "the older one may be the better proof"
    assert (tmp_path / "record.txt").read_text().startswith("BACKUPD-RECORD-1\nrepository ")
    assert here("audit", "alice", "--record", "record.txt").code == 0

    listed = here("record", "list").out.splitlines()
    assert [line.split()[3] for line in listed[1:]] == ["backup", "backup", "audit"], listed
    assert first[-8:] in listed[1]
    document = here("record", "list", "--json", "--last", "1").document
    assert [each["words"]["outcome"] for each in document] == ["ok"]  # type: ignore[attr-defined]

    (victim,) = (tmp_path / "repository/snapshots").glob(f"*/{first}")
    victim.unlink()
    found = here("audit", "alice")
    assert found.code == 2
    assert f"{first}: the record tells of this snapshot, of nobody who removed it, and it is not there" in found.out
    keyless = tmp_path / "keyless.yaml"
    keyless.write_text(f"state_dir: {tmp_path}/other\nrepository: {{url: {tmp_path}/repository, keyless: true}}\n")
    keyless.chmod(0o600)
    assert "--record FILE" in here("audit", "--config", str(keyless)).out
    found = here("audit", "--config", str(keyless), "--record", "record.txt")
    assert (found.code, first in found.out) == (2, True)

    assert here("record", "accept", "--reason", "a test").out.startswith("accepted: snapshots/")
    assert here("audit", "alice").code == 0
    assert "a test" in here("record", "list").out
    assert here("record", "accept", "--reason", "again").code == 2

    piece = min((tmp_path / "repository/log").iterdir())
    piece.chmod(0o600)
    piece.write_bytes(piece.read_bytes()[:-1])
    refused = here("record", "export", "later.txt")
    assert (refused.code, (tmp_path / "later.txt").exists()) == (1, False)
    assert "nothing was exported" in refused.err
    assert "backupd record accept" in refused.err
    for _ in range(2):
        found = here("audit", "alice", "--level", "metadata")
        assert (found.code, f"log/{piece.name}" in found.out) == (2, True)
    assert f"accepted: log/{piece.name} cannot be read" in here("record", "accept", "--reason", "a bad disk").out
    assert here("record", "export", "later.txt").code == 0
    assert here("audit", "alice", "--level", "metadata").code == 0
    assert "no export of a signed record" in here("audit", "--record", "config.yaml").err


def test_a_prune_is_told_in_its_own_words() -> None:
    counts = {"removed": 1, "freed": 1500, "marked": 2, "moved": 30_000_000, "into": 1, "record": 4}
    line = EntryLine("0" * 64, "2026-11-29T12:00:00Z", "prune", [], [], [], [], counts, {}, {}, [], signed=True)
    assert list(_counted(line)) == [
        "1 object (1.5 kB) removed", "2 objects superfluous", "30.0 MB moved to 1 new pack",
        "4 objects of the record joined",
    ]  # fmt: skip
