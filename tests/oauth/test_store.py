"""Logins on the disk: nobody reads them, nobody alters them unseen, and no crash leaves half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import BackupdError, Busy, StorageDenied, StorageFull
from backupd.oauth import store
from backupd.oauth.store import Logins, Unreadable
from backupd.oauth.token import LONGEST_TOKEN, Facts, Login, Tokens
from tests.support.oauth import everything_below, logins_in

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
FACTS = Facts(identity="google app", logged_in=NOW, refreshed=NOW, access_expires=NOW + timedelta(hours=1))
LOGIN = Login(FACTS, Tokens("access-secret", "refresh-secret"))


def keep(logins: Logins, login: Login = LOGIN, account: str = "alice") -> None:
    with logins.lock(account), logins.replacing(account) as commit:
        commit(login)


def test_a_login_comes_back_and_can_be_forgotten(tmp_path: Path) -> None:
    logins = logins_in(tmp_path)
    assert logins.read("alice") is None
    assert logins.facts("alice") is None
    keep(logins)
    assert logins_in(tmp_path).read("alice") == LOGIN
    assert logins.read("bob") is None
    with logins.lock("alice"):
        assert logins.forget("alice")
        assert not logins.forget("alice")
    assert logins.read("alice") is None


def test_the_longest_tokens_have_room(tmp_path: Path) -> None:
    login = Login(FACTS, Tokens("a" * LONGEST_TOKEN, "b" * LONGEST_TOKEN))
    keep(logins_in(tmp_path), login)
    assert logins_in(tmp_path).read("alice") == login


def test_only_its_owner_can_read_it_and_no_token_is_in_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keep(logins_in(tmp_path))
    finally:
        os.umask(before)
    folder = tmp_path / "logins"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in folder.iterdir()} == {"alice.json": 0, "alice.lock": 0}
    assert b"secret" not in everything_below(tmp_path)


def test_what_root_makes_belongs_to_whom_the_state_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo backupd auth login` must not lock the daemon's user out."""
    given: dict[str, tuple[int, int]] = {}

    def noted(descriptor: int, user: int, group: int) -> None:
        given[Path(f"/proc/self/fd/{descriptor}").readlink().name] = (user, group)

    monkeypatch.setattr(store.os, "geteuid", lambda: 0)
    monkeypatch.setattr(store.os, "fchown", noted)
    monkeypatch.setattr(store.os, "chown", lambda path, user, group, **_: given.update({path.name: (user, group)}))
    keep(logins_in(tmp_path))
    owner = (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    assert given == {"logins": owner, "alice.lock": owner, ".alice.new": owner}
    given.clear()
    keep(logins_in(tmp_path))
    assert given == {".alice.new": owner}, "what is there is left as it is"


@pytest.mark.parametrize("name", ["alice.lock", ".alice.new"])
@pytest.mark.parametrize("hard", [False, True])
def test_no_link_leads_to_another_s_file(tmp_path: Path, name: str, hard: bool) -> None:
    """Root may write where the daemon's user put a link to a file of root's."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o640)
    (tmp_path / "logins").mkdir()
    if hard:
        (tmp_path / "logins" / name).hardlink_to(victim)
    else:
        (tmp_path / "logins" / name).symlink_to(victim)
    with contextlib.suppress(StorageDenied):
        keep(logins_in(tmp_path))
    assert victim.read_text() == "precious"
    assert victim.stat().st_mode & 0o777 == 0o640


def test_what_may_be_known_is_known_without_a_key(tmp_path: Path) -> None:
    keep(logins_in(tmp_path))

    def no_key() -> bytes:
        raise AssertionError("nobody needs it")

    assert Logins(tmp_path / "logins", no_key).facts("alice") == FACTS


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    keep(logins_in(tmp_path))
    with pytest.raises(Unreadable) as caught:
        Logins(tmp_path / "logins", lambda: bytes(32)).read("alice")
    assert "another repository" in str(caught.value)
    assert "backupd auth login alice" in str(caught.value)


def test_one_account_s_login_is_no_other_s(tmp_path: Path) -> None:
    logins = logins_in(tmp_path)
    keep(logins)
    (tmp_path / "logins" / "bob.json").write_bytes((tmp_path / "logins" / "alice.json").read_bytes())
    with pytest.raises(Unreadable):
        logins.read("bob")
    document = msgspec.json.decode((tmp_path / "logins" / "alice.json").read_bytes())
    (tmp_path / "logins" / "bob.json").write_bytes(msgspec.json.encode(document | {"account": "bob"}))
    with pytest.raises(Unreadable):
        logins.read("bob")


@pytest.mark.parametrize("name", ["identity", "logged_in", "refreshed", "access_expires", "refreshable"])
def test_what_is_readable_cannot_be_altered_unseen(tmp_path: Path, name: str) -> None:
    """Or somebody who may write to the state could have a refresh token sent to a provider of theirs."""
    logins = logins_in(tmp_path)
    keep(logins)
    path = tmp_path / "logins" / "alice.json"
    document = msgspec.json.decode(path.read_bytes())
    other = {"identity": "https://evil.example app", "refreshable": True}.get(name, "2030-01-01T00:00:00Z")
    document["facts"][name] = other
    path.write_bytes(msgspec.json.encode(document))
    assert logins.facts("alice") is not None
    with pytest.raises(Unreadable):
        logins.read("alice")


@given(data=st.binary(max_size=300), at=st.integers(0, 600))
def test_any_damage_is_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int) -> None:
    folder = tmp_path_factory.mktemp("store")
    logins = logins_in(folder)
    keep(logins)
    path = folder / "logins" / "alice.json"
    whole = path.read_bytes()
    for damaged in (data, whole[:at], whole[:at] + data + whole[at + len(data) :]):
        path.write_bytes(damaged)
        try:
            found = logins.read("alice")
        except Unreadable:
            continue
        assert found == LOGIN


def test_a_login_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    logins = logins_in(tmp_path)
    keep(logins)
    with pytest.raises(RuntimeError), logins.lock("alice"), logins.replacing("alice"):
        raise RuntimeError("the provider said no")
    assert logins.read("alice") == LOGIN
    assert sorted(path.name for path in (tmp_path / "logins").iterdir()) == ["alice.json", "alice.lock"]


def test_room_is_found_before_anything_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk nobody uses up a refresh token whose successor has no room."""
    logins = logins_in(tmp_path)
    keep(logins)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full)
    asked = False
    with pytest.raises(StorageFull), logins.lock("alice"), logins.replacing("alice"):
        asked = True
    assert not asked
    assert logins.read("alice") == LOGIN


