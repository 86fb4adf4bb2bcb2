"""From a configuration to what its service needs, and to what is left to do: nothing that is right already, and each
thing with what to type."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

import pytest

from backupd import config
from backupd.config.model import Config
from backupd.operations.systemd_site import Step, UserAccess, as_service, site, steps
from backupd.operations.systemd_units import Site
from tests.support.config import write

PROGRAM = ["/opt/backupd/bin/backupd"]
CONFIG = """\
state_dir: {state}
repository:
  url: {folder}/mail
  passphrase: {{credential: passphrase}}
copies:
  - url: file://{folder}/a%20copy
  - url: s3://bucket/mail
    s3: {{secret_access_key: {{credential: bucket}}, access_key_id: k, ca_file: s3.pem}}
accounts:
  alice:
    imap: {{host: mail.example.com, username: alice, password: {{file: alice}}, ca_file: /etc/ssl/mail.pem}}
  bob:
    imap: {{host: mail.example.com, username: bob, password: {{env: BOB}}}}
"""


def loaded(folder: Path, state: str = "/var/lib/backupd") -> Config:
    return config.load(write(folder, CONFIG.format(folder=folder, state=state)))


class Rights:
    """What a user may do, as the test says. refused: "r /path" and the like."""

    def __init__(self, *refused: str, runs: bool = True) -> None:
        self._refused, self._runs = set(refused), runs

    def may(self, what: str, path: Path) -> bool:
        return f"{what} {path}" not in self._refused

    def runs(self, program: Sequence[str]) -> bool:
        return self._runs


def left(config: Config | None, place: Site, rights: Rights, folder: Path, *, running: bool = False) -> list[Step]:
    return steps(config, place, rights, path=folder / "config.yaml", running=running, root=folder)  # type: ignore[arg-type]


def test_the_service_is_given_what_the_configuration_names(tmp_path: Path) -> None:
    found = site(loaded(tmp_path), PROGRAM, path=tmp_path / "config.yaml", code=[Path("/opt/backupd")], version=252)
    assert found.config == tmp_path / "config.yaml"
    assert list(found.written) == [Path("/var/lib/backupd"), tmp_path / "mail", tmp_path / "a copy"]
    assert list(found.needed) == [Path("/var/lib/backupd"), tmp_path / "mail"], "a copy may be in a drawer"
    assert set(found.read) == {
        Path("/opt/backupd"), tmp_path, tmp_path / "alice", tmp_path / "s3.pem", Path("/etc/ssl/mail.pem")
    }  # fmt: skip
    assert (list(found.credentials), list(found.encrypted)) == (["bucket", "passphrase"], [])


def test_the_usual_configuration_is_not_named_and_encrypted_credentials_are_known(tmp_path: Path) -> None:
    found = site(loaded(tmp_path), PROGRAM, encrypted=["backupd.bucket", "backupd.other", "bucket"])
    assert found.config is None
    assert list(found.encrypted) == ["bucket"]


def test_without_a_configuration_one_is_to_be_written_first(tmp_path: Path) -> None:
    found = left(None, site(None, PROGRAM), Rights(), tmp_path)
    assert len(found) == 1
    assert found[0].why.startswith(f"write {tmp_path}/config.yaml ")
    assert "backupd systemd install` again" in found[0].why


def test_all_that_is_left_is_told_in_the_order_in_which_to_do_it(tmp_path: Path) -> None:
    wanted, place = loaded(tmp_path, state=f"{tmp_path}/state"), site(loaded(tmp_path), PROGRAM)
    (tmp_path / "a copy").mkdir()
    refused = [f"r {tmp_path}/config.yaml", f"r {tmp_path}/alice", f"w {tmp_path}/a copy"]
    found = left(wanted, place, Rights(*refused), tmp_path)
    # pytest's own folders are below /tmp, where the service sees folders of its own.
    assert [step.command for step in found if step.command] == [
        f"chgrp backupd {tmp_path}/config.yaml && chmod g+r {tmp_path}/config.yaml",
        f"chown backupd {tmp_path}/alice",
        "install -m 600 /dev/stdin /etc/credstore/backupd.bucket",
        "install -m 600 /dev/stdin /etc/credstore/backupd.passphrase",
        f"install -d -m 700 -o backupd -g backupd {tmp_path}/state",
        f"install -d -m 700 -o backupd -g backupd {tmp_path}/mail",
        f"chown -R backupd:backupd '{tmp_path}/a copy'",
        as_service(place, "init"),
        "systemctl enable --now backupd",
        "systemctl enable --now backupd-audit.timer",
    ]
    assert all(step.why and not step.why.endswith(".") for step in found)


def test_what_is_right_already_is_not_told(tmp_path: Path) -> None:
    wanted = loaded(tmp_path)
    for name in ("mail", "a copy", "etc/credstore"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mail/repository.json").touch()
    for name in ("bucket", "passphrase"):
        (tmp_path / f"etc/credstore/backupd.{name}").touch()
    place = site(wanted, PROGRAM)
    assert [step.command for step in left(wanted, place, Rights(), tmp_path) if step.command] == [
        "systemctl enable --now backupd",
        "systemctl enable --now backupd-audit.timer",
    ]
    found = left(wanted, place, Rights(), tmp_path, running=True)
    assert [step.command for step in found if step.command] == ["systemctl restart backupd"]


def test_a_folder_that_is_closed_is_named_and_not_what_is_in_it(tmp_path: Path) -> None:
    wanted = loaded(tmp_path)
    refused = [f"x {tmp_path}", f"r {tmp_path}/config.yaml", f"r {tmp_path}/alice"]
    found = left(wanted, site(wanted, PROGRAM), Rights(*refused), tmp_path)
    about = [step for step in found if str(tmp_path) in step.command and "install" not in step.command]
    assert [step.command for step in about] == [f"chgrp backupd {tmp_path} && chmod g+x {tmp_path}"]


def test_a_program_that_the_user_cannot_run_is_told_first(tmp_path: Path) -> None:
    wanted = loaded(tmp_path)
    found = left(wanted, site(wanted, PROGRAM), Rights(runs=False), tmp_path)
    assert found[0].why.startswith("backupd may not run /opt/backupd/bin/backupd: ")


def test_a_folder_of_which_the_service_has_one_of_its_own_is_told(tmp_path: Path) -> None:
    wanted = config.load(write(tmp_path, CONFIG.format(folder="/var/tmp/x", state="/var/lib/backupd")))
    found = left(wanted, site(wanted, PROGRAM), Rights(), tmp_path)
    assert [step.why.split()[0] for step in found if "folders of its own" in step.why] == [
        "/var/tmp/x/mail", "/var/tmp/x/a"
    ]  # fmt: skip


def test_commands_are_done_as_the_service_does_them() -> None:
    given = "-p LoadCredential=bucket:backupd.bucket -p LoadCredential=passphrase:backupd.passphrase"
    both = Site(["/usr/bin/backupd"], credentials=["bucket", "passphrase"])
    assert as_service(both, "init") == f"systemd-run --quiet --pty --uid=backupd {given} -- /usr/bin/backupd init"
    plain = Site(["/opt/a b/backupd"], config=Path("/etc/x.yaml"))
    assert as_service(plain, "restore", "alice@latest") == (
        "runuser -u backupd -- '/opt/a b/backupd' --config /etc/x.yaml restore alice@latest"
    )
    secret = Site(["/usr/bin/backupd"], credentials=["passphrase"], encrypted=["passphrase"])
    assert as_service(secret, "init").endswith(
        "-p LoadCredentialEncrypted=passphrase:backupd.passphrase -- /usr/bin/backupd init"
    )


# -- rights as the kernel sees them ------------------------------------------------------------------------------------


@pytest.fixture
def nobody(tmp_path: Path) -> UserAccess:
    """Another user than root. Only root can ask for another."""
    if os.geteuid() != 0:
        return UserAccess(os.geteuid(), os.getegid(), [])
    known = pwd.getpwnam("nobody")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o001)
    return UserAccess(known.pw_uid, known.pw_gid, [])


def test_rights_are_what_the_kernel_says(nobody: UserAccess, tmp_path: Path) -> None:
    open_, closed = tmp_path / "open", tmp_path / "closed"
    for folder, mode in ((open_, 0o755), (closed, 0o000)):
        folder.mkdir()
        (folder / "file").write_text("x")
        (folder / "file").chmod(0o644)
        folder.chmod(mode)
    assert nobody.may("r", open_ / "file")
    assert nobody.may("x", open_)
    assert not nobody.may("r", closed / "file"), "the folder above counts"
    assert not nobody.may("x", closed)
    assert not nobody.may("w", Path("/etc"))
    assert not nobody.may("r", tmp_path / "gone")
    closed.chmod(0o755)


def test_a_program_runs_or_does_not(nobody: UserAccess, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text('#!/bin/sh\ntest "$1" = --version\n')
    good.chmod(0o755)
    assert nobody.runs([str(good)])
    assert not nobody.runs(["/bin/false"])
    assert not nobody.runs([str(tmp_path / "gone")])
    good.chmod(0o600)
    assert not nobody.runs([str(good)])
