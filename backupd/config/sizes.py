"""Numbers of octets, as people write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_SIZE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)\Z", re.ASCII)
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(kbit|Mbit|Gbit)\Z", re.ASCII)
_BITS = {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
_UNITS = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SLOWEST = 8_000
_UNITS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def size(value: object) -> int:
    """Octets: 500kB, 10MB or 1.5GiB. Raises ValueError for anything else, and for nothing at all."""
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a size; write a number and kB, MB, GB or MiB, such as 10MB")
    octets = int(float(match[1]) * _UNITS[match[2]])
    if not octets:
        raise ValueError("not a useful size; write more than nothing")
    return octets


def rate(value: object) -> int:
    """Octets a second: 10MB, 10 MB/s or 80Mbit. Raises ValueError."""
    text = value.strip().removesuffix("/s").rstrip() if isinstance(value, str) else value
    match = _RATE.match(text) if isinstance(text, str) else None
    try:
        octets = int(float(match[1]) * _BITS[match[2]] / 8) if match else size(text)
    except ValueError:
        octets = 0
    if octets < _SLOWEST:
        raise ValueError("not a bandwidth; write at least 8kB, or a number and MB or Mbit a second, such as 10MB")
    return octets


def limit(value: object) -> int:
    """As `size`; "none" is 0. Raises ValueError."""
    return 0 if value == "none" else size(value)


Size = Annotated[
    int,
    BeforeValidator(
        size, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+(\.\d+)? *([kKMGT]i?)?B$")]
    ),
]
"""Octets."""
Rate = Annotated[
    int,
    BeforeValidator(
        rate, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+(\.\d+)? *(([kMGT]i?)?B|[kMG]bit)(/s)?$")]
    ),
]
"""Octets a second."""
Limit = Annotated[
    int,
    BeforeValidator(
        limit, json_schema_input_type=Annotated[str, Field(pattern=r"^(none|\d+(\.\d+)? *([kMGT]i?)?B)$")]
    ),
]
"""Octets; 0 for no limit."""
