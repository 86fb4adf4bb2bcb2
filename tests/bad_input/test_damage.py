"""Objects of the repository that are missing or altered. What is right, for each kind:

    repository.json   nothing can be opened: said at once; put back, everything is there
    key slot          the passphrase opens nothing: exit 12; another slot or an exported key still opens everything
    pack              what was in it is lost, and nothing else; the next backup stores again what the server still has
    index             nothing is lost: the next backup makes it anew from the packs
    snapshot          that one point in time is lost; the next backup goes on from the one before
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Place, hashes, imap, mail_of
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise

Harm = Callable[[Path], None]


def missing(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    """One bit of the byte in the middle."""
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 1
    _replace(path, octets)


def cut(path: Path) -> None:
    """The last bytes are gone."""
    _replace(path, path.read_bytes()[:-10])


def _replace(path: Path, octets: bytes | bytearray) -> None:
    path.unlink()
    path.write_bytes(octets)


@pytest.fixture(scope="module")
def account(dovecot: Dovecot) -> Account:
    """An account that is the same for all tests here."""
    return dovecot.account()


@pytest.fixture(scope="module")
def original(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Two backups: of INBOX, then of Work, each with a pack, an index object and a snapshot of its own."""
    place = Place(tmp_path_factory.mktemp("original"))
    account.append_many("INBOX", [message(f"In {number}", size=500) for number in range(30)])
    account.append("INBOX", message("With a file", attachments=[Attachment("a.bin", noise(1, 60_000))]))
    place.configure({"alice": imap(account)})
    place.create()
    place.done("backup")
    account.create("Work")
    account.append_many("Work", [message(f"Work {number}", size=500) for number in range(30)])
    # Other flags than in INBOX: equal runs of state would be one blob, in the first pack.
    account.store("Work", "1:30", (b"\\Seen",))
    # The same attachment in another message: a part that is in the first pack only.
    account.append("Work", message("Forwarded", attachments=[Attachment("b.bin", noise(1, 60_000))]))
    place.done("backup")
    return place


@pytest.fixture
def backed(original: Place, account: Account, place: Place) -> Place:
    """A copy of it, to be harmed."""
    shutil.copytree(original.repository, place.repository)
    shutil.copytree(original.state, place.state)
    place.configure({"alice": imap(account)})
    return place


def objects(place: Place, prefix: str) -> list[Path]:
    """Files of objects, oldest first."""
    return sorted((place.repository / name for name in place.names(prefix)), key=lambda path: path.stat().st_mtime_ns)


def restorable(place: Place, snapshot: str, mailbox: str) -> Counter[str]:
    """What of a mailbox comes back, whatever is said."""
    folder = place.folder / "partly"
    shutil.rmtree(folder, ignore_errors=True)
    result = place.run("restore", snapshot, f"eml:{folder}", "--mailbox", mailbox)
    assert result.code in (0, 3), result.err
    return hashes(path.read_bytes() for path in folder.rglob("*.eml"))


def of(account: Account, mailbox: str) -> Counter[str]:
    return hashes(each.raw for each in account.messages(mailbox))


@pytest.mark.parametrize(
    ("harm", "which", "fresh_state"),
    [(missing, 0, False), (missing, 1, True), (flipped, 0, True), (flipped, 1, False), (cut, 1, True)],
)
def test_an_index_object(backed: Place, account: Account, harm: Harm, which: int, fresh_state: bool) -> None:
    then = mail_of(account)
    harm(objects(backed, "index/")[which])
    if fresh_state:
        shutil.rmtree(backed.state)

    assert backed.run("backup").code == 0

    assert backed.restored("alice@latest") == then
    shutil.rmtree(backed.state)
    for snapshot in backed.snapshots():
        assert backed.run("restore", str(snapshot["id"]), f"zip:{backed.folder}/{snapshot['id']}.zip").code == 0
    assert backed.run("ls", "alice@latest", "INBOX").code == 0


