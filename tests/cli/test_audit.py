"""`backupd audit` as cron and monitors call it, on real servers: the first line, exit codes, keys, drills, the page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Result, Run
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS

OUTPUT = re.compile(
    r"BACKUPD (OK|WARNING|CRITICAL|UNKNOWN) - [^|\n]+"
    r"( \|( '?[^\s='|]+'?=-?[0-9.]+(s|%|B)?(;[0-9.]*){0,4})+)?\Z"
)
"""The plugin guidelines' "SERVICE STATUS - text | 'label'=value[UOM];warn;crit;min;max ..."."""

CODES = {"OK": 0, "WARNING": 1, "CRITICAL": 2, "UNKNOWN": 3}


def first(result: Result) -> str:
    """The first line, which must be what the guidelines want, and agree with the exit code."""
    line = result.out.splitlines()[0]
    match = OUTPUT.match(line)
    assert match, line
    assert result.code == CODES[match[1]], result
    return line


@pytest.fixture(scope="module")
def original(dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Account]:
    """A backup, made once: plain mail, attachments, flags and keywords, in three mailboxes."""
    account, folder = dovecot.account(), tmp_path_factory.mktemp("original")
    account.create("Work", "Work/2026")
    for number in range(12):
        files = [Attachment("a.bin", noise(number % 3, 40_000))] if number % 3 == 0 else []
        account.append("INBOX", message(f"In {number}", attachments=files), (b"\\Seen", b"work") if number % 2 else ())
    account.append("Work", message("<script>alert(1)</script> | & “quoted”"), (), b"01-Feb-2003 04:05:06 +0700")
    account.append("Work/2026", message("Below"))
    write(folder, account)
    environ = {**os.environ, "BACKUPD_CONFIG": str(folder / "config.yaml")}
    writer = ["key", "add", "office", "--role", "writer", "--key-file", "writer.key"]
    for words in (["init"], ["backup", "alice"], writer):
        command = [sys.executable, "-m", "backupd", *words]
        subprocess.run(command, env=environ, cwd=folder, check=True, capture_output=True)
    return folder, account


def write(folder: Path, account: Account) -> Path:
    """The configuration: alice, and broken, whose password is wrong."""
    (folder / "passphrase").write_text("correct horse battery\n")
    (folder / "passphrase").chmod(0o600)
    path = folder / "config.yaml"
    server = f"host: 127.0.0.1, port: {account.port}, tls: none, username: {account.username}"
    path.write_text(f"""\
state_dir: state
repository:
  url: repository
  passphrase: {{file: passphrase}}
accounts:
  alice:
    imap: {{{server}, password: {account.password}}}
    objective: 1h
""")
    path.chmod(0o600)
    return path


@pytest.fixture
def backed(original: tuple[Path, Account], tmp_path: Path) -> Account:
    """A copy of it, to be harmed. The account is the same for all tests."""
    folder, account = original
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return account


