"""No secret that was fetched is shown, however it is written; nor is what looks like a credential. The rest stays."""

from __future__ import annotations

import base64
import json
import traceback
from pathlib import Path
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backupd import config, redaction
from backupd.oauth.token import Tokens, read_answer
from backupd.redaction import HIDDEN, Redactor
from tests.support.config import changed, write

SECRETS = st.text(st.characters(exclude_categories=["Cs"]), min_size=8, max_size=40)
WORDS = st.text("abc \n\"'=:,", max_size=12)

WRITTEN = {
    "as it is": lambda secret: secret,
    "repr": repr,
    "bytes": lambda secret: repr(secret.encode()),
    "json": json.dumps,
    "url": lambda secret: quote(secret, safe=""),
    "form": quote_plus,
    "imap": lambda secret: '"' + secret.replace("\\", "\\\\").replace('"', '\\"') + '"',
}
"""Ways in which programs write a text."""


def knowing(*secrets: str) -> Redactor:
    redactor = Redactor()
    for secret in secrets:
        redactor.learn(secret)
    return redactor


@pytest.mark.parametrize("way", WRITTEN)
@given(secret=SECRETS, before=WORDS, after=WORDS)
def test_a_secret_is_hidden_in_every_way_of_writing_it(way: str, secret: str, before: str, after: str) -> None:
    written = WRITTEN[way](secret)
    bare = written.strip("\"'") if written.strip("\"'") != "" else written
    assume(secret.strip("abc \n\"'=:,") != "" and "hidden" not in secret)
    shown = knowing(secret).scrub(before + written + after)
    assert secret not in shown
    assert bare not in shown
    assert HIDDEN in shown


