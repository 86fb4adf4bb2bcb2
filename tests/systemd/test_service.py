"""The service on a machine with a real systemd, from its installation to a power cut."""

from __future__ import annotations

import json
import signal
import time

from tests.support.machine import Machine
from tests.support.mail import message
from tests.support.ports import free_ports
from tests.systemd.conftest import PASSPHRASE, PROGRAM, Service

QUICK = "[Service]\nRestartSec=0.1\n"


def test_doing_what_install_says_is_left_makes_a_service_that_backs_up(service: Service, machine: Machine) -> None:
    steps = service.install()
    assert [step["command"].split()[0] for step in steps] == [
        "chgrp", "chown", "install", "install", "systemd-run", "systemctl", "systemctl"
    ]  # fmt: skip
    assert (machine.show("backupd", "ActiveState"), service.pid) == ("inactive", 0)
    service.do(steps)
    assert machine.show("backupd", "ActiveState") == "active", machine.journal("backupd")
    assert machine.show("backupd", "SubState") == "running"
    assert machine.show("backupd-audit.timer", "ActiveState") == "active"
    machine.until(lambda: service.snapshots() == 1)
    service.account.deliver("INBOX", [message("Third")])
    machine.until(lambda: service.snapshots() == 2)
    assert [step["command"] for step in service.install()] == ["systemctl restart backupd"], "nothing else is left"


def test_its_status_line_says_how_it_goes(running: Service, machine: Machine) -> None:
    assert machine.show("backupd", "StatusText").startswith("1 account")
    assert machine.show("backupd", "NotifyAccess") == "main"


def test_it_runs_as_a_user_of_its_own_in_a_sandbox(running: Service, machine: Machine) -> None:
    process = f"/proc/{running.pid}"
    lines = machine.run("cat", f"{process}/status").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    user = machine.run("id", "-u", "backupd")
    assert user != "0"
    assert set(status["Uid"].split()) == {user}
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Umask"]) == ("1", "2", "0077")
    assert "Max core file size        0                    0" in machine.run("cat", f"{process}/limits")

    def inside(*command: str) -> int:
        become = ("setpriv", f"--reuid={user}", "--regid=backupd", "--clear-groups", "--")
        enter = ("nsenter", "-t", str(running.pid), "-m", "--", *become)
        return machine.try_to_run(*enter, *command).returncode

    assert inside("touch", f"{running.repository}/probe", "/var/lib/backupd/probe") == 0
    for folder in ("/etc", "/usr", "/srv", "/var", "/opt/backupd", "/etc/backupd"):
        machine.run("chmod", "o+w", folder)
        assert inside("touch", f"{folder}/probe") != 0, folder
        machine.run("chmod", "o-w", folder)
    assert inside("ls", "/root") != 0
    assert inside("ls", "/etc/credstore") != 0


def test_the_passphrase_is_in_the_credentials_and_nowhere_else(running: Service, machine: Machine) -> None:
    assert machine.run("cat", "/etc/credstore/backupd.passphrase") == PASSPHRASE
    modes = machine.run("stat", "-c", "%U %a", "/etc/credstore/backupd.passphrase", "/etc/credstore")
    assert modes == "root 600\nroot 700"
    environment = machine.run("cat", f"/proc/{running.pid}/environ", f"/proc/{running.pid}/cmdline")
    assert "CREDENTIALS_DIRECTORY=" in environment
    assert PASSPHRASE not in environment
    assert PASSPHRASE not in machine.run("journalctl", "--no-pager")


def test_a_passphrase_in_a_file_does_as_well(service: Service, machine: Machine) -> None:
    service.passphrase = "{file: /etc/backupd/passphrase}"
    service.configure("alice")
    machine.file("/etc/backupd/passphrase").write_text(PASSPHRASE)
    machine.file("/etc/backupd/passphrase").chmod(0o600)
    steps = service.install()
    assert [step["command"].split()[0] for step in steps[:5]] == ["chgrp", "chown", "chown", "install", "runuser"]
    service.do(steps)
    machine.until(lambda: service.snapshots() == 1)


def test_an_encrypted_credential_does_as_well(service: Service, machine: Machine) -> None:
    machine.run("mkdir", "-m", "700", "/etc/credstore.encrypted")
    there = "/etc/credstore.encrypted/backupd.passphrase"
    machine.run("systemd-creds", "--name=passphrase", "--with-key=host", "encrypt", "-", there, stdin=PASSPHRASE)
    steps = service.install()
    assert not any("/etc/credstore/" in step["command"] for step in steps)
    service.do(steps)
    machine.until(lambda: service.snapshots() == 1)


# -- changes -----------------------------------------------------------------------------------------------------------


