"""Retention on the command line: what stays and why, holds, and what is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.support.dovecot_account import Account
from tests.support.mail import message


def test_snapshots_are_held_forgotten_and_explained(run: Run, configured: Path, account: Account) -> None:
    configured.write_text(configured.read_text().replace("accounts:", "retention: {keep_last: 1}\naccounts:"))
    assert run("init").code == 0
    for number in range(3):
        account.deliver("INBOX", [message(f"Message {number}")])
        assert run("backup", "alice").code == 0
    first, second, last = (each["id"] for each in run("snapshots", "--json").document)  # type: ignore[attr-defined]

    held = run("hold", "add", first, "--reason", "a lawsuit", "--until", "2999-12-31")
    assert (held.code, held.out) == (0, f"alice {first[-8:]} is held until 2999-12-31 23:59: a lawsuit\n")
    assert "complete, held" in run("snapshots").out
    rows = run("hold", "list").out.splitlines()
    assert (len(rows), first[-8:] in rows[1], "a lawsuit" in rows[1]) == (2, True, True)

    dry = run("forget", "--dry-run")
    assert dry.code == 0
    found = {line.split()[0]: line for line in dry.out.splitlines()[1:-1]}
    assert [key for key, line in found.items() if " keep " in line] == [first[-8:], last[-8:]]
    assert found[last[-8:]].endswith("last 1, newest, newest complete")
    assert found[second[-8:]].endswith("forget  no rule keeps it")
    assert dry.out.splitlines()[-1].endswith("1 snapshot would be forgotten, 2 kept")

    done = run("forget", "--json", "alice")
    assert (done.code, done.document["report"]["forgotten"]) == (0, 1)  # type: ignore[index]
    refused = run("forget", "--snapshot", first)
    assert (refused.code, "a lawsuit" in refused.err) == (2, True)
    assert run("hold", "remove", rows[1].split()[0], "--reason", "it is over").code == 0
    assert run("forget", "--snapshot", first).out.endswith("1 snapshot forgotten\n")


def test_a_snapshot_that_cannot_be_read_is_forgotten_by_name(
    run: Run, configured: Path, account: Account, tmp_path: Path
) -> None:
    assert run("init").code == 0
    for number in range(2):
        account.deliver("INBOX", [message(f"Message {number}")])
        assert run("backup", "alice").code == 0
    first, second = (each["id"] for each in run("snapshots", "--json").document)  # type: ignore[attr-defined]
    (path,) = (tmp_path / "repository/snapshots").rglob(first)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])

    said = f"alice: snapshot {first} cannot be read; with it that point in time"
    assert f"{said} would be given up" in run("forget", "--snapshot", first[-8:], "--dry-run").err
    done = run("forget", "--snapshot", first[-8:])
    assert done.code == 0, done
    assert f"{said} is given up" in done.err
    assert [each["id"] for each in run("snapshots", "--json").document] == [second]  # type: ignore[attr-defined]
    assert run("audit", "alice").out.startswith("BACKUPD OK")


@pytest.mark.parametrize("words", [("--keep-last", "-1"), ("--keep-within", "soon"), ("alice", "--snapshot", "x")])
def test_what_cannot_be_meant_is_refused(run: Run, configured: Path, words: tuple[str, ...]) -> None:
    result = run("forget", *words)
    assert (result.code, result.out) == (2, ""), result.err
