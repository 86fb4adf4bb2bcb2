"""Secrets by reference: where a passphrase or password is, and how it is fetched when it is needed.

A secret is asked for each time it is used, so one that changes is no problem. No value is ever part of an error, a
representation or a JSON document.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema, core_schema

from backupd.errors import ConfigError

COMMAND_SECONDS = 60
LONGEST = 64 * 1024


class Reference(BaseModel):
    """Where a secret is; exactly one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str | None = None
    """A file that holds it; a line end after it does not count."""
    command: str | None = None
    """A shell command that prints it; 60 seconds at most."""
    env: str | None = None
    """An environment variable that holds it."""
    credential: str | None = None
    """A systemd credential (LoadCredential=) of this name."""
    keyring: str | None = None
    """SERVICE/USERNAME in the keyring of the user who runs backupd; needs backupd[keyring]."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Reference:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a secret is one of file, command, env, credential, keyring")
        return self


class Secret:
    """A secret, as text in the configuration or by reference."""

    def __init__(self, source: str | Reference) -> None:
        self._source = source
        self._where = ""
        self._folder = Path()
        self._environ: Mapping[str, str] = os.environ

    def place(self, where: str, folder: Path, environ: Mapping[str, str]) -> None:
        """Tell it where it is written ("file:line: key"), for errors, and what relative paths are relative to."""
        self._where, self._folder, self._environ = where, folder, environ

    @property
    def inline(self) -> bool:
        """Whether the secret stands in the configuration itself."""
        return isinstance(self._source, str)

    @property
    def path(self) -> Path | None:
        """The file it is in, if it is in one."""
        if isinstance(self._source, Reference) and self._source.file is not None:
            return self._folder / Path(self._source.file).expanduser()
        return None

    def resolve(self) -> str:
        """Fetch it. Raises ConfigError when it cannot be had, or is empty."""
        value = self._source if isinstance(self._source, str) else self._fetch(self._source)
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise self._error("the secret is empty; it must have at least one character")
        return value

    def _fetch(self, reference: Reference) -> str:
        if reference.file is not None:
            return self._read(self._folder / Path(reference.file).expanduser(), "file")
        if reference.command is not None:
            return self._run(reference.command)
        if reference.env is not None:
            if reference.env not in self._environ:
                raise self._error(f"the environment variable {reference.env} is not set; set it, or use file:")
            return self._environ[reference.env]
        if reference.credential is not None:
            folder = self._environ.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise self._error("there are no systemd credentials here; the unit needs LoadCredential=")
            return self._read(Path(folder) / Path(reference.credential).name, "credential")
        return self._ask_keyring(reference.keyring or "")

    def _read(self, path: Path, kind: str) -> str:
        try:
            with path.open("rb") as file:
                return file.read(LONGEST).decode()
        except UnicodeDecodeError:
            raise self._error(f"{kind} {path} is not UTF-8 text") from None
        except OSError as error:
            raise self._error(f"{kind} {path} cannot be read: {error.strerror}; check its path and owner") from None

    def _run(self, command: str) -> str:
        try:
            done = subprocess.run(  # noqa: S602 - a shell command is what the user wrote
                command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise self._error(f"the command did not end within {COMMAND_SECONDS} seconds") from None
        except OSError as error:
            raise self._error(f"the command cannot be run: {error.strerror}") from None
        if done.returncode:
            # Only standard error is told: standard output may hold the secret, or half of it.
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise self._error(f"the command ended with {done.returncode}{': ' + said[0][:200] if said else ''}")
        try:
            return done.stdout[:LONGEST].decode()
        except UnicodeDecodeError:
            raise self._error("the command printed what is not UTF-8 text") from None

    def _ask_keyring(self, name: str) -> str:
        service, slash, username = name.rpartition("/")
        if not slash:
            raise self._error("keyring is SERVICE/USERNAME")
        try:
            import keyring
            from keyring.errors import KeyringError
        except ImportError:
            raise self._error("there is no keyring support; install backupd[keyring], or use file:") from None
        try:
            value = keyring.get_password(service, username)
        except KeyringError as error:
            raise self._error(f"no keyring can be used: {error}; servers have none, so use file: there") from None
        if value is None:
            raise self._error(f"the keyring has nothing for {service}, {username}")
        return str(value)

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"{self._where}: {what}" if self._where else what)

    def __repr__(self) -> str:
        return "Secret(...)"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def make(value: str | Reference) -> Secret:
            return cls(value)

        union = core_schema.tagged_union_schema(
            {"text": core_schema.str_schema(strict=True), "reference": handler.generate_schema(Reference)},
            discriminator=lambda value: "reference" if isinstance(value, dict) else "text",
        )
        hidden = core_schema.plain_serializer_function_ser_schema(repr)
        return core_schema.no_info_after_validator_function(make, union, serialization=hidden)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema["schema"])


def readable_by_others(path: Path) -> bool:
    """Whether the file's group or everybody may read it; False when it cannot be looked at."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
