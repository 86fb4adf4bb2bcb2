"""Secrets by reference: where a passphrase or password is, and how it is fetched when it is needed.

A secret is asked for each time it is used, so one that changes is no problem. No value is ever part of an error, a
representation or a JSON document.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from backupd.config.yaml_lines import one_line
from backupd.errors import ConfigError
from backupd.redaction import learn

COMMAND_SECONDS = 60
LONGEST = 64 * 1024

Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Text without control characters: no path, variable or command has them on purpose."""


def below(folder: Path, text: str) -> Path:
    """The path that was written, relative ones from the configuration's folder; ~ is the user's home."""
    path = Path(text)
    try:
        path = path.expanduser()
    except RuntimeError:  # there is no such user: the path stays as it is, and is found to be missing when it is used
        pass
    return folder / path


class Keyring(BaseModel):
    """An entry of the keyring."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    service: Name
    """What the secret is for, as the keyring knows it."""
    username: Name
    """Whose secret it is."""


def _entry(value: object) -> object:
    if not isinstance(value, str):
        return value
    service, slash, username = value.rpartition("/")
    if not slash:
        raise ValueError("not an entry of a keyring; write SERVICE/USERNAME, or {service: ..., username: ...}")
    return {"service": service, "username": username}


class Reference(BaseModel):
    """Where a secret is; exactly one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    file: Name | None = None
    """A file that holds it; one line end after it does not count."""
    command: Name | None = None
    """A shell command that prints it, within 60 seconds; run in the configuration's folder."""
    env: Name | None = None
    """An environment variable that holds it."""
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*$")] | None = None
    """A systemd credential (LoadCredential=) of this name."""
    keyring: Annotated[Keyring, BeforeValidator(_entry, json_schema_input_type=str | Keyring)] | None = None
    """SERVICE/USERNAME in the keyring of the user who runs backupd; needs backupd[keyring]."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Reference:
        if sum(getattr(self, name) is not None for name in type(self).model_fields) != 1:
            raise ValueError(NO_SECRET)
        return self


NO_SECRET = "not a secret; write text in quotes, or {file: ...} with one of " + ", ".join(Reference.model_fields)


class Secret:
    """A secret, as text in the configuration or by reference."""

    def __init__(self, source: str | Reference) -> None:
        self._source = source
        self._where = ""
        self._folder = Path()
        self._environ: Mapping[str, str] = os.environ

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._source, self._folder) == (other._source, other._folder)

    def __hash__(self) -> int:
        return hash((self._source, self._folder))

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
            return below(self._folder, self._source.file)
        return None

    @property
    def credential(self) -> str | None:
        """The systemd credential it is, if it is one."""
        return self._source.credential if isinstance(self._source, Reference) else None

    def resolve(self) -> str:
        """Fetch it, and have it hidden in logs from now on. Raises ConfigError when it cannot be had, or is empty."""
        value = self._resolved()
        learn(value)
        return value

    def _resolved(self) -> str:
        if isinstance(self._source, str):
            return self._source
        value = self._fetch(self._source)
        # One line end at most: a secret may end in white space of its own.
        value = value.removesuffix("\r\n") if value.endswith("\r\n") else value.removesuffix("\n")
        if not value:
            raise self._error("the secret is empty; it needs at least one character")
        return value

    def _fetch(self, reference: Reference) -> str:
        if reference.file is not None:
            return self._read(below(self._folder, reference.file), "file")
        if reference.command is not None:
            return self._run(reference.command)
        if reference.env is not None:
            if reference.env not in self._environ:
                raise self._error(f"the environment variable {reference.env} is not set; set it, or use {{file: ...}}")
            # What is not UTF-8 in the environment reaches Python as surrogates.
            return self._text(os.fsencode(self._environ[reference.env]), f"the environment variable {reference.env}")
        if reference.credential is not None:
            folder = self._environ.get("CREDENTIALS_DIRECTORY")
            if not folder:
                raise self._error(
                    "there are no systemd credentials here ($CREDENTIALS_DIRECTORY is not set); "
                    f"the unit needs LoadCredential={reference.credential}"
                )
            return self._read(Path(folder) / reference.credential, "credential")
        assert reference.keyring is not None  # noqa: S101 - exactly one is given
        return self._ask_keyring(reference.keyring)

    def _read(self, path: Path, kind: str) -> str:
        try:
            with path.open("rb") as file:
                return self._text(file.read(LONGEST + 1), f"{kind} {path}")
        except OSError as error:
            advice = "check its owner and mode" if isinstance(error, PermissionError) else "check the path"
            raise self._error(f"{kind} {path} cannot be read: {error.strerror}; {advice}") from None

    def _run(self, command: str) -> str:
        try:
            done = subprocess.run(  # noqa: S602 - a shell command is what the user wrote
                command, shell=True, cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=COMMAND_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise self._error(
                f"the command did not end within {COMMAND_SECONDS} seconds; it must print the secret without asking"
            ) from None
        except OSError as error:
            raise self._error(f"the command cannot be run: {error.strerror}; try it in a shell") from None
        if done.returncode:
            # Only standard error is told: standard output may hold the secret, or half of it.
            said = done.stderr.decode(errors="replace").strip().splitlines()
            ended = f"exit status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            first = f": {said[0][:200]}" if said else ""
            raise self._error(f"the command failed with {ended}{first}; try it in a shell")
        return self._text(done.stdout, "what the command printed")

    def _ask_keyring(self, entry: Keyring) -> str:
        try:
            import keyring
            from keyring.errors import KeyringError, NoKeyringError
        except ImportError:
            raise self._error("there is no keyring support; install backupd[keyring], or use {file: ...}") from None
        try:
            value = keyring.get_password(entry.service, entry.username)
        except NoKeyringError:
            raise self._error("there is no keyring on this machine, as on most servers; use {file: ...}") from None
        except KeyringError as error:
            raise self._error(f"the keyring cannot be used: {error}; unlock it, or use {{file: ...}}") from None
        if value is None:
            raise self._error(
                f"the keyring has nothing for {entry.service}, {entry.username}; "
                f"try: keyring set {entry.service} {entry.username}"
            )
        return str(value)

    def _text(self, raw: bytes, what: str) -> str:
        if len(raw) > LONGEST:
            raise self._error(f"{what} is longer than {LONGEST} bytes; this is no secret")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise self._error(f"{what} is not UTF-8 text; write the secret in UTF-8") from None

    def _error(self, what: str) -> ConfigError:
        return ConfigError(one_line(f"{self._where}: {what}" if self._where else what))

    def __repr__(self) -> str:
        return "Secret(...)"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def make(value: str | Reference) -> Secret:
            if not value:
                raise ValueError("the secret is empty; it needs at least one character")
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


class KeyFile(Secret):
    """A file that holds a key: as text, the path to it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = super().__get_pydantic_core_schema__(source, handler)

        def from_path(value: object) -> object:
            return {"file": value} if isinstance(value, str) else value

        return core_schema.no_info_before_validator_function(from_path, schema)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(schema["schema"]["schema"])
