"""The configuration: what is right is typed, and where it comes from."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from backupd import config
from backupd.errors import UsageError
from tests.support.config import GOOD, changed, write


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    loaded = config.load(write(tmp_path, GOOD))
    imap = loaded.account("alice").imap
    assert imap
    assert (imap.port, imap.tls, imap.connections, imap.timeout) == (993, "implicit", 4, 60.0)
    assert (imap.authentication, imap.allow_plaintext, imap.ca_file) == ("auto", False, None)
    assert loaded.accounts["alice"].objective == timedelta(hours=1)
    assert loaded.accounts["alice"].mailboxes.include == ("*",)
    assert loaded.repository.compression_level is None


@pytest.mark.parametrize(
    ("kind", "tls", "port"),
    [("imap", "implicit", 993), ("imap", "starttls", 143), ("pop3", "implicit", 995), ("pop3", "starttls", 110)],
)
def test_the_port_goes_with_tls(tmp_path: Path, kind: str, tls: str, port: int) -> None:
    text = changed("imap: {host: mail.example.com", f"{kind}: {{tls: {tls}, host: mail.example.com")
    account = config.load(write(tmp_path, text)).account("alice")
    server = account.imap or account.pop3
    assert server
    assert server.port == port


def test_a_port_that_is_given_stays(tmp_path: Path) -> None:
    imap = config.load(write(tmp_path, changed("host:", "port: 1143, tls: starttls, host:"))).account("alice").imap
    assert imap
    assert imap.port == 1143


@pytest.mark.parametrize("word", ["no", "on", "0123", "12:30", "1_000", "0x1f", "1e3", ".inf", "2026-01-01"])
def test_text_that_yaml_takes_for_something_else_stays_text(tmp_path: Path, word: str) -> None:
    loaded = config.load(write(tmp_path, changed("alice, password: secret", f"{word}, password: {word}")))
    imap = loaded.account("alice").imap
    assert imap
    assert (imap.username, imap.password.resolve()) == (word, word)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_needs_no_tls(tmp_path: Path, host: str) -> None:
    config.load(write(tmp_path, changed("host: mail.example.com", f'tls: none, host: "{host}"')))


def test_plaintext_can_be_insisted_on(tmp_path: Path) -> None:
    config.load(write(tmp_path, changed("host:", "tls: none, allow_plaintext: true, host:")))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("5 min", 300), ("1h", 3600), ("2d", 172_800), ("1w", 604_800)]
)
def test_a_length_of_time_is_a_number_and_a_unit(tmp_path: Path, text: str, seconds: int) -> None:
    loaded = config.load(write(tmp_path, changed("objective: 1h", f"objective: {text}")))
    assert loaded.account("alice").objective == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    ["every 15 minutes", "every hour", "continuous", "*/15 * * * *", "0,30 8-18/2 1 jan-mar mon-FRI", "0 0 * * 7"],
)
def test_a_schedule_is_a_sentence_or_a_cron_line(tmp_path: Path, text: str) -> None:
    loaded = config.load(write(tmp_path, changed("objective: 1h", f'schedule: "{text}"')))
    assert loaded.account("alice").schedule == text


@pytest.mark.parametrize(
    ("schedule", "days"),
    [
        ("every 15 minutes", 2),
        ("every 3 days", 4),
        ("every week", 8),
        ("continuous", 2),
        ("0 3 * * *", 2),
        ("*/15 8-18 * * *", 2),
        ("0 3 * * mon-fri", 8),
        ("0 3 1 * *", 32),
        ("0 3 1 * sun", 8),
        ("0 3 */2 * *", 32),
        ("0 3 1 1 *", 368),
    ],
)
def test_without_an_objective_a_backup_may_be_a_day_older_than_its_schedule_leaves_it(
    tmp_path: Path, schedule: str, days: int
) -> None:
    loaded = config.load(write(tmp_path, changed("objective: 1h", f'schedule: "{schedule}"')))
    assert loaded.objectives() == {"alice": timedelta(days=days)}


def test_the_objective_of_an_account_goes_before_that_of_all(tmp_path: Path) -> None:
    def objective(text: str, ours: str = "") -> timedelta | None:
        written = changed("objective: 1h", f"mailboxes: {{}}\n    {ours}".rstrip() + f"\n{text}")
        return config.load(write(tmp_path, written)).objectives(["alice"])["alice"]

    assert objective("objective: 3h") == timedelta(hours=3)
    assert objective("objective: 3h", "objective: 1h") == timedelta(hours=1)
    assert objective("objective: 3h", "objective: none") is None
    assert objective("objective: none") is None
    assert objective("objective: none", "objective: 1h") == timedelta(hours=1)


def test_relative_paths_start_at_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = changed("/srv/backup", "store/mail").replace("/var/lib/backupd", "state")
    text = text.replace("host:", "ca_file: ca.pem, host:")
    write(tmp_path, text)
    monkeypatch.chdir(tmp_path.parent)
    loaded = config.load(Path(tmp_path.name) / "config.yaml")
    imap = loaded.account("alice").imap
    assert imap
    assert (imap.ca_file, loaded.state_dir) == (tmp_path / "ca.pem", tmp_path / "state")
    assert loaded.repository.url == str(tmp_path / "store/mail")
    assert config.secret_files(loaded) == [tmp_path / "passphrase"]


@pytest.mark.parametrize("url", ["s3://bucket/prefix", "file:///srv/mail"])
def test_addresses_stay_as_they_are(tmp_path: Path, url: str) -> None:
    assert config.load(write(tmp_path, changed("/srv/backup", url))).repository.url == url


def test_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert config.load(write(tmp_path, changed("/srv/backup", "~/mail"))).repository.url == "/home/alice/mail"


def test_an_unknown_account_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        config.load(write(tmp_path, GOOD)).account("bob")
    assert str(caught.value) == "bob: no such account in the configuration (there are: alice)"


@pytest.mark.parametrize(
    ("given", "environ", "used"),
    [
        ("/a.yaml", {"BACKUPD_CONFIG": "/b.yaml"}, "/a.yaml"),
        (None, {"BACKUPD_CONFIG": "/b.yaml"}, "/b.yaml"),
        (None, {"BACKUPD_CONFIG": ""}, "/etc/backupd/config.yaml"),
        (None, {}, "/etc/backupd/config.yaml"),
    ],
)
def test_the_file_is_the_one_given_or_named_or_the_default(
    given: str | None, environ: dict[str, str], used: str
) -> None:
    assert config.config_path(Path(given) if given else None, environ) == Path(used)


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, backupd.config; print({'pydantic', 'yaml'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_thousands_of_accounts_are_read(tmp_path: Path) -> None:
    server = "imap: {host: mail.example.com, username: a, password: {file: /x}}"
    accounts = "".join(f"  user{number}: {{{server}}}\n" for number in range(3000))
    assert len(config.load(write(tmp_path, GOOD + accounts)).accounts) == 3001


@pytest.mark.parametrize(
    ("written", "host", "port"),
    [("127.0.0.1:9847", "127.0.0.1", 9847), ("localhost:1", "localhost", 1), ("[::1]:9847", "::1", 9847)],
)
def test_health_listens_on_this_machine(tmp_path: Path, written: str, host: str, port: int) -> None:
    found = config.load(write(tmp_path, f"{GOOD}health: {{listen: '{written}'}}\n")).health.listen
    assert found is not None
    assert (found.host, found.port, found.path, found.is_local) == (host, port, None, True)


def test_health_listens_for_others_only_where_that_is_wanted(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, f"{GOOD}health: {{listen: '0.0.0.0:9847', allow_remote: true}}\n")).health
    assert found.listen is not None
    assert not found.listen.is_local


def test_health_listens_on_a_unix_socket(tmp_path: Path) -> None:
    found = config.load(write(tmp_path, f"{GOOD}health: {{listen: 'unix:health.sock'}}\n")).health.listen
    assert found is not None
    assert (found.path, found.is_local) == (tmp_path / "health.sock", True)
    assert config.load(write(tmp_path, GOOD)).health.listen is None
