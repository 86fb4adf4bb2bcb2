"""The section about the daemon's health: where it can be asked over HTTP how it is."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from backupd.config.sections import Section, file_path, wrong

_TCP = re.compile(r"(?:(?P<host>[A-Za-z0-9.-]+)|\[(?P<six>[0-9A-Fa-f:.]+)\]):(?P<port>\d{1,5})")
_UNIX = "unix:"
HOST_NAME = r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$"


class Listen(NamedTuple):
    """Where to listen: an address and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        return ipaddress.ip_address(self.host).is_loopback


def _listen(value: object, info: ValidationInfo) -> Listen:
    if not isinstance(value, str):
        raise ValueError('not a place to listen; write "127.0.0.1:9847" or unix:/run/backupd/health.sock')
    if value.startswith(_UNIX):
        return Listen(path=file_path(value.removeprefix(_UNIX), info))
    match = _TCP.fullmatch(value)
    host = (match["host"] or match["six"]) if match else ""
    if not match or not 0 < int(match["port"]) < 65536 or not _is_address(host):
        raise ValueError('not an address and port; write "127.0.0.1:9847", "[::1]:9847" or unix:/path')
    return Listen(host, int(match["port"]))


def _is_address(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Health(Section):
    """Where the daemon can be asked over HTTP how it is: /healthz, /readyz, /metrics and /status."""

    listen: Annotated[Listen | None, PlainValidator(_listen, json_schema_input_type=str)] = None
    """Address and port, such as "127.0.0.1:9847", or unix:/run/backupd/health.sock; nowhere by default."""
    allow_remote: bool = False
    """Let other machines ask, too: they learn the names of accounts, and what fails."""
    hosts: tuple[Annotated[str, Field(pattern=HOST_NAME)], ...] = Field(default=(), strict=False)
    """Names under which the address is asked for, beside localhost and plain addresses; others are refused."""

    @model_validator(mode="after")
    def _not_for_everybody(self) -> Health:
        if self.listen is not None and not self.listen.is_local and not self.allow_remote:
            raise wrong(
                "listen", "other machines can reach this address; take 127.0.0.1, or add allow_remote: true beside it"
            )
        return self
