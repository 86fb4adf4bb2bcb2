"""What the doctor finds, and what it advises."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from backupd.errors import ConnectionFailed, LoginRefused, WrongKey
from backupd.operations import doctor_server
from backupd.operations.doctor import Account, Patient, check_folder, doctor
from backupd.operations.doctor_pop3 import check_pop3, forewarnings
from backupd.operations.doctor_server import Address, Tls, capability_findings, check_account, check_imap
from backupd.operations.finding import Finding
from backupd.repository.keys import Role, Secrets
from backupd.repository.repository import Repository
from backupd.wire.tls import Trust
from tests.support.dovecot import Dovecot
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_pop3 import SimulatedPop3

NOW = datetime(2026, 7, 18, tzinfo=UTC)
HERE = Address("mail.example.com", 993, "implicit", Trust())
GOOD = Tls("TLSv1.3", NOW + timedelta(days=90))


def refused() -> SimulatedAccount:
    raise LoginRefused("the server refuses the login", subject="mail.example.com:993", remedy="check the password")


def examine(open_source: Callable[[], SimulatedAccount], address: Address = HERE, made: Tls = GOOD) -> list[Finding]:
    found = check_account(
        "alice",
        address,
        partial(check_imap, open_source),
        now=lambda: NOW,
        look_up=lambda host, port: 1,
        probe=lambda address: made,
    )
    return list(found)


def levels(findings: list[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def test_a_healthy_account_has_no_problem_and_says_what_its_server_can() -> None:
    findings = examine(SimulatedAccount)
    assert levels(findings) == {"ok"}
    said = " ".join(finding.what for finding in findings)
    for part in ("TLSv1.3", "2026-10-16", "login works (Simulated)", "1 mailbox,", "changed flags cost only"):
        assert part in said


def test_a_refused_login_is_a_problem_with_its_remedy() -> None:
    last = examine(refused)[-1]
    assert (last.level, last.remedy) == ("problem", "check the password")


def test_a_host_without_an_address_ends_the_examination() -> None:
    def nowhere(host: str, port: int) -> int:
        raise ConnectionFailed("the host's address cannot be found", subject=host)

    findings = list(check_account("alice", HERE, SimulatedAccount, now=lambda: NOW, look_up=nowhere))
    assert [finding.level for finding in findings] == ["problem"]


@pytest.mark.parametrize(("days", "level"), [(-1, "problem"), (3, "warning"), (90, "ok")])
def test_a_certificate_that_expires_is_told_in_time(days: int, level: str) -> None:
    assert examine(SimulatedAccount, made=Tls("TLSv1.3", NOW + timedelta(days=days)))[0].level == level


def test_a_pinned_certificate_may_be_as_old_as_it_likes() -> None:
    pinned = HERE._replace(trust=Trust(fingerprint="AB:CD"))
    assert examine(SimulatedAccount, pinned, Tls("TLSv1.3", NOW - timedelta(days=1)))[0].level == "ok"


def test_no_tls_is_a_warning() -> None:
    assert examine(SimulatedAccount, HERE._replace(tls="none"))[0].level == "warning"


def test_mail_from_the_future_tells_of_a_wrong_clock() -> None:
    account = SimulatedAccount()
    account.append(b"INBOX", b"Subject: a\r\n\r\n", date=b"18-Jul-2026 03:00:00 +0000")
    warning = examine(lambda: account)[-1]
    assert (warning.level, "180 minutes in the future" in warning.what) == ("warning", True)


def test_what_a_server_lacks_is_said_with_what_it_costs() -> None:
    bare = capability_findings("x", ("IMAP4rev1",))
    assert len(bare) == 1
    assert "no CONDSTORE: all flags are compared" in bare[0].what
    rich = capability_findings("x", ("IMAP4rev2", "QRESYNC", "MULTIAPPEND", "OBJECTID"))
    assert len(rich) == 1
    assert "unchanged mailboxes are seen in one round trip" in rich[0].what


def test_tls_of_a_real_server_is_seen(dovecot: Dovecot) -> None:
    for kind, port in (("implicit", dovecot.ports.imaps), ("starttls", dovecot.ports.imap)):
        made = doctor_server.probe_tls(Address(dovecot.host, port, kind, Trust(dovecot.ca_file)))
        assert made.version.startswith("TLSv1.")
        assert made.expires > datetime.now(UTC)


def test_files_with_secrets_that_others_can_read_are_a_problem(tmp_path: Path, patient: Patient) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("x")
    secret.chmod(0o644)
    (found,) = [finding for finding in doctor(patient, now=lambda: NOW) if finding.subject == "secrets"]
    assert (found.level, found.remedy) == ("problem", f"chmod go= {secret}")
    secret.chmod(0o600)
    healthy = doctor(patient, now=lambda: NOW, look_up=lambda host, port: 1, probe=lambda address: GOOD)
    assert levels(list(healthy)) == {"ok"}


def test_a_folder_that_is_not_there_yet_can_be_made(tmp_path: Path) -> None:
    (found,) = check_folder("state_dir", tmp_path / "a" / "b")
    assert "can be made" in found.what


def test_a_repository_that_does_not_open_is_a_problem(tmp_path: Path, patient: Patient) -> None:
    def wrong() -> Repository:
        raise WrongKey("the passphrase opens nothing", remedy="check it")

    changed = Patient(None, [], tmp_path, "memory:", None, None, wrong, {})
    found = [finding for finding in doctor(changed, now=lambda: NOW) if finding.subject == "repository"]
    assert [(finding.level, finding.what) for finding in found] == [("problem", "the passphrase opens nothing")]


def test_the_role_of_the_configured_key_is_told(storage: MemoryStorage, secrets: Secrets, tmp_path: Path) -> None:
    def writers() -> Repository:
        return Repository(storage, secrets.for_role(Role.WRITER))

    examined = Patient(None, [], tmp_path, "memory:", None, None, writers, {})
    said = [finding.what for finding in doctor(examined, now=lambda: NOW) if finding.subject == "repository"]
    assert "writer role" in said[0]
    assert "cannot read stored mail" in said[1]


@pytest.fixture
def patient(storage: MemoryStorage, secrets: Secrets, tmp_path: Path) -> Patient:
    config = tmp_path / "config.yaml"
    config.write_text("")
    config.chmod(0o600)
    return Patient(
        config_path=config,
        secret_files=[tmp_path / "passphrase"],
        state_dir=tmp_path,
        repository_url="memory:",
        repository_folder=tmp_path / "repository",
        probe_bucket=None,
        open_repository=lambda: Repository(storage, secrets),
        accounts={"alice": Account(HERE, partial(check_imap, SimulatedAccount))},
    )


# POP3


def by_pop3(server: SimulatedPop3, *, deletes: bool = False) -> list[Finding]:
    address = Address(server.host, 995, "implicit", Trust(), "pop3")
    look = partial(check_pop3, lambda: server, deletes=deletes)
    return list(check_account("bob", address, look, now=lambda: NOW, look_up=lambda *_: 1, probe=lambda _: GOOD))


def warnings(findings: list[Finding]) -> list[str]:
    return [f"{each.what} ({each.remedy})" for each in findings if each.level == "warning"]


def test_a_pop3_account_is_looked_at_and_nothing_read_or_deleted() -> None:
    server = SimulatedPop3()
    server.put(b"Subject: one\r\n\r\n", b"Subject: two\r\n\r\n")
    findings = by_pop3(server)
    assert levels(findings) == {"ok"}
    said = " ".join(each.what for each in findings)
    assert "2 messages" in said
    assert "never deletes" in said
    assert server.commands == ["UIDL", "LIST", "QUIT"]


def test_messages_that_cannot_be_told_apart_by_name_are_said() -> None:
    server = SimulatedPop3()
    server.mail = [(b"same", b"Subject: one\r\n\r\n")] * 3
    assert any("3 messages share their UIDL" in each.what for each in by_pop3(server))
    server.uidl = False
    assert any("no UIDL for 3 messages" in each.what for each in by_pop3(server))


@pytest.mark.parametrize(("capability", "said"), [("EXPIRE 0", "session"), ("EXPIRE 30 USER", "after 30 days")])
def test_a_server_that_deletes_by_itself_is_warned_of(capability: str, said: str) -> None:
    server = SimulatedPop3()
    server.capabilities = (capability,)
    (warning,) = warnings(by_pop3(server))
    assert said in warning


def test_a_server_that_never_expires_mail_is_not_warned_of() -> None:
    server = SimulatedPop3()
    server.capabilities = ("EXPIRE NEVER", "EXPIRE")
    assert warnings(by_pop3(server)) == []


@pytest.mark.parametrize("host", ["pop.gmail.com", "POP.GMAIL.COM.", "pop.googlemail.com"])
def test_gmail_is_warned_of_by_its_name_alone(host: str) -> None:
    (warning,) = warnings(forewarnings("account bob", host, "bob", deletes=False))
    assert "may archive or delete what was read" in warning
    assert "recent:" in warning
    (recent,) = warnings(forewarnings("account bob", host, "recent:bob", deletes=False))
    assert "the last 30 days only" in recent
    assert len(forewarnings("account bob", host, "bob", deletes=True)) == 2
    assert forewarnings("account bob", "pop.notgmail.com", "bob", deletes=True) == []


def test_what_is_known_of_an_account_is_said_though_its_server_cannot_be_reached(
    storage: MemoryStorage, secrets: Secrets, tmp_path: Path
) -> None:
    def refuse(host: str, port: int) -> int:
        raise ConnectionFailed("no address", subject=host)

    known = forewarnings("account bob", "pop.gmail.com", "bob", deletes=False)
    address = Address("pop.gmail.com", 995, "implicit", Trust(), "pop3")
    patient = Patient(
        config_path=None, secret_files=(), state_dir=tmp_path, repository_url=str(tmp_path), repository_folder=None,
        probe_bucket=None, open_repository=lambda: Repository(storage, secrets),
        accounts={"bob": Account(address, partial(check_pop3, SimulatedPop3), known)},
    )  # fmt: skip
    of_bob = [each for each in doctor(patient, now=lambda: NOW, look_up=refuse) if each.subject == "account bob"]
    assert [each.level for each in of_bob] == ["warning", "problem"]
