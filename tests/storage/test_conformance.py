"""What every storage promises (backupd/storage/base.py); the same tests run on each implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged, ObjectExists, ObjectMissing, StorageError
from backupd.storage.base import NAME, Storage
from backupd.storage.local import LocalStorage
from backupd.storage.s3 import S3Storage
from tests.support.memory_storage import MemoryStorage


@pytest.fixture(params=["local", "memory", "seaweedfs", "rclone"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param in ("seaweedfs", "rclone"):  # two S3 servers, for they differ
        server = request.getfixturevalue(request.param)
        return S3Storage(f"s3://{server.bucket()}/prefix", server.settings())
    return LocalStorage(tmp_path / "repository") if request.param == "local" else MemoryStorage()


NAMES = ["repository.json", "packs/00/" + "0" * 64, "packs/01/x", "packs-other", "index/a", "snapshots/a/b", "a/b/c"]


def test_what_is_put_is_got(storage: Storage) -> None:
    for name in NAMES:
        storage.put(name, [name.encode(), memoryview(b" and "), bytearray(b"more")])
    for name in NAMES:
        whole = name.encode() + b" and more"
        assert storage.get(name) == whole
        assert storage.size(name) == len(whole)
        assert storage.get(name, 2) == whole[2:]
        assert storage.get(name, 2, 3) == whole[2:5]
        assert storage.get(name, len(whole), 0) == b""


def test_a_listing_is_in_the_order_of_names_and_by_prefix(storage: Storage) -> None:
    for name in reversed(NAMES):
        storage.put(name, [b"x"])
    assert [info.name for info in storage.list()] == sorted(NAMES)
    for prefix in ("", "packs", "packs/", "packs/0", "packs/00/", "packs/00/0", "snapshots/a/", "none", "index/a"):
        assert [info.name for info in storage.list(prefix)] == sorted(n for n in NAMES if n.startswith(prefix)), prefix
    assert all(info.size == 1 for info in storage.list())


def test_the_same_again_is_a_success_and_other_bytes_are_refused(storage: Storage) -> None:
    storage.put("index/a", [b"first"])
    storage.put("index/a", [b"fi", b"rst"])
    for other in (b"other", b"", b"first and more", b"firs"):
        with pytest.raises(ObjectExists):
            storage.put("index/a", [other])
    assert storage.get("index/a") == b"first"


def test_what_is_not_there(storage: Storage) -> None:
    assert list(storage.list()) == []
    with pytest.raises(ObjectMissing):
        storage.get("index/none")
    with pytest.raises(ObjectMissing):
        storage.size("index/none")
    storage.delete("index/none")


def test_more_than_there_is_is_damage(storage: Storage) -> None:
    storage.put("index/a", [b"12345"])
    with pytest.raises(Damaged):
        storage.get("index/a", 3, 3)


def test_deleted_is_gone(storage: Storage) -> None:
    storage.put("index/a", [b"x"])
    storage.delete("index/a")
    assert list(storage.list()) == []
    storage.put("index/a", [b"other"])
    assert storage.get("index/a") == b"other"


def test_an_empty_object_and_one_of_many_buffers(storage: Storage) -> None:
    storage.put("index/empty", [])
    storage.put("index/many", [b"%d," % number for number in range(3000)])
    assert storage.get("index/empty") == b""
    assert storage.get("index/many") == b"".join(b"%d," % number for number in range(3000))


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/../b", "/a", "a//b", "a/", ".a", "a/.b", "a\0b", "a\nb", "a b", "Ä", "a/b/c/d/e", "-"]
)
def test_what_is_no_name_is_refused(storage: Storage, name: str) -> None:
    assert not NAME.match(name)
    for call in (lambda: storage.put(name, [b"x"]), lambda: storage.get(name), lambda: storage.size(name)):
        with pytest.raises(StorageError):
            call()


@given(objects=st.dictionaries(st.sampled_from(NAMES), st.lists(st.binary(max_size=50), max_size=4)))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_behaves_like_a_table(storage: Storage, objects: dict[str, list[bytes]]) -> None:
    for info in list(storage.list()):
        storage.delete(info.name)
    for name, data in objects.items():
        storage.put(name, list(data))
    assert {info.name: info.size for info in storage.list()} == {name: len(b"".join(objects[name])) for name in objects}
    assert {name: storage.get(name) for name in objects} == {name: b"".join(data) for name, data in objects.items()}