def test_reload_takes_up_another_configuration(running: Service, machine: Machine) -> None:
    pid = running.pid
    running.configure("alice", "twin")
    machine.run("systemctl", "reload", "backupd")
    machine.until(lambda: running.snapshots() == 2)
    assert running.pid == pid
    assert machine.show("backupd", "SubState") == "running"
    assert machine.show("backupd", "StatusText").startswith("2 account")


def test_reload_refuses_a_configuration_that_is_wrong_and_says_why(running: Service, machine: Machine) -> None:
    pid = running.pid
    running.configure("alice", more="    objectve: 1h\n")
    done = machine.try_to_run("systemctl", "reload", "backupd")
    assert done.returncode != 0
    said = machine.journal("backupd")
    assert "accounts.alice.objectve: unknown key; did you mean objective?" in said
    assert (running.pid, machine.show("backupd", "ActiveState")) == (pid, "active")
    machine.run("systemctl", "kill", "--signal=HUP", "backupd")  # past the check
    machine.until(lambda: "not reloaded" in machine.journal("backupd"))
    assert (running.pid, machine.show("backupd", "SubState")) == (pid, "running")


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_a_daemon_that_hangs_is_ended_by_the_watchdog_and_started_again(service: Service, machine: Machine) -> None:
    steps = service.install()
    service.drop_in("[Service]\nRestartSec=0.1\nWatchdogSec=3\n")
    service.do(steps)
    pid = service.pid
    time.sleep(7)
    assert service.pid == pid, "as long as it works, it is let live"
    machine.run("kill", f"-{signal.SIGSTOP}", str(pid))
    took = machine.until(lambda: service.pid not in (0, pid), 30)
    assert took < 10
    said = machine.journal("backupd")
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said
    assert said.count("most recent call first") >= 2, "each thread has said where it stood"
    machine.until(lambda: machine.show("backupd", "SubState") == "running")


def test_a_daemon_that_is_killed_is_started_again_however_often(service: Service, machine: Machine) -> None:
    steps = service.install()
    service.drop_in(QUICK)
    service.do(steps)
    assert machine.show("backupd", "StartLimitIntervalUSec") == "0"
    for times in (1, 2):
        pid = service.pid
        machine.run("kill", f"-{signal.SIGKILL}", str(pid))
        machine.until(lambda before=pid: service.pid not in (0, before))
        machine.until(lambda: machine.show("backupd", "SubState") == "running")
        assert machine.show("backupd", "NRestarts") == str(times)
    before = service.snapshots()
    service.account.deliver("INBOX", [message("After all that")])
    machine.until(lambda: service.snapshots() > before)


def test_a_mistake_at_the_start_is_told_and_what_is_mended_comes_up_by_itself(
    service: Service, machine: Machine
) -> None:
    steps = service.install()
    service.drop_in(QUICK)
    service.do([step for step in steps if "init" not in step["command"] and "enable" not in step["command"]])
    done = machine.try_to_run("systemctl", "start", "backupd")
    assert done.returncode != 0
    assert "there is no repository" in machine.journal("backupd")
    service.do([step for step in steps if "init" in step["command"]])
    machine.until(lambda: machine.show("backupd", "SubState") == "running")


def test_stopping_takes_seconds_and_leaves_nothing_behind(running: Service, machine: Machine) -> None:
    machine.until(lambda: running.snapshots() == 1)
    began = time.monotonic()
    machine.run("systemctl", "stop", "backupd")
    assert time.monotonic() - began < 5
    assert machine.show("backupd", "Result") == "success"
    assert machine.show("backupd", "ActiveState") == "inactive"
    assert not machine.file("/run/backupd").exists()
    assert machine.run("pgrep", "-u", "backupd", check=False) == ""


def test_after_a_power_cut_it_is_there_again_and_goes_on(running: Service, machine: Machine) -> None:
    machine.until(lambda: running.snapshots() == 1)
    machine.power_cut()
    running.account.deliver("INBOX", [message("While the lights were out")])
    machine.boot()
    machine.until(lambda: machine.show("backupd", "SubState") == "running")
    machine.until(lambda: running.snapshots() == 2)


# -- the way out -------------------------------------------------------------------------------------------------------


def test_uninstall_stops_all_of_it_and_leaves_what_is_the_administrators(running: Service, machine: Machine) -> None:
    running.drop_in(QUICK)
    machine.run("systemctl", "enable", "--now", "backupd-audit@alice.timer", "backupd-audit@bob.timer")
    machine.run(PROGRAM, "systemd", "uninstall")
    assert machine.show("backupd", "LoadState") != "loaded"
    units = machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "backupd*")
    assert units == ""
    left = machine.run("find", "/etc/systemd", "/etc/sysusers.d", "/etc/tmpfiles.d", "-name", "*backupd*")
    assert left == "/etc/systemd/system/backupd.service.d"
    assert machine.run("ls", "/etc/systemd/system/backupd.service.d") == "override.conf"
    for kept in ("/etc/backupd/config.yaml", "/var/lib/backupd/state.sqlite", f"{running.repository}/repository.json"):
        assert machine.file(kept).exists(), kept
    assert machine.run("id", "-u", "backupd") != ""


