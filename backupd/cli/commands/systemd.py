"""`backupd systemd install|uninstall|show`."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context, Here
from backupd.cli.output import Column
from backupd.config import DEFAULT
from backupd.errors import UsageError

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.operations.systemd import Placed
    from backupd.operations.systemd_site import Step
    from backupd.operations.systemd_units import Site

_ROOT = Path("/")
_USER = "backupd"


def install_command(*, prefix: Path | None = None, user: str = _USER, dry_run: bool = False, context: Here) -> int:
    """Put the service's units in place, made to fit this machine and its configuration. May be done again at any time:
    what an administrator has changed is kept, and the new file is put beside it as FILE.new.

    Parameters
    ----------
    prefix
        Put the files below this folder, and do nothing else: for images. Of the configuration is used what --config
        names.
    user
        Who runs the service; backupd is made if there is none, others must be there.
    dry_run
        Say what would be done, and do nothing.
    """
    from backupd.operations import systemd, systemd_units

    config, site = _site(context, prefix, user)
    root, files = prefix or _ROOT, systemd_units.files(site)
    if dry_run:
        _show(context, systemd.plan(root, files), [], done=False)
        return 0
    placed = systemd.install(root, files)
    left: list[Step] = []
    if prefix is None:
        systemd.make_known(user, running=systemd.booted())
        left = _left(config, site, context.config_file)
    _show(context, placed, left, done=True)
    return 0


def uninstall_command(*, prefix: Path | None = None, context: Here) -> int:
    """Stop the service, and take away the files that were put in place, unless somebody has changed them. All else
    stays: configuration, state, repository and user.

    Parameters
    ----------
    prefix
        Take them away below this folder, and do nothing else.
    """
    from backupd.operations import systemd, systemd_units

    paths = [file.path for file in systemd_units.files(systemd_units.Site(["/usr/bin/backupd"]))]
    here = prefix is None and systemd.booted()
    if here:
        systemd.stop()
    placed = systemd.uninstall(prefix or _ROOT, paths)
    if here:
        systemd.run(["systemctl", "daemon-reload"])
    _show(context, placed, [], done=True)
    return 0


def show_command(*, user: str = _USER, context: Here) -> int:
    """Print the files that `install` puts in place. Changes nothing.

    Parameters
    ----------
    user
        Who would run the service.
    """
    from backupd.operations import systemd_units

    files = systemd_units.files(_site(context, None, user)[1])
    if context.json:
        output.document([{"path": str(file.path), "text": file.text} for file in files])
        return 0
    for file in files:
        for each in (f"# {file.path}", *file.text.splitlines(), ""):
            output.line(each)
    return 0


def _site(context: Context, prefix: Path | None, user: str) -> tuple[Config | None, Site]:
    from backupd.operations import systemd, systemd_site, systemd_units

    known = _user(user, must=prefix is None and user != _USER)
    if known:  # "~" in the configuration is the home of whoever runs backupd
        os.environ["HOME"] = known.pw_dir
    group = grp.getgrgid(known.pw_gid).gr_name if known else user
    path = context.config_file.absolute()
    if prefix is not None:  # another machine: what is on this one counts only where it was named
        config = context.config if path != DEFAULT and path.exists() else None
        return config, systemd_site.site(config, _program(), user=user, group=group, path=path, code=())
    config = context.config if path.exists() else None
    encrypted = [each.name for each in systemd_units.CREDENTIALS_ENCRYPTED.glob("backupd.*")]
    return config, systemd_site.site(
        config, _program(), user=user, group=group, path=path, encrypted=encrypted, version=systemd.version(),
        code=(Path(sys.prefix), Path(sys.base_prefix), Path(systemd_site.__file__).parents[2]),
    )  # fmt: skip


def _user(name: str, *, must: bool) -> pwd.struct_passwd | None:
    try:
        known = pwd.getpwnam(name)
    except KeyError:
        if must:
            remedy = f"useradd --system --shell /usr/sbin/nologin {name}, or leave out --user"
            raise UsageError("there is no such user", subject=name, remedy=remedy) from None
        return None
    if known.pw_uid == 0:
        raise UsageError("the service needs no rights of root, and gets none", subject=name, remedy="leave out --user")
    return known


def _program() -> list[str]:
    """The words that start this program again, wherever one is."""
    script = Path(sys.argv[0]).absolute()
    if script.name == "backupd" and os.access(script, os.X_OK):
        return [str(script.resolve())]
    beside = Path(sys.executable).parent / "backupd"
    return [str(beside)] if os.access(beside, os.X_OK) else [sys.executable, "-m", "backupd"]


def _left(config: Config | None, site: Site, path: Path) -> list[Step]:
    from backupd.operations import systemd, systemd_site

    known = pwd.getpwnam(site.user)
    access = systemd_site.UserAccess(known.pw_uid, known.pw_gid, os.getgrouplist(known.pw_name, known.pw_gid))
    running = systemd.booted() and systemd.active("backupd.service")
    return systemd_site.steps(config, site, access, path=path.absolute(), running=running, root=_ROOT)


def _show(context: Context, placed: Sequence[Placed], left: Sequence[Step], *, done: bool) -> None:
    if context.json:
        found = [
            {"path": str(each.path), "state": each.state, "new": str(each.beside) if each.beside else None}
            for each in placed
        ]
        output.document({"done": done, "files": found, "steps": left})
        return
    output.table(
        [Column("FILE", shrink=True), Column("STATE" if done else "WOULD BE")],
        [(str(each.path), each.state.value) for each in placed],
    )
    for each in placed:
        if each.state.value == "kept":
            new = f"; the new one {'is' if done else 'would be'} {each.beside}" if each.beside else ""
            output.remark(f"{each.path} was changed by somebody, and is kept{new}")
    if left:
        context.say()
        context.say("What is left to do:")
    for step in left:
        context.say(f"- {step.why}{':' if step.command else ''}")
        if step.command:
            context.say(f"    {step.command}")
