"""A machine with systemd as process 1, and backupd installed in it as an administrator would.

These tests need root and a Debian of their own, which `make test-systemd` makes once; without it they are left out, and
pytest's last lines say so. They take minutes: machines boot, watchdogs wait.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import machine_tree, wheel
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.machine import Machine
from tests.support.mail import message

HERE = Path(__file__).parent
collect_ignore_glob = [] if machine_tree.usable() else ["test_*.py"]
PASSPHRASE = "correct horse battery"
PROGRAM = "/opt/backupd/bin/backupd"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One machine, and so one worker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("machine"))
            item.add_marker(pytest.mark.systemd)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running machine in which backupd is installed for all."""
    folder = tmp_path_factory.mktemp("machine")
    built = wheel.build(folder / "wheel")
    with Machine(folder / "state", [(machine_tree.SITE, "/opt/site"), (built.parent, "/opt/wheel")]) as found:
        found.run("python3", "-m", "venv", "/opt/backupd")
        found.run("/opt/backupd/bin/pip", "install", "--quiet", "--no-index", "--no-deps", f"/opt/wheel/{built.name}")
        packages = f"/opt/backupd/lib/python{machine_tree.python()}/site-packages"
        found.file(f"{packages}/site.pth").write_text("/opt/site\n")
        yield found


@dataclass
class Service:
    """backupd on the machine, with a configuration, and an account on a real server.

    repository: where it is, or will be. passphrase: as the configuration says where it is.
    """

    machine: Machine
    account: Account
    repository: str
    passphrase: str = "{credential: passphrase}"

    def configure(self, *names: str, more: str = "") -> None:
        """Write a configuration with the account under each of these names. more: further lines."""
        at = f"host: {self.account.host}, port: {self.account.port}, tls: none, username: {self.account.username}"
        accounts = "".join(
            f"  {name}:\n    imap: {{{at}, password: {{file: /etc/backupd/password}}}}\n    schedule: every 2 seconds\n"
            for name in names
        )
        self.write(
            f'repository: {{url: "{self.repository}", passphrase: {self.passphrase}}}\naccounts:\n{accounts}{more}'
        )

    def write(self, configuration: str) -> None:
        """Write the configuration file, as it is."""
        self.machine.file("/etc/backupd/config.yaml").write_text(configuration)

    def drop_in(self, text: str, unit: str = "backupd.service") -> None:
        """What an administrator writes with `systemctl edit`."""
        folder = self.machine.file(f"/etc/systemd/system/{unit}.d")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "override.conf").write_text(text)
        self.machine.run("systemctl", "daemon-reload")

    def install(self, *options: str) -> list[dict[str, str]]:
        """Put the units in place; what is left to do."""
        document = json.loads(self.machine.run(PROGRAM, "systemd", "install", "--json", *options))
        found: list[dict[str, str]] = document["steps"]
        return found

    def do(self, steps: list[dict[str, str]]) -> None:
        """Do what is left to do, to the letter. What is typed in is the passphrase."""
        for step in steps:
            assert step["command"], step["why"]
            done = self.machine.try_to_run("sh", "-c", step["command"], stdin=f"{PASSPHRASE}\n")
            assert done.returncode == 0, f"{step['command']}: {done.stderr}\n{self.machine.journal('backupd')}"

    @property
    def pid(self) -> int:
        """The daemon's process, as the machine counts."""
        return int(self.machine.show("backupd", "MainPID"))

    def snapshots(self) -> int:
        """How many snapshots there are: the repository's objects tell without a key."""
        return len(list(self.machine.file(f"{self.repository}/snapshots").glob("*/*")))


@pytest.fixture
def service(machine: Machine, dovecot: Dovecot) -> Iterator[Service]:
    """A machine on which backupd is installed and nobody has done anything with it yet but write a configuration, with
    alice in it, who has two messages."""
    account = dovecot.account()
    account.deliver("INBOX", [message("First"), message("Second")])
    made = Service(machine, account, f"/srv/back up/100% {account.username}")
    password = machine.file("/etc/backupd/password")
    password.parent.mkdir()
    password.write_text(account.password)
    password.chmod(0o600)
    made.configure("alice")
    machine.file("/etc/backupd/config.yaml").chmod(0o600)
    yield made
    machine.run("systemctl", "kill", "--signal=KILL", "backupd", check=False)
    machine.run(PROGRAM, "systemd", "uninstall", check=False)
    machine.run("sh", "-c", "rm -rf /etc/systemd/system/backupd* /etc/backupd /var/lib/backupd /srv/* /etc/credstore*")
    machine.run("sh", "-c", "userdel backupd; systemctl daemon-reload; systemctl reset-failed", check=False)


@pytest.fixture
def running(service: Service) -> Service:
    """The service, installed and running."""
    service.do(service.install())
    return service
