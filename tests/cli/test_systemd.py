"""`backupd systemd`, below a folder of its own: what it shows, puts in place, keeps and takes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Run

SERVICE = "etc/systemd/system/backupd.service"
DROP_IN = "etc/systemd/system/backupd.service.d/10-backupd.conf"


def states(document: object) -> set[str]:
    assert isinstance(document, dict)
    return {each["state"] for each in document["files"]}


def test_show_prints_every_file_and_where_it_goes(run: Run, configured: Path, tmp_path: Path) -> None:
    result = run("systemd", "show")
    assert (result.code, result.err) == (0, "")
    headings = [line for line in result.out.splitlines() if line.startswith("# /etc/")]
    assert len(headings) == 10
    assert f"# /{SERVICE}" in headings
    assert "SystemCallFilter=@system-service" in result.out
    assert f"Environment=BACKUPD_CONFIG={configured}" in result.out
    assert f"ReadWritePaths=-{tmp_path}/state -{tmp_path}/repository" in result.out
    document = run("systemd", "show", "--json").document
    assert isinstance(document, list)
    assert [f"# {each['path']}" for each in document] == headings
    assert all(each["text"] in result.out for each in document)


def test_show_needs_no_configuration(run: Run) -> None:
    result = run("systemd", "show")
    assert result.code == 0
    assert "ReadWritePaths=-" not in result.out


def test_files_are_put_below_a_folder_and_taken_away_again(run: Run, configured: Path, tmp_path: Path) -> None:
    root = tmp_path / "image"
    where = ("--prefix", str(root), "--json")
    assert states(run("systemd", "install", "--dry-run", *where).document) == {"new"}
    assert not root.exists()
    first = run("systemd", "install", *where)
    assert (first.code, states(first.document)) == (0, {"new"})
    assert f"ReadWritePaths=-{tmp_path}/state" in (root / DROP_IN).read_text()
    assert states(run("systemd", "install", *where).document) == {"same"}
    assert states(run("systemd", "uninstall", *where).document) == {"removed"}
    assert [path for path in root.rglob("*") if path.is_file()] == []


def test_what_was_changed_by_somebody_is_kept_and_told(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "image"
    run("systemd", "install", "--prefix", str(root))
    mine = root / SERVICE
    mine.write_text(mine.read_text().replace("RestartSec=30", "RestartSec=5"))
    told = f"backupd: {mine} was changed by somebody, and is kept"
    result = run("systemd", "install", "--prefix", str(root), "--dry-run")
    assert result.err == f"{told}; the new one would be {mine}.new\n"
    result = run("systemd", "install", "--prefix", str(root), "--quiet")
    assert (result.code, result.err) == (0, f"{told}; the new one is {mine}.new\n")
    assert "RestartSec=30" in Path(f"{mine}.new").read_text()
    result = run("systemd", "uninstall", "--prefix", str(root))
    assert (result.code, result.err) == (0, f"{told}\n")
    assert [path for path in root.rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize(
    ("user", "said"), [("no-such-user", "there is no such user"), ("root", "the service needs no rights of root")]
)
def test_whom_the_service_cannot_run_as_is_refused(run: Run, user: str, said: str) -> None:
    result = run("systemd", "install", "--user", user, "--dry-run")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"backupd: {user}: {said}")
    assert result.err.count("\n") == 1


def test_a_configuration_with_a_mistake_in_it_is_refused(run: Run, configured: Path, tmp_path: Path) -> None:
    configured.write_text(configured.read_text().replace("accounts:", "acounts:"))
    result = run("systemd", "install", "--prefix", str(tmp_path / "image"))
    assert result.code == 2
    assert "acounts" in result.err
    assert not (tmp_path / "image").exists()


def test_the_file_alone_can_be_checked_without_its_secrets(run: Run, configured: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").unlink()
    assert run("config", "check").code == 2
    assert run("config", "check", "--without-secrets").code == 0
    configured.write_text(configured.read_text() + "nonsense: 1\n")
    assert run("config", "check", "--without-secrets").code == 2
