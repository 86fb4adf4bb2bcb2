"""An OpenID provider on loopback, of authlib's server classes: codes with PKCE, devices, refresh tokens that are good
for one use, client credentials, certificates, service accounts, revocation. Access tokens are JWTs that Dovecot checks.

It is as strict as the strictest: a refresh token that is used a second time ends the whole login (RFC 9700, 4.14.2).
Each test has clients of its own, so that one provider serves them all.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6749.errors import InvalidGrantError
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7523 import JWTBearerClientAssertion, JWTBearerGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceAuthorizationEndpoint, DeviceCodeGrant
from flask import Flask, Response, jsonify, request
from joserfc import jwt
from joserfc.jwk import RSAKey
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.support.tls import Authority

_DEVICE = DeviceCodeGrant.GRANT_TYPE
_SERVICE = JWTBearerGrant.GRANT_TYPE
KID = "k1"


@dataclass
class Client:
    """An app. user: who logs in with it, without being asked. public_key: by which it proves itself, if it does so."""

    client_id: str
    user: str
    secret: str = ""
    lifetime: int = 3600
    rotates: bool = True
    refresh_lifetime: int | None = None
    public_key: RSAKey | None = None
    methods: tuple[str, ...] = ("none",)
    asked: Counter[str] = field(default_factory=Counter)

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return ""

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        parts = urlsplit(redirect_uri)  # RFC 8252, 7.3: any port of the loopback address
        return parts.scheme == "http" and parts.hostname == "127.0.0.1" and not parts.path

    def check_client_secret(self, client_secret: str) -> bool:
        return bool(self.secret) and secrets.compare_digest(self.secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in self.methods

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        without_user = grant_type in ("client_credentials", _SERVICE)
        return not without_user or "none" not in self.methods


@dataclass
class Issued:
    """A code, a device's code or a refresh token. family: the login it is of."""

    client: Client
    scope: str
    user: str
    redirect_uri: str = ""
    code_challenge: str = ""
    code_challenge_method: str = ""
    user_code: str = ""
    family: str = field(default_factory=lambda: secrets.token_hex(8))
    used: bool = False

    def get_client_id(self) -> str:
        return self.client.client_id

    def get_scope(self) -> str:
        return self.scope

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_user_code(self) -> str:
        return self.user_code

    def is_expired(self) -> bool:
        return False

    def check_client(self, client: Client) -> bool:
        return client is self.client


