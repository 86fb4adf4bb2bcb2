"""TLS for mail protocols: at least version 1.2, and never with somebody who only claims to be the server.

Two ways to know a server: its certificate is signed by an authority (the system's, or one file), or its certificate's
SHA-256 fingerprint is the pinned one. A pin replaces the authority: it is for servers with certificates of their own.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backupd.errors import CertificateRefused, ConnectionFailed

_CONTEXT_SECONDS = 600.0


@dataclass(frozen=True)
class Trust:
    """Whom to believe. fingerprint: SHA-256 of the server's certificate, hexadecimal, colons as you like."""

    ca_file: Path | None = None
    fingerprint: str = ""


def fingerprint_of(certificate: bytes) -> str:
    """SHA-256 of a certificate in DER, as openssl prints it: AB:CD:..."""
    return hashlib.sha256(certificate).digest().hex(":").upper()


def _plain(fingerprint: str) -> str:
    return fingerprint.removeprefix("sha256:").replace(":", "").replace(" ", "").strip().lower()


def context_for(trust: Trust, subject: str, *, own: bool = False) -> ssl.SSLContext:
    """What checks certificates so. Raises CertificateRefused when the file of authorities cannot be used.

    Connections share it: with the system's authorities it takes 0.8 MB, and tens of milliseconds to make, and the
    daemon has a thousand connections. It is made anew from time to time, for authorities are updated.

    Args:
        own: not shared, for whoever changes it; a client of HTTP asks for a protocol with it, for one.
    """
    try:
        if own:
            return _made(trust)
        written = trust.ca_file.stat().st_mtime_ns if trust.ca_file else 0
        return _shared(trust, written, int(time.monotonic() / _CONTEXT_SECONDS))
    except (OSError, ssl.SSLError) as error:
        raise CertificateRefused(
            f"the file of trusted authorities cannot be used: {error}", subject=subject, remedy=f"check {trust.ca_file}"
        ) from None


@functools.lru_cache(maxsize=32)
def _shared(trust: Trust, written: int, moment: int) -> ssl.SSLContext:
    return _made(trust)


def _made(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=trust.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.fingerprint:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the pin is checked instead, before anything is sent
    return context


def wrap(
    sock: socket.socket, host: str, subject: str, trust: Trust, again: Callable[[], socket.socket] | None = None
) -> ssl.SSLSocket:
    """Shake hands, and make sure that it is the server.

    Args:
        subject: host:port, for messages.
        again: makes another connection that is ready for a handshake, to learn what certificate a refused server has.

    Raises CertificateRefused with the fingerprint that was seen, or ConnectionFailed when it is no TLS at all.
    """
    context = context_for(trust, subject)
    try:
        wrapped = context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        sock.close()
        raise CertificateRefused(
            f"the server's certificate is not trusted: {error.verify_message.rstrip('.')}",
            subject=subject,
            remedy=_remedy(_seen(host, again)),
        ) from None
    except TimeoutError:
        sock.close()
        raise ConnectionFailed("the TLS handshake took too long", subject=subject) from None
    except (ssl.SSLError, OSError) as error:
        sock.close()
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise ConnectionFailed(
            f"the TLS handshake failed: {reason}",
            subject=subject,
            remedy="check port and tls: implicit is for 993 and 995, starttls for 143 and 110",
        ) from None
    if trust.fingerprint:
        seen = fingerprint_of(wrapped.getpeercert(binary_form=True) or b"")
        if not hmac.compare_digest(_plain(seen), _plain(trust.fingerprint)):
            wrapped.close()
            raise CertificateRefused(
                "the server's certificate is not the pinned one", subject=subject, remedy=_remedy(seen)
            )
    return wrapped


def _remedy(seen: str) -> str:
    hint = "if it is the right server, pin its certificate with fingerprint, or name its authority in ca_file"
    return f"the certificate's SHA-256 fingerprint is {seen}; {hint}" if seen else hint


def _seen(host: str, again: Callable[[], socket.socket] | None) -> str:
    """The fingerprint of a certificate that was refused; empty when it cannot be learnt. It is sent nothing."""
    if again is None:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(again(), server_hostname=host) as wrapped:
            return fingerprint_of(wrapped.getpeercert(binary_form=True) or b"")
    except Exception:  # noqa: BLE001 this only adds to a message, whatever goes wrong
        return ""
