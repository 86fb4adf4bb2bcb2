"""A provider is asked as the RFCs say, and whatever it does is an answer or one clear error without a secret in it."""

from __future__ import annotations

import base64
import dataclasses
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Response, redirect
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import RSAKey

from backupd.errors import (
    BackupdError,
    CertificateRefused,
    ConfigError,
    ConnectionFailed,
    LoginRefused,
    ProtocolError,
    Transient,
)
from backupd.oauth.app import App, Endpoints
from backupd.oauth.discovery import discovered
from backupd.oauth.provider import Provider
from backupd.oauth.refusals import Refused, refusal
from tests.support.oauth import app_at
from tests.support.odd_http import answer, odd_server, says
from tests.support.oidc_provider import OidcProvider, browse
from tests.support.tls import Authority

VERIFIER = "v" * 64
BACK = "http://127.0.0.1:4711"


def logged_in(provider: OidcProvider, app: App) -> Any:
    """Tokens by the way of a browser."""
    asked = Provider(app)
    led_to = browse(asked.authorization_url(state="s", verifier=VERIFIER, redirect_uri=BACK))
    return asked.exchange(led_to.partition("code=")[2].partition("&")[0], VERIFIER, BACK)


def refused(call: Callable[[], object], *secrets: str) -> BackupdError:
    """The error of a call, held to one line without a secret, also in what a traceback would show of its causes."""
    with pytest.raises(BackupdError) as caught:
        call()
    error: BaseException | None = caught.value
    assert str(error).isprintable()
    while error is not None:
        for secret in secrets:
            assert secret not in str(error)
            assert secret not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return caught.value


def test_a_refresh_token_is_good_for_one_use(provider: OidcProvider) -> None:
    asked = Provider(app_at(provider, provider.client("alice")))
    first = logged_in(provider, asked.app)
    second = asked.refresh(first.refresh_token)
    assert second.refresh_token not in ("", first.refresh_token)
    assert second.access_token != first.access_token

    error = refused(lambda: asked.refresh(first.refresh_token), first.refresh_token, second.refresh_token)

    assert isinstance(error, LoginRefused)
    assert "invalid_grant" in error.what
    assert "The token *** is not good any more" in error.what, "the provider repeats it, and we do not"
    assert error.remedy == "run: backupd auth login alice"


def test_a_provider_that_keeps_the_refresh_token_is_understood(provider: OidcProvider) -> None:
    asked = Provider(app_at(provider, provider.client("alice", rotates=False)))
    first = logged_in(provider, asked.app)
    assert asked.refresh(first.refresh_token).refresh_token == first.refresh_token


@pytest.mark.parametrize("offered", [["client_secret_basic"], ["client_secret_post"], None])
def test_an_app_proves_itself_by_its_secret_as_the_provider_likes(
    provider: OidcProvider, offered: list[str] | None
) -> None:
    method = offered[0] if offered else "client_secret_basic"
    client = provider.client("alice", secret="s3cret-%&+", methods=(method,))
    app = app_at(provider, client, endpoints=Endpoints(f"{provider.issuer}/token", authentication=tuple(offered or ())))
    if method == "client_secret_basic":
        client.secret = "s3cret"
    assert Provider(app_at(provider, client, endpoints=app.endpoints, grant="client_credentials")).by_itself()


def test_a_wrong_client_secret_is_not_blamed_on_the_user(provider: OidcProvider) -> None:
    client = provider.client("alice", secret="right")
    app = app_at(provider, client, grant="client_credentials", client_secret=lambda: "wrong-secret")
    error = refused(lambda: Provider(app).by_itself(), "wrong-secret")
    assert isinstance(error, LoginRefused)
    assert error.remedy == "check client_id, and client_secret or certificate: they expire"


