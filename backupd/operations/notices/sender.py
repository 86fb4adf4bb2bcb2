"""A process that sends one message by Apprise, and ends. Run as a script; it knows nothing of backupd.

Standard input: a JSON document with url, title, body and severity. Standard output: {"arrived": true}, or
{"arrived": false, "why": "..."}. It is a process of its own because Apprise takes 45 MB, talks to 130 services in as
many ways, and has no limit of time that holds for all of them: a process can be ended.
"""

from __future__ import annotations

import json
import logging
import socket
import sys

SOCKET_SECONDS = 10.0


class _Heard(logging.Handler):
    """Keeps what Apprise says about a failure: its return value only says that there was one."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def main() -> None:
    """Send what standard input says."""
    asked = json.load(sys.stdin)
    json.dump(_send(asked), sys.stdout)


def _send(asked: dict[str, str]) -> dict[str, object]:
    try:
        import apprise
    except ImportError:
        return {"arrived": False, "why": "Apprise is not installed; pip install 'backupd[notify]'"}
    socket.setdefaulttimeout(SOCKET_SECONDS)
    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.handlers[:] = [heard]
    logger.propagate = False
    asset = apprise.AppriseAsset(
        app_id="backupd", app_desc="backupd", app_url="", async_mode=False, secure_logging=True, plugin_paths=[]
    )
    sending = apprise.Apprise(asset=asset)
    if not sending.add(asked["url"]):
        return {"arrived": False, "why": "not an address that Apprise knows"}
    arrived = sending.notify(
        title=asked["title"], body=asked["body"], notify_type=asked["severity"], body_format=apprise.NotifyFormat.TEXT
    )
    return {"arrived": True} if arrived else {"arrived": False, "why": "; ".join(heard.texts[-3:])}


if __name__ == "__main__":
    main()
