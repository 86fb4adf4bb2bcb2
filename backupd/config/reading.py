"""Reading the configuration file into its types, and saying in one line what is wrong with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backupd.config.model import Config
from backupd.config.secrets import Reference, Secret, readable_by_others
from backupd.config.yaml_lines import Document, dotted, error, parse
from backupd.errors import ConfigError

_BRANCHES = {"text", "reference"}  # of the union that a secret is
_LARGEST = 1024 * 1024
_KINDS = {
    "string_type": "text; put it in quotes",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a section of keys",
    "model_type": "a section of keys",
    "model_attributes_type": "a section of keys",
}


def read(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration. Raises ConfigError: one line with file, line, key, what is wrong and what is right."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1).decode()
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: there is no configuration file; write one after config.example.yaml, or name it with --config"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the file is not UTF-8 text") from None
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}; check its owner and mode") from None
    if len(text) > _LARGEST:
        raise ConfigError(f"{path}: more than 1 MiB; this is no configuration file")
    document = parse(text, path)
    try:
        config = Config.model_validate(document.data)
    except ValidationError as problem:
        raise _explained(problem, document) from None
    folder = path.absolute().parent
    for place, secret in secrets_of(config):
        secret.place(f"{path}:{document.line(place)}: {dotted(place)}", folder, environ)
    return config


def secrets_of(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Secret]]:
    """All secrets in a configuration, with where they are."""
    if isinstance(value, Secret):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name), (*place, name))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from secrets_of(each, (*place, name))
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from secrets_of(each, (*place, number))


def warnings(config: Config, path: Path) -> list[str]:
    """What is not wrong and should be otherwise: secrets that others on this machine can read."""
    found = [
        f"{secret.path}: others can read this secret; chmod 600 it"
        for _, secret in secrets_of(config)
        if secret.path and readable_by_others(secret.path)
    ]
    if any(secret.inline for _, secret in secrets_of(config)) and readable_by_others(path):
        found.append(f"{path}: it holds a secret and others can read it; chmod 600 it, or use {{file: ...}}")
    return found


def _explained(problem: ValidationError, document: Document) -> ConfigError:
    found = []
    for each in problem.errors(include_url=False, include_context=True):
        place = _place(each["loc"], document.data)
        found.append((document.line(place), place, each))
    found.sort(key=lambda one: one[0])
    line, place, first = found[0]
    lines = {one[0] for one in found}
    more = f" (and in {len(lines) - 1} more)" if len(lines) > 1 else ""
    return error(document.file, line, dotted(place), _what(first, place) + more)


def _place(location: tuple[str | int, ...], data: object) -> tuple[str | int, ...]:
    """The part of pydantic's location that is in the file: it also names the branches of unions."""
    place: list[str | int] = []
    for number, step in enumerate(location):
        last = number == len(location) - 1
        if isinstance(data, dict):
            if step in data:
                data = data[step]
                place.append(step)
            elif last and step not in _BRANCHES:
                place.append(step)
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            data = data[step]
            place.append(step)
    return tuple(place)


def _what(each: ErrorDetails, place: tuple[str | int, ...]) -> str:
    kind, context = each["type"], each.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind == "missing":
        return "missing; it has no default"
    if kind == "value_error":
        return str(context.get("error", each["msg"]))
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(chr(39), '')}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}"
    return each["msg"][:1].lower() + each["msg"][1:].removeprefix("Input ")


def _unknown_key(place: tuple[str | int, ...]) -> str:
    known = sorted(_keys_at(place[:-1]))
    near = difflib.get_close_matches(str(place[-1]), known, 1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; known here are {', '.join(known)}"


def _keys_at(place: tuple[str | int, ...]) -> set[str]:
    """The keys a section has, found along the types of the models."""
    section: Any = Config
    for step in place:
        if isinstance(section, type) and issubclass(section, BaseModel) and step in section.model_fields:
            section = section.model_fields[str(step)].annotation
        section = _model_in(section)
    return set(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else set()


def _model_in(annotation: Any) -> Any:
    """The model in `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if annotation is Secret:
        return Reference
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for each in getattr(annotation, "__args__", ()):
        if found := _model_in(each):
            return found
    return None