def test_an_app_proves_itself_by_a_certificate(provider: OidcProvider, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "backupd")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "app.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    client = provider.client("alice", public_key=RSAKey.import_key(public), methods=("client_assertion_jwt",))
    app = app_at(
        provider, client, grant="client_credentials", certificate=tmp_path / "app.pem", private_key=lambda: pem
    )
    assert Provider(app).by_itself().access_token in provider.issued

    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    wrong = dataclasses.replace(app, private_key=other.decode)
    assert isinstance(refused(lambda: Provider(wrong).by_itself(), "PRIVATE KEY"), LoginRefused)
    nonsense = dataclasses.replace(app, private_key=lambda: "no-key-here")
    refused(lambda: Provider(nonsense).by_itself(), "no-key-here")


def test_microsoft_finds_the_certificate_by_its_thumbprint(authority: Authority, tmp_path: Path) -> None:
    """As its documentation wants it: PS256, and x5t#S256 in the header."""
    asked: list[bytes] = []
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    (tmp_path / "app.pem").write_bytes(authority.pem)

    def hear(sock: socket.socket, head: bytes) -> None:
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = head.partition(b"\r\n\r\n")[2]
        while len(body) < length:
            body += sock.recv(65536)
        asked.append(body)
        sock.sendall(answer(b'{"access_token": "a", "token_type": "Bearer", "expires_in": 3599}'))

    with odd_server(hear) as url:
        app = App(
            account="alice", provider="microsoft", grant="client_credentials", client_id="app",
            scopes=("https://outlook.office365.com/.default",), endpoints=Endpoints(f"{url}/token"),
            certificate=tmp_path / "app.pem", private_key=lambda: pem,
        )  # fmt: skip
        assert Provider(app).by_itself().access_token == "a"
    form = dict(each.split("=") for each in asked[0].decode().split("&"))
    header = jws.extract_compact(form["client_assertion"].encode()).headers()
    assert header["alg"] == "PS256"
    digest = x509.load_pem_x509_certificate(authority.pem).fingerprint(hashes.SHA256())
    assert len(header["x5t#S256"]) == 43
    assert base64.urlsafe_b64decode(header["x5t#S256"] + "=") == digest
    assert form["scope"] == "https%3A%2F%2Foutlook.office365.com%2F.default"


def service_key(provider: OidcProvider, email: str, pem: str, **changes: str) -> str:
    return json.dumps(
        {
            "type": "service_account", "client_email": email, "private_key": pem, "private_key_id": "1",
            "token_uri": f"{provider.issuer}/token",
        }
        | changes
    )  # fmt: skip


def test_a_service_account_reads_for_a_user_of_its_domain(provider: OidcProvider) -> None:
    key = RSAKey.generate_key(2048)
    pem = key.as_pem(private=True).decode()
    client = provider.client("alice@example.com", public_key=key, methods=("jwt",))
    text = service_key(provider, client.client_id, pem)
    app = App(
        account="alice", provider="google", grant="service_account", scopes=("https://mail.google.com/",),
        service_key=lambda: text, subject="alice@example.com",
    )  # fmt: skip
    found = Provider(app).by_itself()
    assert found.access_token in provider.issued
    assert found.refresh_token == ""

    stranger = dataclasses.replace(app, subject="mallory@example.com")
    error = refused(lambda: Provider(stranger).by_itself(), pem)
    assert isinstance(error, LoginRefused)
    assert "service_account_key" in error.remedy


@pytest.mark.parametrize(
    "changes",
    [{"type": "authorized_user"}, {"token_uri": "http://example.com/token"}, {"token_uri": ""}, {"private_key": "x"}],
)
def test_a_key_that_is_none_is_told(provider: OidcProvider, changes: dict[str, str]) -> None:
    text = service_key(provider, "a", "secret-pem", **changes)
    app = App("alice", "google", "service_account", ("mail",), service_key=lambda: text, subject="a")
    refused(lambda: Provider(app).by_itself(), "secret-pem")
    nothing = App("alice", "google", "service_account", ("mail",), service_key=lambda: "[]", subject="a")
    assert isinstance(refused(lambda: Provider(nothing).by_itself()), ConfigError)


# -- who is believed ---------------------------------------------------------------------------------------------------


