"""`backupd repair` as a user meets it: a damaged repository on a disk, and the mail server the mail came from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.command import Place, Result, imap, mail_of
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def flip(path: Path, at: int = 1_400) -> None:
    """One bit of a message's block; a pack begins with one."""
    octets = bytearray(path.read_bytes())
    octets[at] ^= 1
    path.unlink()
    path.write_bytes(octets)


def configure(
    place: Place, account: Account, *, parity: str | None = None, kind: str = "imap", copies: Sequence[Path] = ()
) -> None:
    secret = place.folder / "passphrase"
    secret.write_text("correct horse battery\n")
    repository = {"url": str(place.repository), "passphrase": {"file": str(secret)}}
    section = imap(account)
    if kind == "pop3":
        section |= {"port": account.server.ports.pop3}
    more = {"repository": {**repository, **({"parity": parity} if parity else {})}}
    place.configure({"alice": section}, kind=kind, more=more, copies=copies)


def pack(place: Place) -> Path:
    """The largest one, which has the mail."""
    return max((place.repository / name for name in place.names("packs/")), key=lambda path: path.stat().st_size)


def named(result: Result) -> list[str]:
    """Lines about messages that stay lost."""
    return [line for line in result.lines if "INBOX UID" in line]


def test_lost_mail_comes_from_the_server_and_what_it_has_no_longer_is_named(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=600) for number in range(12)])
    configure(place, account)
    place.create()
    place.done("backup")
    then = mail_of(account)
    account.expunge("INBOX", 7)
    flip(pack(place))
    objects = place.names("")

    planned = place.run("repair", "--dry-run")
    assert planned.code == 3
    assert "11 lost messages" in planned.out
    assert "can be fetched again" in planned.out
    assert "would stay so: nothing good was found to put in its place, and not all that it held" in planned.err
    assert place.names("") == objects

    result = place.run("repair")
    assert result.code == 3
    assert "alice: 11 lost messages" in result.out
    assert "12 messages damaged, 11 fetched again" in result.out
    assert any("alice: INBOX UID 7" in line for line in result.lines)
    assert "1 message cannot be restored" in result.err
    assert named(planned) == named(result)
    (snapshot,) = [each["id"] for each in place.snapshots()]
    assert f"alice: stays lost: 1 message of INBOX, in 1 snapshot: {snapshot}" in result.err
    assert "let go of it: `backupd backup`" in result.err

    told = place.run("repair", "--offline", "--json")
    document = told.document
    assert isinstance(document, dict)
    assert document["exit_code"] == told.code == 3
    (lost,) = [each for each in document["report"]["affected"] if not each["restorable"]]
    assert (lost["account"], lost["mailbox"], lost["uid"]) == ("alice", "INBOX", 7)
    folder = place.folder / "out"
    assert place.run("restore", "alice@latest", f"eml:{folder}").code == 3
    assert len(list(folder.rglob("*.eml"))) == then.total() - 1


def test_whoever_takes_the_way_out_hears_no_more_of_what_is_lost(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=600) for number in range(12)])
    configure(place, account)
    place.create()
    place.done("backup")
    account.expunge("INBOX", 7)
    flip(pack(place))
    repaired = place.run("repair", "--json")
    assert repaired.code == 3
    (concerned,) = repaired.document["report"]["concerned"]  # type: ignore[index]
    assert (concerned["account"], concerned["mailboxes"], concerned["messages"]) == ("alice", ["INBOX"], 1)

    assert place.run("backup").code == 0
    for snapshot in concerned["snapshots"]:
        assert place.run("forget", "--snapshot", snapshot).code == 0
    assert place.run("repair").code == 0
    assert place.run("audit", "--level", "content").out.startswith("BACKUPD OK")
    assert place.restored("alice@latest") == mail_of(account)


def test_a_dry_run_says_what_would_become_of_each_object(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=600) for number in range(3)])
    configure(place, account)
    place.create()
    place.done("backup")
    (index,), (snapshot,), mail = place.names("index/"), place.names("snapshots/"), pack(place)
    place.folder.joinpath("copy").mkdir()
    configure(place, account, copies=[place.folder / "copy"])
    place.done("copy")
    (place.folder / "copy" / index).unlink()
    (place.folder / "copy" / mail.relative_to(place.repository)).unlink()
    for path in (mail, place.repository / index, place.repository / snapshot):
        flip(path, 100)

    packed = str(mail.relative_to(place.repository))

    planned, done = place.run("repair", "--dry-run").out, place.run("repair").out

    assert f"{snapshot}: it is damaged, and would be put back from {place.folder / 'copy'}" in planned
    assert f"{snapshot}: it was damaged, and was put back from {place.folder / 'copy'}" in done
    assert f"{index}: it is damaged, and could be removed: what it told would be told anew from the packs" in planned
    assert f"{index}: it was damaged, and is removed: what it told was told anew from the packs" in done
    assert f"{packed}: it was damaged, and is removed: what it held comes from the mail server" in done
    assert place.done("repair").out.endswith("nothing amiss\n")
    assert place.restored("alice@latest") == mail_of(account)


def test_after_a_repair_all_is_as_before(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=600) for number in range(12)])
    account.append("INBOX", message("With a file", attachments=[Attachment("a.bin", noise(1, 60_000))]))
    configure(place, account)
    place.create()
    place.done("backup")
    then = mail_of(account)
    (index,) = place.names("index/")
    (place.repository / index).unlink()
    flip(pack(place))

    result = place.run("repair")

    assert (result.code, result.err) == (0, ""), result
    assert place.restored("alice@latest") == then
    assert "nothing amiss" in place.done("repair").out
    assert place.run("audit", "--level", "content").out.startswith("BACKUPD OK")
    place.done("backup")


def test_pop3_mail_is_fetched_again_by_uidl(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=600) for number in range(5)])
    configure(place, account, kind="pop3")
    place.create()
    place.done("backup")
    then = mail_of(account)
    flip(pack(place))
    assert "5 lost messages" in place.run("repair", "--dry-run").out
    result = place.run("repair")
    assert (result.code, result.err) == (0, ""), result
    assert "alice: 5 lost messages" in result.out
    assert place.restored("alice@latest") == then


def test_parity_heals_without_a_server_or_a_copy(place: Place, account: Account) -> None:
    account.append_many("INBOX", [message(f"Mail {number}", size=3_000) for number in range(30)])
    configure(place, account, parity="5%")
    place.done("init")
    place.done("backup")
    then = mail_of(account)
    for name in [*place.names("packs/"), *place.names("index/"), *place.names("snapshots/"), "repository.json"]:
        flip(place.repository / name, 100)
    result = place.run("repair", "--offline")
    assert (result.code, result.err) == (0, ""), result
    assert "from parity" in result.out
    assert place.restored("alice@latest") == then
    assert place.run("audit", "--level", "content").out.startswith("BACKUPD OK")
