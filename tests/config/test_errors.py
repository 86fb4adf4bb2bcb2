"""What is wrong with a configuration is one line: where, what, and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from backupd import config
from backupd.config.model import AccountConfig, Config
from backupd.config.telling import KINDS
from backupd.config.yaml_lines import parse
from backupd.errors import ConfigError
from tests.support.config import GOOD, changed, refused, write

SECTION = "not a section; write its keys below it, indented"
NO_SECRET = "not a secret; write text in quotes, or {file: ...} with one of file, command, env, credential, keyring"
LENGTH = "not a length of time; write a number and s, m, h, d or w, such as 15m or 2d"
USEFUL = "not a useful length of time; write more than nothing and at most 36500d"
HOST = "not a host; write its name or address alone, the port belongs to port"
NAME = "not a name for an account; use up to 64 letters, digits and . _ @ + -, the first a letter or digit"
ANCHOR = "an anchor (&name); leave it out, or put the value in quotes"
TAG = "a tag (!name); leave it out, or put the value in quotes"
OPEN = (
    "none would send the password in the open to mail.example.com; "
    "use implicit or starttls, or allow_plaintext: true if that is what you want"
)
ENTRY = "not an entry of a keyring; write SERVICE/USERNAME, or {service: ..., username: ...}"
LETTERS = "characters that may not be in it; use letters, digits and . _ @ + -"
PIN = "not a SHA-256 fingerprint; write 64 hexadecimal digits, with or without colons"
SCHEDULE = 'not a schedule; write "every 15 minutes", a cron line of five fields, or "continuous"'
PLACE = 'not a place to listen; write "127.0.0.1:9847" or unix:/run/backupd/health.sock'
LISTEN = 'not an address and port; write "127.0.0.1:9847", "[::1]:9847" or unix:/path'
REMOTE = "other machines can reach this address; take 127.0.0.1, or add allow_remote: true beside it"
HOURS = "not hours of the day; write them as 08:00-18:00"
RATE = "not a bandwidth; write at least 8kB, or a number and MB or Mbit a second, such as 10MB"
SIZE = "not a size; write a number and kB, MB, GB or MiB, such as 10MB"


def known(section: type[BaseModel]) -> str:
    return ", ".join(sorted(section.model_fields))


CASES = [
    # Who is told
    ("accounts:", "notify: [{}]\naccounts:", "5: notify[0].url: missing; add it, for it has no default"),
    (
        "accounts:",
        "notify: [{url: 'json://x', on: [failure, disaster]}]\naccounts:",
        f"5: notify[0].on[1]: not one of those known; write {', '.join(KINDS[:-1])} or {KINDS[-1]}",
    ),
    (
        "accounts:",
        "notify: [{url: 'json://x', on: [recovery, weekly]}]\naccounts:",
        "5: notify[0].on: recovery of what nobody was told; add failure or another one",
    ),
    (
        "accounts:",
        "notify: [{url: 'json://x', remind: 1h}]\naccounts:",
        "5: notify[0].remind: too often to be heeded; write 1d or more, or never",
    ),
    (
        "accounts:",
        "notify: [{url: 'json://x', name: '2'}, {url: 'json://x'}]\naccounts:",
        "5: notify: two places of one name; give each its own",
    ),
    ("accounts:", "pings: {}\naccounts:", "5: pings.url: neither url nor accounts; add one of them"),
    (
        "accounts:",
        "pings: {accounts: {bob: 'https://x'}}\naccounts:",
        "5: pings: there is no account bob; name one of accounts",
    ),
    (
        "accounts:",
        "pings: {accounts: {alice: {fil: x}}}\naccounts:",
        "5: pings.accounts.alice.fil: unknown key; did you mean file?",
    ),
    (
        "accounts:",
        "log: {level: chatty}\naccounts:",
        "5: log.level: not one of those known; write debug, info, warning or error",
    ),
    # Keys
    ("objective", "objectve", "8: accounts.alice.objectve: unknown key; did you mean objective?"),
    (
        "objective",
        "zzz",
        f"8: accounts.alice.zzz: unknown key; known here are {known(AccountConfig)}",
    ),
    (
        "state_dir",
        '"a\\nb\\e[2J"',
        f"1: a?b?[2J: unknown key; known here are {known(Config)}",
    ),
    (
        "accounts:",
        "copies: [{ur: x}]\naccounts:",
        "5: copies[0].url: missing; add it, for it has no default (and 1 more)",
    ),
    (
        "objective: 1h",
        "mailboxes: {inclde: []}",
        "8: accounts.alice.mailboxes.inclde: unknown key; did you mean include?",
    ),
    (
        "objective: 1h",
        "objective: 1h\n    objective: 2h",
        "9: accounts.alice.objective: twice; the first is in line 8, keep one",
    ),
    ("  url: /srv/backup\n", "", "2: repository.url: missing; add it, for it has no default"),
    ("/srv/backup", "", "3: repository.url: no value; write one, or take the key away"),
    ("accounts:\n", "accounts: x\nb:\n", f"5: accounts: {SECTION} (and 1 more)"),
    # Kinds of values
    ("objective: 1h", "mailboxes: x", f"8: accounts.alice.mailboxes: {SECTION}"),
    ("objective: 1h", "mailboxes: {include: x}", "8: accounts.alice.mailboxes.include: not a list; write [one, two]"),
    ("objective: 1h", "mailboxes: {include: []}", "8: accounts.alice.mailboxes.include: empty; write at least one"),
    (
        "objective: 1h",
        "mailboxes: {exclude: [1]}",
        "8: accounts.alice.mailboxes.exclude[0]: not text; put it in quotes",
    ),
    ("host:", 'port: "993", host:', "7: accounts.alice.imap.port: not a whole number; write digits without quotes"),
    (
        "host:",
        f"port: {'9' * 5000}, host:",
        "7: accounts.alice.imap.port: not a whole number; write digits without quotes",
    ),
    ("host:", "port: 0, host:", "7: accounts.alice.imap.port: too small; write 1 or more"),
    ("host:", "connections: 33, host:", "7: accounts.alice.imap.connections: too large; write 32 or less"),
    ("host:", "timeout: 0, host:", "7: accounts.alice.imap.timeout: too small; write more than 0"),
    ("host:", "timeout: 1m, host:", "7: accounts.alice.imap.timeout: not a number; write digits without quotes"),
    (
        "host:",
        "allow_plaintext: yes, host:",
        "7: accounts.alice.imap.allow_plaintext: neither true nor false; write one of them, without quotes",
    ),
    (
        "host:",
        "tls: ssl, host:",
        "7: accounts.alice.imap.tls: not one of those known; write implicit, starttls or none",
    ),
    ("username: alice", "username: 123", "7: accounts.alice.imap.username: not text; put it in quotes"),
    ("username: alice", "username: true", "7: accounts.alice.imap.username: not text; put it in quotes"),
    ("username: alice", 'username: ""', "7: accounts.alice.imap.username: empty; write at least one character"),
    (
        "username: alice",
        'username: "a\\r\\nb"',
        "7: accounts.alice.imap.username: a control character; write visible characters only",
    ),
    ("objective: 1h", "objective: 3600", f"8: accounts.alice.objective: {LENGTH}"),
    ("objective: 1h", "objective: 1x", f"8: accounts.alice.objective: {LENGTH}"),
    ("objective: 1h", "objective: 0h", f"8: accounts.alice.objective: {USEFUL}"),
    ("objective: 1h", "objective: 999999999w", f"8: accounts.alice.objective: {USEFUL}"),
    ("objective: 1h", "schedule: sometimes", f"8: accounts.alice.schedule: {SCHEDULE}"),
    (
        "objective: 1h",
        'schedule: "0 24 * * *"',
        "8: accounts.alice.schedule: not a cron line, for its hour is wrong; write *, 0 to 23, or 0-23/2",
    ),
    ("state_dir: /var/lib/backupd", "state_dir: 1", "1: state_dir: not a path; write one in quotes"),
    ("/srv/backup", "ftp://x", "3: repository.url: an address of no known kind; write a path, or s3://bucket/prefix"),
    # Servers
    ("mail.example.com", '"mail.example.com:993"', f"7: accounts.alice.imap.host: {HOST}"),
    ("mail.example.com", "imaps://mail.example.com", f"7: accounts.alice.imap.host: {HOST}"),
    ("host:", "tls: none, host:", f"7: accounts.alice.imap.tls: {OPEN}"),
    ("host:", "fingerprint: abc, host:", f"7: accounts.alice.imap.fingerprint: {PIN}"),
    # One of two
    ("  passphrase: {file: passphrase}\n", "", "2: repository: neither passphrase nor key_file; add one of them"),
    (
        "{file: passphrase}\n",
        "{file: p}\n  key_file: k\n",
        "5: repository.key_file: there is a passphrase already; one of passphrase and key_file opens a repository",
    ),
    (
        "    imap: {host: mail.example.com, username: alice, password: secret}\n",
        "",
        "6: accounts.alice: neither imap nor pop3; add one of them",
    ),
    (
        "    objective: 1h",
        "    pop3: {host: a, username: b, password: c}",
        "8: accounts.alice.pop3: there is imap already; make this an account of its own",
    ),
    # Names of accounts become names of files
    ("alice:", "../alice:", f"6: accounts.../alice: {NAME}"),
    ("alice:", '"":', f"6: accounts.: {NAME}"),
    ("alice:", "-alice:", f"6: accounts.-alice: {NAME}"),
    ("alice:", f"{'a' * 65}:", f"6: accounts.{'a' * 65}: {NAME}"),
    ("alice:", '"alice\\n":', f"6: accounts.alice?: {NAME}"),
    # Secrets
    ("{file: passphrase}", "{fil: x}", "4: repository.passphrase.fil: unknown key; did you mean file?"),
    ("{file: passphrase}", "{file: x, env: y}", f"4: repository.passphrase: {NO_SECRET}"),
    ("{file: passphrase}", "{}", f"4: repository.passphrase: {NO_SECRET}"),
    ("{file: passphrase}", "{file: 1}", "4: repository.passphrase.file: not text; put it in quotes"),
    ("{file: passphrase}", "[a]", "4: repository.passphrase: not text; put it in quotes"),
    ("{file: passphrase}", "12345", "4: repository.passphrase: not text; put it in quotes"),
    ("{file: passphrase}", '""', "4: repository.passphrase: the secret is empty; it needs at least one character"),
    ("{file: passphrase}", "{keyring: mail}", f"4: repository.passphrase.keyring: {ENTRY}"),
    ("{file: passphrase}", "{credential: ../x}", f"4: repository.passphrase.credential: {LETTERS}"),
    (
        "{file: passphrase}",
        '{file: "a\\0b"}',
        "4: repository.passphrase.file: a control character; write visible characters only",
    ),
    # The daemon
    ("objective: 1h", "objective: 1h\nhealth: {listen: 9847}", f"9: health.listen: {PLACE}"),
    ("objective: 1h", "objective: 1h\nhealth: {listen: localhost}", f"9: health.listen: {LISTEN}"),
    ("objective: 1h", "objective: 1h\nhealth: {listen: 'backup.example.com:9847'}", f"9: health.listen: {LISTEN}"),
    ("objective: 1h", "objective: 1h\nhealth: {listen: '127.0.0.1:70000'}", f"9: health.listen: {LISTEN}"),
    ("objective: 1h", "objective: 1h\nhealth: {listen: '0.0.0.0:9847'}", f"9: health.listen: {REMOTE}"),
    ("objective: 1h", "objective: 1h\nhealth: {listen: '[2001:db8::1]:9847'}", f"9: health.listen: {REMOTE}"),
    ("objective: 1h", "objective: 1h\nquiet_hours: [8-18]", f"9: quiet_hours[0]: {HOURS}"),
    ("objective: 1h", "objective: 1h\nquiet_hours: ['08:00-24:30']", f"9: quiet_hours[0]: {HOURS}"),
    ("objective: 1h", "objective: 1h\nmemory: much", f"9: memory: {SIZE}"),
    ("objective: 1h", "objective: 1h\nbandwidth: fast", f"9: bandwidth: {RATE}"),
    ("objective: 1h", "objective: 1h\nbandwidth: 1kB", f"9: bandwidth: {RATE}"),
    ("password: secret", "password: secret, daily_limit: some", f"7: accounts.alice.imap.daily_limit: {SIZE}"),
    ("objective: 1h", "objective: 1h\nmemory: 0MB", "9: memory: not a useful size; write more than nothing"),
    (
        "objective: 1h",
        "objective: 1h\nmaintenance: {prune: continuous}",
        '9: maintenance.prune: only accounts are backed up so; write "every day", or a cron line of five fields',
    ),
    (
        "objective: 1h",
        "objective: 1h\nmaintenance: {audits: [{level: storage, budget: 0%}]}",
        "9: maintenance.audits[0].budget: not a share; write 1% to 100%",
    ),
    # YAML
    ("/srv/backup", "&a /srv", f"3: repository.url: {ANCHOR}"),
    ("/srv/backup", "*a", "3: repository.url: an alias (*name); write the value out, or put it in quotes"),
    ("/srv/backup", "!!python/name:os.system x", f"3: repository.url: {TAG}"),
    ("/srv/backup", "!horse x", f"3: repository.url: {TAG}"),
    ("/srv/backup", "[" * 50 + "]" * 50, f"3: repository.url{'[0]' * 2}: nested too deeply; see config.example.yaml"),
    ("accounts:", "? [a]\n: b\naccounts:", "5: a key that is not plain text; write a word and a colon"),
    ("objective: 1h", "objective: 1h\n---\n", "9: a second document; there can be one only, so take the --- away"),
]


@pytest.mark.parametrize(("old", "new", "line"), CASES)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert refused(tmp_path, changed(old, new)) == line


def test_of_several_errors_the_first_by_line_is_told_and_the_others_counted(tmp_path: Path) -> None:
    text = changed("state_dir", "statedir").replace("objective: 1h", "objective: 1").replace("host:", "port: 0, host:")
    assert refused(tmp_path, text) == "1: statedir: unknown key; did you mean state_dir? (and 2 more)"


@pytest.mark.parametrize("text", ["- a\n", "a", "a: [", "\t", "a: b: c", "\0", "'", "[" * 10_000])
def test_what_is_no_configuration_at_all_is_one_line_too(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).startswith("1: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_what_is_missing(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text) == "1: repository: missing; add it, for it has no default"


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value) == (
        f"{path}: there is no configuration file; write one after config.example.yaml, or name yours with --config"
    )


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the configuration cannot be read: Is a directory; check"):
        config.load(tmp_path)


def test_a_file_in_another_encoding_is_told_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(changed("username: alice", "username: alícia").encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin.yaml:7: not UTF-8 text; save the file as UTF-8"):
        config.load(tmp_path / "latin.yaml")


@given(text=st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: raw.decode("latin-1")))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_whatever_gives_anything_but_a_clear_error(tmp_path: Path, text: str) -> None:
    refused(tmp_path, text.encode(errors="replace").decode())


@given(
    value=st.text(max_size=60), where=st.sampled_from(["secret", "mail.example.com", "1h", "/srv/backup", "objective"])
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_value_whatever_gives_anything_but_a_configuration_or_a_clear_error(
    tmp_path: Path, value: str, where: str
) -> None:
    text = changed(where, value.encode(errors="replace").decode())
    try:
        config.load(write(tmp_path, text))
    except ConfigError:
        refused(tmp_path, text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(data=JSON)
def test_what_yaml_writes_is_read_as_it_was(data: object) -> None:
    assert parse(yaml.safe_dump(data), Path("x")).data == ({} if data is None else data)


def test_every_key_has_its_line() -> None:
    document = parse(GOOD, Path("x"))
    assert [document.line(("accounts", "alice", key)) for key in ("imap", "objective", "nothing")] == [7, 8, 6]
    assert document.line(("repository", "passphrase", "file")) == 4
