"""The configuration: what is right is typed; what is wrong is one line that says where, what, and what is right."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from backupd import config
from backupd.config.model import Config
from backupd.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]
GOOD = """\
state_dir: /var/lib/backupd
repository:
  url: /srv/backup
  passphrase: {file: passphrase}
accounts:
  alice:
    imap: {host: mail.example.com, username: alice, password: "secret"}
    objective: 1h
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def refused(path: Path) -> str:
    """The error without the file's folder."""
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert caught.value.exit_code == 2
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{path}:", "")


def test_defaults_are_filled_in(write: Write) -> None:
    loaded = config.load(write(GOOD))
    imap = loaded.account("alice").imap
    assert imap
    assert (imap.port, imap.tls, imap.connections, imap.timeout) == (993, "implicit", 4, 60.0)
    assert loaded.accounts["alice"].objective == timedelta(hours=1)
    assert loaded.accounts["alice"].mailboxes.include == ("*",)


@pytest.mark.parametrize(("tls", "port"), [("implicit", 993), ("starttls", 143)])
def test_the_port_goes_with_tls(write: Write, tls: str, port: int) -> None:
    imap = config.load(write(GOOD.replace("username: alice", f"username: alice, tls: {tls}"))).account("alice").imap
    assert imap
    assert imap.port == port


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("objective", "objectve", "8: accounts.alice.objectve: unknown key; did you mean objective?"),
        ("objective: 1h", "objective: 1x", "8: accounts.alice.objective: a time is a number and s, m"),
        ("host:", "port: x, host:", "7: accounts.alice.imap.port: must be a whole number"),
        ("host:", "port: 0, host:", "7: accounts.alice.imap.port: "),
        ("host:", "tls: non, host:", "7: accounts.alice.imap.tls: must be one of implicit, starttls or none"),
        ("host:", "tls: none, host:", "7: accounts.alice.imap: tls: none would send the password in the open to mail."),
        ("username: alice", "username: 123", "7: accounts.alice.imap.username: must be text; put it in quotes"),
        ('"secret"', "[1]", "7: accounts.alice.imap.password: must be text; put it in quotes"),
        ("  url: /srv/backup\n", "", "2: repository.url: missing; it has no default"),
        ("{file: passphrase}", "{fil: x}", "4: repository.passphrase.fil: unknown key; did you mean file?"),
        ("{file: passphrase}", "{file: x, env: y}", "4: repository.passphrase: a secret is one of file, command, env,"),
        ("  passphrase: {file: passphrase}\n", "", "2: repository: needs either passphrase or key_file"),
        ("    imap: {", "    pop3: {host: a, username: b, password: c}\n    imap: {", "6: accounts.alice: needs"),
        ("alice:", "../alice:", "5: accounts: '../alice' is no name for an account"),
        ("    objective: 1h", "    objective: 1h\n    objective: 2h", "9: accounts.alice.objective: twice; the"),
        ("    objective: 1h", "    schedule: sometimes", '8: accounts.alice.schedule: a schedule is "every'),
        ("url: /srv/backup", "url: &a /srv\n  s3: *a", "4: an alias (*name); write the value out"),
        ("url: /srv/backup", "url: !!python/name:os.system x", "3: repository.url: the tag tag:yaml.org,2002:python"),
        ("  alice:", " alice:\n   - x: [", "9: expected"),
        ("accounts:", "acounts: 1\naccounts:", "5: acounts: unknown key; did you mean accounts?"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(write: Write, old: str, new: str, line: str) -> None:
    assert old in GOOD
    assert refused(write(GOOD.replace(old, new, 1))).startswith(line)


def test_of_several_errors_the_first_is_told_and_the_others_counted(write: Write) -> None:
    text = refused(write(GOOD.replace("state_dir", "statedir").replace("objective", "objectve")))
    assert text == "1: statedir: unknown key; did you mean state_dir? (and in 1 more)"


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "\t", "a: b: c", "\0", "--- 1\n--- 2\n", "'"])
def test_what_is_no_configuration_at_all_is_one_line_too(write: Write, text: str) -> None:
    refused(write(text))