def test_it_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then name, then folder: as a power cut would find it."""
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(store.os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda self, other: (done.append("replace"), replace(self, other))[1])
    keep(logins_in(tmp_path))
    folder = tmp_path / "logins"
    assert done == [str(folder / ".alice.new"), "replace", str(folder)]


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "logins").write_text("a file")
    with pytest.raises(StorageDenied) as caught:
        keep(logins_in(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_one_at_a_time_and_whoever_waits_comes_next(tmp_path: Path) -> None:
    order: list[str] = []
    inside = threading.Event()

    def first() -> None:
        with logins_in(tmp_path).lock("alice"):
            inside.set()
            time.sleep(0.2)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(10)
    with logins_in(tmp_path).lock("bob"):
        order.append("bob")
    with logins_in(tmp_path).lock("alice"):
        order.append("second")
    thread.join()
    assert order == ["bob", "first", "second"]


def test_a_lock_that_is_held_too_long_is_no_reason_to_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_WAIT_SECONDS", 0.1)
    with logins_in(tmp_path).lock("alice"), pytest.raises(Busy) as caught, logins_in(tmp_path).lock("alice"):
        pass
    assert "alice" in str(caught.value)


def test_every_error_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    logins = logins_in(tmp_path)
    keep(logins)
    (tmp_path / "logins" / "alice.json").write_bytes(b"\xff" * 10)
    with pytest.raises(BackupdError) as caught:
        logins.read("alice")
    assert str(caught.value).isprintable()
    assert caught.value.remedy
