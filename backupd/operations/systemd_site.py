"""What the service needs on this machine: from the configuration and the program's place to a `Site`, and to what an
administrator has still to do before it can run.

Nothing is changed here. Rights are asked of the system as the service's user, by `Access`: modes, groups, access lists
and the folders above all count, and only the kernel knows them all.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec
from pydantic import BaseModel

from backupd.config import DEFAULT
from backupd.config.model import Config
from backupd.operations import systemd_units as units
from backupd.operations.systemd_units import Site
from backupd.storage.local import LocalStorage
from backupd.storage.opening import open_storage

_PROBE_SECONDS = 30
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - PrivateTmp=


class Step(msgspec.Struct, frozen=True):
    """What is left to do. why: a sentence without its full stop. command: what to type; "" where it is no command."""

    why: str
    command: str = ""


class Access(Protocol):
    """What the service's user may do."""

    def may(self, what: Literal["r", "w", "x"], path: Path) -> bool:
        """Read or list it; write to it; run it, or go through it."""

    def runs(self, program: Sequence[str]) -> bool:
        """Whether the program runs at all."""


class UserAccess:
    """Access of a user of this machine, by trying. Needs root."""

    def __init__(self, uid: int, gid: int, groups: Sequence[int]) -> None:
        self._uid, self._gid, self._groups = uid, gid, groups

    def may(self, what: Literal["r", "w", "x"], path: Path) -> bool:
        return self._succeeds(["test", f"-{what}", str(path)])

    def runs(self, program: Sequence[str]) -> bool:
        return self._succeeds([*program, "--version"])

    def _succeeds(self, command: Sequence[str]) -> bool:
        try:
            done = subprocess.run(
                command, cwd="/", env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdin=subprocess.DEVNULL,
                capture_output=True, timeout=_PROBE_SECONDS, check=False,
                user=self._uid, group=self._gid, extra_groups=list(self._groups),
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):  # not to be run, or not to an end: that is the answer
            return False
        return done.returncode == 0


def site(
    config: Config | None,
    program: Sequence[str],
    *,
    user: str = units.USER,
    group: str = units.USER,
    path: Path = DEFAULT,
    code: Sequence[Path] = (),
    encrypted: Sequence[str] = (),
    version: int = 0,
) -> Site:
    """What the files are made from. config: None where there is none yet; path: where it is, or will be. code: folders
    that the program is in. encrypted: names of files in
    /etc/credstore.encrypted."""
    written = _written(config) if config else []
    secrets = [secret for _, secret in config.secrets()] if config else []
    names = sorted({secret.credential for secret in secrets if secret.credential})
    read = [*code, path.parent, *_files(config), *(secret.path for secret in secrets if secret.path)]
    return Site(
        program=program, user=user, group=group,
        config=None if path == DEFAULT else path,
        needed=_needed(config) if config else [],
        written=written,
        read=[each for each in dict.fromkeys(read) if each not in written],
        credentials=names,
        encrypted=[name for name in names if f"backupd.{name}" in encrypted],
        version=version,
    )  # fmt: skip


def folder(url: str) -> Path | None:
    """The folder of a repository that is in one."""
    if urlsplit(url).scheme == "s3":
        return None
    storage = open_storage(url)
    return Path(storage.url) if isinstance(storage, LocalStorage) else None


def _folders(config: Config) -> list[Path]:
    """The folders of the repository and of its copies, those that are in one."""
    urls = [config.repository.url, *(copy.url for copy in config.copies)]
    return [found for url in urls if (found := folder(url))]


def _written(config: Config) -> list[Path]:
    return list(dict.fromkeys([config.state_dir, *_folders(config)]))


def _needed(config: Config) -> list[Path]:
    """Copies are not among them: a disk that is in a drawer keeps no backup from being made."""
    here = folder(config.repository.url)
    return [config.state_dir, *([here] if here else [])]