@pytest.fixture
def config(backed: Account, tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def pack(folder: Path) -> Path:
    """The largest pack."""
    return max((folder / "repository/packs").glob("*/*"), key=lambda path: path.stat().st_size)


def flip(path: Path, place: int) -> None:
    octets = bytearray(path.read_bytes())
    octets[place] ^= 1
    path.unlink()
    path.write_bytes(octets)


@pytest.mark.parametrize("level", ["freshness", "metadata", "drill"])
def test_a_whole_repository_is_ok_at_every_level(here: Run, backed: Account, level: str) -> None:
    result = here("audit", "alice", "--level", level)
    assert result.err == ""
    line = first(result)
    assert line.startswith(f"BACKUPD OK - {level}: 1 account")
    assert re.search(r" age=\d+s;;3600;0 ", line)
    assert " problems=0;" in line
    if level == "drill":
        assert "14 messages in 3 mailboxes as on the server, 14 compared byte by byte" in result.out
        assert re.search(r"14 messages .* restored to a temporary Maildir", result.out)


def test_damage_is_critical_and_told_by_mailbox_uid_and_subject(here: Run, backed: Account, tmp_path: Path) -> None:
    flip(pack(tmp_path), pack(tmp_path).stat().st_size // 2)

    result = here("audit", "alice", "--level", "storage")

    assert result.code == 2
    assert first(result).startswith("BACKUPD CRITICAL - storage: ")
    assert re.search(r"alice: INBOX UID \d+ .* Alice <alice@example.com>: In \d+: ", result.out)
    report = here("audit", "alice", "--level", "storage", "--json").document["report"]  # type: ignore[index]
    restored = here("restore", "alice@latest", f"eml:{tmp_path}/out", "--json").document["report"]  # type: ignore[index]
    unreadable = sum(each["unreadable"] for each in restored["mailboxes"])
    assert len(report["affected"]) == unreadable > 0
    assert sum(each["refused"] for each in restored["mailboxes"]) == 0


def test_a_missed_objective_is_critical_and_an_unreachable_server_unknown(
    here: Run, backed: Account, config: Path
) -> None:
    config.write_text(config.read_text().replace("objective: 1h", "objective: 1s"))
    assert "alice: older than its objective" in first(here("audit", "alice", "--level", "freshness"))
    config.write_text(
        config.read_text().replace("objective: 1s", "objective: 1h").replace(f"port: {backed.port}", "port: 1")
    )
    result = here("audit", "alice", "--level", "source")
    assert first(result).startswith("BACKUPD UNKNOWN - source: 1 problem: alice: the server could not be asked")


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (["--level", "deep"], "deep"),
        (["--budget", "0%"], "not a share"),
        (["nobody"], "no such account"),
        (["--since", "tomorrow-ish"], "not a time"),
        (["--full"], "about drills"),
        (["--level", "drill", "--into", "mbox:x"], "a temporary Maildir or to an IMAP account"),
        (["--copy", "7"], "no such copy"),
        (["--config", "nowhere.yaml"], "no configuration file"),
        ([], "there is no repository here"),
    ],
)
def test_whatever_keeps_it_from_judging_is_unknown(
    here: Run, account: Account, tmp_path: Path, words: list[str], saying: str
) -> None:
    write(tmp_path, account)

    result = here("audit", *words)

    assert first(result).startswith("BACKUPD UNKNOWN - ")
    assert saying in result.out
    assert (len(result.out.splitlines()), len(result.err.splitlines())) == (1, 1)
    document = here("audit", *words, "--json").document
    assert document["error"]["exit_code"] == 3  # type: ignore[index]


