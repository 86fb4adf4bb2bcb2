"""Secrets: each form is fetched, one that cannot be had says why, and none is ever shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd import config
from backupd.config import secrets
from backupd.errors import ConfigError
from tests.support.config import GOOD, changed, refused, write

ABSENT = "cannot be read: No such file or directory; check the path"
NO_CREDENTIALS = (
    "there are no systemd credentials here ($CREDENTIALS_DIRECTORY is not set); the unit needs LoadCredential=x"
)
FORGOTTEN_BEFORE = ["", "!", "!!", "!a!", "&", "*", "%", "@", "`", "|", ">", "{", "[", "- ", "? ", "'", '"', '"\\']
FORGOTTEN_AFTER = ["", "}", "]", ": x", ": {}", "'", '"', "!", ", hunter2", " #"]


def load(folder: Path, reference: str, environ: dict[str, str] | None = None) -> config.Config:
    return config.load(write(folder, changed("{file: passphrase}", reference)), environ or {})


def fetched(folder: Path, reference: str, environ: dict[str, str] | None = None) -> str:
    return load(folder, reference, environ).repository.secret()


def problem(folder: Path, reference: str, environ: dict[str, str] | None = None) -> str:
    """The error of fetching, from the key on; the folder is shown as DIR."""
    with pytest.raises(ConfigError) as caught:
        fetched(folder, reference, environ)
    assert caught.value.exit_code == 2
    said = str(caught.value)
    assert said.isprintable()
    assert said.startswith(f"{folder}/config.yaml:4: repository.passphrase: ")
    return said.split("repository.passphrase: ", 1)[1].replace(str(folder), "DIR")


def test_each_form_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(" sp ace \n")
    assert fetched(tmp_path, "{file: passphrase}") == " sp ace "
    assert fetched(tmp_path, f'{{file: "{tmp_path}/passphrase"}}') == " sp ace "
    assert fetched(tmp_path, '{command: "echo from-command"}') == "from-command"
    assert fetched(tmp_path, "{command: cat passphrase}") == " sp ace "
    assert fetched(tmp_path, "{env: NAME}", {"NAME": "from-env"}) == "from-env"
    assert fetched(tmp_path, "{credential: passphrase}", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == " sp ace "
    assert fetched(tmp_path, "plain text") == "plain text"


@pytest.mark.parametrize(
    ("stored", "secret"), [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a\r", "a\r"), ("a ", "a "), ("é", "é")]
)
def test_one_line_end_is_taken_off_and_nothing_else(tmp_path: Path, stored: str, secret: str) -> None:
    (tmp_path / "passphrase").write_bytes(stored.encode())
    assert fetched(tmp_path, "{file: passphrase}") == secret


def test_a_secret_is_fetched_again_each_time(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("one")
    repository = config.load(write(tmp_path, GOOD)).repository
    assert repository.secret() == "one"
    (tmp_path / "passphrase").write_text("two")
    assert repository.secret() == "two"


@pytest.mark.parametrize("written", ["key_file: k", "key_file: {file: k}", 'key_file: {command: "cat k"}'])
def test_a_key_file_is_named_by_its_path(tmp_path: Path, written: str) -> None:
    (tmp_path / "k").write_text("BACKUPD-KEY\n")
    loaded = config.load(write(tmp_path, changed("passphrase: {file: passphrase}", written)))
    assert loaded.repository.secret() == "BACKUPD-KEY"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("{file: none}", f"file DIR/none {ABSENT}"),
        ("{file: ~nobody-of-this-name/x}", f"file DIR/~nobody-of-this-name/x {ABSENT}"),
        ("{file: .}", "file DIR cannot be read: Is a directory; check the path"),
        ("{file: empty}", "the secret is empty; it needs at least one character"),
        ("{file: long}", "file DIR/long is longer than 65536 bytes; this is no secret"),
        ("{file: latin}", "file DIR/latin is not UTF-8 text; write the secret in UTF-8"),
        (
            '{command: "echo hunter2; echo broken >&2; echo more >&2; exit 7"}',
            "the command failed with exit status 7: broken; try it in a shell",
        ),
        ('{command: "echo hunter2; exit 3"}', "the command failed with exit status 3; try it in a shell"),
        ('{command: "kill -9 $$"}', "the command failed with signal 9; try it in a shell"),
        (
            "{command: \"printf '\\\\033[31mred' >&2; exit 1\"}",
            "the command failed with exit status 1: ?[31mred; try it in a shell",
        ),
        ('{command: "true"}', "the secret is empty; it needs at least one character"),
        ("{env: NOT_SET}", "the environment variable NOT_SET is not set; set it, or use {file: ...}"),
        ("{env: LATIN}", "the environment variable LATIN is not UTF-8 text; write the secret in UTF-8"),
        ("{env: EMPTY}", "the secret is empty; it needs at least one character"),
        ("{credential: x}", NO_CREDENTIALS),
    ],
)
def test_one_that_cannot_be_had_says_why_and_where(tmp_path: Path, reference: str, said: str) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("x" * 70_000)
    (tmp_path / "latin").write_bytes(b"h\xfcnter2")
    assert problem(tmp_path, reference, {"EMPTY": "", "LATIN": os.fsdecode(b"h\xfcnter2")}) == said


def test_a_credential_that_the_unit_does_not_have(tmp_path: Path) -> None:
    said = problem(tmp_path, "{credential: x}", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert said == "credential DIR/x cannot be read: No such file or directory; check the path"


def test_a_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    loaded = load(tmp_path, "{file: theirs}")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ConfigError, match=r"theirs cannot be read: Permission denied; check its owner and mode$"):
        loaded.repository.secret()


def test_a_command_that_waits_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "COMMAND_SECONDS", 0.05)
    said = problem(tmp_path, '{command: "exec sleep 100"}')
    assert said == "the command did not end within 0.05 seconds; it must print the secret without asking"


def test_the_first_that_cannot_be_had_is_told_by_a_check(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.yaml:4: repository.passphrase: file .*/passphrase cannot be read"):
        config.check_secrets(config.load(write(tmp_path, GOOD)))


class TestKeyring:
    @pytest.fixture
    def entries(self, monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
        keyring = pytest.importorskip("keyring")
        entries: dict[tuple[str, str], str] = {}
        monkeypatch.setattr(keyring, "get_password", lambda service, username: entries.get((service, username)))
        return entries

    @pytest.mark.parametrize("written", ["mail/backup/alice", "{service: mail/backup, username: alice}"])
    def test_an_entry_is_fetched(self, tmp_path: Path, entries: dict[tuple[str, str], str], written: str) -> None:
        entries["mail/backup", "alice"] = "from-keyring"
        assert fetched(tmp_path, f"{{keyring: {written}}}") == "from-keyring"

    @pytest.mark.usefixtures("entries")
    def test_an_entry_that_is_not_there_says_how_to_make_it(self, tmp_path: Path) -> None:
        said = problem(tmp_path, "{keyring: mail/alice}")
        assert said == "the keyring has nothing for mail, alice; try: keyring set mail alice"

    def test_a_server_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring = pytest.importorskip("keyring")

        def nothing(service: str, username: str) -> str:
            raise keyring.errors.NoKeyringError("no backend")

        monkeypatch.setattr(keyring, "get_password", nothing)
        said = problem(tmp_path, "{keyring: mail/alice}")
        assert said == "there is no keyring on this machine, as on most servers; use {file: ...}"

    def test_one_that_is_locked_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keyring = pytest.importorskip("keyring")

        def locked(service: str, username: str) -> str:
            raise keyring.errors.KeyringLocked("locked\nfor now")

        monkeypatch.setattr(keyring, "get_password", locked)
        said = problem(tmp_path, "{keyring: mail/alice}")
        assert said == "the keyring cannot be used: locked?for now; unlock it, or use {file: ...}"

    def test_without_the_package_it_says_what_to_install(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "keyring", None)
        said = problem(tmp_path, "{keyring: mail/alice}")
        assert said == "there is no keyring support; install backupd[keyring], or use {file: ...}"


class TestNoSecretIsShown:
    @given(value=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30).map("hunter2{}".format))
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_not_in_representations_or_json_or_errors(self, tmp_path: Path, value: str) -> None:
        quoted = yaml.safe_dump(value, default_style='"', width=1000).strip()
        good = config.load(write(tmp_path, changed("password: secret", f"password: {quoted}")))
        imap = good.account("alice").imap
        assert imap
        assert imap.password.resolve() == value
        shown = f"{good!r} {good} {imap.password!r} {imap.password} {good.model_dump()} {good.warnings()}"
        assert value not in shown
        assert value not in good.model_dump_json()
        bad = changed("password: secret", f"password: {quoted}, port: x, nonsense: {{}}").replace("alice:", "al ice:")
        assert value not in refused(tmp_path, bad)

    @pytest.mark.parametrize(
        "before", ["", "!", "!!", "!a!", "&", "*", "%", "@", "`", "|", ">", "{", "[", "- ", "? ", "'", '"', '"\\']
    )
    @pytest.mark.parametrize("after", FORGOTTEN_AFTER)
    def test_not_when_its_quotes_were_forgotten(self, tmp_path: Path, before: str, after: str) -> None:
        text = GOOD.replace("{file: passphrase}", f"{before}hunter2{after}")
        try:
            loaded = config.load(write(tmp_path, text))
        except ConfigError:
            assert "hunter2" not in refused(tmp_path, text)
        else:
            assert "hunter2" not in repr(loaded)


class TestWarnings:
    def test_secrets_that_others_can_read_are_warned_of(self, tmp_path: Path) -> None:
        (tmp_path / "passphrase").write_text("x")
        path = write(tmp_path, GOOD)
        (tmp_path / "passphrase").chmod(0o640)
        path.chmod(0o604)
        assert config.load(path).warnings() == [
            f"repository.passphrase: {tmp_path}/passphrase can be read by others; chmod go= it",
            f"accounts.alice.imap.password: {path} can be read by others; chmod go= it, or use {{file: ...}}",
        ]

    def test_and_those_of_the_owner_alone_are_not(self, tmp_path: Path) -> None:
        (tmp_path / "passphrase").touch(mode=0o600)
        assert config.load(write(tmp_path, GOOD)).warnings() == []

    def test_a_configuration_without_secrets_in_it_may_be_read_by_all(self, tmp_path: Path) -> None:
        path = write(tmp_path, changed("password: secret", "password: {env: X}"))
        path.chmod(0o644)
        assert config.load(path).warnings() == []
