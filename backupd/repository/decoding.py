"""What decoding bytes that are not ours can raise: all of it is damage, and told as that."""

from __future__ import annotations

import msgspec

UNDECODABLE = (msgspec.DecodeError, ValueError, OverflowError, RecursionError, MemoryError)
"""DecodeError: malformed or of the wrong type. ValueError: text that is not UTF-8, or a value that cannot be.
RecursionError: nested too deeply. OverflowError and MemoryError: a number or a length that is absurd."""
