"""Putting files in place and taking them away: any number of times, and never over what somebody has changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from backupd.errors import StorageDenied
from backupd.operations import systemd
from backupd.operations.systemd import ProgramFailed, State, install, plan, uninstall
from backupd.operations.systemd_units import File, Site, files, untouched

SITE = Site(["/usr/bin/backupd"])
FILES = files(SITE)
NEWER = [File(file.path, file.text + "# of a later version\n") for file in FILES]
PATHS = [file.path for file in FILES]
SERVICE = "etc/systemd/system/backupd.service"


def states(placed: Sequence[systemd.Placed]) -> set[State]:
    return {each.state for each in placed}


def everything(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_all_is_put_in_place_and_may_be_so_again(tmp_path: Path) -> None:
    assert states(plan(tmp_path, FILES)) == {State.NEW}
    assert everything(tmp_path) == {}, "a plan changes nothing"
    assert states(install(tmp_path, FILES)) == {State.NEW}
    before = everything(tmp_path)
    assert set(before) == {str(path.relative_to("/")) for path in PATHS}
    assert states(plan(tmp_path, FILES)) == states(install(tmp_path, FILES)) == {State.SAME}
    assert everything(tmp_path) == before


def test_files_can_be_read_by_everybody_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        install(tmp_path, FILES)
    finally:
        os.umask(umask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o644}


def test_a_later_version_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    install(tmp_path, FILES)
    assert states(install(tmp_path, NEWER)) == {State.UPDATED}
    assert states(install(tmp_path, NEWER)) == {State.SAME}
    assert all(untouched(text) for text in everything(tmp_path).values())


def test_what_somebody_has_changed_is_kept_and_the_new_file_is_put_beside_it(tmp_path: Path) -> None:
    install(tmp_path, FILES)
    mine = tmp_path / SERVICE
    mine.write_text(mine.read_text().replace("Nice", "nice") + "# mine\n")
    changed, new = mine.read_text(), mine.with_name("backupd.service.new")
    assert [each.path for each in plan(tmp_path, NEWER) if each.state is State.KEPT] == [mine]
    assert not new.exists()
    placed = install(tmp_path, NEWER)
    assert [(each.path, each.beside) for each in placed if each.state is State.KEPT] == [(mine, new)]
    assert mine.read_text() == changed
    assert new.read_text().endswith("# of a later version\n")
    new.replace(mine)  # the administrator has looked at it, and takes it
    assert states(install(tmp_path, NEWER)) == {State.SAME}


def test_a_new_file_that_nobody_needs_any_more_goes(tmp_path: Path) -> None:
    install(tmp_path, FILES)
    mine, new = tmp_path / SERVICE, tmp_path / f"{SERVICE}.new"
    before = mine.read_text()
    mine.write_text("[Service]\n")
    install(tmp_path, FILES)
    assert new.exists()
    mine.write_text(before)
    install(tmp_path, FILES)
    assert not new.exists()


def test_a_file_of_a_package_without_a_mark_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / SERVICE
    path.parent.mkdir(parents=True)
    path.write_text(next(file.text for file in FILES if file.path.name == "backupd.service"))
    assert {each.path: each.state for each in install(tmp_path, FILES)}[path] is State.SAME
    assert {each.path: each.state for each in install(tmp_path, NEWER)}[path] is State.KEPT


def test_a_link_is_somebodys_wish(tmp_path: Path) -> None:
    path = tmp_path / SERVICE
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")  # systemctl mask
    assert {each.path: each.state for each in install(tmp_path, FILES)}[path] is State.KEPT
    assert path.is_symlink()
    assert {each.path: each.state for each in uninstall(tmp_path, PATHS)}[path] is State.KEPT
    assert path.is_symlink()


def test_what_was_put_in_place_is_taken_away_and_nothing_else(tmp_path: Path) -> None:
    assert states(uninstall(tmp_path, PATHS)) == {State.ABSENT}
    install(tmp_path, FILES)
    mine = tmp_path / "etc/systemd/system/backupd.service.d/override.conf"
    mine.write_text("[Service]\nNice=5\n")
    changed = tmp_path / "etc/systemd/system/backupd-audit.timer"
    changed.write_text(changed.read_text() + "# mine\n")
    install(tmp_path, NEWER)
    placed = uninstall(tmp_path, PATHS)
    assert [each.path for each in placed if each.state is State.KEPT] == [changed]
    assert everything(tmp_path) == {
        "etc/systemd/system/backupd.service.d/override.conf": mine.read_text(),
        "etc/systemd/system/backupd-audit.timer": changed.read_text(),
    }
    assert not (tmp_path / "etc/systemd/system/backupd-audit.service.d").exists()


def test_whoever_may_not_is_told_who_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may do everything
    with pytest.raises(StorageDenied, match="run it as root"):
        install(tmp_path, FILES)


# -- systemd's own programs --------------------------------------------------------------------------------------------


class Programs:
    """Takes note of what is run. answers: what programs print."""

    def __init__(self, **answers: str) -> None:
        self.run: list[str] = []
        self._answers = answers

    def __call__(self, command: Sequence[str]) -> str:
        self.run.append(" ".join(command))
        return self._answers.get(command[0], "")


def test_the_user_and_the_folders_are_made_before_systemd_reads_its_units_again() -> None:
    programs = Programs()
    systemd.make_known("backupd", programs, running=True)
    assert programs.run == [
        "systemd-sysusers /etc/sysusers.d/backupd.conf",
        "systemd-tmpfiles --create /etc/tmpfiles.d/backupd.conf",
        "systemctl daemon-reload",
    ]


def test_other_users_are_not_made_and_a_systemd_that_does_not_run_reads_nothing() -> None:
    programs = Programs()
    systemd.make_known("ann", programs, running=False)
    assert programs.run == ["systemd-tmpfiles --create /etc/tmpfiles.d/backupd.conf"]


def test_the_version_is_read() -> None:
    assert systemd.version(Programs(systemctl="systemd 252 (252.39-1~deb12u2)\n+PAM\n")) == 252
    assert systemd.version(Programs(systemctl="something else")) == 0
    with pytest.raises(ProgramFailed, match="cannot be run"):
        systemd.run(["/no/such/program"])
    assert systemd.version(lambda command: systemd.run(["/no/such/program"])) == 0


def test_what_a_program_says_is_told_in_one_line() -> None:
    with pytest.raises(ProgramFailed) as caught:
        systemd.run(["sh", "-c", "echo one >&2; echo two >&2; exit 3"])
    assert str(caught.value).startswith("sh -c ")
    assert ": one two (" in str(caught.value)
    assert str(caught.value).isprintable()
    assert systemd.run(["sh", "-c", "echo fine"]) == "fine\n"
