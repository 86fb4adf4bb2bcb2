"""The keys under which logins are sealed: derived from a repository's writer secret, once in a process.

Finding one out anew costs what a passphrase is meant to cost, and in a bucket some requests; a daemon that asks for
tokens all day must not pay that each time. A repository that is opened for other reasons leaves its key here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from backupd.repository.keys import Secrets


class TokenKeys:
    """Keys by the address of their repository. Safe to use from several threads."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def learn(self, url: str, secrets: Secrets) -> None:
        """The repository at this address has these secrets now."""
        self._keys[url] = secrets.token_key

    def get(self, url: str, unlock: Callable[[], Secrets]) -> bytes:
        """The key of the repository at this address. unlock: opens it, if its key is not known yet."""
        with self._lock:
            if url not in self._keys:
                self.learn(url, unlock())
            return self._keys[url]


KEYS = TokenKeys()
"""Of this process."""
