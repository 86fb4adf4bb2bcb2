"""Sockets to listen on: a Unix socket in the place of one that a dead process left, never of one that is in use."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from backupd.errors import Busy, ConfigError, StorageDenied

_LONGEST = 100
"""Octets of a socket's path; the kernel takes 107 (unix(7)), less what /proc/self/fd/123/ may need."""


class Bound(NamedTuple):
    """A socket that listens, and where: the path of a Unix socket, with the number of its inode."""

    socket: socket.socket
    path: Path | None = None
    inode: int = 0

    def close(self) -> None:
        """Listen no longer; the path goes too, unless another socket has taken its place."""
        if self.path is not None:
            with suppress(OSError), reachable(self.path) as name:
                if os.lstat(name).st_ino == self.inode:
                    os.unlink(name)  # noqa: PTH108
        self.socket.close()


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """The path as the kernel takes it for a Unix socket, however long it is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_unix(path: Path, mode: int) -> Bound:
    """A socket at this path, for those to connect whom its mode lets.

    Raises Busy when somebody listens there, ConfigError when something else is there, StorageDenied.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with reachable(path) as name:
            _remove_dead(path, name)
            os.fchmod(made.fileno(), mode)  # the file gets it as it is made: nobody slips in before (Linux)
            made.bind(name)
            os.chmod(name, mode)  # noqa: PTH101 - also what the umask took away
            made.listen(128)
            return Bound(made, path, os.lstat(name).st_ino)
    except OSError as error:
        made.close()
        raise StorageDenied(
            f"cannot listen there: {error.strerror or error}",
            subject=str(path),
            remedy="check the folder and its owner",
        ) from error
    except BaseException:
        made.close()
        raise


def _remove_dead(path: Path, name: str) -> None:
    try:
        kind = os.lstat(name).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise ConfigError("something that is no socket is there", subject=str(path), remedy="remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1)
        try:
            trial.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)  # noqa: PTH108 - nobody listens: who made it is dead
            return
        except FileNotFoundError:
            return
        except (BlockingIOError, TimeoutError):
            pass  # somebody listens, and is busy
    raise Busy("somebody listens there", subject=str(path), remedy="end that first: another daemon?")


def listen_tcp(host: str, port: int) -> Bound:
    """A socket at this address. Raises ConfigError when it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return Bound(socket.create_server((host, port), family=family, backlog=128))
    except OSError as error:
        raise ConfigError(
            f"cannot listen there: {error.strerror}",
            subject=f"health.listen: {host}:{port}",
            remedy="choose another port, or end what uses it",
        ) from error
