"""What holds for every command: options, errors, exit codes, and nothing but the result on standard output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_help_names_every_command(run: Run) -> None:
    result = run("--help")
    assert result.code == 0
    for command in ("init", "doctor", "backup", "snapshots", "ls", "show", "diff", "restore", "status", "key", "demo"):
        assert f" {command} " in result.out


def test_help_imports_nothing_of_the_machinery(environment: dict[str, str]) -> None:
    program = (
        "import sys\nfrom backupd.cli.main import main\nmain(['--help'])\n"
        "heavy = ('cryptography', 'pydantic', 'zstandard', 'imapclient', 'sqlite3')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")


def test_the_version_is_printed(run: Run) -> None:
    result = run("--version")
    assert (result.code, result.out.split()[0]) == (0, "backupd")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["ls"], ["ls", "a", "b", "c"], ["snapshots", "--nonsense"], ["key", "add", "x", "--role", "king"]],
)
def test_a_command_line_that_cannot_be_meant_is_one_line_and_exit_code_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("backupd: ")
    assert result.err.count("\n") == 1


def test_errors_are_one_json_document_too(run: Run) -> None:
    for arguments in (["--json", "nonsense"], ["snapshots", "--json"], ["ls", "--json"]):
        result = run(*arguments)
        assert result.code == 2
        assert json.loads(result.out)["error"]["exit_code"] == 2
        assert result.err.startswith("backupd: ")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_what_is_started_without_a_standard_stream_writes_into_no_file_of_its_own(
    environment: dict[str, str], closed: str
) -> None:
    program = (
        "import os, sys\nfrom backupd.cli.main import main\ncode = main(['--version'])\n"
        "sys.stderr.write('nobody hears this')\n"
        "print(code, open(os.devnull).fileno())"
    )
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", program]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 3", "the numbers below 3 are taken"


def test_no_traceback_without_debug(run: Run, configured: Path) -> None:
    plain, debug = run("snapshots"), run("snapshots", "--debug")
    assert (plain.code, debug.code) == (10, 10)
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_global_options_stand_before_or_after_the_command(run: Run, configured: Path, tmp_path: Path) -> None:
    elsewhere = configured.rename(tmp_path / "other.yaml")
    for arguments in (
        ["--config", str(elsewhere), "snapshots"],
        ["snapshots", "--config", str(elsewhere)],
        [f"--config={elsewhere}", "--json", "snapshots", "--quiet"],
    ):
        assert run(*arguments).code == 10
    assert run("snapshots").code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_knows_the_commands(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.code == 0
    for word in ("backup", "restore", "missing-only"):
        assert word in result.out


def test_the_bash_completion_is_valid_bash(run: Run) -> None:
    script = run("completion", "bash").out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("words", [["restore"], ["hold", "add"]])
def test_help_tells_a_commands_own_options_from_those_of_all(here: Run, words: list[str]) -> None:
    _, own, of_all = re.split(r"─ (?:Options|Options of every command) ─", here(*words, "--help").out)
    assert "--config" not in own
    assert "--config" in of_all
    assert {"restore": "--missing-only", "hold": "--reason"}[words[0]] in own
