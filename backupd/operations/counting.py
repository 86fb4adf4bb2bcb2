"""Numbers of things in sentences, the same in all that is said."""

from __future__ import annotations


def count(number: int, noun: str, plural: str = "") -> str:
    """'1 message', '2,345 messages'."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
