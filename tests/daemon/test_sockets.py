"""A Unix socket replaces what a dead process left, and nothing else."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from backupd.daemon.sockets import listen_tcp, listen_unix, reachable
from backupd.errors import Busy, ConfigError, StorageDenied


def test_only_its_owner_can_open_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        bound = listen_unix(tmp_path / "a.sock", 0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o600
    bound.close()
    bound = listen_unix(tmp_path / "a.sock", 0o660)
    assert stat.S_IMODE((tmp_path / "a.sock").stat().st_mode) == 0o660
    bound.close()


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    left = listen_unix(path, 0o600)
    left.socket.close()  # as when a process ends in the middle of everything: the path stays
    assert path.exists()
    listen_unix(path, 0o600).close()


def test_one_that_is_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    first = listen_unix(path, 0o600)
    with pytest.raises(Busy, match="somebody listens there"):
        listen_unix(path, 0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
    first.close()


def test_nor_is_anything_that_is_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="no socket"):
        listen_unix(path, 0o600)
    assert path.read_text() == "precious"


def test_its_path_goes_with_it_unless_another_has_taken_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    first = listen_unix(path, 0o600)
    path.unlink()
    second = listen_unix(path, 0o600)
    first.close()
    assert path.exists()
    second.close()
    assert not path.exists()


def test_a_path_may_be_longer_than_the_kernel_takes(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    bound = listen_unix(folder / "a.sock", 0o600)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client, reachable(folder / "a.sock") as name:
        client.connect(name)
    with pytest.raises(Busy):
        listen_unix(folder / "a.sock", 0o600)
    bound.close()
    assert not (folder / "a.sock").exists()


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageDenied, match="cannot listen there: No such file"):
        listen_unix(tmp_path / "gone" / "a.sock", 0o600)


def test_a_name_that_is_too_long_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageDenied, match=r"cannot listen there: .*too long"):
        listen_unix(tmp_path / ("long" * 40), 0o600)


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: cannot listen there: Address already in use"):
            listen_tcp("127.0.0.1", port)
