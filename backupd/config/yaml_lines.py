"""YAML with the line of every key kept, so that an error can say where it is.

What YAML 1.1 turns into something nobody meant (`no` into false, 0123 into 83, 12:30 into 750) stays the text that was
written; only true, false, null and plain decimal numbers have another type. Tags, anchors and aliases are refused: a
configuration needs none, and a password that begins with !, & or * and was not put in quotes would be lost in them.

Nothing of a value is ever part of an error here, because any value may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from backupd.errors import ConfigError

Place = tuple[str | int, ...]
"""Keys and list positions from the root to a value."""

# libyaml reads ten times faster: a provider's file holds thousands of accounts.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}\Z")
_QUOTED = re.compile(r"(,? but (found|got) .*|'.*')")
_DEEPEST = 32
_TEXT = "tag:yaml.org,2002:str"


class Document:
    """Parsed YAML. data: dicts, lists and scalars; lines: the line of each key and list item, counted from 1."""

    def __init__(self, file: Path, data: object, lines: dict[Place, int]) -> None:
        self.file, self.data, self._lines = file, data, lines

    def line(self, place: Place) -> int:
        """Where the value is, or the nearest thing around it that was written."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)


def parse(text: str, file: Path) -> Document:
    """Read one YAML document. Raises ConfigError with file and line."""
    return _Reader(text, file).document()


def error(file: Path, line: int, key: str, what: str) -> ConfigError:
    """One line that names file, line, key, what is wrong and what is right."""
    return ConfigError(one_line(f"{file}:{line}: {key + ': ' if key else ''}{what}"))


def one_line(text: str) -> str:
    """The text without line ends and other control characters, which could rewrite what a terminal shows."""
    return "".join(each if each.isprintable() else "?" for each in text)


def dotted(place: Place) -> str:
    """repository.passphrase, copies[0].url"""
    text = ""
    for each in place:
        text += f"[{each}]" if isinstance(each, int) else f".{each}" if text else each
    return text


class _Reader:
    """One pass over the events of the YAML parser."""

    def __init__(self, text: str, file: Path) -> None:
        self._file, self._last_line = file, max(1, len(text.splitlines()))
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._lines: dict[Place, int] = {(): 1}

    def document(self) -> Document:
        try:
            data = self._documents()
        except yaml.YAMLError as problem:
            mark = getattr(problem, "problem_mark", None)
            what = _QUOTED.sub("", getattr(problem, "problem", None) or "a character that may not be in it").strip()
            line = min(mark.line + 1, self._last_line) if mark else 1
            raise error(self._file, line, "", f"not YAML: {what}; check indentation, colons and quotes") from None
        return Document(self._file, data, self._lines)

    def _documents(self) -> object:
        data: object = {}
        found = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if found:
                    raise self._error(event, (), "a second document; there can be one only, so take the --- away")
                found = True
                data = self._value(next(self._events), ())
        return {} if data is None else data

    def _value(self, event: yaml.Event, place: Place) -> object:
        if isinstance(event, yaml.AliasEvent):
            raise self._error(event, place, "an alias (*name); write the value out, or put it in quotes")
        if getattr(event, "anchor", None):
            raise self._error(event, place, "an anchor (&name); leave it out, or put the value in quotes")
        tag = getattr(event, "tag", None)
        if tag and (tag != _TEXT or not isinstance(event, yaml.ScalarEvent)):
            raise self._error(event, place, "a tag (!name); leave it out, or put the value in quotes")
        if len(place) > _DEEPEST:
            raise self._error(event, place[:4], "nested too deeply; see config.example.yaml")
        self._lines.setdefault(place, _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        assert isinstance(event, yaml.ScalarEvent)  # noqa: S101 - the grammar of YAML leaves nothing else
        return str(event.value) if tag or event.style else _plain(event.value)

    def _mapping(self, place: Place) -> dict[str, object]:
        found: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                raise self._error(event, place, "a key that is not plain text; write a word and a colon")
            inside = (*place, str(event.value))
            if event.value in found:
                raise self._error(event, inside, f"twice; the first is in line {self._lines[inside]}, keep one")
            self._lines[inside] = _line(event)
            found[event.value] = self._value(next(self._events), inside)
        return found

    def _sequence(self, place: Place) -> list[object]:
        found: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*place, len(found))))
        return found

    def _error(self, event: yaml.Event, place: Place, what: str) -> ConfigError:
        return error(self._file, _line(event), dotted(place), what)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _plain(text: str) -> object:
    """A value that was written without quotes."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.match(text):
        return int(text)
    return float(text) if _DECIMAL.match(text) else text