def test_a_unit_that_was_masked_stays_masked(service: Service, machine: Machine) -> None:
    machine.run("systemctl", "mask", "backupd-audit.timer")
    service.install()
    assert machine.show("backupd-audit.timer", "LoadState") == "masked"
    assert machine.file("/etc/systemd/system/backupd-audit.timer.new").exists()
    machine.run("systemctl", "unmask", "backupd-audit.timer")


def test_the_service_of_a_person_sees_what_it_needs_of_a_home(service: Service, machine: Machine) -> None:
    machine.run("useradd", "--create-home", "--home-dir", "/home/ann", "ann")
    machine.run("sh", "-c", "cp -a /opt/backupd /home/ann/venv; mv /etc/backupd /home/ann/mail")
    machine.run("sed", "-i", "1s,/opt/backupd,/home/ann/venv,", "/home/ann/venv/bin/backupd")
    machine.run("sh", "-c", "echo private > /home/ann/diary; chown -R ann: /home/ann")
    config = machine.file("/home/ann/mail/config.yaml")
    config.write_text(
        config.read_text()
        .replace("/etc/backupd/password", "password")
        .replace(service.repository, "~/backup")
        .replace("{credential: passphrase}", "{file: passphrase}")
    )
    machine.run("sh", "-c", f"umask 077; echo {PASSPHRASE} > /home/ann/mail/passphrase; chown ann: /home/ann/mail/*")
    service.repository = "/home/ann/backup"
    backupd = ("/home/ann/venv/bin/backupd", "--config", "/home/ann/mail/config.yaml")
    done = machine.run(*backupd, "systemd", "install", "--user", "ann", "--json")
    service.do(json.loads(done)["steps"])
    machine.until(lambda: service.snapshots() == 1)
    pid = service.pid
    assert machine.run("stat", "-c", "%U", f"/proc/{pid}") == "ann"
    seen = machine.run("nsenter", "-t", str(pid), "-m", "--", "ls", "/home/ann").split()
    assert sorted(seen) == ["backup", "mail", "venv"]
    machine.run("systemctl", "stop", "backupd")
    machine.run("userdel", "--remove", "ann")


# -- beside the daemon -------------------------------------------------------------------------------------------------


def test_its_health_can_be_asked_in_its_own_folder_and_over_the_network(service: Service, machine: Machine) -> None:
    (port,) = free_ports(1)
    for listen, connect in (
        ("unix:/run/backupd/health.sock", "s = socket.socket(socket.AF_UNIX); s.connect('/run/backupd/health.sock')"),
        (f"127.0.0.1:{port}", f"s = socket.create_connection(('127.0.0.1', {port}))"),
    ):
        service.configure("alice")
        config = machine.file("/etc/backupd/config.yaml")
        config.write_text(config.read_text() + f'health: {{listen: "{listen}"}}\n')
        service.do(service.install())
        ask = f"import socket; {connect}; s.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n'); print(s.recv(99))"
        assert " 200 " in machine.run("python3", "-c", ask), machine.journal("backupd")


def test_an_audit_by_timer_is_no_failure_as_long_as_all_is_well(running: Service, machine: Machine) -> None:
    machine.until(lambda: running.snapshots() == 1)
    for unit in ("backupd-audit.service", "backupd-audit@alice.service"):
        machine.try_to_run("systemctl", "start", unit)
        found = (machine.show(unit, "Result"), machine.show(unit, "ExecMainStatus"))
        assert found == ("success", "0"), machine.journal(unit)
        assert "OK" in machine.journal(unit)
    timer = "backupd-audit@alice.timer"
    machine.run("systemctl", "enable", "--now", timer)
    assert machine.show(timer, "ActiveState") == "active"
    assert machine.show(timer, "NextElapseUSecRealtime") != ""


def test_an_audit_that_finds_something_leaves_its_unit_failed(running: Service, machine: Machine) -> None:
    machine.until(lambda: running.snapshots() == 1)
    machine.run("systemctl", "stop", "backupd")
    pack = next(machine.file(f"{running.repository}/packs").glob("*/*"))
    pack.chmod(0o600)
    pack.write_bytes(pack.read_bytes()[:-100])
    done = machine.try_to_run("systemctl", "start", "backupd-audit")
    assert done.returncode != 0
    assert machine.show("backupd-audit", "ExecMainStatus") == "2", machine.journal("backupd-audit")
    assert "backupd-audit.service" in machine.run("systemctl", "--failed", "--plain", "--no-legend")
