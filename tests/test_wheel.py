"""What pip installs holds all that is needed, and nothing that is only for developers."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tests.support import wheel

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the wheel."""
    with zipfile.ZipFile(wheel.build(tmp_path_factory.mktemp("wheel"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_every_module_is_in_it(contents: dict[str, bytes]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "backupd").rglob("*.py")}
    assert modules == {name for name in contents if name.endswith(".py")}


def test_the_units_are_in_it_as_they_are_at_the_top(contents: dict[str, bytes]) -> None:
    units = {f"backupd/systemd/{path.name}": path.read_bytes() for path in (ROOT / "systemd").iterdir()}
    assert units == {name: content for name, content in contents.items() if name.startswith("backupd/systemd/")}


def test_only_the_package_is_in_it(contents: dict[str, bytes]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in contents} == {"backupd"}
