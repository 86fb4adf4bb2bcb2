"""A provider, asked for tokens: discovery, refresh, client credentials, service accounts, codes, and revocation.

The protocol is authlib's, the HTTP httpx2's (docs/decisions/0002). Here is what they leave open: which errors pass by
themselves, what may be believed, and that no secret leaves by an error.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AssertionClient, OAuth2Client
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from backupd.errors import CertificateRefused, ConfigError, ConnectionFailed, ProtocolError
from backupd.oauth.app import App, Endpoints
from backupd.oauth.discovery import discovered
from backupd.oauth.refusals import refusal
from backupd.oauth.service_account import read_service_key
from backupd.oauth.token import Answer, read_answer
from backupd.oauth.transport import SECONDS, open_transport

_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
_LATER = {408, 425, 429}
_SENSELESS = (
    JoseError, httpx2.InvalidURL, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What libraries raise over answers and keys that are none."""


class Provider:
    """An app's provider. Every call is one or two requests; nothing is kept but what was discovered.

    All raise Refused (a LoginRefused), ConnectionFailed, CertificateRefused, ProtocolError, ConfigError.

    Args:
        seconds: how long a request may take.
    """

    def __init__(self, app: App, *, seconds: float = SECONDS) -> None:
        self.app, self._seconds = app, seconds

    @cached_property
    def endpoints(self) -> Endpoints:
        """Where the provider does what; discovered, where it is not given (OpenID Connect Discovery 1.0, 4)."""
        if self.app.endpoints is not None:
            return self.app.endpoints
        url = f"{self.app.issuer}/.well-known/openid-configuration"
        with self._asking(), httpx2.Client(transport=self._transport(url)) as client:
            response = client.get(url, headers={"Accept": "application/json"})
            response.raise_for_status()
            return discovered(response.json(), self.app.issuer)

    def refresh(self, refresh_token: str) -> Answer:
        """Tokens for a refresh token (RFC 6749, 6), which may be of no use afterwards."""
        with self._asking(refresh_token), self._client() as client:
            return self._read(client.refresh_token(self.endpoints.token, refresh_token=refresh_token))

    def by_itself(self) -> Answer:
        """A token without a user: client credentials (RFC 6749, 4.4), or a service account's assertion (RFC 7523)."""
        if self.app.grant == "service_account":
            return self._service_account()
        with self._asking(), self._client(scope=True) as client:
            return self._read(client.fetch_token(self.endpoints.token, grant_type="client_credentials"))

    def exchange(self, code: str, verifier: str, redirect_uri: str) -> Answer:
        """Tokens for the code that a login by browser gave (RFC 6749, 4.1.3; RFC 7636, 4.5)."""
        with self._asking(code, verifier), self._client() as client:
            answer = client.fetch_token(
                self.endpoints.token,
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                redirect_uri=redirect_uri,
            )
            return self._read(answer)

    def begin_device(self) -> Mapping[str, Any]:
        """What the device endpoint says (RFC 8628, 3.2), unchecked."""
        with self._asking(), self._client() as client:
            response = client.post(
                self.endpoints.device,
                data={"scope": " ".join(self.app.scopes)},
                headers={"Accept": "application/json"},
                auth=client.client_auth(client.token_endpoint_auth_method),
            )
            return self._document(response)

    def device_token(self, device_code: str) -> Answer:
        """Tokens, once somebody has entered the code. Until then Refused or ConnectionFailed, with a word for it."""
        with self._asking(device_code), self._client() as client:
            return self._read(client.fetch_token(self.endpoints.token, grant_type=_DEVICE, device_code=device_code))

    def revoke(self, token: str, kind: str) -> None:
        """Make a token useless (RFC 7009). kind: refresh_token or access_token."""
        with self._asking(token), self._client() as client:
            response = client.revoke_token(
                self.endpoints.revocation,
                token=token,
                token_type_hint=kind,
                auth=client.client_auth(client.token_endpoint_auth_method),
            )
            if not response.is_success:
                self._document(response)

    def authorization_url(self, *, state: str, verifier: str, redirect_uri: str) -> str:
        """Where a user logs in by browser: with PKCE, by S256 (RFC 7636)."""
        with self._asking(verifier), self._client(scope=True, code_challenge_method="S256") as client:
            url, _ = client.create_authorization_url(
                self.endpoints.authorization,
                state=state,
                code_verifier=verifier,
                redirect_uri=redirect_uri,
                **dict(self.app.parameters),
            )
            return str(url)

    # -- how ---------------------------------------------------------------------------------------------------------

    def _transport(self, url: str) -> httpx2.BaseTransport:
        return open_transport(url, self.app.ca_file, self.app.provider, seconds=self._seconds)

    def _client(self, *, scope: bool = False, **more: object) -> OAuth2Client:
        """authlib's client, which proves that we are the app by its secret, by a certificate, or not at all.

        A refresh names no scope: it gives what the login gave.
        """
        app, endpoints = self.app, self.endpoints
        secret: str | RSAKey = ""
        method = "none"
        if app.private_key is not None:
            secret, method = RSAKey.import_key(app.private_key()), "private_key_jwt"
        elif app.client_secret is not None:
            secret = app.client_secret()
            method = "client_secret_post" if "client_secret_post" in endpoints.authentication else "client_secret_basic"
        client = OAuth2Client(
            client_id=app.client_id,
            client_secret=secret,
            token_endpoint_auth_method=method,
            scope=" ".join(app.scopes) if scope else None,
            transport=self._transport(endpoints.token),
            **more,
        )
        if method == "private_key_jwt":
            # RS256 is what all have to know (RFC 7518, 3.1), and PS256 what Microsoft asks for.
            algorithm = "PS256" if app.provider == "microsoft" else "RS256"
            proof = PrivateKeyJWT(endpoints.token, headers=self._thumbprint(), alg=algorithm)
            client.register_client_auth_method(proof)
        return client

    def _thumbprint(self) -> dict[str, str]:
        """By which the provider finds the certificate (RFC 7515, 4.1.8)."""
        file = self.app.certificate
        try:
            certificate = x509.load_pem_x509_certificate(file.read_bytes() if file else b"")
        except (OSError, ValueError):
            raise ConfigError(
                "the certificate cannot be read", subject=str(file), remedy="it must be a PEM file"
            ) from None
        digest = base64.urlsafe_b64encode(certificate.fingerprint(hashes.SHA256())).rstrip(b"=").decode()
        return {"x5t#S256": digest, "typ": "JWT"}

    def _service_account(self) -> Answer:
        app = self.app
        key = read_service_key(app.service_key() if app.service_key else "", app.account)
        where = app.endpoints.token if app.endpoints else key["token_uri"]
        with (
            self._asking(key["private_key"]),
            AssertionClient(
                where,
                issuer=key["client_email"],
                subject=app.subject,
                claims={"scope": " ".join(app.scopes)},
                header={"alg": "RS256", "kid": key["private_key_id"]},
                key=RSAKey.import_key(key["private_key"]),
                transport=self._transport(where),
            ) as client,
        ):
            return self._read(client.refresh_token())

    def _read(self, given: Mapping[str, Any]) -> Answer:
        return read_answer(given, self.app.provider)

    def _document(self, response: httpx2.Response) -> Mapping[str, Any]:
        """A JSON object that is no error. Raises httpx2.HTTPStatusError, OAuthError, ValueError."""
        if response.status_code >= 500 or response.status_code in _LATER:
            response.raise_for_status()
        document = _object(response)
        if "error" in document:
            raise OAuthError(document["error"], document.get("error_description"))
        response.raise_for_status()
        return document

    @contextmanager
    def _asking(self, *secrets: str) -> Iterator[None]:
        """What goes wrong meanwhile becomes one of our errors, without its cause: that may hold a secret."""
        app = self.app
        try:
            yield
        except OAuthError as error:
            hidden = (*secrets, *([app.client_secret()] if app.client_secret else []))
            raise refusal(app, error.error, error.description, hidden) from None
        except httpx2.HTTPStatusError as error:
            raise self._of_status(error.response) from None
        except httpx2.TransportError as error:
            raise self._of_transport(error) from None
        except _SENSELESS:
            raise ProtocolError(
                f"{app.provider} sent what makes no sense",
                subject=app.account,
                remedy="check that issuer or token_endpoint is right; a key must be PEM",
            ) from None

    def _of_status(self, response: httpx2.Response) -> ConnectionFailed | ProtocolError:
        what, account = f"{self.app.provider} answered with HTTP {response.status_code}", self.app.account
        if response.status_code >= 500 or response.status_code in _LATER:
            after = response.headers.get("Retry-After", "")
            pause = float(after) if after.isdecimal() and len(after) < 7 else None
            return ConnectionFailed(what, subject=account, remedy="another try comes later", pause=pause)
        return ProtocolError(what, subject=account, remedy="check issuer or token_endpoint, and the tenant")

    def _of_transport(self, error: httpx2.TransportError) -> ConnectionFailed | CertificateRefused:
        app, cause = self.app, _first_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return CertificateRefused(
                f"the certificate of {app.provider} is not trusted: {cause.verify_message.rstrip('.')}",
                subject=app.account,
                remedy="name its authority in oauth2.ca_file, if it is the right one",
            )
        reason = (cause.strerror if isinstance(cause, OSError) else "") or type(error).__name__
        return ConnectionFailed(
            f"{app.provider} cannot be reached: {reason}", subject=app.account, remedy="another try comes later"
        )


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return error


def _object(response: httpx2.Response) -> Mapping[str, Any]:
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        response.raise_for_status()
        raise ValueError("no JSON object")
    return document
