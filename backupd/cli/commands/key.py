"""`backupd key list|add|remove|rotate|export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column

_FORGOTTEN = "keep it safe, and change repository.passphrase or repository.key_file where the old one was configured"


def list_command(*, context: Here) -> int:
    """List the key slots; needs no key."""
    from backupd.operations import key_slots

    lines = key_slots.slot_lines(context.storage())
    if context.json:
        output.document(lines)
        return 0
    output.table(
        [Column("NAME", shrink=True), Column("ROLE"), Column("OPENED BY"), Column("CREATED")],
        [
            (
                line.label,
                line.role,
                line.opened_by,
                "cannot be read" if line.damaged else output.local_time(line.created),
            )
            for line in lines
        ],
        ["red" if line.damaged else "" for line in lines],
    )
    return 0


def add_command(
    name: str,
    /,
    *,
    role: Literal["reader", "writer"],
    key_file: Path | None = None,
    passphrase_file: Path | None = None,
    context: Here,
) -> int:
    """Add a key slot, opened by a new key file or by a passphrase (asked for, unless it is in a file).

    Parameters
    ----------
    name
        The slot's name: a-z 0-9 . _ -
    role
        reader: may do everything. writer: may back up, and cannot read stored mail.
    key_file
        Make a new key file here; only its owner can read it.
    passphrase_file
        Take the passphrase from this file.
    """
    from backupd.operations import key_slots
    from backupd.repository.keys import Role

    with context.repository() as repository:
        # Before a key file is made or anybody is asked: may this key do it at all?
        repository.secrets.for_role(Role(role))
        key_slots.check_free(repository, name)
        secret = _secret(key_file, passphrase_file)
        key_slots.add(repository, name, Role(role), secret)
    use = f"; where it is to be used, write repository.key_file: {key_file}" if key_file else ""
    _done(context, f"key slot {name} of the {role} role is there{use}", name, key_file)
    return 0


def remove_command(name: str, /, *, context: Here) -> int:
    """Remove a key slot: what opened it opens nothing any more.

    Parameters
    ----------
    name
        The slot's name, as `backupd key list` shows it.
    """
    from backupd.operations import key_slots

    with context.repository() as repository:
        key_slots.remove(repository, name)
    _done(context, f"key slot {name} is gone", name, None)
    return 0


def rotate_command(
    name: str,
    /,
    *,
    key_file: Path | None = None,
    passphrase_file: Path | None = None,
    context: Here,
) -> int:
    """Give a key slot another key file or passphrase (asked for, unless it is in a file); the old one opens it no more.

    Parameters
    ----------
    name
        The slot's name, as `backupd key list` shows it.
    key_file
        Make a new key file here; only its owner can read it.
    passphrase_file
        Take the new passphrase from this file.
    """
    from backupd.operations import key_slots

    with context.repository() as repository:
        key_slots.check_rotation(repository, name)
        key_slots.rotate(repository, name, _secret(key_file, passphrase_file))
    _done(context, f"key slot {name} has another secret now; {_FORGOTTEN}", name, key_file)
    return 0


def export_command(
    file: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    role: Literal["reader", "writer"] | None = None,
    context: Here,
) -> int:
    """Write the secrets themselves, to be kept offline: they open the repository without any slot.

    Parameters
    ----------
    file
        A new file, which only its owner can read; - is standard output.
    role
        What whoever has it may do; else what the configured key may.
    """
    from backupd.errors import UsageError
    from backupd.operations import key_slots
    from backupd.repository.keys import Role

    if file.startswith("-") and file != "-":
        raise UsageError("unknown option", subject=file, remedy="for a file of this name write ./ before it")
    if file == "-" and context.json:
        raise UsageError("standard output cannot take both the key and --json", remedy="name a file")
    with context.repository() as repository:
        text = key_slots.export(repository, Role(role) if role else None)
        readable = role != "writer" and repository.secrets.role is Role.READER
    if file == "-":
        sys.stdout.write(text)
        return 0
    key_slots.write_secret(Path(file), text)
    power = "read all mail in the repository" if readable else "write to the repository, and read no mail"
    _done(context, f"{file} is written; whoever has it can {power}", "", Path(file))
    return 0


def _done(context: Context, text: str, slot: str, file: Path | None) -> None:
    if context.json:
        output.document({"slot": slot or None, "file": str(file) if file else None, "done": text})
    context.say(text)


def _secret(key_file: Path | None, passphrase_file: Path | None) -> str:
    from backupd.errors import UsageError
    from backupd.operations import key_slots

    if key_file and passphrase_file:
        raise UsageError("a slot has either a key file or a passphrase", remedy="give one of the two")
    if key_file:
        return key_slots.new_key_file(key_file)
    if passphrase_file:
        return key_slots.read_passphrase(passphrase_file)
    return _ask()


def _ask() -> str:
    from getpass import getpass

    from backupd.errors import UsageError

    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for a passphrase on", remedy="give --passphrase-file or --key-file"
        )
    passphrase = getpass("New passphrase: ", stream=sys.stderr)
    if getpass("Once more: ", stream=sys.stderr) != passphrase:
        raise UsageError("the two are not the same", remedy="try again")
    return passphrase
