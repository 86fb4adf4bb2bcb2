"""A real Dovecot for tests: on free loopback ports, in a folder of its own, as an unprivileged user.

Each test asks for accounts of its own, so that none needs another's leftovers. The server runs in the foreground as our
child, dies with us (PR_SET_PDEATHSIG), and is stopped by its process id alone.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.dovecot_account import FORMATS, Account
from tests.support.dovecot_config import Ports, configuration
from tests.support.tls import Authority

INSTALL = "apt-get install -y dovecot-core dovecot-imapd dovecot-pop3d"
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class DovecotMissing(RuntimeError):
    """Dovecot cannot run here; the message holds the one line that mends it."""


def _program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")
    if not found or not any(Path(folder, "dovecot/imap").exists() for folder in ("/usr/lib", "/usr/libexec")):
        raise DovecotMissing(f"these tests need a real mail server, and Dovecot is not installed; run: {INSTALL}")
    return found


def _check_version(program: str) -> None:
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if not version.startswith("2.3."):
        raise DovecotMissing(f"these tests write configuration for Dovecot 2.3, and this is {version.split()[0]}")


def _free_ports(count: int) -> list[int]:
    """Ports nobody listens on now. All are held until all are found, so that no two are the same."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


class Dovecot:
    """One running server.

    Args:
        hide: capabilities it shall not announce, such as ("CONDSTORE", "QRESYNC"). Dovecot still understands them:
            a client that uses what was not announced is not caught by this, only one that does without is served.
        extra: more lines for dovecot.conf, read last.
        authority: who signs its certificate; a new one when none is given.
    """

    host = "127.0.0.1"

    def __init__(self, *, hide: Sequence[str] = (), extra: str = "", authority: Authority | None = None) -> None:
        self._dovecot, self._doveadm = _program("dovecot"), _program("doveadm")
        _check_version(self._dovecot)
        self._hide, self._extra = tuple(hide), extra
        self._process: subprocess.Popen[bytes] | None = None
        self._accounts = 0
        # Sockets lie below it, and their paths may have 107 bytes only.
        self.state = Path(tempfile.mkdtemp(prefix="dovecot-", dir="/tmp"))
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self.authority = authority or Authority()
        self.ca_file = self.state / "tls" / "ca.pem"
        for folder in ("run", "lib", "mail", "tls", "users"):
            (self.state / folder).mkdir()
        self.authority.write(self.state / "tls")
        self.own(self.state, *self.state.rglob("*"))
        self.start()

    def own(self, *paths: Path) -> None:
        """Give files to the server's user."""
        if os.geteuid() == 0:
            for path in paths:
                os.chown(path, self._user.pw_uid, self._user.pw_gid)

    # -- running -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start on free ports, the second time on the same; another try when somebody else was quicker to take one."""
        for again in (hasattr(self, "ports"), False, False):
            if not again:
                self.ports = Ports(*_free_ports(4))
            if self._try_start():
                return
        raise RuntimeError(f"Dovecot did not start:\n{self.log()[-3000:]}")

    def _try_start(self) -> bool:
        config = self.state / "dovecot.conf"
        group = grp.getgrgid(self._user.pw_gid).gr_name
        text = configuration(self.state, self.ports, self._user.pw_name, group, hide=self._hide, extra=self._extra)
        config.write_text(text, encoding="utf-8")
        (self.state / "dovecot.log").unlink(missing_ok=True)
        self.own(config)
        with (self.state / "start.out").open("wb") as out:
            # setpriv: dies with us, and, for root, another user. Dovecot itself then needs no privilege.
            become = ["--reuid", str(self._user.pw_uid), "--regid", str(self._user.pw_gid), "--clear-groups"]
            command = ["setpriv", "--pdeathsig", "TERM", *(become if os.geteuid() == 0 else [])]
            self._process = subprocess.Popen(
                [*command, self._dovecot, "-F", "-c", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.state)},
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.ports.imap), 1) as probe:
                probe.settimeout(5)
                if probe.recv(4) == b"* OK":
                    return True
            time.sleep(0.02)
        self.stop()
        return False

    def stop(self) -> None:
        """End the server and wait until it has gone. Its mail stays; `start` goes on with it."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """Stop, and remove everything."""
        self.stop()
        shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self) -> Dovecot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self) -> str:
        """What the server wrote to its log and while starting."""
        parts = [self.state / "start.out", self.state / "dovecot.log"]
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The server is down within the block, and back after it."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    # -- accounts ------------------------------------------------------------------------------------------------------

    def account(self, format: str = "sdbox", *, fields: Sequence[str] = ()) -> Account:  # noqa: A002
        """A new account, empty but for INBOX.

        Args:
            format: a key of FORMATS: sdbox, mdbox, maildir, maildir-fs (LAYOUT=fs), maildir-prefix ("INBOX." and ".").
            fields: more userdb fields, such as "userdb_quota_rule=*:storage=1M".
        """
        self._accounts += 1
        username, password = f"user{self._accounts}", f"pw-{self._accounts}-secret"
        home = self.state / "mail" / username
        home.mkdir()
        self.own(home)
        extra = " ".join([*FORMATS[format], *fields])
        line = f"{username}:{{PLAIN}}{password}:{self._user.pw_uid}:{self._user.pw_gid}::{home}::{extra}\n"
        # A file for each user: Dovecot looks for changes of one file at most once a second.
        (self.state / "users" / username).write_text(line, encoding="utf-8")
        return Account(server=self, username=username, password=password, home=home, format=format)

    def doveadm(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> bytes:
        """Run doveadm as the server's user, and return its standard output. Raises with its standard error."""
        command = [self._doveadm, "-c", self.state / "dovecot.conf", *arguments]
        who = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(command, input=stdin, capture_output=True, cwd=self.state, check=False, **who)  # type: ignore[call-overload]
        if done.returncode != 0:
            raise RuntimeError(f"doveadm {arguments!r}: exit {done.returncode}: {done.stderr.decode(errors='replace')}")
        return bytes(done.stdout)