def test_a_provider_is_believed_by_its_authority_alone(authority: Authority, tmp_path: Path) -> None:
    with OidcProvider(authority, tmp_path) as secure:
        client = secure.client("alice", secret="s")
        app = app_at(secure, client, grant="client_credentials", ca_file=tmp_path / "ca.pem")
        assert Provider(app).by_itself()
        error = refused(lambda: Provider(app_at(secure, client, grant="client_credentials")).by_itself())
        assert isinstance(error, CertificateRefused)
        assert "ca_file" in error.remedy
        assert client.asked == {"client_credentials": 1}, "it was told nothing before it was believed"


def test_a_discovery_document_that_speaks_of_another_is_not_believed(provider: OidcProvider) -> None:
    document = {"issuer": "https://a.example", "token_endpoint": "https://a.example/token"}
    assert discovered(document, "https://a.example").token == "https://a.example/token"
    assert discovered(document | {"issuer": "https://a.example/"}, "https://a.example").token
    for wrong in ({"issuer": "https://b.example"}, {"token_endpoint": "http://a.example/token"}, {"token_endpoint": 1}):
        with pytest.raises(ValueError):
            discovered(document | wrong, "https://a.example")
    odd = {"device_authorization_endpoint": "http://a.example/device", "revocation_endpoint": "ftp://a.example"}
    found = discovered(document | odd, "https://a.example")
    assert (found.device, found.revocation) == ("", ""), "what would be spoken to in the open is not there"
    with pytest.raises(ValueError):
        discovered({"issuer": "http://127.0.0.1:1", "token_endpoint": "http://evil.example/"}, "http://127.0.0.1:1")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=4), st.text())
def test_no_discovery_document_is_more_than_an_error(value: object, key: str) -> None:
    good = {"issuer": "https://a.example", "token_endpoint": "https://a.example/token"}
    for document in (value, good | {key: value}, good | {"token_endpoint": key}, good | {"revocation_endpoint": value}):
        try:
            found = discovered(document, "https://a.example")
        except ValueError:
            continue
        assert found.token.startswith("https://")


def test_a_redirect_is_not_followed_with_secrets(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = provider.client("alice", secret="s3cret")
    heard: list[bytes] = []
    with odd_server(lambda sock, head: heard.append(head)) as elsewhere:
        monkeypatch.setattr(
            provider, "before_answer", lambda name: redirect(f"{elsewhere}/token", 307) if name == "token" else None
        )
        error = refused(lambda: Provider(app_at(provider, client, grant="client_credentials")).by_itself(), "s3cret")
    assert isinstance(error, ProtocolError)
    assert "HTTP 307" in error.what
    assert heard == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [(503, {}, None), (500, {}, None), (429, {"Retry-After": "120"}, 120.0), (502, {"Retry-After": "soon"}, None)],
)
def test_a_provider_that_fails_may_be_asked_again(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch, status: int, headers: dict[str, str], pause: float | None
) -> None:
    asked = Provider(app_at(provider, provider.client("alice")))
    assert asked.endpoints
    monkeypatch.setattr(provider, "before_answer", lambda name: Response("<html>", status, headers))
    error = refused(lambda: asked.refresh("secret-refresh"), "secret-refresh")
    assert isinstance(error, ConnectionFailed)
    assert isinstance(error, Transient)
    assert error.pause == pause
    assert f"HTTP {status}" in error.what


def test_a_provider_that_is_down_is_told(provider: OidcProvider) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    app = App("alice", url, "user", ("mail",), endpoints=Endpoints(f"{url}/token"))
    error = refused(lambda: Provider(app).refresh("secret-refresh"), "secret-refresh")
    assert isinstance(error, ConnectionFailed)
    assert "Connection refused" in error.what


