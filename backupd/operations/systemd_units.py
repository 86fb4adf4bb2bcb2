"""The service's files for systemd, made to fit this machine: pure text.

The files themselves are in the project's folder systemd/ and are used as they are, but for the program's path. What
depends on the configuration - who runs it, what may be written to, which credentials there are - goes into a drop-in
beside each service, so that what is shipped and what is found out stay apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files as package_files
from pathlib import Path

import msgspec

from backupd.errors import UsageError

USER = "backupd"
UNITS = Path("/etc/systemd/system")
SERVICES = ("backupd.service", "backupd-audit.service", "backupd-audit@.service")
TIMERS = ("backupd-audit.timer", "backupd-audit@.timer")
DROP_IN = "10-backupd.conf"
SYSUSERS = Path("/etc/sysusers.d/backupd.conf")
TMPFILES = Path("/etc/tmpfiles.d/backupd.conf")
CREDENTIALS = Path("/etc/credstore")
CREDENTIALS_ENCRYPTED = Path("/etc/credstore.encrypted")

_PROGRAM = "/usr/bin/backupd"
DEFAULT_STATE = Path("/var/lib/backupd")
_PASSPHRASE = "passphrase"  # noqa: S105 - the name of the credential that the units ask for themselves
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
_MOVE = "use another folder"
_STEPS = 254
"""systemd from which on a service is restarted ever more slowly."""
_MARK = re.compile(r"# Written by `backupd systemd install`; once changed, it is left alone\. sha256:([0-9a-f]{64})\n")


class Site(msgspec.Struct, frozen=True):
    """What has to be known of a machine.

    program: the words that start backupd, the first an absolute path. user, group: who runs it. config: the
    configuration file, None for the usual one. needed: folders that must be mounted before the service starts.
    written: folders it writes to. read: files and folders it reads that may lie where services cannot look.
    credentials: those the configuration asks for. encrypted: those of them that are encrypted on the disk. version: of
    systemd, 0 when it is not known.
    """

    program: Sequence[str]
    user: str = USER
    group: str = USER
    config: Path | None = None
    needed: Sequence[Path] = ()
    written: Sequence[Path] = ()
    read: Sequence[Path] = ()
    credentials: Sequence[str] = ()
    encrypted: Sequence[str] = ()
    version: int = 0


class File(msgspec.Struct, frozen=True):
    """A file to be put in place. text: without the mark."""

    path: Path
    text: str


def files(site: Site) -> list[File]:
    """All files, in the order in which they are to be put in place: what a unit needs before the unit.

    Raises UsageError for a path that no unit file can name.
    """
    found = [File(TMPFILES, _folders(site))]
    if site.user == USER:
        found.insert(0, File(SYSUSERS, shipped("backupd.sysusers.conf")))
    for name in SERVICES:
        found.append(File(UNITS / f"{name}.d" / DROP_IN, drop_in(site, name)))
        found.append(File(UNITS / name, _started_as(shipped(name), site.program)))
    return found + [File(UNITS / name, shipped(name)) for name in TIMERS]


def shipped(name: str) -> str:
    """A file of the project's folder systemd/, which the package carries."""
    return (package_files("backupd") / "systemd" / name).read_text(encoding="utf-8")


def drop_in(site: Site, service: str) -> str:
    """What is added to a service here. Raises UsageError for a path that no unit file can name."""
    return "\n".join(_drop_in(site, service)) + "\n"


def _drop_in(site: Site, service: str) -> Iterator[str]:
    yield "# What the service needs on this machine, by the configuration of the day it was written. If its folders or"
    yield "# credentials change: backupd systemd install, systemctl restart backupd"
    hidden = [path for path in (*site.read, *site.written) if _in_a_home(path)]
    for path in hidden:
        if ":" in str(path):
            raise UsageError("a service cannot be shown a path with a colon in a home", subject=str(path), remedy=_MOVE)
    if site.needed:
        yield ""
        yield "[Unit]"
        yield f"RequiresMountsFor={_words(site.needed)}"
    yield ""
    yield "[Service]"
    if site.user != USER or site.group != USER:
        yield f"User={site.user}"
        yield f"Group={site.group}"
    if site.config:
        yield f"Environment={quoted(f'BACKUPD_CONFIG={site.config}')}"
    # "-": a folder that is not there is no reason not to start; backupd says better than systemd what is missing.
    written = [path for path in site.written if path != DEFAULT_STATE and path not in hidden]
    if written:
        yield f"ReadWritePaths={_words(written, '-')}"
    if hidden:
        yield "# Of people's homes the service sees what it needs, and nothing else."
        yield "ProtectHome=tmpfs"
        for path in _topmost([path for path in site.read if path in hidden]):
            yield f"BindReadOnlyPaths={_words([path], '-')}"
        for path in _topmost([path for path in site.written if path in hidden]):
            yield f"BindPaths={_words([path], '-')}"
    for name in site.credentials:
        if name in site.encrypted:
            yield f"LoadCredentialEncrypted={name}:backupd.{name}"
        elif name != _PASSPHRASE:
            yield f"LoadCredential={name}:backupd.{name}"
    if site.version >= _STEPS and service == SERVICES[0]:
        yield "RestartSteps=6"
        yield "RestartMaxDelaySec=10min"


def quoted(word: str, *, variables: bool = False) -> str:
    """A word as systemd reads it again: quoted where it must be, "%" doubled. variables: "$" is doubled, too, as
    command lines want it."""
    word = word.replace("%", "%%")
    if variables:
        word = word.replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word, re.ASCII):
        return word
    escaped = "".join(_escaped(char) for char in word)
    return f'"{escaped}"'


def marked(text: str) -> str:
    """The text with a first line by which one can tell later whether somebody has changed it."""
    return f"# Written by `backupd systemd install`; once changed, it is left alone. sha256:{_hash(text)}\n{text}"


def body(text: str) -> str:
    """The text without the mark, if it has one."""
    match = _MARK.match(text)
    return text[match.end() :] if match else text


def untouched(text: str) -> bool:
    """Whether this is as `marked` made it, of whatever version."""
    match = _MARK.match(text)
    return match is not None and _hash(text[match.end() :]) == match[1]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _started_as(unit: str, program: Sequence[str]) -> str:
    first, *others = program
    if set(first) & set("\"'\\") or not first.isprintable():
        raise UsageError("systemd starts no program with such a path", subject=first, remedy=_MOVE)
    words = " ".join([quoted(first), *(quoted(word, variables=True) for word in others)])
    return re.sub(rf"(?m)^(Exec\w+=){_PROGRAM}\b", lambda match: match[1] + words, unit)


def _folders(site: Site) -> str:
    return shipped("backupd.tmpfiles.conf").replace(f" {USER} {USER}\n", f" {site.user} {site.group}\n")


def _words(paths: Sequence[Path], before: str = "") -> str:
    return " ".join(quoted(f"{before}{path}") for path in paths)


def _in_a_home(path: Path) -> bool:
    return any(path.is_relative_to(home) for home in _HOMES)


def _topmost(paths: Sequence[Path]) -> list[Path]:
    """Without those that are in another one of them."""
    return [path for path in dict.fromkeys(paths) if not any(other in path.parents for other in paths)]


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\x{octet:02x}" for octet in char.encode("utf-8", "surrogateescape"))
