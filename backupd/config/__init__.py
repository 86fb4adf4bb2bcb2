"""What the user wants: the configuration file, typed and checked, and the secrets it refers to.

Importing this costs nothing; what reads YAML and checks types is imported when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backupd.config.model import AccountConfig as AccountConfig
    from backupd.config.model import Config as Config
    from backupd.config.secrets import Secret as Secret

DEFAULT = Path("/etc/backupd/config.yaml")


def config_path(given: Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The file that is read: the one given, else $BACKUPD_CONFIG, else /etc/backupd/config.yaml."""
    named = (os.environ if environ is None else environ).get("BACKUPD_CONFIG")
    return given or (Path(named) if named else DEFAULT)


def load(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Read the configuration. Raises ConfigError: one line with file, line, key, what is wrong and what is right."""
    from backupd.config.reading import read

    return read(config_path(path, environ), os.environ if environ is None else environ)


def secret_files(config: Config) -> list[Path]:
    """The files with secrets that the configuration refers to."""
    return [secret.path for _, secret in config.secrets() if secret.path]


def check_secrets(config: Config) -> None:
    """Fetch every secret once. Raises ConfigError for the first that cannot be had."""
    for _, secret in config.secrets():
        secret.resolve()


def schema() -> dict[str, Any]:
    """The JSON Schema of the configuration file."""
    from backupd.config.model import Config

    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
