"""tools/read_repository.py, written from docs/format.md alone, reads what the package writes."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backupd.mail.query import parse
from backupd.operations.backup import backup
from backupd.operations.erase import erase
from backupd.operations.prune import prune
from backupd.operations.state import State
from backupd.repository import slots
from backupd.repository.names import pack
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create, unlock
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.support import corpus
from tests.support.mail import message, nasty_mail, nasty_octets, office_mail
from tests.support.reading import contents
from tests.support.simulated_account import SimulatedAccount

READER = Path(__file__).parents[1] / "tools" / "read_repository.py"
PASSPHRASE = "correct horse"

Read = Callable[..., subprocess.CompletedProcess[str]]
Found = dict[str, dict[str, dict[int, tuple[str, list[str], str]]]]


@pytest.fixture
def archive(tmp_path: Path) -> tuple[LocalStorage, Found]:
    """A repository of several packs with two snapshots, and what is in it."""
    storage = LocalStorage(tmp_path / "repository")
    secrets = create(storage, PASSPHRASE, argon2=Argon2(1, 64, 1))
    account, state = SimulatedAccount(), State(tmp_path / "state")
    account.append(b"INBOX", *nasty_mail().values(), *nasty_octets().values(), flags=(b"$Label1", b"\\Seen"))
    account.append(b"INBOX", *(each.raw for each in corpus.spread("nasty", 200)))
    for name, mails in ((b"Entw&APw-rfe", office_mail(40)), (b"\xff\xfe/../../x", [message("strange")])):
        account.create(name)
        account.append(name, *mails)
    with Repository(storage, secrets, sizes=Sizes(block=100_000, pack=400_000)) as repository:
        backup(repository, account, "alice", state=state)
        account.expunge(b"INBOX", 2, 3)
        account.flag(b"INBOX", 1, b"\\Flagged")
        account.append(b"INBOX", message("new"))
        account.rename(b"Entw&APw-rfe", b"Renamed")
        backup(repository, account, "alice", state=state)
        expected = {
            ref.id: {
                name.hex(): {
                    uid: (hashlib.sha256(raw).hexdigest(), [flag.decode() for flag in flags], date.decode())
                    for uid, (raw, flags, date) in messages.items()
                }
                for name, messages in contents(repository, repository.snapshot(ref)).items()
                if messages
            }
            for ref in repository.refs("alice")
        }
        (tmp_path / "exported").write_text(slots.export(secrets))
    state.close()
    (tmp_path / "passphrase").write_text(PASSPHRASE + "\n")
    return storage, expected


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(
        *words: str, secret: tuple[str, str] = ("--passphrase-file", "passphrase")
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(READER), "repository", *secret, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return read


def extracted(folder: Path) -> Found:
    found: Found = {}
    for notes in folder.glob("*/*/*/messages.jsonl"):
        for line in notes.read_text().splitlines():
            note = json.loads(line)
            if "erased" in note:
                assert not (notes.parent / f"{note['uid']}.eml").exists()
                continue
            raw = (notes.parent / note["file"]).read_bytes()
            one = (hashlib.sha256(raw).hexdigest(), note["flags"], note["internaldate"])
            found.setdefault(notes.parts[-3], {}).setdefault(note["mailbox"], {})[note["uid"]] = one
    return found


@pytest.mark.parametrize("secret", [("--passphrase-file", "passphrase"), ("--exported-key", "exported")])
def test_every_message_of_every_snapshot_is_extracted(
    archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path, secret: tuple[str, str]
) -> None:
    done = read("extract", "out", secret=secret)

    assert (done.returncode, done.stderr) == (0, "")
    assert extracted(tmp_path / "out") == archive[1]
    assert {path.parent.parent.parent.parent for path in (tmp_path / "out").rglob("*.eml")} == {tmp_path / "out"}


def test_one_snapshot_and_the_list(archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path) -> None:
    first = min(archive[1])
    done = read("list")
    assert done.returncode == 0
    assert all(name in done.stdout for name in archive[1])

    assert read("extract", "out", "--snapshot", first[-8:]).returncode == 0
    assert extracted(tmp_path / "out") == {first: archive[1][first]}


def test_damage_is_told_and_costs_only_what_it_must(
    archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path
) -> None:
    packs = [info.name for info in archive[0].list("packs/")]
    assert len(packs) > 2
    path = tmp_path / "repository" / max(packs, key=archive[0].size)
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(data)

    done = read("extract", "out")

    assert done.returncode == 1
    assert pack(path.name) in done.stderr
    found = extracted(tmp_path / "out")
    whole = {(s, m, u): v for s, boxes in archive[1].items() for m, box in boxes.items() for u, v in box.items()}
    came = {(s, m, u): v for s, boxes in found.items() for m, box in boxes.items() for u, v in box.items()}
    assert came.items() < whole.items()
    assert len(came) > len(whole) // 2


@pytest.mark.parametrize("index_left", [False, True], ids=["done", "stopped before the indexes were removed"])
def test_what_was_merged_is_found_in_its_new_packs(
    archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path, index_left: bool
) -> None:
    storage, now = archive[0], datetime.now(UTC)
    before = {info.name: storage.get(info.name) for info in storage.list()}
    with Repository(storage, unlock(storage, PASSPHRASE)) as repository:
        prune(repository, now=now, alone=True, fewest=2, sizes=Sizes(pack=4_000_000))
    gone = before.keys() - {info.name for info in storage.list()}
    assert any(name.startswith("packs/") for name in gone)
    for name in gone if index_left else ():
        if name.startswith("index/"):
            storage.put(name, [before[name]])

    done = read("extract", "out")

    assert (done.returncode, done.stderr) == (0, "")
    assert extracted(tmp_path / "out") == archive[1]


@pytest.mark.parametrize("pruned", [False, True])
def test_what_was_erased_is_left_out_and_said(
    archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path, pruned: bool
) -> None:
    storage, expected = archive
    with Repository(storage, unlock(storage, PASSPHRASE)) as repository:
        meant = parse(f"id:{repository.secrets.content_id(message('new')).hex()}")
        assert erase(repository, meant, reason="asked to", now=datetime.now(UTC)).messages == 1
        if pruned:
            prune(repository, now=datetime.now(UTC), alone=True)
    gone = hashlib.sha256(message("new")).hexdigest()

    done = read("extract", "out")

    assert (done.returncode, done.stderr) == (0, "")
    assert extracted(tmp_path / "out") == {
        snapshot: {
            name: {uid: each for uid, each in box.items() if each[0] != gone} for name, box in boxes.items()
        }
        for snapshot, boxes in expected.items()
    }
    notes = [line for path in (tmp_path / "out").rglob("messages.jsonl") for line in path.read_text().splitlines()]
    assert sum(": asked to" in line for line in notes) == 1


def test_a_wrong_passphrase_and_no_repository(archive: tuple[LocalStorage, Found], read: Read, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("wrong horse")
    assert read("list").returncode == 2
    (tmp_path / "repository" / "repository.json").unlink()
    assert read("list").returncode == 2


def test_it_imports_nothing_of_the_package() -> None:
    allowed = {"zstandard", "cryptography", "blake3", "msgspec"} | set(sys.stdlib_module_names)
    for node in ast.walk(ast.parse(READER.read_text())):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.module.split(".")[0] in allowed
