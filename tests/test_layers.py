"""Data flows one way: imports only go down. docs/architecture.md draws the layers, and this holds the code to them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

_BELOW_SOURCES = {"wire", "mail", "repository", "storage"}
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"config", "daemon", "oauth", "operations", "sources", "targets", *_BELOW_SOURCES},
    "daemon": {"config", "operations", "sources", "targets", *_BELOW_SOURCES},
    "operations": {"config", "oauth", "sources", "targets", *_BELOW_SOURCES},
    "oauth": {"wire"},
    "sources": _BELOW_SOURCES,
    "targets": _BELOW_SOURCES,
    "wire": {"mail", "repository", "storage"},
    "mail": {"repository", "storage"},
    "repository": {"storage"},
    "storage": set(),
    "config": set(),
    "errors": set(),
    "model": {"errors"},
    "turns": set(),
    "redaction": set(),
}
"""Each layer and those below it. config stands beside: it is read by the two on top and imports none of the others."""

GROUND = {"errors", "model", "turns", "redaction", "__version__"}
"""What all stand on: one tree of errors, the domain model, what must not be shown, the version."""


def imported(source: str, module: str) -> list[tuple[int, str]]:
    """Line and full name of everything of the package that a module imports, wherever in it the import stands."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return [(line, name) for line, name in found if name.split(".")[0] == "backupd"]


def violations(source: str, module: str) -> list[str]:
    """One line for each import that goes up or sideways. module: full dotted name, such as "backupd.mail.split"."""
    layer = module.split(".")[1]
    wrong = []
    for line, name in imported(source, module):
        other = [*name.split("."), ""][1]
        if other not in MAY_IMPORT[layer] | GROUND | {layer}:
            wrong.append(f"{module}:{line} imports {name}, and {layer} may not know {other or 'the whole package'}")
    return wrong


def modules() -> list[tuple[str, Path]]:
    """Dotted name and path of every module below a layer; a folder's __init__ is named as if it were a module in it."""
    paths = sorted((ROOT / "backupd").rglob("*.py"))
    named = [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in paths]
    return [(name, path) for name, path in named if name not in ("backupd.__init__", "backupd.__main__")]


def test_imports_only_go_down() -> None:
    wrong = [line for name, path in modules() for line in violations(path.read_text(encoding="utf-8"), name)]
    assert not wrong, "\n".join(wrong)


def test_every_folder_and_file_at_the_top_has_its_place_in_the_order() -> None:
    assert {name.split(".")[1] for name, _ in modules()} <= set(MAY_IMPORT)


def test_the_order_has_no_circle() -> None:
    placed: set[str] = set(GROUND)
    waiting = {layer: below - {layer} for layer, below in MAY_IMPORT.items()}
    while ready := {layer for layer, below in waiting.items() if below <= placed}:
        placed |= ready
        waiting = {layer: below for layer, below in waiting.items() if layer not in ready}
    assert not waiting


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backupd.storage.local", "from backupd.repository import names"),
        ("backupd.repository.repository", "from backupd.mail.uidset import UidSet"),
        ("backupd.mail.split", "import backupd.wire.imap_parser"),
        ("backupd.sources.imap.link", "from backupd.targets.base import Target"),
        ("backupd.targets.maildir", "from backupd import sources"),
        ("backupd.targets.imap.__init__", "from ...sources.base import Source"),
        ("backupd.operations.backup", "def later():\n    from backupd.cli.main import main"),
        ("backupd.sources.imap.source", "from backupd.config import load"),
        ("backupd.config.load", "from backupd.repository.slots import Slot"),
        ("backupd.mail.names", "import backupd"),
    ],
)  # fmt: skip
def test_an_import_that_goes_up_or_sideways_is_caught(module: str, line: str) -> None:
    assert len(violations(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("backupd.storage.local", "from backupd.errors import StorageFull"),
        ("backupd.mail.headers", "from backupd.repository.runs import Envelope"),
        ("backupd.wire.imap_connection", "from backupd import __version__"),
        ("backupd.sources.imap.source", "from backupd.sources.imap.link import Link"),
        ("backupd.operations.build", "from backupd.config import Settings"),
        ("backupd.cli.main", "import os, backupd.operations.backup"),
        ("backupd.repository.block", "from .keys import Secrets"),
    ],
)  # fmt: skip
def test_an_import_that_goes_down_is_let_through(module: str, line: str) -> None:
    assert violations(line, module) == []
