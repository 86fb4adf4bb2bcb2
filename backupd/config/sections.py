"""What all sections of the configuration are made of: strict, frozen, and with errors that name the key."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo
from pydantic_core import PydanticCustomError

from backupd.config.secrets import below

_BUCKET = re.compile(r"s3://[A-Za-z0-9][A-Za-z0-9._-]{1,254}(?:/(?!\.{1,2}(?:/|\Z))[ -.0-~]+)*/?\Z")
"""A prefix is printable ASCII, without "." and ".." that a server would resolve."""


def _folder(info: ValidationInfo) -> Path:
    """The configuration's folder, from which relative paths are relative."""
    return info.context["folder"] if info.context else Path()


def file_path(value: object, info: ValidationInfo) -> Path:
    """A path, from the configuration's folder if relative. Raises ValueError."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ValueError("not a path; write one in quotes")
    return below(_folder(info), value)


def _address(value: str, info: ValidationInfo) -> str:
    parts = urlsplit(value)
    if not value.isprintable():
        raise ValueError("not an address; write a path, or s3://bucket/prefix")
    if parts.scheme == "file":
        return value
    if "://" not in value:
        return str(below(_folder(info), value))
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError("an address of no known kind; write a path, or s3://bucket/prefix")
    if not _BUCKET.match(value):
        raise ValueError("not the address of a bucket; write s3://bucket/prefix, and keys below s3")
    return value


def wrong(key: str, what: str) -> PydanticCustomError:
    """An error of a whole section that is best mended at one of its keys."""
    return PydanticCustomError("at_key", "{what}", {"key": key, "what": what})


FilePath = Annotated[Path, BeforeValidator(file_path, json_schema_input_type=str)]
AccountName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
"""Names of accounts become names of files."""
Address = Annotated[str, Field(min_length=1), AfterValidator(_address)]


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True, use_attribute_docstrings=True
    )


def _whole_seconds(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


Seconds = Annotated[float, Field(gt=0, le=3600), BeforeValidator(_whole_seconds)]


def is_address(host: str) -> bool:
    """Whether it is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether it is this machine, by any name that cannot be another's."""
    return host.lower() == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)
