"""The habits of the house that a machine can hold: size of files, docstrings, links, stated dependencies."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 400
MOST_LINES_OF_A_DECISION = 60

# "[text](target)"; a title after the target is not used here. Code is taken off first: `[a](b)` in it is no link.
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_TARGET = re.compile(r"^([a-z-]+):", re.MULTILINE)
# Distributions that are installed with, and only with, another.
_PART_OF = {"pydantic-core": "pydantic", "botocore": "boto3", "urllib3": "boto3"}
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def _modules() -> list[Path]:
    return sorted((ROOT / "backupd").rglob("*.py"))


def _pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _shown(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_module_is_short_enough_to_hold_in_the_head() -> None:
    long = [path for path in _modules() if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES]
    assert _shown(long) == []


def test_every_module_says_why_it_exists() -> None:
    silent = [path for path in _modules() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert _shown(silent) == []


# -- documents ---------------------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked to by."""
    headings = re.findall(r"^#+ +(.+?) *$", _CODE.sub(lambda code: code[0].replace("\n#", "\n"), text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    """Relative links of a page that lead nowhere: no such file, or no such heading in it."""
    text = page.read_text(encoding="utf-8")
    for link in _LINK.findall(_CODE.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{page.name}: {link}"
        elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            yield f"{page.name}: {link} (no such heading)"


@pytest.mark.parametrize("page", _pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n[a](page.md#one-two) [b](gone.md) [c](#three) [d](https://example.com) `[e](f)`\n")
    assert list(broken_links(page)) == ["page.md: gone.md", "page.md: #three (no such heading)"]


def test_a_decision_fits_on_half_a_page() -> None:
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert decisions
    assert _shown([page for page in decisions if _lines_of_text(page) > MOST_LINES_OF_A_DECISION]) == []


def _lines_of_text(page: Path) -> int:
    """Lines that are not rows of a table, which nobody reads from end to end."""
    return sum(not line.startswith("|") for line in page.read_text(encoding="utf-8").splitlines())


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [page.name.split("-")[0] for page in (ROOT / "docs/decisions").glob("*.md")]
    assert all(re.fullmatch(r"\d{4}", number) for number in numbers)
    assert len(set(numbers)) == len(numbers)


def test_every_make_target_that_documents_speak_of_exists() -> None:
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    spoken = {
        word
        for page in _pages()
        for code in _CODE.findall(page.read_text(encoding="utf-8"))
        for word in re.findall(r"(?:^|`|\$ )make ([a-z]+)", code, re.MULTILINE)
    }
    assert spoken <= targets


# -- dependencies ------------------------------------------------------------------------------------------------------


def _project() -> dict[str, list[str]]:
    """Names of the distributions each extra asks for; "" are those everybody gets."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [_normal(_NAME.match(line)[0]) for line in lines] for extra, lines in asked.items()}  # type: ignore[index]


def _imported() -> set[str]:
    """Distributions whose modules the package imports."""
    names = set()
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    whose = packages_distributions()
    foreign = names - set(sys.stdlib_module_names) - {"backupd"}
    return {_PART_OF.get(_normal(one), _normal(one)) for name in foreign for one in whose.get(name, [name])}


def _declared() -> set[str]:
    project = _project()
    return {name for extra in ("", "keyring", "demo", "notify", "oauth", "parity", "s3") for name in project[extra]}


def test_what_the_package_imports_is_declared() -> None:
    assert _imported() - _declared() == set()


def test_what_is_declared_is_imported() -> None:
    assert _declared() - _imported() == set()


def test_every_dependency_has_its_reason_written_down() -> None:
    reasons = (ROOT / "docs/decisions/0002-dependencies.md").read_text(encoding="utf-8").lower()
    asked = {name for names in _project().values() for name in names} - {"backupd"}
    assert {name for name in asked if f"| {name} |" not in reasons} == set()


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    asked = {name for names in _project().values() for name in names} - {"backupd"}
    assert asked <= {_normal(name) for name in pins}