class OidcProvider:
    """Runs as long as a test session does. Mutable on purpose: tests spoil it, and look what it was asked.

    Args:
        authority: who signs its certificate; without one it speaks http.
    """

    def __init__(self, authority: Authority | None = None, folder: Path | None = None) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": KID})
        self.clients: dict[str, Client] = {}
        self.codes: dict[str, Issued] = {}
        self.devices: dict[str, Issued] = {}
        self.refreshable: dict[str, Issued] = {}
        self.approved: dict[str, bool] = {}
        self.ended: set[str] = set()
        self.given: set[str] = set()
        self.hide: set[str] = set()
        self.before_answer: Callable[[str], Response | None] = lambda endpoint: None
        self._lock = threading.Lock()
        app = self._app()
        context = None
        if authority is not None and folder is not None:
            authority.write(folder)
            context = (str(folder / "cert.pem"), str(folder / "key.pem"))
        self._server = make_server("127.0.0.1", 0, app, threaded=True, ssl_context=context, request_handler=_Silent)
        self.issuer = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> OidcProvider:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- what tests do -------------------------------------------------------------------------------------------------

    def client(self, user: str, **options: Any) -> Client:
        """Register an app. With a secret it must use it."""
        if options.get("secret"):
            options.setdefault("methods", ("client_secret_basic", "client_secret_post"))
        made = Client(f"app-{secrets.token_hex(4)}", user, **options)
        self.clients[made.client_id] = made
        return made

    def enter(self, user_code: str, *, approve: bool = True) -> None:
        """As a person who enters the code that their terminal shows."""
        assert any(each.user_code == user_code for each in self.devices.values()), "no such code"
        self.approved[user_code] = approve

    def log_out(self, client: Client) -> None:
        """As an administrator who ends a user's sessions."""
        self.ended |= {each.family for each in self.refreshable.values() if each.client is client}

    @property
    def issued(self) -> set[str]:
        """Every secret it ever gave: what nobody may find anywhere."""
        return self.given | set(self.codes) | set(self.devices) | set(self.refreshable)

    def for_dovecot(self, folder: Path) -> str:
        """Lines for dovecot.conf: it takes this provider's tokens, and checks them by itself. folder: for its key."""
        keys = folder / "keys" / "default" / "RS256"
        keys.mkdir(parents=True)
        (keys / KID).write_bytes(self.key.as_pem(private=False))
        (folder / "oauth2.conf").write_text(
            f"introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={folder}/keys/\n"
            f"username_attribute = email\nissuers = {self.issuer}\n"
        )
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        return (
            "auth_mechanisms = plain login xoauth2 oauthbearer\n"
            f"passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {folder}/oauth2.conf\n}}\n"
            "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n"  # refuse without delay
        )

    # -- the provider --------------------------------------------------------------------------------------------------

    def access_token(self, client: Client, grant_type: str, user: str | None, scope: str | None) -> str:
        """A JWT with what Dovecot looks at."""
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": user or client.user, "email": user or client.user, "aud": "mail",
            "scope": scope or "", "iat": now, "nbf": now - 1, "exp": now + client.lifetime, "jti": secrets.token_hex(8),
        }  # fmt: skip
        return jwt.encode({"alg": "RS256", "typ": "JWT", "kid": KID}, claims, self.key)

    def _save(self, token: dict[str, Any], asked: Any) -> None:
        client, refresh = asked.client, token.get("refresh_token")
        self.given.add(token["access_token"])
        if refresh is None:
            return
        before = getattr(asked, "refresh_token", None)
        family = before.family if isinstance(before, Issued) else secrets.token_hex(8)
        self.refreshable[refresh] = Issued(client, token.get("scope", ""), asked.user, family=family)
        if client.refresh_lifetime is not None:
            token["refresh_token_expires_in"] = client.refresh_lifetime

    def _app(self) -> Flask:
        app = Flask("provider")
        server = AuthorizationServer(app, query_client=self.clients.get, save_token=self._save)
        generator = BearerTokenGenerator(
            self.access_token, lambda *_, **__: secrets.token_urlsafe(48), lambda client, _: client.lifetime
        )
        server.register_token_generator("default", generator)
        for grant in self._grants():
            server.register_grant(*grant)
        for endpoint in self._endpoints():
            server.register_endpoint(endpoint)
        server.register_client_auth_method("client_assertion_jwt", _Assertion(self))
        app.add_url_rule("/.well-known/openid-configuration", view_func=self._discovery, endpoint="discovery")
        app.add_url_rule("/jwks", view_func=lambda: jsonify(keys=[self.key.as_dict(private=False)]), endpoint="jwks")

        @app.before_request
        def spoil() -> Response | None:
            name = request.path.strip("/")
            if (client := self.clients.get(_client_id())) is not None:
                client.asked[request.form.get("grant_type", name)] += 1
            return self.before_answer(name)

        @app.get("/authorize")
        def authorize() -> Any:
            client = self.clients[request.args["client_id"]]
            grant = server.get_authorization_grant(server.create_oauth2_request(None))
            return server.create_authorization_response(grant_user=client.user, grant=grant)

        @app.post("/token")
        def token() -> Any:
            with self._lock:  # whoever refreshes at the same time comes second
                return server.create_token_response()

        @app.post("/device")
        def device() -> Any:
            return server.create_endpoint_response("device_authorization")

        @app.post("/revoke")
        def revoke() -> Any:
            return server.create_endpoint_response("revocation")

        return app

    def _discovery(self) -> Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "device_authorization_endpoint": f"{self.issuer}/device",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "private_key_jwt"],
        }
        return jsonify({name: value for name, value in document.items() if name not in self.hide})

    def _grants(self) -> list[tuple[Any, ...]]:
        provider = self

        class Code(grants.AuthorizationCodeGrant):  # type: ignore[misc]
            TOKEN_ENDPOINT_AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")

            def save_authorization_code(self, code: str, asked: Any) -> None:
                data = asked.payload.data
                provider.codes[code] = Issued(
                    asked.client, asked.payload.scope, asked.user, asked.payload.redirect_uri,
                    data.get("code_challenge", ""), data.get("code_challenge_method", ""),
                )  # fmt: skip

            def query_authorization_code(self, code: str, client: Client) -> Issued | None:
                found = provider.codes.get(code)
                return found if found and found.client is client and not found.used else None

            def delete_authorization_code(self, found: Issued) -> None:
                found.used = True

            def authenticate_user(self, found: Issued) -> str:
                return found.user

        class Device(DeviceCodeGrant):  # type: ignore[misc]
            def query_device_credential(self, device_code: str) -> Issued | None:
                return provider.devices.get(device_code)

            def query_user_grant(self, user_code: str) -> tuple[str, bool] | None:
                if user_code not in provider.approved:
                    return None
                user = next(each.client.user for each in provider.devices.values() if each.user_code == user_code)
                return user, provider.approved[user_code]

            def should_slow_down(self, credential: Issued) -> bool:
                return False

        class Refresh(grants.RefreshTokenGrant):  # type: ignore[misc]
            TOKEN_ENDPOINT_AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")

            @property
            def INCLUDE_NEW_REFRESH_TOKEN(self) -> bool:
                return bool(self.request.client.rotates)

            def authenticate_refresh_token(self, refresh_token: str) -> Issued | None:
                found = provider.refreshable.get(refresh_token)
                if found is not None and found.used:
                    provider.ended.add(found.family)
                if found is None or found.family in provider.ended:
                    raise InvalidGrantError(description=f"The token {refresh_token} is not good any more")
                return found

            def authenticate_user(self, found: Issued) -> str:
                return found.user

            def revoke_old_credential(self, found: Issued) -> None:
                found.used = found.client.rotates

        class Service(JWTBearerGrant):  # type: ignore[misc]
            def resolve_issuer_client(self, issuer: str) -> Client | None:
                return provider.clients.get(issuer)

            def resolve_client_public_key(self, client: Client) -> Any:
                return client.public_key

            def authenticate_user(self, subject: str) -> str:
                return subject

            def has_granted_permission(self, client: Client, user: str) -> bool:
                return user == client.user

            def get_audiences(self) -> list[str]:
                return [f"{provider.issuer}/token"]

        class Credentials(grants.ClientCredentialsGrant):  # type: ignore[misc]
            TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic", "client_secret_post", "client_assertion_jwt")

        return [(Code, [CodeChallenge(required=True)]), (Device,), (Refresh,), (Service,), (Credentials,)]

    def _endpoints(self) -> list[type]:
        provider = self

        class Begin(DeviceAuthorizationEndpoint):  # type: ignore[misc]
            INTERVAL = 1

            def get_verification_uri(self) -> str:
                return f"{provider.issuer}/activate"

            def save_device_credential(self, client_id: str, scope: str, data: dict[str, Any]) -> None:
                client = provider.clients[client_id]
                made = Issued(client, scope, client.user, user_code=data["user_code"])
                provider.devices[data["device_code"]] = made

        class Revoke(RevocationEndpoint):  # type: ignore[misc]
            CLIENT_AUTH_METHODS = ("none", "client_secret_basic", "client_secret_post")

            def query_token(self, token: str, token_type_hint: str) -> Issued | None:
                return provider.refreshable.get(token)

            def revoke_token(self, token: Issued, asked: Any) -> None:
                provider.ended.add(token.family)

        return [Begin, Revoke]


class _Assertion(JWTBearerClientAssertion):  # type: ignore[misc]
    """Apps that prove themselves by a certificate."""

    CLIENT_AUTH_METHOD = "client_assertion_jwt"

    def __init__(self, provider: OidcProvider) -> None:
        super().__init__()
        self._provider = provider

    def get_audiences(self) -> list[str]:
        return [f"{self._provider.issuer}/token"]

    def validate_jti(self, claims: Any, jti: str) -> bool:
        return True

    def resolve_client_public_key(self, client: Client) -> Any:
        return client.public_key


class _Silent(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - as it is called there
        pass


def _client_id() -> str:
    if request.authorization and request.authorization.username:
        return request.authorization.username
    return str(request.form.get("client_id") or request.args.get("client_id") or "")


def browse(address: str) -> str:
    """As a browser of somebody who has logged in already: where the provider's page leads to."""
    import http.client

    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 302, body
        return answer.getheader("Location") or ""
    finally:
        connection.close()


def with_changed(address: str, **changes: str) -> str:
    """The address with other values in its query."""
    parts = urlsplit(address)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()} | changes
    return parts._replace(query=urlencode(query)).geturl()
