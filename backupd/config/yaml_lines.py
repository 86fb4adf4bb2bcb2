"""YAML with the line of every key kept, so that an error can say where it is.

What YAML 1.1 turns into something nobody meant (`no` into false, 0123 into 83, 12:30 into 750) stays the text that was
written; only true, false, null and plain decimal numbers have another type.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from backupd.errors import ConfigError

Path_ = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""

_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+\Z")
_DEEPEST = 32


class Document:
    """Parsed YAML. data: dicts, lists and scalars; lines: the line of each key and list item, counted from 1."""

    def __init__(self, file: Path, data: object, lines: dict[Path_, int]) -> None:
        self.file, self.data, self._lines = file, data, lines

    def line(self, place: Path_) -> int:
        """Where the value is, or the nearest thing around it that was written."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)


def parse(text: str, file: Path) -> Document:
    """Read one YAML document. Raises ConfigError with file and line."""
    try:
        # Anchors could make a small file huge, and nothing here needs them.
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise error(file, line, "", "an alias (*name); write the value out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        what = getattr(problem, "problem", None) or "no YAML"
        raise error(file, mark.line + 1 if mark else 1, "", f"{what}; check indentation, colons and quotes") from None
    lines: dict[Path_, int] = {}
    return Document(file, _convert(node, file, (), lines) if node else {}, lines)


def error(file: Path, line: int, key: str, what: str) -> ConfigError:
    """One line that names file, line, key, what is wrong and what is right."""
    return ConfigError(f"{file}:{line}: {key + ': ' if key else ''}{what}")


def dotted(place: Path_) -> str:
    """repository.passphrase, copies[0].url"""
    text = ""
    for each in place:
        text += f"[{each}]" if isinstance(each, int) else f".{each}" if text else each
    return text


def _convert(node: yaml.Node, file: Path, place: Path_, lines: dict[Path_, int]) -> object:
    line = node.start_mark.line + 1
    lines.setdefault(place, line)
    if len(place) > _DEEPEST:
        raise error(file, line, dotted(place), "nested too deeply")
    if isinstance(node, yaml.MappingNode):
        found: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            key_line = key_node.start_mark.line + 1
            if key is None:
                raise error(file, key_line, dotted(place), "a key that is no plain text")
            inside = (*place, key)
            if key in found:
                raise error(file, key_line, dotted(inside), f"twice; the first is in line {lines[inside]}")
            lines[inside] = key_line
            found[key] = _convert(value_node, file, inside, lines)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_convert(each, file, (*place, number), lines) for number, each in enumerate(node.value)]
    if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS:
        raise error(file, line, dotted(place), f"the tag {node.tag}; write plain values")
    return _scalar(node)


_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "bool", "int", "float", "null", "timestamp", "merge", "value")
}


def _scalar(node: yaml.ScalarNode) -> object:
    text = str(node.value)
    if node.style is not None:
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _DECIMAL.match(text) else text
