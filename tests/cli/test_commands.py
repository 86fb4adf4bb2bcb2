"""The commands from init to status, on a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from backupd.operations.state_files import daemon_lock
from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message

EVIL = "Evil \x1b[31m[bold]red[/bold]\u202e"


@pytest.fixture
def backed_up(run: Run, configured: Path, account: Account) -> list[bytes]:
    """Three messages of alice, in a snapshot."""
    mails = [message("First"), message(EVIL, attachments=[Attachment("plan.pdf", b"x" * 500)]), message("Third")]
    account.deliver("INBOX", mails)
    assert run("init").code == 0
    assert run("backup", "alice").code == 0
    return mails


def test_init_prints_the_recovery_kit_once(run: Run, configured: Path) -> None:
    first, second = run("init"), run("init")
    assert (first.code, second.code, second.out) == (0, 2, "")
    assert "RECOVERY KIT" in first.out
    assert "correct horse" not in first.out


def test_a_configuration_is_checked_and_secrets_that_others_can_read_are_told(
    run: Run, configured: Path, tmp_path: Path
) -> None:
    result = run("config", "check")
    assert (result.code, result.out, result.err) == (0, f"{configured}: valid, 2 accounts: alice, broken\n", "")
    (tmp_path / "passphrase").chmod(0o644)
    told = f"repository.passphrase: {tmp_path}/passphrase can be read by others; chmod go= it"
    for arguments in (["config", "check"], ["config", "check", "--quiet"]):
        result = run(*arguments)
        assert (result.code, result.err) == (0, f"backupd: {told}\n")
    document = run("config", "check", "--json").document
    assert document == {"valid": True, "accounts": ["alice", "broken"], "warnings": [told]}


def test_a_backup_without_a_repository_says_so_once(run: Run, configured: Path) -> None:
    result = run("backup")
    assert result.code == 10
    assert result.err.count("\n") == 1


def test_an_unknown_account_is_found_before_anything_is_done(run: Run, configured: Path) -> None:
    run("init")
    result = run("backup", "alice", "nobody")
    assert result.code == 2
    assert run("snapshots", "--json").document == []


def test_one_account_that_fails_does_not_stop_the_others(run: Run, configured: Path, account: Account) -> None:
    account.deliver("INBOX", [message("First")])
    run("init")
    result = run("backup", "broken", "alice", "--json")
    assert result.code == 1
    document = result.document
    assert isinstance(document, dict)
    failed, stored = document["runs"]
    assert (failed["account"], failed["error"]["kind"]) == ("broken", "LoginRefused")
    assert (stored["account"], stored["messages"], stored["new"]) == ("alice", 1, 1)


def test_snapshots_are_a_list_of_objects(run: Run, backed_up: list[bytes]) -> None:
    (only,) = run("snapshots", "alice", "--json").document  # type: ignore[misc]
    assert only.keys() >= {"id", "account", "time", "complete"}
    assert (only["account"], only["complete"], only["messages"]) == ("alice", True, 3)
    assert only["id"][-8:] in run("snapshots").out
    assert run("snapshots", "nobody").code == 2


def test_ls_lists_mailboxes_and_messages(run: Run, backed_up: list[bytes]) -> None:
    assert "INBOX" in run("ls", "alice@latest").out
    listed = run("ls", "alice@latest", "INBOX")
    assert len(listed.out.splitlines()) == 3
    assert "First" in listed.out
    document = run("ls", "alice@latest", "inbox", "--json").document
    assert [each["uid"] for each in document["messages"]] == [1, 2, 3]  # type: ignore[call-overload, index]
    for wrong in (["alice@latest", "Nowhere"], ["alice@1999-01-01"], ["ffffffff"], ["nobody@latest"]):
        assert run("ls", *wrong).code == 2


def test_what_strangers_wrote_cannot_harm_a_terminal(run: Run, backed_up: list[bytes]) -> None:
    for arguments in (["ls", "alice@latest", "INBOX"], ["show", "alice@latest", "INBOX:2"]):
        out = run(*arguments).out
        assert "[bold]red[/bold]" in out
        assert "\x1b" not in out
        assert "\u202e" not in out


def test_show_tells_the_parts_and_raw_gives_the_exact_bytes(
    run: Run, backed_up: list[bytes], environment: dict[str, str]
) -> None:
    shown = run("show", "alice@latest", "INBOX:2").out
    assert "application/octet-stream" in shown
    assert "plan.pdf" in shown
    command = [sys.executable, "-m", "backupd", "show", "--raw", "alice@latest", "INBOX:2"]
    assert subprocess.run(command, env=environment, capture_output=True, check=True).stdout == backed_up[1]
    assert run("show", "--raw", "--json", "alice@latest", "INBOX:2").code == 2


def test_diff_shows_what_changed(run: Run, backed_up: list[bytes], account: Account) -> None:
    account.deliver("INBOX", [message("Fourth")])
    run("backup", "alice")
    first, second = (each["id"] for each in run("snapshots", "--json").document)  # type: ignore[attr-defined]
    assert "INBOX: 1 new" in run("diff", first, second).out
    document = run("diff", first, second, "--json").document
    assert [each["subject"] for each in document["mailboxes"][0]["new"]] == ["Fourth"]  # type: ignore[call-overload, index]
    quiet = run("diff", first, second, "--quiet").out.splitlines()
    assert (quiet[0], len(quiet)) == ("INBOX: 1 new", 2)
    assert "no difference" in run("diff", second, second).out
    assert run("diff", second, second, "--quiet").out == ""


def test_a_backup_of_an_unchanged_account_stores_nothing(run: Run, backed_up: list[bytes]) -> None:
    result = run("backup", "alice")
    assert (result.code, "nothing has changed" in result.out) == (0, True)
    assert len(run("snapshots", "--json").document) == 1  # type: ignore[arg-type]


def test_a_writers_key_file_backs_up_and_cannot_show_mail(
    run: Run, backed_up: list[bytes], configured: Path, tmp_path: Path
) -> None:
    added = run("key", "add", "daemon", "--role", "writer", "--key-file", str(tmp_path / "writer.key"))
    assert added.code == 0
    (tmp_path / "passphrase").write_text((tmp_path / "writer.key").read_text())
    assert run("backup", "alice").code == 0
    listed = run("ls", "alice@latest", "INBOX")
    assert (listed.code, "First" in listed.out) == (0, False)
    assert run("show", "alice@latest", "INBOX:1").code == 12
    assert run("key", "add", "mine", "--role", "reader", "--key-file", str(tmp_path / "r")).code == 12
    assert not (tmp_path / "r").exists()


def test_a_wrong_passphrase_is_exit_code_12(run: Run, backed_up: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("another horse\n")
    assert run("snapshots").code == 12


def test_keys_are_listed_rotated_removed_and_exported(run: Run, backed_up: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "new").write_text("another passphrase\n")
    assert run("key", "rotate", "default", "--passphrase-file", str(tmp_path / "new")).code == 0
    assert run("snapshots").code == 12
    (tmp_path / "passphrase").write_text("another passphrase\n")
    assert [each["label"] for each in run("key", "list", "--json").document] == ["default"]  # type: ignore[attr-defined]
    assert run("key", "remove", "default").code == 2
    assert run("key", "export", "-").out.startswith("BACKUPD-SECRETS-1 reader ")
    assert run("key", "export", str(tmp_path / "exported")).code == 0
    assert (tmp_path / "exported").stat().st_mode & 0o777 == 0o600


def test_status_and_doctor_say_how_it_stands(run: Run, backed_up: list[bytes]) -> None:
    document = run("status", "--json").document
    levels = {each["account"]: each["level"] for each in document["accounts"]}  # type: ignore[call-overload, index]
    assert levels == {"alice": "ok", "broken": "critical"}
    doctor = run("doctor", "--json")
    assert doctor.code == 1
    problems = [each for each in doctor.document["findings"] if each["level"] == "problem"]  # type: ignore[call-overload, index]
    assert [each["subject"] for each in problems] == ["account broken"]


def test_quiet_says_nothing_when_all_is_well(run: Run, backed_up: list[bytes]) -> None:
    result = run("backup", "alice", "--quiet")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_nothing_is_drawn_where_no_terminal_is(run: Run, backed_up: list[bytes], account: Account) -> None:
    account.deliver("INBOX", [message("Another")])
    assert run("backup", "alice").err == ""


def test_a_reader_that_has_had_enough_is_no_error(backed_up: list[bytes], environment: dict[str, str]) -> None:
    command = f"'{sys.executable}' -m backupd completion bash | head -1"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_an_interrupt_ends_with_130(configured: Path, environment: dict[str, str], tmp_path: Path) -> None:
    # A fifo holds the command in the middle of reading its configuration, so nothing depends on timing.
    configured.unlink()
    os.mkfifo(configured)
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [sys.executable, "-m", "backupd", "snapshots"], env=environment, stderr=subprocess.PIPE, text=True
        )
        with configured.open("w"):  # blocks until the command has opened it
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        assert (process.returncode, "Traceback" in err) == (130, False)


def test_who_only_reads_needs_no_state_and_who_writes_does(run: Run, backed_up: list[bytes], tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.rename(tmp_path / "elsewhere")
    state.write_text("a folder that cannot be made")
    for command in (["snapshots"], ["ls", "alice@latest"], ["diff", "alice@latest", "alice@latest"]):
        result = run(*command)
        assert (result.code, "going on with a temporary one" in result.err) == (0, True)
    assert run("restore", "alice@latest", f"eml:{tmp_path}/out").code == 0
    assert len(list((tmp_path / "out").rglob("*.eml"))) == len(backed_up)
    assert run("backup", "alice").code == 1
    assert state.read_text() == "a folder that cannot be made"
    assert list(Path(tempfile.gettempdir()).glob("backupd-state-*")) == []


def test_a_damaged_state_that_a_daemon_holds_is_in_no_readers_way(
    run: Run, backed_up: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "state" / "state.sqlite").write_bytes(b"no database" * 1000)
    with daemon_lock(tmp_path / "state"):
        restored = run("restore", "alice@latest", f"eml:{tmp_path}/out")
        assert (restored.code, "going on with a temporary one" in restored.err) == (0, True)
        assert run("backup", "alice").code == 1
    assert len(list((tmp_path / "out").rglob("*.eml"))) == len(backed_up)
