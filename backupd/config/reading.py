"""From the configuration file to its types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from backupd.config.explaining import explained
from backupd.config.model import Config
from backupd.config.secrets import Secret
from backupd.config.yaml_lines import Place, dotted, one_line, parse
from backupd.errors import ConfigError

_LARGEST = 16 * 1024 * 1024  # some hundred thousand accounts


def read(path: Path, environ: Mapping[str, str]) -> Config:
    """The configuration. Raises ConfigError: one line with file, line, key, what is wrong and what is right."""
    document = parse(_text(path), path)
    folder = path.absolute().parent
    try:
        config = Config.model_validate(document.data, context={"folder": folder})
    except ValidationError as problem:
        raise explained(problem, document) from None
    secrets = tuple(_secrets(config, ()))
    for place, secret in secrets:
        secret.place(f"{path}:{document.line(place)}: {dotted(place)}", folder, environ)
    config.read_from(path, tuple((dotted(place), secret) for place, secret in secrets))
    return config


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except FileNotFoundError:
        what = "there is no configuration file; write one after config.example.yaml, or name yours with --config"
    except OSError as problem:
        what = f"the configuration cannot be read: {problem.strerror}; check its owner and mode"
    else:
        if len(raw) > _LARGEST:
            what = "larger than 16 MiB; this is no configuration file"
        else:
            try:
                return raw.decode()
            except UnicodeDecodeError as problem:
                line = raw.count(b"\n", 0, problem.start) + 1
                raise ConfigError(one_line(f"{path}:{line}: not UTF-8 text; save the file as UTF-8")) from None
    raise ConfigError(one_line(f"{path}: {what}"))


def _secrets(value: object, place: Place) -> Iterator[tuple[Place, Secret]]:
    if isinstance(value, Secret):
        yield place, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name), (*place, name))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from _secrets(each, (*place, name))
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from _secrets(each, (*place, number))