def _files(value: object) -> Iterator[Path]:
    """All paths in the configuration, such as ca_file."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _files(getattr(value, name))
    elif isinstance(value, dict | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _files(each)


# -- what is left to do ------------------------------------------------------------------------------------------------


def steps(config: Config | None, place: Site, access: Access, *, path: Path, running: bool, root: Path) -> list[Step]:
    """What is left to do, in the order in which to do it. running: the service runs already. root: "/"."""
    found = list(_program(place, access))
    if config is None:
        again = "run `backupd systemd install` again: the service writes only to the folders the configuration names"
        return [*found, Step(f"write {path} (config.example.yaml has every key), then {again}")]
    found += _reading(config, place, access, path)
    found += _credentials(place, root)
    found += _writing(config, place, access)
    if running:
        return [*found, Step("the service runs as it was before", "systemctl restart backupd")]
    found.append(Step("start the service, now and with the machine", "systemctl enable --now backupd"))
    return [*found, Step("and, if you like, an audit every day", "systemctl enable --now backupd-audit.timer")]


def _program(place: Site, access: Access) -> Iterator[Step]:
    if not access.runs(place.program):
        yield Step(
            f"{place.user} may not run {place.program[0]}: install backupd where everybody may go, and do this again",
            "python3 -m venv /opt/backupd && /opt/backupd/bin/pip install .",
        )


def _reading(config: Config, place: Site, access: Access, path: Path) -> Iterator[Step]:
    closed = next((each for each in reversed(path.parents) if not access.may("x", each)), None)
    if closed:
        yield Step(f"{place.user} may not go through {closed}", _for_group(place, closed, "x"))
    elif not access.may("r", path):
        yield Step(f"{place.user} may not read {path}", _for_group(place, path, "r"))
    for _, secret in config.secrets():
        if secret.path and not access.may("r", secret.path) and not closed:
            yield Step(f"{place.user} may not read {secret.path}", f"chown {place.user} {_q(secret.path)}")


def _for_group(place: Site, path: Path, right: str) -> str:
    return f"chgrp {place.group} {_q(path)} && chmod g+{right} {_q(path)}"


def _credentials(place: Site, root: Path) -> Iterator[Step]:
    for name in place.credentials:
        file = units.CREDENTIALS / f"backupd.{name}"
        if name not in place.encrypted and not (root / file.relative_to("/")).exists():
            yield Step(
                f"the credential {name} is not there; type or paste it, then Ctrl-D",
                f"install -m 600 /dev/stdin {_q(file)}",
            )


def _writing(config: Config, place: Site, access: Access) -> Iterator[Step]:
    own = f"{place.user}:{place.group}"
    for each in _written(config):
        if any(each.is_relative_to(folder) for folder in _PRIVATE):
            yield Step(f"{each} is where the service sees folders of its own alone: use another folder")
        if each == units.DEFAULT_STATE:
            continue  # StateDirectory= sees to it
        if not each.exists():
            why = f"{each} is not there"
            yield Step(why, f"install -d -m 700 -o {place.user} -g {place.group} {_q(each)}")
        elif not (access.may("w", each) and access.may("x", each)):
            yield Step(f"{place.user} may not write to {each}", f"chown -R {own} {_q(each)}")
    here = folder(config.repository.url)
    if here and not (here / "repository.json").exists():
        yield Step("there is no repository yet", as_service(place, "init"))


def as_service(place: Site, *words: str) -> str:
    """What to type to have a command done by the service's user, with the service's credentials if it needs any."""
    words = (*place.program, *(["--config", str(place.config)] if place.config else []), *words)
    if not place.credentials:
        return f"runuser -u {place.user} -- {shlex.join(words)}"
    given = []
    for name in place.credentials:
        kind = "LoadCredentialEncrypted" if name in place.encrypted else "LoadCredential"
        given += ["-p", f"{kind}={name}:backupd.{name}"]
    return shlex.join(["systemd-run", "--quiet", "--pty", f"--uid={place.user}", *given, "--", *words])


def _q(path: Path) -> str:
    return shlex.quote(str(path))
