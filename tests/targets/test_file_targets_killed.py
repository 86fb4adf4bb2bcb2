"""File targets that are killed, or run out of room, in the middle."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backupd.errors import StorageFull
from tests.support.file_targets import Files, restore
from tests.support.mail import message
from tests.support.restoring import mailbox, outgoing, present, read_eml, read_mbox

INBOX = mailbox(b"INBOX")
MAIL = [outgoing(message(f"m{uid}", size=3_000 * (uid % 7 + 1)), uid, (b"kept",)) for uid in range(1, 701)]

_WRITER = """
import sys
from pathlib import Path
from tests.support.file_targets import Files
from tests.targets.test_file_targets_killed import INBOX, MAIL

target = Files(sys.argv[1], Path(sys.argv[2])).open()
target.prepare(INBOX)

def messages():
    for each in MAIL:
        print(each.uid, flush=True)
        sys.stdin.read(1)
        yield each

for outcome in target.write(INBOX, messages()):
    pass
target.close()
"""


def killed_after(files: Files, messages: int) -> None:
    """Another process writes, and is killed when it has asked for so many messages."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, files.kind, str(files.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert writer.stdin
    assert writer.stdout
    for line in writer.stdout:
        if int(line) >= messages:
            break
        writer.stdin.write(b".")
        writer.stdin.flush()
    writer.kill()
    writer.wait()
    writer.stdin.close()
    writer.stdout.close()


@pytest.mark.parametrize("messages", [1, 256, 257, 300, 600])
def test_after_a_kill_nothing_is_half_there_and_the_next_run_completes(files: Files, messages: int) -> None:
    killed_after(files, messages)
    everything = Counter(present(each.body) for each in MAIL if isinstance(each.body, bytes))
    target = files.open()
    assert target.present(INBOX) <= everything
    target.close()
    target = files.open()
    restore(target, INBOX, MAIL)
    assert target.present(INBOX) == everything
    target.close()
    left = [path.name for path in files.path.parent.rglob("*") if "partial" in path.name or path.parent.name == "tmp"]
    assert left == []
    kept = {"eml": lambda: read_eml(files.path / "INBOX"), "mbox": lambda: read_mbox(files.path / "INBOX.mbox")}
    if files.kind in kept:
        assert {uid: (raw, flags) for uid, (raw, flags, _) in kept[files.kind]().items()} == {
            each.uid: (each.body, ("kept",)) for each in MAIL
        }


def test_an_mbox_cut_off_while_messages_were_added_is_mended(tmp_path: Path) -> None:
    files = Files("mbox", tmp_path)
    target = files.open()
    restore(target, INBOX, MAIL[:10])
    target.close()
    file = tmp_path / "INBOX.mbox"
    whole = file.read_bytes()
    (tmp_path / "INBOX.mbox.partial").write_text(f'{{"start": {len(whole)}, "end": {len(whole) + 9_000}}}')
    file.write_bytes(whole + b"From MAILER-DAEMON Wed Jul 17 09:44:25 1996\nSubject: half\r\n\r\nhal")
    target = files.open()
    assert target.present(INBOX).total() == 10
    restore(target, INBOX, MAIL[:11])
    target.close()
    assert file.read_bytes().startswith(whole)
    assert b"Subject: half" not in file.read_bytes()
    assert len(read_mbox(file)) == 11


def test_what_another_program_added_after_the_kill_is_not_taken_off(tmp_path: Path) -> None:
    target = Files("mbox", tmp_path).open()
    restore(target, INBOX, MAIL[:3])
    target.close()
    file = tmp_path / "INBOX.mbox"
    size = file.stat().st_size
    (tmp_path / "INBOX.mbox.partial").write_text(f'{{"start": {size // 2}, "end": {size}}}')
    target = Files("mbox", tmp_path).open()
    target.prepare(INBOX)
    assert target.present(INBOX).total() == 3
    target.close()


@contextmanager
def files_no_larger_than(octets: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (octets, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_when_there_is_no_room_what_was_written_stays_whole(files: Files) -> None:
    small, large = outgoing(message("small"), 1), outgoing(message("large", size=400_000).swapcase(), 2)
    target = files.open()
    restore(target, INBOX, [small])
    target.close()
    target = files.open()
    with files_no_larger_than(20_000), pytest.raises(StorageFull, match="no room"):
        restore(target, INBOX, [small, large])
    target.close()
    target = files.open()
    assert target.present(INBOX) == Counter([present(message("small"))])
    restore(target, INBOX, [small, large])
    assert target.present(INBOX).total() == 2
    target.close()
