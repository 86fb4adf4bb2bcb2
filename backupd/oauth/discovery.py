"""A provider's discovery document (OpenID Connect Discovery 1.0, 3), checked where it comes in."""

from __future__ import annotations

from urllib.parse import urlsplit

from backupd.oauth.app import Endpoints


def discovered(document: object, issuer: str) -> Endpoints:
    """The endpoints in a discovery document. Raises ValueError when it is not the issuer's, or makes no sense.

    Its word for itself must be the address it was found at, or one provider could pose as another. An endpoint that
    would be spoken to in the open does not count.
    """
    if not isinstance(document, dict) or str(document.get("issuer", "")).rstrip("/") != issuer:
        raise ValueError("not the issuer's")
    methods = document.get("token_endpoint_auth_methods_supported")

    def endpoint(name: str) -> str:
        value = document.get(f"{name}_endpoint")
        return value if isinstance(value, str) and may_be_spoken_to(value, issuer) else ""

    if not endpoint("token"):
        raise ValueError("no token endpoint")
    return Endpoints(
        token=endpoint("token"),
        authorization=endpoint("authorization"),
        device=endpoint("device_authorization"),
        revocation=endpoint("revocation"),
        issuer=str(document["issuer"]),
        authentication=tuple(each for each in methods if isinstance(each, str)) if isinstance(methods, list) else (),
    )


def may_be_spoken_to(url: str, issuer: str) -> bool:
    """https; or http on the very host of an issuer that is spoken to so, which is this machine (see config/oauth.py).

    Raises ValueError for what is no address.
    """
    if not url.isascii() or not url.isprintable():
        return False
    parts, own = urlsplit(url), urlsplit(issuer)
    if not parts.hostname or "@" in parts.netloc or parts.port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == own.scheme and parts.hostname == own.hostname)