@pytest.mark.parametrize(
    ("harm", "which", "fresh_state"),
    [(missing, 0, True), (missing, 1, False), (flipped, 0, False), (flipped, 1, False), (cut, 0, False)],
)
def test_a_pack(backed: Place, account: Account, harm: Harm, which: int, fresh_state: bool) -> None:
    harm(objects(backed, "packs/")[which])
    if fresh_state:
        shutil.rmtree(backed.state)
    spared = "Work" if which == 0 else "INBOX"

    result = backed.run("restore", "alice@latest", f"mbox:{backed.folder}/mbox")
    assert result.code == 3
    assert all(line.startswith("backupd: ") for line in result.lines)
    listed = backed.run("ls", "alice@latest", "INBOX" if which == 0 else "Work")
    told = "31 messages with UIDs from 1 to 31 cannot be listed: " in listed.err
    assert len(listed.out.splitlines()) == (0 if told else 31)
    assert listed.code == (3 if told or "(damaged)" in listed.out else 0)
    assert told or harm is not missing
    came = restorable(backed, "alice@latest", spared)
    assert came <= of(account, spared)
    # The forwarded attachment is in the first pack.
    assert came.total() >= of(account, spared).total() - (which == 0)

    result = backed.run("backup")
    assert result.code == 0, result.err
    for line in result.lines:
        assert "alice: " in line
        assert "lost" in line
    assert backed.restored("alice@latest") == mail_of(account)
    backed.done("backup")


@pytest.mark.parametrize("harm", [missing, flipped, cut])
def test_the_newest_snapshot(backed: Place, account: Account, harm: Harm) -> None:
    first, newest = objects(backed, "snapshots/")
    harm(newest)
    if harm is not missing:
        backed.failed(1, "ls", "alice@latest", saying=[newest.name, f"use the one before it: {first.name}"])
        listed = backed.run("snapshots")
        assert listed.code == 0
        assert len(listed.out.splitlines()) == 3
    assert restorable(backed, first.name, "INBOX") == of(account, "INBOX")

    result = backed.run("backup")

    assert result.code == 0, result.err
    backed.clear(result, saying=["alice: ", newest.name], lines=0 if harm is missing else 1)
    assert backed.restored("alice@latest") == mail_of(account)


@pytest.mark.parametrize("harm", [missing, cut])
def test_the_description(backed: Place, account: Account, harm: Harm) -> None:
    path = backed.repository / "repository.json"
    kept = path.read_bytes()
    harm(path)

    for command in (["backup"], ["snapshots"], ["restore", "alice@latest", f"eml:{backed.folder}/out"]):
        backed.failed(1, *command, saying=["repository.json", "`backupd repair` puts it back"])
    backed.failed(2, "init", saying=["there is a repository already"])

    path.unlink(missing_ok=True)
    path.write_bytes(kept)
    assert backed.restored("alice@latest") == mail_of(account)


@pytest.mark.parametrize("harm", [missing, flipped, cut])
def test_a_key_slot(backed: Place, account: Account, harm: Harm) -> None:
    exported = backed.folder / "exported"
    backed.run("key", "export", exported)
    (slot,) = objects(backed, "keys/")
    harm(slot)

    for command in (["backup"], ["restore", "alice@latest", f"eml:{backed.folder}/out"]):
        backed.failed(12, *command, saying=["key", "exported key"])

    backed.config.write_bytes(
        backed.config.read_bytes()
        .replace(b'"passphrase":{', b'"key_file":{')
        .replace(str(backed.folder / "passphrase").encode(), str(exported).encode())
    )
    assert backed.restored("alice@latest") == mail_of(account)


def test_a_wrong_passphrase(backed: Place, account: Account) -> None:
    backed.configure({"alice": imap(account)}, passphrase="another passphrase")

    for command in (["backup"], ["snapshots"], ["restore", "alice@latest", f"eml:{backed.folder}/out"]):
        backed.failed(12, *command, saying=["opens no slot", "check repository.passphrase"])


def test_no_repository(place: Place, account: Account) -> None:
    place.configure({"alice": imap(account)})

    for command in (["backup"], ["snapshots"], ["restore", "alice@latest", f"eml:{place.folder}/out"]):
        place.failed(10, *command, saying=[str(place.repository), "no repository", "`backupd init` makes one"])
