"""Gmail by Google Takeout: mbox files in which each message names its labels.

A label is a mailbox, so a message with several labels is in several; archived mail without any is in Archive. What a
label says of the message's state becomes flags. The two fields that Takeout puts before the header are taken out, and
the message is the one that IMAP gives.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

from backupd.mail.flags import normalise
from backupd.mail.headers import readable
from backupd.model import Mailbox
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.files import Folder, Parts, reason, shown
from backupd.sources.local.folder_tree import folders, holds
from backupd.sources.local.mbox import Cleaned, is_mbox, messages_of
from backupd.sources.local.naming import mailbox

_SUFFIX = ".mbox"
_START = 64 << 10
_OWN = re.compile(rb"(?:(?:X-GM-THRID|X-Gmail-Labels):[^\n]*(?:\n[ \t][^\n]*)*\n)+", re.IGNORECASE)
_LABELS = re.compile(rb"^X-Gmail-Labels:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)
_LABEL = re.compile(r'"((?:[^"\\]|\\.)*)"|([^,]+)')


def _words(text: str) -> frozenset[str]:
    return frozenset(text.casefold().split("|"))


_PLACES = (
    (_words("inbox|posteingang|boîte de réception|recibidos|posta in arrivo|postvak in|inkorgen"), "INBOX", b""),
    (_words("sent|gesendet|messages envoyés|envoyés|enviados|inviati|verzonden|skickat"), "Sent", b"\\Sent"),
    (_words("drafts|draft|entwürfe|brouillons|borradores|bozze|concepten|utkast|rascunhos"), "Drafts", b"\\Drafts"),
    (_words("spam|junk|indésirables|correo no deseado|ongewenst|skräppost"), "Junk", b"\\Junk"),
    (_words("trash|papierkorb|corbeille|papelera|cestino|prullenbak|papperskorgen|lixeira"), "Trash", b"\\Trash"),
)  # fmt: skip
_UNREAD = _words("unread|ungelesen|non lus|no leídos|da leggere|ongelezen|oläst|não lidas")
_STARRED = _words("starred|markiert|suivis|destacados|speciali|met ster|stjärnmärkt|com estrela")
_IMPORTANT = _words("important|wichtig|importants|importantes|importanti|belangrijk|viktigt")
_NO_PLACE = _words(
    "archived|archiviert|archivés|archivados|archiviati|gearchiveerd|arkiverad|opened|geöffnet|ouverts|abiertos|"
    "aperti|geopend|öppnad|all mail|alle nachrichten|tous les messages|todos"
)
_CATEGORY = re.compile(r"(?:category|kategorie|catégorie|categoría|categoria|categorie|kategori)\b", re.IGNORECASE)


def labels_of(header: bytes) -> list[str]:
    """The labels that a header names, as people wrote them."""
    found = _LABELS.search(header)
    if found is None:
        return []
    text = readable(re.sub(rb"\r?\n[ \t]+", b" ", found[1]).strip())
    return [(quoted or plain).strip() for quoted, plain in _LABEL.findall(text) if (quoted or plain).strip()]


def boxes_of(header: bytes) -> tuple[Mailbox, ...]:
    """The mailboxes that a message is in."""
    boxes: dict[bytes, Mailbox] = {}
    for label in labels_of(header):
        folded = label.casefold()
        if folded in _UNREAD | _STARRED | _IMPORTANT | _NO_PLACE or _CATEGORY.match(label):
            continue
        place = next(((name, use) for words, name, use in _PLACES if folded in words), None)
        box = mailbox([place[0]], special_use=place[1]) if place else mailbox(label.split("/"), special_use=b"")
        boxes[box.raw_name] = box
    return tuple(boxes.values()) or (mailbox(["Archive"], special_use=b"\\Archive"),)


def clean(header: bytes) -> Cleaned:
    """Takes Takeout's own fields from the top of a header."""
    folded = {label.casefold() for label in labels_of(header)}
    flags = [] if folded & _UNREAD else [b"\\Seen"]
    flags += [b"\\Flagged"] if folded & _STARRED else []
    flags += [b"$Important"] if folded & _IMPORTANT else []
    flags += [b"\\Draft"] if folded & _PLACES[2][0] else []
    own = _OWN.match(header)
    return Cleaned(header[own.end() :] if own else header, normalise(flags))


def _tell_only(header: bytes) -> Cleaned:
    return clean(header)._replace(header=header)


def _is_takeout(path: Path) -> bool:
    if not is_mbox(path):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_START)
    except OSError:
        return False
    _, _, rest = start.partition(b"\n")
    return bool(_LABELS.search(rest.partition(b"\n\n")[0] or rest.partition(b"\r\n\r\n")[0]))


def _wanted(name: str) -> bool:
    return name.lower().endswith(_SUFFIX) and not name.startswith(".")


class TakeoutFormat:
    """A file of Takeout, or a folder with some."""

    name = "takeout"

    def recognises(self, path: Path) -> bool:
        """Whether the first message of a file names its labels."""
        try:
            if path.is_file():
                return _is_takeout(path)
            if not holds(path, _wanted):
                return False
            return any(_is_takeout(each) for each in sorted(path.rglob(f"*{_SUFFIX}"))[:3])
        except OSError:
            return False

    def open(self, path: Path, *, exact: bool) -> TakeoutStore:
        """The store at this path."""
        return TakeoutStore(path, exact=exact)


class TakeoutStore:
    """Files of Takeout below a folder, or one of them."""

    kind = "Google Takeout"

    def __init__(self, path: Path, *, exact: bool) -> None:
        self._one = path.name if path.is_file() else None
        self._root = path.parent if self._one else path
        self._exact = exact

    @functools.cached_property
    def _found(self) -> tuple[list[tuple[Parts, str]], list[LocalProblem]]:
        if self._one is not None:
            return [((), self._one)], []
        found, problems = folders(self._root, _wanted)
        files = [
            (one.parts, each.name)
            for one in found
            for each in sorted(self._root.joinpath(*one.parts).iterdir())
            if _wanted(each.name) and each.is_file() and not each.is_symlink()
        ]
        return files, problems

    @property
    def octets(self) -> int:
        """What the files have."""
        return sum(self._root.joinpath(*parts, name).stat().st_size for parts, name in self._found[0])

    def mailboxes(self) -> list[Mailbox]:
        """None is known before the messages are read."""
        return []

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, file by file."""
        yield from self._found[1]
        archive = mailbox(["Archive"], special_use=b"\\Archive")
        for parts, name in self._found[0]:
            place = shown("/".join([str(self._root), *parts, name]))
            try:
                with Folder.root(self._root) as root, root.descend(parts) as folder:
                    file = folder.open(name)
            except OSError as error:
                yield LocalProblem(None, place, reason(error))
                continue
            if file.size:
                cleaner = _tell_only if self._exact else clean
                yield from messages_of(file, archive, place, exact=self._exact, clean=cleaner, boxes_of=boxes_of)


FORMAT = TakeoutFormat()
