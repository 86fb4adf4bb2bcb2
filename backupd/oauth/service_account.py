"""The key of a service account, as Google gives it: a JSON file with a private key."""

from __future__ import annotations

import json

from backupd.errors import ConfigError
from backupd.oauth.discovery import may_be_spoken_to

_NEEDED = ("client_email", "private_key", "private_key_id", "token_uri")
_THIS_MACHINE = "http://127.0.0.1"


def read_service_key(text: str, account: str) -> dict[str, str]:
    """What is needed of it: client_email, private_key (PEM), private_key_id, token_uri. Raises ConfigError."""
    try:
        document = json.loads(text)
        key = {name: document[name] for name in _NEEDED}
        usable = document.get("type") == "service_account" and all(isinstance(each, str) for each in key.values())
        if not usable or not may_be_spoken_to(key["token_uri"], _THIS_MACHINE):
            raise ValueError
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            "service_account_key is no key of a service account",
            subject=account,
            remedy="it must be the JSON file that Google gave with the key",
        ) from None
    return key
