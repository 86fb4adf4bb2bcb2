"""One message to one Apprise address, by a process that ends in time whatever the other side does."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from backupd.mail.names import UNSAFE
from backupd.operations.notices.wording import Text
from backupd.redaction import scrub

SECONDS = 30.0
"""The longest that sending a message may take."""

_GLANCE_SECONDS = 0.1
_LONGEST_REASON = 300
_SENDER = Path(__file__).with_name("sender.py")
_WITH_HOST = frozenset(
    ("apprise", "form", "gotify", "http", "https", "json", "mailto", "matrix", "mmost", "mqtt", "ntfy", "rocket", "xml")
)
"""Kinds of address with a host in the place of the host; chat services have a token there."""


class NotDelivered(Exception):
    """A message has not arrived; its text says why, in a line that may be shown."""


def send(url: str, text: Text, *, stop: threading.Event | None = None, seconds: float = SECONDS) -> None:
    """Send the message. url: of Apprise; a secret. stop: when set, the attempt is given up at once.

    Raises NotDelivered.
    """
    # On a phone it stands among messages of others.
    asked = {"url": url, "title": f"backupd: {text.subject}", "body": text.body, "severity": text.severity}
    # The address goes by a pipe: what is in the arguments or the environment others can see.
    with subprocess.Popen(
        [sys.executable, "-P", str(_SENDER)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
    ) as process:  # fmt: skip
        try:
            out, err = _finished(process, json.dumps(asked), seconds, stop)
        finally:
            process.kill()
    try:
        answer = json.loads(out)
    except ValueError:
        said = err.strip().splitlines()
        raise NotDelivered(_reason(f"the sender failed: {said[-1] if said else process.returncode}")) from None
    if not answer["arrived"]:
        raise NotDelivered(_reason(answer["why"] or "Apprise does not say why"))


def _finished(
    process: subprocess.Popen[str], asked: str, seconds: float, stop: threading.Event | None
) -> tuple[str, str]:
    until = time.monotonic() + seconds
    given: str | None = asked
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(given, timeout=_GLANCE_SECONDS)
        given = None
        if stop is not None and stop.is_set():
            raise NotDelivered("backupd ended meanwhile")
        if time.monotonic() >= until:
            raise NotDelivered(f"no end within {seconds:g} seconds")


def _reason(text: str) -> str:
    text = UNSAFE.sub(" ", scrub(text))
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 3]}..."


def shown(url: str) -> str:
    """An address as it may be shown: its kind, and its host where it has one; the rest is a secret."""
    kind, separator, _ = url.partition("://")
    bare = kind if kind in _WITH_HOST else kind.removesuffix("s")
    if not separator or not kind.isalnum():
        return "(not an address)"
    if bare not in _WITH_HOST:
        return f"{kind}://..."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "(not an address)"
    topic_alone = bare == "ntfy" and not parts.path.strip("/")  # of ntfy's own server, and as good as a password
    if not host or topic_alone:
        return f"{kind}://..."
    return f"{kind}://{host}{f':{port}' if port else ''}"
