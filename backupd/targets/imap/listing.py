"""What an account to restore to has already: its namespace (RFC 2342) and its mailboxes with their special uses."""

from __future__ import annotations

from backupd.targets.imap.names import Listed, Namespace
from backupd.wire.imap_connection import Answer, ImapConnection
from backupd.wire.imap_parser import Value

_NOT_SELECTABLE = frozenset({b"\\noselect", b"\\nonexistent"})


def list_account(connection: ImapConnection) -> tuple[list[Listed], Namespace]:
    """All mailboxes, and where new ones go; one round trip. Raises ServerRefused when LIST is refused."""
    asked = connection.send(b"NAMESPACE") if connection.has(b"NAMESPACE") else None
    root = connection.send(b'LIST "" ""')
    uses = b" RETURN (SPECIAL-USE)" if connection.has(b"LIST-EXTENDED", b"SPECIAL-USE") else b""
    every = connection.send(b'LIST "" "*"' + uses)
    namespace = _namespace(connection.wait(asked)) if asked else None
    delimiters = connection.wait(root)
    answer = connection.wait(every)
    if uses and answer.status.kind != b"OK":
        answer = connection.wait(connection.send(b'LIST "" "*"'))
    connection.check(answer.status, [b"LIST"])
    listed = [one for values in (each.values for each in answer.of(b"LIST")) if (one := _listed(values))]
    if namespace is None:
        namespace = Namespace((), _delimiter(delimiters) or _delimiter(answer))
    return listed, namespace


def _namespace(answer: Answer) -> Namespace | None:
    """The first personal namespace, the only one that is sure to be ours."""
    for one in answer.of(b"NAMESPACE"):
        personal = one.values[0] if one.values else None
        first = personal[0] if isinstance(personal, list) and personal else None
        if isinstance(first, list) and len(first) >= 2:
            prefix, delimiter = first[0], first[1]
            separator = delimiter if isinstance(delimiter, bytes) and delimiter else None
            text = prefix if isinstance(prefix, bytes) else b""
            levels = text.split(separator) if separator else [text]
            return Namespace(tuple(level for level in levels if level), separator)
    return None


def _listed(values: list[Value]) -> Listed | None:
    if len(values) < 3 or not isinstance(values[0], list):
        return None
    name = values[2]
    words = {word.lower() for word in values[0] if isinstance(word, bytes)}
    if name is not None and not isinstance(name, bytes):
        return None
    return Listed(b"NIL" if name is None else name, not words & _NOT_SELECTABLE, frozenset(words))


def _delimiter(answer: Answer) -> bytes | None:
    for one in answer.of(b"LIST"):
        if len(one.values) >= 2 and isinstance(one.values[1], bytes) and one.values[1]:
            return one.values[1]
    return None
