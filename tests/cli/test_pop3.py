"""A POP3 account on the command line, from the first pull to an IMAP account with the whole folder structure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Result, Run
from tests.support.dovecot_account import Account
from tests.support.mail import message
from tests.support.mbox_writers import FROM_LINE

MAILS = [message(f"Message {number}", size=300 + number) for number in range(8)]
SENT = message("Sent from here", sender="Bob <bob@example.com>", to="Alice <alice@example.com>")


@pytest.fixture
def configured(account: Account, tmp_path: Path) -> Path:
    """bob has POP3 on a real server; newbob is an empty IMAP account there."""
    new = account.server.account()
    path = tmp_path / "config.yaml"
    ports = account.server.ports
    document = {
        "state_dir": str(tmp_path / "state"),
        "repository": {"url": str(tmp_path / "repository"), "passphrase": "correct horse battery"},
        "accounts": {
            "bob": {
                "pop3": {
                    "host": "127.0.0.1", "port": ports.pop3s, "username": account.username,
                    "password": account.password, "ca_file": str(account.ca_file),
                }
            },
            "newbob": {
                "imap": {
                    "host": "127.0.0.1", "port": ports.imap, "tls": "none", "username": new.username,
                    "password": new.password,
                }
            },
        },
    }  # fmt: skip
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    return path


@pytest.fixture
def new(configured: Path, account: Account) -> Account:
    """The IMAP account newbob."""
    user = json.loads(configured.read_text())["accounts"]["newbob"]["imap"]
    return Account(account.server, user["username"], user["password"], account.server.state / "mail", "sdbox")


def done(result: Result, code: int = 0) -> Result:
    assert result.code == code, result.err
    return result


def thunderbird(folder: Path, mails: dict[str, Sequence[tuple[bytes, int]]]) -> Path:
    """A profile with mail by folder, each with its X-Mozilla-Status."""
    below = folder / "abc.default" / "Mail" / "pop.example.com"
    below.mkdir(parents=True)
    (folder / "abc.default" / "prefs.js").write_text("// Mozilla User Preferences\n")
    for name, some in mails.items():
        *parents, own = name.split("/")
        place = below.joinpath(*(f"{parent}.sbd" for parent in parents))
        place.mkdir(parents=True, exist_ok=True)
        for parent in parents[:1]:
            (below / parent).touch()
        own_header = "X-Account-Key: account1\nX-UIDL: 1\nX-Mozilla-Status: {:04x}\nX-Mozilla-Status2: 00000000\n"
        (place / own).write_bytes(
            b"".join(
                FROM_LINE + own_header.format(status).encode() + raw.replace(b"\r\n", b"\n") + b"\n"
                for raw, status in some
            )
        )
        (place / f"{own}.msf").write_text("// <!-- <mdb:mork:z v='1.4'/> -->")
    return folder / "abc.default"


def test_a_pop3_account_becomes_an_imap_account_with_folders_sent_mail_flags_and_dates(
    run: Run, configured: Path, account: Account, new: Account, tmp_path: Path
) -> None:
    account.deliver("INBOX", MAILS)
    profile = thunderbird(
        tmp_path,
        {
            "Inbox": [(MAILS[0], 1), (MAILS[1], 1 | 2)],
            "Sent": [(SENT, 1)],
            "Work/2009": [(MAILS[2], 1 | 4), (MAILS[3], 0)],
            "Trash": [(message("Deleted long ago"), 1 | 8)],
        },
    )
    done(run("init"))
    done(run("doctor"))
    first = done(run("backup", "bob"))
    assert "8 messages in 1 mailbox" in first.out

    imported = done(run("import", "bob", str(profile)))
    again = done(run("import", "bob", str(profile)))
    assert "nothing is new" in again.out, imported.out
    assert "nothing has changed" in done(run("backup", "bob")).out
    done(run("restore", "bob@latest", "imap:newbob"))

    by_folder = {name: [each.raw for each in new.messages(name)] for name in ("INBOX", "Sent", "Work/2009")}
    assert by_folder["INBOX"] == [MAILS[0], MAILS[1], *MAILS[4:]]
    assert by_folder["Sent"] == [SENT]
    assert sorted(by_folder["Work/2009"]) == sorted(MAILS[2:4])
    flags = {each.raw: set(each.flags) - {b"\\Recent"} for name in by_folder for each in new.messages(name)}
    assert flags[MAILS[1]] == {b"\\Answered", b"\\Seen"}
    assert flags[MAILS[2]] == {b"\\Flagged", b"\\Seen"}
    assert flags[MAILS[3]] == set()
    dates = {(name, each.internaldate) for name in by_folder for each in new.messages(name)}
    assert dates == {(name, b"17-Jul-1996 09:44:25 +0000") for name in by_folder}
    assert b"INBOX" in account.mailboxes()
    assert len(account.messages("INBOX")) == 8, "nothing was deleted from the server"
    second = done(run("restore", "bob@latest", "imap:newbob"))
    assert sum(len(new.messages(name)) for name in by_folder) == 9, second.out


def test_doctor_says_what_pop3_means_here(run: Run, configured: Path) -> None:
    done(run("init"))

    said = done(run("doctor")).out

    assert "backupd never deletes anything from the server" in said


def test_what_gmail_does_to_mail_read_by_pop3_is_said_before_anything_is_connected_to(
    run: Run, configured: Path
) -> None:
    document = json.loads(configured.read_text())
    document["accounts"]["bob"]["pop3"] |= {"host": "pop.gmail.com", "delete_after": "30d"}
    configured.write_text(json.dumps(document))

    for arguments in (("config", "check"), ("doctor",)):  # pop.gmail.com has no address where tests run
        result = run(*arguments)
        said = result.out + result.err
        assert "may archive or delete what was read, as its own settings say" in said, arguments
        assert "better use imap" in said, arguments
        assert "remove delete_after" in said, arguments


def test_a_wrong_password_is_one_line(run: Run, configured: Path, account: Account) -> None:
    done(run("init"))
    configured.write_text(configured.read_text().replace(account.password, "wrong-secret"))

    result = done(run("backup", "bob"), 1)

    assert len(result.err.splitlines()) == 1
    assert "refused the login" in result.err
    assert "wrong-secret" not in result.err


def test_what_cannot_be_imported_is_said(run: Run, configured: Path, tmp_path: Path) -> None:
    done(run("init"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no mail")

    for arguments, expected in {
        ("import", "nobody", "."): "no such account",
        ("import", "bob", "missing"): "not there",
        ("import", "bob", "notes"): "no mail of a kind that is known",
        ("import", "bob", ".", "--format", "lotus"): "no such format",
    }.items():
        result = done(run(*arguments), 2)
        assert expected in result.err
        assert len(result.err.splitlines()) == 1


def test_a_plan_of_an_import_is_told_and_nothing_stored(run: Run, configured: Path, tmp_path: Path) -> None:
    done(run("init"))
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "one.eml").write_bytes(MAILS[0])

    result = done(run("import", "bob", "mail", "--dry-run"))

    assert "INBOX" in result.out
    assert "1 message would be added" in result.out
    assert done(run("snapshots", "--json")).document == []