def drip(sock: socket.socket, _: bytes) -> None:
    """An octet now and then, for ever."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        sock.sendall(b"x")
        time.sleep(0.05)


def silence(sock: socket.socket, _: bytes) -> None:
    while sock.recv(4096):
        pass


@pytest.mark.parametrize("behaviour", [drip, silence])
def test_no_provider_holds_us_up(behaviour: Any) -> None:
    began = time.monotonic()
    with odd_server(behaviour) as url:
        app = App("alice", url, "user", ("mail",), endpoints=Endpoints(f"{url}/token"))
        error = refused(lambda: Provider(app, seconds=0.5).refresh("secret-refresh"), "secret-refresh")
    assert isinstance(error, ConnectionFailed)
    assert "did not answer within" in error.what
    assert time.monotonic() - began < 10


ODD = {
    "too much": answer(b'{"access_token": "' + b"a" * 300_000 + b'"}'),
    "packed": answer(b"\x1f\x8b\x08\0", "200 OK", "Content-Encoding: gzip"),
    "no JSON": answer(b"<html>Sign in</html>"),
    "a list": answer(b"[]"),
    "nested": answer(b"[" * 100_000),
    "no token": answer(b"{}"),
    "a number without end": answer(b'{"access_token": "a", "token_type": "Bearer", "expires_in": Infinity}'),
    "odd error": answer(b'{"error": {"a": 1}, "error_description": [1]}', "400 Bad Request"),
    "cut": answer(b"{}").replace(b"Content-Length: 2", b"Content-Length: 200"),
    "no HTTP": b"* OK IMAP4rev1 ready\r\n",
    "nothing": b"",
    "not found": answer(b"no", "404 Not Found"),
}


@pytest.mark.parametrize("said", ODD.values(), ids=ODD)
def test_whatever_comes_is_one_clear_error(said: bytes) -> None:
    with odd_server(says(said)) as url:
        app = App("alice", url, "user", ("mail",), endpoints=Endpoints(f"{url}/token", device=url))
        refused(lambda: Provider(app).refresh("secret-refresh"), "secret-refresh")
        refused(lambda: Provider(app).device_token("secret-device"), "secret-device")
        if said not in (ODD["no token"], ODD["a number without end"]):
            refused(Provider(app).begin_device)


@settings(max_examples=40)
@given(st.binary(max_size=200), st.sampled_from(["200 OK", "400 Bad Request", "503 Busy"]))
def test_no_answer_is_more_than_an_error(body: bytes, status: str) -> None:
    with odd_server(says(answer(body, status))) as url:
        app = App("alice", url, "user", ("mail",), endpoints=Endpoints(f"{url}/token"))
        refused(lambda: Provider(app).refresh("secret-refresh"), "secret-refresh")


def test_the_environment_s_proxy_is_used_but_for_this_machine(
    provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []
    with odd_server(lambda sock, head: heard.append(head)) as proxy:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, proxy)
        monkeypatch.setenv("no_proxy", "")
        app = App("alice", "x", "user", ("mail",), endpoints=Endpoints("https://provider.invalid/token"))
        refused(lambda: Provider(app).refresh("secret-refresh"), "secret-refresh")
        assert Provider(app_at(provider, provider.client("alice"))).endpoints
    assert [head.split(b"\r\n")[0] for head in heard] == [b"CONNECT provider.invalid:443 HTTP/1.1"]
    assert b"secret" not in heard[0]


# -- what a refusal means ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "code", "remedy"),
    [
        ("user", "invalid_grant", "run: backupd auth login alice"),
        ("user", "interaction_required", "run: backupd auth login alice"),
        ("user", "invalid_client", "check client_id, and client_secret or certificate: they expire"),
        ("user", "unauthorized_client", "check that the app is registered for this kind of login"),
        ("user", "invalid_scope", "check scopes, and what the app is allowed to ask for"),
        ("client_credentials", "invalid_grant", "check that the app is allowed to read the mailbox"),
        ("service_account", "unauthorized_client", "check service_account_key, subject, that the domain lets it"),
        ("service_account", "invalid_client", "check service_account_key"),
    ],
)
def test_each_refusal_says_what_to_do(grant: Any, code: str, remedy: str) -> None:
    error = refusal(App("alice", "google", grant, ("mail",)), code, "Because.\r\nTrace ID: 4711", ())
    assert isinstance(error, Refused)
    assert error.code == code
    assert error.remedy.startswith(remedy)
    assert str(error).isprintable()
    assert "4711" not in str(error)
    assert "Because." in error.what


def test_what_passes_by_itself_is_transient() -> None:
    error = refusal(App("alice", "google", "user", ("mail",)), "temporarily_unavailable", None, ())
    assert isinstance(error, Transient)