def test_a_wrong_passphrase_is_unknown(here: Run, backed: Account, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("another passphrase\n")
    assert "opens no slot" in first(here("audit", "alice"))
    assert here("audit", "alice").code == 3


def test_as_cron_calls_it(backed: Account, environment: dict[str, str]) -> None:
    """No terminal, no PATH to speak of, closed standard input, another folder: one line for the mail to root."""
    bare = {name: environment[name] for name in ("PYTHONPATH", "BACKUPD_CONFIG")} | {"PATH": "/usr/bin:/bin"}
    command = f"{sys.executable} -m backupd audit alice --level metadata --quiet <&-"
    done = subprocess.run(["/bin/sh", "-c", command], env=bare, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert OUTPUT.match(done.stdout.strip())


def test_a_writer_compares_the_server_and_reads_no_mail(here: Run, backed: Account, config: Path) -> None:
    text = config.read_text()
    config.write_text(re.sub(r"passphrase: \{file: [^}]*\}", "key_file: writer.key", text))

    result = here("audit", "alice", "--level", "source")

    assert first(result).startswith("BACKUPD OK - source")
    assert "14 compared byte by byte" in result.out
    assert "not looked at: content: it needs a reader's key" in result.out
    for level in ("content", "drill"):
        result = here("audit", "alice", "--level", level)
        assert f"an audit of the level {level} needs a reader's key" in first(result)


def test_what_happened_since_the_snapshot_alarms_nobody(here: Run, dovecot: Dovecot, tmp_path: Path) -> None:
    backed = dovecot.account()
    backed.create("Work/2026")
    backed.append_many("INBOX", [message(f"Old {number}") for number in range(5)])
    backed.append("Work/2026", message("Below"))
    write(tmp_path, backed)
    assert (here("init").code, here("backup").code) == (0, 0)
    backed.append("INBOX", message("New"))
    backed.store("INBOX", "2", (b"\\Flagged",))
    backed.expunge("INBOX", "3:4")
    backed.delete("Work/2026")
    backed.create("Fresh")
    backed.append("Fresh", message("In a new mailbox"))

    result = here("audit", "alice", "--level", "source")

    assert first(result).startswith("BACKUPD OK - source")
    assert "since the snapshot 2 new, 3 gone, 1 changed" in result.out


def test_a_drill_into_an_imap_account_leaves_it_as_it_was(
    here: Run, backed: Account, dovecot: Dovecot, config: Path
) -> None:
    scratch = dovecot.account()
    scratch.append("INBOX", message("Somebody's own"))
    server = f"host: 127.0.0.1, port: {scratch.port}, tls: none, username: {scratch.username}"
    config.write_text(config.read_text() + f"  scratch:\n    imap: {{{server}, password: {scratch.password}}}\n")
    before = scratch.mailboxes(), scratch.subscriptions(), [each.raw for each in scratch.messages("INBOX")]

    result = here("audit", "alice", "--level", "drill", "--full", "--into", "imap:scratch")

    assert result.err == ""
    assert first(result).startswith("BACKUPD OK - drill")
    assert re.search(r"14 messages \(.*\) restored to imap:scratch, below backupd-drill-\S+ in [0-9.]+ s", result.out)
    assert re.search(r"restoring all of it \(14 messages, .*\) takes [0-9.]+ s, measured", result.out)
    assert (scratch.mailboxes(), scratch.subscriptions(), [each.raw for each in scratch.messages("INBOX")]) == before


def test_a_host_without_a_key_audits_a_bucket(
    here: Run, account: Account, tmp_path: Path, seaweedfs: SeaweedFS
) -> None:
    configured = write(tmp_path, account)
    s3 = (
        f"s3: {{endpoint_url: '{seaweedfs.endpoint_url}', region: us-east-1, access_key_id: {ACCESS_KEY},"
        f" secret_access_key: {SECRET_KEY}, retry_for: 10s}}"
    )
    place = f"url: s3://{seaweedfs.bucket()}/mail\n  {s3}"
    configured.write_text(re.sub(r"url: .*", place, configured.read_text(), count=1))
    account.append("INBOX", message("One", attachments=[Attachment("a", noise(1, 100_000))]))
    assert here("init").code == 0
    assert here("backup", "alice").code == 0
    keyless = configured.with_name("keyless.yaml")
    keyless.write_text(f"state_dir: keyless-state\nrepository:\n  {place}\n  keyless: true\n")

    result = here("audit", "--config", str(keyless))

    assert result.err == ""
    assert first(result).startswith("BACKUPD OK - storage: ")
    assert "not looked at: metadata: it needs a writer's key" in result.out
    assert SECRET_KEY not in result.out
    assert "needs a writer's key" in first(here("audit", "--config", str(keyless), "--level", "metadata"))
    assert here("restore", "alice@latest", "eml:x", "--config", str(keyless)).code == 2
    examined = here("doctor", "--config", str(keyless))
    assert (examined.code, "1 snapshot; without a key" in examined.out) == (0, True)

    bucket, client = place.split("/")[2], seaweedfs.client()
    (stored,) = client.list_objects_v2(Bucket=bucket, Prefix="mail/packs/")["Contents"]
    client.put_object(Bucket=bucket, Key=stored["Key"], Body=b"other bytes")
    result = here("audit", "--config", str(keyless))
    assert first(result).startswith("BACKUPD CRITICAL - storage: 1 problem: packs/")


def test_the_page_holds_no_markup_of_strangers(here: Run, backed: Account, tmp_path: Path) -> None:
    for path in (tmp_path / "repository/packs").glob("*/*"):
        path.unlink()

    result = here("audit", "alice", "--html", "report.html")

    assert first(result).startswith("BACKUPD CRITICAL")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert "Content-Security-Policy" in page
    assert not re.search(r"""(src|href)=["']?http""", page)
