"""What is wrong with a configuration, in one line for the person who wrote it.

Values are not part of it, names of keys are; and below a secret not even those, because `{hunter2}` without quotes is a
key to YAML.
"""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backupd.config.model import Config
from backupd.config.secrets import NO_SECRET, Reference, Secret
from backupd.config.yaml_lines import Document, Place, dotted, error
from backupd.errors import ConfigError

_INNER = {"text", "reference", "[key]"}  # steps of pydantic's that nobody wrote
_KINDS = {
    "string_type": "not text; put it in quotes",
    "int_type": "not a whole number; write digits without quotes",
    "float_type": "not a number; write digits without quotes",
    "bool_type": "neither true nor false; write one of them, without quotes",
    "tuple_type": "not a list; write [one, two]",
    "dict_type": "not a section; write its keys below it, indented",
    "model_type": "not a section; write its keys below it, indented",
    "model_attributes_type": "not a section; write its keys below it, indented",
    "missing": "missing; add it, for it has no default",
    "string_too_short": "empty; write at least one character",
    "too_short": "empty; write at least one",
    "string_pattern_mismatch": "characters that may not be in it; use letters, digits and . _ @ + -",
}
_EMPTY = "no value; write one, or take the key away"
_CONTROL = "a control character; write visible characters only"
_ACCOUNT = "not a name for an account; use up to 64 letters, digits and . _ @ + -, the first a letter or digit"


def explained(problem: ValidationError, document: Document) -> ConfigError:
    """The first error by line, and how many there are beside it."""
    found: dict[Place, tuple[int, str]] = {}
    for each in problem.errors(include_url=False, include_context=True):
        place, what = _what(each, document.data)
        found.setdefault(place, (document.line(place), what))
    ordered = sorted(found.items(), key=lambda one: one[1][0])
    place, (line, what) = ordered[0]
    more = f" (and {len(ordered) - 1} more)" if len(ordered) > 1 else ""
    return error(document.file, line, dotted(place), what + more)


def _what(each: ErrorDetails, data: object) -> tuple[Place, str]:
    kind, context = each["type"], each.get("ctx", {})
    place, value = _place(each["loc"], data)
    if kind == "at_key":
        return (*place, str(context["key"])), str(context["what"])
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind == "value_error":
        return place, str(context["error"])
    if kind == "literal_error":
        return place, f"not one of those known; write {context['expected'].replace(chr(39), '')}"
    if kind in ("greater_than_equal", "greater_than"):
        return place, f"too small; write {context.get('ge', 'more than 0')}{' or more' if 'ge' in context else ''}"
    if kind == "less_than_equal":
        return place, f"too large; write {context['le']:g} or less"
    if each["loc"][-1:] == ("[key]",):
        return place, _ACCOUNT
    if kind == "string_pattern_mismatch" and "x00" in context["pattern"]:
        return place, _CONTROL
    if kind.endswith("_type") and value is None:
        return place, _EMPTY
    return place, _KINDS[kind] if kind in _KINDS else each["msg"][:1].lower() + each["msg"][1:]


def _place(location: tuple[str | int, ...], data: Any) -> tuple[Place, object]:
    """The part of pydantic's location that was written, and what is there: it also names the branches of unions."""
    place: list[str | int] = []
    for number, step in enumerate(location):
        if isinstance(data, list):
            data = dict(enumerate(data))
        if isinstance(data, dict) and step in data:
            data = data[step]
        elif step in _INNER or number < len(location) - 1:
            continue
        place.append(step)
    return tuple(place), data


def _unknown_key(place: Place) -> tuple[Place, str]:
    section = _section_at(place[:-1])
    known = sorted(section.model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, 1)
    if near:
        return place, f"unknown key; did you mean {near[0]}?"
    if section is Reference:
        return place[:-1], NO_SECRET
    return place, f"unknown key; known here are {', '.join(known)}"


def _section_at(place: Place) -> type[BaseModel]:
    """The section that is written there, found along the types of the models."""
    section: type[BaseModel] = Config
    rest = list(place)
    while rest:
        field = section.model_fields[str(rest.pop(0))]
        section = _model_in(field.annotation) or section
        if rest and rest[0] not in section.model_fields:
            rest.pop(0)  # the name of an account, or the number of a copy
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(annotation, type) and issubclass(annotation, Secret):
        return Reference
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in getattr(annotation, "__args__", ()) if (found := _model_in(each))), None)