@given(text=st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_whatever_gives_anything_but_a_clear_error(write: Write, text: str) -> None:
    refused(write(text))


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    assert "config.example.yaml" in refused(tmp_path / "none.yaml")


@pytest.mark.parametrize("word", ["no", "on", "0123", "12:30", "1_000", "0x1f", "1e3", ".inf", "2026-01-01"])
def test_text_that_yaml_takes_for_something_else_stays_text(write: Write, word: str) -> None:
    imap = config.load(write(GOOD.replace("username: alice", f"username: {word}"))).account("alice").imap
    assert imap
    assert imap.username == word


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_this_machine_needs_no_tls(write: Write, host: str) -> None:
    config.load(write(GOOD.replace("mail.example.com", f'"{host}"').replace("host:", "tls: none, host:")))


def test_plaintext_can_be_insisted_on(write: Write) -> None:
    config.load(write(GOOD.replace("host:", "tls: none, allow_plaintext: true, host:")))


def test_an_unknown_account_is_told_with_those_there_are(write: Write) -> None:
    with pytest.raises(UsageError, match=r"bob.*there are: alice"):
        config.load(write(GOOD)).account("bob")


class TestSecrets:
    def secret(self, write: Write, reference: str, environ: dict[str, str] | None = None) -> str:
        return config.load(write(GOOD.replace("{file: passphrase}", reference)), environ or {}).repository.secret()

    def test_each_form_is_fetched(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "passphrase").write_text(" sp ace \n")
        assert self.secret(write, "{file: passphrase}") == " sp ace "
        assert self.secret(write, f'{{file: "{tmp_path}/passphrase"}}') == " sp ace "
        assert self.secret(write, '{command: "echo from-command"}') == "from-command"
        assert self.secret(write, "{env: NAME}", {"NAME": "from-env"}) == "from-env"
        assert self.secret(write, "{credential: passphrase}", {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == " sp ace "
        assert self.secret(write, "plain text") == "plain text"

    @pytest.mark.parametrize(
        ("reference", "what"),
        [
            ("{file: none}", "file .*/none cannot be read: No such file or directory; check its path and owner"),
            ('{command: "echo printed; echo broken >&2; exit 7"}', "the command ended with 7: broken"),
            ('{command: "true"}', "the secret is empty"),
            ("{env: NOT_SET}", "the environment variable NOT_SET is not set"),
            ("{credential: x}", "there are no systemd credentials here"),
            ("{keyring: x}", "keyring is SERVICE/USERNAME"),
        ],
    )
    def test_one_that_cannot_be_had_says_why_and_where(self, write: Write, reference: str, what: str) -> None:
        with pytest.raises(ConfigError, match=rf"config.yaml:4: repository.passphrase: {what}") as caught:
            self.secret(write, reference)
        assert "printed" not in str(caught.value)

    @given(value=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12, max_size=30))
    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_no_secret_is_ever_shown(self, write: Write, value: str) -> None:
        quoted = yaml.safe_dump(value, default_style='"').strip()
        good = config.load(write(GOOD.replace('"secret"', quoted)))
        assert good.account("alice").imap
        shown = f"{good!r} {good} {good.accounts['alice'].imap.model_dump()}"  # type: ignore[union-attr]
        assert value not in shown
        bad = GOOD.replace('"secret"', f"{quoted}, port: x, nonsense: {{}}").replace("alice:", "al ice:")
        assert value not in refused(write(bad))

    def test_files_that_others_can_read_are_warned_of(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "passphrase").write_text("x")
        (tmp_path / "passphrase").chmod(0o644)
        path = write(GOOD)
        path.chmod(0o644)
        loaded = config.load(path)
        assert len(config.warnings(loaded, path)) == 2
        (tmp_path / "passphrase").chmod(0o600)
        path.chmod(0o600)
        assert config.warnings(loaded, path) == []


def keys_of(model: type[BaseModel]) -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for each in _models_in(field.annotation):
            found |= keys_of(each)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in getattr(annotation, "__args__", ()) for model in _models_in(each)]


class TestExample:
    text = (ROOT / "config.example.yaml").read_text()

    def test_it_is_valid(self) -> None:
        assert list(config.load(ROOT / "config.example.yaml").accounts) == ["alice"]

    def test_every_key_is_in_it(self) -> None:
        written = set(re.findall(r"(?m)(?:^[ #]*|[{,] *|- )([a-z_0-9]+):", self.text))
        assert keys_of(Config) - written == set()

    def test_it_is_valid_with_everything_that_is_commented_out(self, write: Write) -> None:
        loosened = re.sub(r"(?m)^( *)# (?=( *)(?:- )?[a-z_0-9]+: *(?:[^ ].*)?$)", r"\1", self.text)
        loosened = loosened.replace("\n  key_file:", "\n  # key_file:")
        loosened = loosened.replace('"5F:8A:..."', '"' + "ab" * 32 + '"')
        lines = [line for line in loosened.splitlines() if not re.match(r" +(?:none|implicit|auto): |[A-Z]", line)]
        loaded = config.load(write("\n".join(lines) + "\n"))
        assert set(loaded.accounts) == {"alice", "bob"}
        assert loaded.retention.keep_daily == 30


def test_the_schema_describes_every_key() -> None:
    schema = config.schema()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        name
        for section in sections
        for name, each in section.get("properties", {}).items()
        if not {"description", "$ref"} & set(each) and name not in ("file", "command", "env", "credential", "keyring")
    ]
    assert undescribed == []
    assert {"repository", "accounts", "state_dir"} <= set(schema["properties"])