@given(user=st.text(max_size=12), secret=SECRETS, behind=st.text(max_size=6), urlsafe=st.booleans())
def test_in_base64_it_is_hidden_whatever_stands_around_it(user: str, secret: str, behind: str, urlsafe: bool) -> None:
    blob = f"\0{user}\0{secret}{behind}".encode("utf-8", "surrogatepass")
    encoded = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(blob).decode()
    shown = knowing(secret).scrub(f"< {encoded} >")
    assert HIDDEN in shown
    # What is left of the blob are the characters that also hold bits of what stands around.
    offset = len(f"\0{user}\0".encode("utf-8", "surrogatepass"))
    assert encoded[-(-offset * 8 // 6) : (offset + len(secret.encode())) * 8 // 6] not in shown


@given(text=st.text(max_size=200), secrets=st.lists(SECRETS, max_size=5))
def test_whatever_is_known_and_said_it_never_fails(text: str, secrets: list[str]) -> None:
    assert isinstance(knowing(*secrets, text).scrub(text), str)


def test_a_short_secret_is_hidden_as_a_word_and_leaves_longer_words_alone() -> None:
    scrub = knowing("mail").scrub
    assert scrub("mail, mailbox, e-mail, hotmail") == f"{HIDDEN}, mailbox, e-{HIDDEN}, hotmail"


def test_a_secret_of_three_characters_does_not_ruin_the_log() -> None:
    assert knowing("abc").scrub("abc is in abcdef") == "abc is in abcdef"


def test_a_secret_of_many_lines_is_hidden_line_by_line() -> None:
    lines = [base64.b64encode(bytes([number]) * 48).decode() for number in range(3)]
    key = "-----BEGIN KEY-----\n" + "\n".join(lines) + "\n-----END KEY-----\n"
    scrub = knowing(key).scrub
    assert scrub(key) == HIDDEN
    assert scrub(f"bad line: {lines[1]}") == f"bad line: {HIDDEN}"
    assert scrub("-----BEGIN KEY-----") == "-----BEGIN KEY-----"


def test_of_a_secret_address_the_parts_are_secret_too() -> None:
    scrub = knowing("https://hc.example.com/ping/0f9a3a0a-1b2c-4d5e/", "mailtos://bob:p%40ssw0rd@mx.example.com").scrub
    assert scrub('"POST /0f9a3a0a-1b2c-4d5e/ HTTP/1.1" 200') == f'"POST /{HIDDEN}/ HTTP/1.1" 200'
    assert scrub("login of bob with p@ssw0rd at mx.example.com") == f"login of bob with {HIDDEN} at mx.example.com"
    assert knowing("slack://T1JJ3T3L2ABC/A1BRTD4JD/x").scrub("token T1JJ3T3L2ABC") == f"token {HIDDEN}"


def test_what_is_remembered_is_bounded_and_what_is_used_stays() -> None:
    redactor = Redactor(most=3)
    for number in range(10):
        redactor.learn("used all the time")
        redactor.learn(f"token number {number}, once")
    assert redactor.scrub("used all the time") == HIDDEN
    assert redactor.scrub("token number 9, once") == HIDDEN
    assert redactor.scrub("token number 5, once") == "token number 5, once"


def test_no_value_is_kept() -> None:
    redactor = knowing("correct horse battery")
    assert "correct" not in repr(vars(redactor))
    assert "horse" not in repr(vars(redactor))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A1 AUTHENTICATE PLAIN AGFsaWNlAGh1bnRlcjI=", f"A1 AUTHENTICATE PLAIN {HIDDEN}"),
        ("AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRo", f"AUTH XOAUTH2 {HIDDEN}"),
        ("C12 LOGIN alice hunter2", f"C12 LOGIN alice {HIDDEN}"),
        ('C12 LOGIN "al ice" "hunter 2"', f'C12 LOGIN "al ice" {HIDDEN}'),
        ("PASS hunter2", f"PASS {HIDDEN}"),
        ("APOP alice c4c9334bac560ecc979e58001b3e22fb", f"APOP alice {HIDDEN}"),
        ("Authorization: Bearer ya29.abcdef", f"Authorization: {HIDDEN}"),
        ("{'Authorization': 'Basic YWxhZGRpbjpvcGVu'}", f"{{'Authorization': '{HIDDEN}'}}"),
        ("sent Bearer ya29.A0ARrdaM", f"sent Bearer {HIDDEN}"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", HIDDEN),
        ("https://alice:hunter2@mail.example.com/x", f"https://{HIDDEN}@mail.example.com/x"),
        ("mailtos://alice:hunter2@example.com?to=bob", f"mailtos://{HIDDEN}"),
        ("slack://T1/A1/xyz failed", f"slack://{HIDDEN} failed"),
        ("https://hooks.slack.com/services/T0/B0/xyz", f"https://hooks.slack.com/services/{HIDDEN}"),
        ("https://hc-ping.com/0f9a-1b/fail", f"https://hc-ping.com/{HIDDEN}"),
        ('{"refresh_token": "1//0gabc", "n": 1}', f'{{"refresh_token": {HIDDEN}, "n": 1}}'),
        ("grant_type=x&client_secret=abc&y=1", f"grant_type=x&client_secret={HIDDEN}&y=1"),
        ("AKIAIOSFODNN7EXAMPLE", HIDDEN),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\nrest", f"{HIDDEN}\nrest"),
    ],
)
def test_what_looks_like_a_credential_is_hidden_though_nobody_fetched_it(text: str, shown: str) -> None:
    assert Redactor().scrub(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "alice: the server does not accept user name and password (check imap.username and imap.password)",
        "/etc/backupd/config.yaml:4: repository.passphrase: file /x cannot be read: Permission denied",
        "imaps://mail.example.com:993, s3://bucket/prefix, https://docs.example.com/login?next=1",
        "NO [AUTHENTICATIONFAILED] AUTHENTICATE failed, AUTH LOGIN failed, basic credentials, bearer capability",
        "the token expires in 3 days; the access token was refused",
        "snapshot 20261124T020209474Z-0dec2955 stored, 12 messages, 1,234 octets",
    ],
)
def test_what_tells_of_credentials_without_showing_one_stays(text: str) -> None:
    assert Redactor().scrub(text) == text


def test_every_secret_of_the_configuration_is_known_once_it_was_fetched(tmp_path: Path) -> None:
    value = "fetched-from-the-environment"
    loaded = config.load(write(tmp_path, changed("{file: passphrase}", "{env: X}")), {"X": value})
    assert redaction.scrub(value) == value
    loaded.repository.secret()
    try:
        raise ValueError(f"cannot use {value!r}")
    except ValueError as error:
        told = "".join(traceback.format_exception(error))
    assert value in told
    assert value not in redaction.scrub(told)


def test_every_token_is_known_from_the_moment_it_is_in_this_process() -> None:
    read_answer({"access_token": "an-access-token-1", "refresh_token": "a-refresh-token-1"}, "https://idp")
    stored = msgspec.json.decode(
        b'{"access_token": "an-access-token-2", "refresh_token": "a-refresh-token-2"}', type=Tokens
    )
    for token in ("an-access-token-1", "a-refresh-token-1", stored.access_token, stored.refresh_token):
        assert redaction.scrub(f"refused {token!r}") == f"refused '{HIDDEN}'"
