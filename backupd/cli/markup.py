"""HTML in which text cannot become markup: every text that is put into an element is escaped, and only elements are
not.

Subjects of mail, names of mailboxes and what servers say are written by strangers. A template would have to escape each
of them; here there is no way around it. """

from __future__ import annotations

import re
from html import escape

from backupd.cli.output import clean

_VOID = frozenset({"br", "col", "meta", "hr"})
_RAW = frozenset({"style"})
_NAME = re.compile(r"[a-z][a-z0-9-]*\Z")


class Markup(str):
    """HTML that is ready; made by `element` and `joined` alone."""

    __slots__ = ()


def element(name: str, /, *content: str | Markup, **attributes: str) -> Markup:
    """<name attributes>content</name>. Attributes are named as in Python: `class_`, `http_equiv`."""
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of an element")
    said = "".join(f' {_attribute(key)}="{escape(clean(value))}"' for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{said}>")
    inner = "".join(content) if name in _RAW else joined(*content)
    return Markup(f"<{name}{said}>{inner}</{name}>")


def joined(*content: str | Markup) -> Markup:
    """Elements and texts, one after another."""
    return Markup("".join(each if isinstance(each, Markup) else escape(clean(each)) for each in content))


def _attribute(key: str) -> str:
    name = key.rstrip("_").replace("_", "-")
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name of an attribute")
    return name
