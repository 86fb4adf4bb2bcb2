"""What is particular to a directory: crashes, permissions, a full disk, and what others leave in it."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backupd.errors import ConfigError, StorageFull, StorageUnavailable
from backupd.storage.local import LocalStorage
from backupd.storage.opening import open_storage

NAME = "packs/00/" + "0" * 64


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "repository")


def files(storage: LocalStorage) -> list[str]:
    root = Path(storage.url)
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_what_a_killed_write_leaves_is_not_listed_and_is_cleaned_a_day_later(storage: LocalStorage) -> None:
    storage.put("index/a", [b"x"])
    leftover = Path(storage.url) / ".tmp" / "0123"
    leftover.write_bytes(b"half")

    assert [info.name for info in storage.list()] == ["index/a"]
    assert storage.clean() == 0
    assert storage.clean(now=leftover.stat().st_mtime + 90_000) == 1
    assert files(storage) == ["index/a"]


@pytest.mark.parametrize("links", [True, False])
def test_an_object_is_as_old_as_its_name_not_as_the_file_that_was_written_long_before_it_got_one(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """The machine stood still in between. Nobody else can have known of a mark before it had its name."""
    link, before = os.link, time.time()

    def late(source: Path, target: Path) -> None:
        os.utime(source, (before - 10_000, before - 10_000))
        if not links:
            raise OSError(errno.EPERM, "this file system has no links")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    storage.put("marks/a", [b"x"])
    (info,) = storage.list()
    assert info.modified is not None
    assert abs(info.modified - before) < 60


def test_killed_at_any_moment_an_object_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backupd.storage.local import LocalStorage\n"
        f"storage = LocalStorage(Path({str(tmp_path / 'repository')!r}))\n"
        "print('ready', flush=True)\n"
        "for number in range(100000): storage.put(f'index/{number}', [bytes([number % 251]) * 200_000])\n"
    )
    storage = LocalStorage(tmp_path / "repository")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdout
        process.stdout.readline()
        while len(list(storage.list())) < 20:
            assert process.poll() is None
        process.kill()
    for info in storage.list():
        assert storage.get(info.name) == bytes([int(info.name[6:]) % 251]) * 200_000


def test_a_full_disk_is_told_and_leaves_nothing(storage: LocalStorage) -> None:
    storage.put("index/a", [b"x"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files fails as a full disk does, within this process and without a file system of its own.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageFull, match="free some space"):
            storage.put(NAME, [bytes(60_000), bytes(60_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert files(storage) == ["index/a"]
    storage.put(NAME, [bytes(120_000)])
    assert storage.size(NAME) == 120_000


@pytest.mark.parametrize("action", ["put", "get", "list", "free"])
def test_no_permission_is_told(tmp_path: Path, action: str) -> None:
    root = tmp_path / "repository"
    LocalStorage(root).put(NAME, [b"x"])
    for folder in (root / "packs" / "00", root / "packs", root):
        folder.chmod(0o000)
    calls = {"put": "put('index/a', [b'x'])", "get": f"get({NAME!r})", "list": "list().__next__()"}
    call = calls.get(action, "free_octets()")
    place = root / "packs" if action == "free" else root  # a folder in one that may not be looked into
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from backupd.storage.local import LocalStorage\n"
        "from backupd.errors import StorageDenied\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: LocalStorage(Path({str(place)!r})).{call}\n"
        "except StorageDenied as error: print(error); sys.exit(7)\n"
    )
    for parent in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o001)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    for folder in (root, root / "packs", root / "packs" / "00"):
        folder.chmod(0o700)
    assert (done.returncode, "no permission" in done.stdout) == (7, True), done.stderr


def test_two_writers_of_one_name_at_once_both_succeed(storage: LocalStorage) -> None:
    ready = threading.Barrier(4)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            ready.wait(10)
            storage.put(NAME, [b"same" * 100_000])
        except BaseException as error:  # noqa: BLE001 - carried to the test
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(storage) == [NAME]


def test_links_are_not_followed_and_strange_files_not_listed(storage: LocalStorage, tmp_path: Path) -> None:
    storage.put("index/a", [b"x"])
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b").write_bytes(b"secret")
    root = Path(storage.url)
    (root / "packs").symlink_to(tmp_path / "outside")
    (root / "index" / "c").symlink_to(tmp_path / "outside" / "b")
    (root / "index" / "with space").write_bytes(b"x")
    (root / ".hidden").write_bytes(b"x")
    assert [info.name for info in storage.list()] == ["index/a"]


def test_files_and_folders_are_for_their_owner_alone(storage: LocalStorage) -> None:
    storage.put(NAME, [b"x"])
    for path in Path(storage.url).rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


def test_an_object_of_another_writer_is_durable_before_it_is_taken_for_stored(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    LocalStorage(Path(storage.url)).put(NAME, [b"x"])
    synced: list[Path] = []
    monkeypatch.setattr("backupd.storage.local._sync_folder", synced.append)
    storage.put(NAME, [b"x"])
    assert synced == [(Path(storage.url) / NAME).parent]


def test_a_directory_that_has_gone_is_told_and_not_made_again(storage: LocalStorage) -> None:
    storage.put(NAME, [b"x"])
    shutil.rmtree(storage.url)
    for name in (NAME, "index/a"):
        with pytest.raises(StorageUnavailable, match="mounted"):
            storage.put(name, [b"x"])
    assert not Path(storage.url).exists()


def test_a_disk_without_a_free_octet(storage: LocalStorage, tmp_path: Path) -> None:
    """On a file system of its own, where that can be had: in a mount namespace that ends with the process."""
    root = tmp_path / "mounted"
    root.mkdir()
    program = (
        "import subprocess, sys; from pathlib import Path\n"
        "from backupd.errors import StorageFull; from backupd.storage.local import LocalStorage\n"
        f"root = Path({str(root)!r})\n"
        "mount = ['mount', '-t', 'tmpfs', '-o', 'size=256k', 'none', str(root)]\n"
        "if subprocess.run(mount, check=False, capture_output=True).returncode: sys.exit(5)\n"
        "storage = LocalStorage(root / 'repository')\n"
        "storage.put('index/a', [b'x'])\n"
        "try: storage.put('index/b', [bytes(200_000)] * 4)\n"
        "except StorageFull as error: print(error)\n"
        "assert [p.name for p in root.rglob('*') if p.is_file()] == ['a'], list(root.rglob('*'))\n"
        "storage.put('index/b', [bytes(100_000)])\n"
        "assert 0 < storage.free_octets() < 200_000\n"
    )
    command = [sys.executable, "-c", program]
    if os.geteuid() == 0 and shutil.which("unshare"):
        command = ["unshare", "--mount", *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path.cwd(), check=False)
    if done.returncode == 5 or "unshare failed" in done.stderr:
        pytest.skip("no file system can be mounted here")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the repository's disk is full" in done.stdout


def test_addresses(tmp_path: Path) -> None:
    assert open_storage(str(tmp_path)).url == str(tmp_path)
    assert open_storage(f"file://{tmp_path}/with%20space").url == f"{tmp_path}/with space"
    with pytest.raises(ConfigError, match="local directories"):
        open_storage("ftp://host/prefix")
