"""What must hold for any bytes and any names."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from hypothesis import given, strategies

from backupd.mail.headers import header_of
from backupd.model import Mailbox
from backupd.targets import maildir, mbox_format
from backupd.targets.eml import reserved
from backupd.targets.imap import line_ends
from backupd.targets.imap.names import NameMap, Namespace
from backupd.targets.paths import Places, component_beside
from tests.support.mail import messages
from tests.support.restoring import DATE, mailbox, messages_of_mbox

LINES = strategies.lists(
    strategies.sampled_from(
        [b"From ", b">", b"F", b"rom ", b"\n", b"\r", b"\r\n", b"From me\n", b">>From \r\n", b"x", b"\0"]
    ),
    max_size=30,
).map(b"".join)
BODIES = LINES | messages()
CUTS = strategies.lists(strategies.integers(1, 9), max_size=20)
ODD_LEVELS = [
    b"..",
    b".",
    b"cur",
    b"Cur",
    b"INBOX",
    b"a",
    b"A",
    b"%41",
    b"&AGE-",
    b"x.eml",
    b"~",
    b"dovecot.x",
    b"",
    b"b/c",
]
LEVELS = (
    strategies.binary(max_size=12)
    | strategies.text(max_size=8).map(lambda text: text.encode("utf-8", "replace"))
    | strategies.sampled_from(ODD_LEVELS)
)


def pieces(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    for cut in cuts:
        yield raw[:cut]
        raw = raw[cut:]
    yield raw


@given(strategies.lists(BODIES, max_size=5), CUTS)
def test_mbox_gives_every_octet_back(raws: list[bytes], cuts: list[int]) -> None:
    content = b""
    for raw in raws:
        final = raw.endswith(b"\n")
        line, closing = mbox_format.around(DATE, final_newline=final)
        content += line + b"".join(mbox_format.quoted(pieces(raw, cuts))) + closing
    assert messages_of_mbox(content) == raws
    regions = list(mbox_format.regions(io.BytesIO(content)))
    assert [(each.header, each.size) for each in regions] == [(header_of(raw), len(raw)) for raw in raws]
    assert [each.start for each in regions[1:]] == [each.end for each in regions[:-1]]


@given(BODIES, CUTS)
def test_line_ends_are_judged_alike_however_a_message_is_cut(raw: bytes, cuts: list[int]) -> None:
    odd = bool(re.search(rb"(?<!\r)\n|\r(?!\n)|\0", raw))
    assert line_ends.examine(pieces(raw, cuts)) == (b"\0" in raw, odd)
    stored = b"".join(line_ends.stored(pieces(raw, cuts)))
    assert stored == b"".join(line_ends.stored([raw]))
    lines = re.sub(rb"\r?\r\n|\n", b"\r\n", raw)
    assert stored == re.sub(rb"\r\Z", b"", lines).replace(b"\0", b"\x80")
    assert odd or stored == raw


@given(strategies.lists(strategies.lists(LEVELS, min_size=1, max_size=3), max_size=8))
def test_no_two_mailboxes_share_a_folder_and_none_is_outside(names: list[list[bytes]]) -> None:
    boxes = {b"/".join(levels).upper() == b"INBOX" or b"/".join(levels): mailbox(b"/".join(levels)) for levels in names}
    for places in (
        Places("", component_beside(reserved), lambda parent: []),
        Places("", maildir.component, lambda parent: [], fold=False),
    ):
        found = [places.parts(box) for box in boxes.values()]
        assert len(set(found)) == len(found)
        for parts in found:
            assert all(0 < len(part.encode()) <= 240 and part not in (".", "..") for part in parts)
            assert not any("/" in part or "\0" in part or "\n" in part for part in parts)
            assert not PurePosixPath(*parts).is_absolute()


@given(
    strategies.lists(LEVELS, min_size=1, max_size=3),
    strategies.sampled_from([b"/", b".", None]),
    strategies.sampled_from([b"/", b".", None]),
    strategies.sampled_from([(), (b"INBOX",)]),
)
def test_every_name_can_be_written_in_a_command(
    levels: list[bytes], delimiter: bytes | None, other: bytes | None, prefix: tuple[bytes, ...]
) -> None:
    box = Mailbox((delimiter or b"|").join(levels), "", delimiter)
    for name in NameMap([], Namespace(prefix, other), "").candidates(box):
        assert re.fullmatch(rb"[\x20-\x7e]+", name)
        if other:
            assert all(name.split(other))
