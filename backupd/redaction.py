"""What must never be shown: values of secrets that this process has fetched, and whatever looks like a credential.

`learn` is told every secret at the moment it is fetched; `scrub` takes all of them out of a text, in each form in which
a library or a traceback would write them. Logs and messages to people go through `scrub` as a whole, because an
exception's text is written by others and may hold anything.

No value is kept here, in plain or otherwise: of each form only its length and a hash under a key of this process. So
a core dump, a debugger or swap finds no second copy of a password in here.

What it cannot do: hide a secret of three characters or fewer by its value. Taking every "abc" out of a log would ruin
the log and give the secret away at the same time. Such a secret is hidden only where it looks like one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "[hidden]"

SHORTEST = 4
"""Characters of the shortest secret that is known by its value."""

PLAIN = 8
"""Characters from which on a secret is hidden anywhere; shorter ones only as a whole word, or "mail" would be taken
out of every "mailbox"."""

MOST = 5_000
"""Secrets that are remembered, the latest used: access tokens change by the hour, for years. About 3 kB each."""

_PART = 10
"""Characters from which on a part of a secret address (of its path or query) is taken for a token."""

_LINE = 16
"""Characters from which on one line of a secret of several lines (a private key) is hidden by itself."""

_ARMOUR = re.compile(r"-----(?:BEGIN|END) [^-\n]*-----")
_BASE64_LEAST = 8


_Entry = tuple[int, int, bytes]
"""Of one form of a secret: hash of its first characters, its length, hash of all of it."""


class Redactor:
    """Knows secrets, and takes them out of texts. Safe to use from several threads."""

    def __init__(self, most: int = MOST) -> None:
        self._key = os.urandom(32)
        self._most = most
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, tuple[_Entry, ...]] = OrderedDict()
        self._uses: Counter[_Entry] = Counter()
        self._by_prefix: dict[int, dict[int, set[bytes]]] = {}  # hash of the first characters, length, hash of all

    def learn(self, secret: str) -> None:
        """From now on this value is hidden. An address is hidden as a whole and by its parts, of which others speak."""
        if len(secret) < SHORTEST:
            return
        name = self._hash(secret)
        with self._lock:
            if name in self._known:
                self._known.move_to_end(name)
                return
        entries = {(hash(form[:SHORTEST]), len(form), self._hash(form)) for form in _forms(secret)}
        with self._lock:
            if name not in self._known:
                self._known[name] = tuple(entries)
                self._add(entries)
            if len(self._known) > self._most:
                self._remove(self._known.popitem(last=False)[1])

    def _add(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            prefix, length, digest = entry
            self._uses[entry] += 1
            lengths = self._by_prefix.setdefault(prefix, {})
            if length not in lengths:
                # Made anew, for others read it without the lock; the longest comes first.
                lengths = {each: lengths.get(each, set()) for each in sorted({length, *lengths}, reverse=True)}
                self._by_prefix[prefix] = lengths
            lengths[length].add(digest)

    def _remove(self, entries: Iterable[_Entry]) -> None:
        for entry in entries:
            prefix, length, digest = entry
            self._uses[entry] -= 1
            if self._uses[entry]:
                continue
            del self._uses[entry]
            lengths = self._by_prefix[prefix]
            lengths[length].discard(digest)
            if not any(lengths.values()):
                del self._by_prefix[prefix]

    def scrub(self, text: str) -> str:
        """The text without secrets, each replaced by [hidden]. Takes about a quarter of a microsecond per character."""
        return _looks_secret(self._without_known(text))

    def _without_known(self, text: str) -> str:
        buckets = self._by_prefix
        if not buckets:
            return text
        made: list[str] = []
        kept = place = 0
        last = len(text) - SHORTEST
        while place <= last:
            bucket = buckets.get(hash(text[place : place + SHORTEST]))
            length = self._match(bucket, text, place) if bucket else 0
            if not length:
                place += 1
                continue
            made += [text[kept:place], HIDDEN]
            kept = place = place + length
        return "".join([*made, text[kept:]]) if made else text

    def _match(self, lengths: dict[int, set[bytes]], text: str, place: int) -> int:
        """How many characters from here on are a secret; 0 for none."""
        for length, digests in lengths.items():
            end = place + length
            if end > len(text) or self._hash(text[place:end]) not in digests:
                continue
            if length < PLAIN and (_is_word(text[place - 1 : place]) or _is_word(text[end : end + 1])):
                continue
            return length
        return 0

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _forms(secret: str) -> Iterator[str]:
    """Everything that, written somewhere, gives the secret away."""
    lines = [line for line in secret.splitlines() if len(line) >= _LINE and not _ARMOUR.fullmatch(line)]
    for value in (secret, *lines, *_parts_of_address(secret)):
        yield from (form for form in _written(value) if len(form) >= SHORTEST)


def _written(secret: str) -> Iterator[str]:
    """A value as it is, and as programs write it: in quotes, in JSON, in URLs, in base64 with anything around it."""
    yield secret
    if len(secret) < PLAIN:
        return
    raw = secret.encode("utf-8", "surrogatepass")
    yield repr(secret)[1:-1]
    yield ascii(secret)[1:-1]
    yield repr(raw)[2:-1]
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield secret.replace("\\", "\\\\").replace('"', '\\"')  # a quoted string of IMAP
    yield quote(raw, safe="")
    yield quote(raw)
    yield quote_plus(raw)
    for before in range(3):
        # SASL PLAIN, Basic and XOAUTH2 put names before a secret and more behind it. Of its base64, what does not
        # depend on them is the same wherever it stands, but for these three ways.
        encoded = base64.b64encode(b"\0" * before + raw)
        whole = encoded[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6].decode()
        if len(whole) >= _BASE64_LEAST:
            yield whole
            yield whole.translate(str.maketrans("+/", "-_"))


def _parts_of_address(secret: str) -> Iterator[str]:
    """Of an address that is a secret: its password, and tokens in user, host, path and query."""
    if "://" not in secret:
        return
    try:
        parts = urlsplit(secret)
    except ValueError:
        return
    user, at, host = parts.netloc.rpartition("@")
    if at:
        name, colon, password = user.partition(":")
        if colon:
            yield from {password, unquote(password)}
        if len(name) >= _PART and not colon:
            yield from {name, unquote(name)}
    if "." not in host.partition(":")[0] and len(host) >= _PART:
        yield host  # chat services have a token there
    tokens = [*parts.path.split("/"), *(each.partition("=")[2] for each in parts.query.split("&"))]
    for token in tokens:
        for form in {token, unquote(token)}:
            if len(form) >= _PART:
                yield form


_BLOB = r"[A-Za-z0-9+/_=.~-]"
_LOOKS_RANDOM = r"(?=[A-Za-z0-9+/_.~-]*[A-Z0-9=])"  # "AUTH PLAIN failed" and "basic credentials" are words
_ARGUMENT = r'(?:"(?:[^"\\]|\\.)*"|[^\s"]+)'
_NAMES = (
    "access_?token|refresh_?token|id_?token|auth_?token|client_?secret|client_?assertion|code_?verifier|device_?code"
    "|secret_?access_?key|session_?token|api_?key|apikey|password|passwd|passphrase|secret|token|signature"
    "|x-amz-signature|x-amz-credential|x-amz-security-token"
)
_SECRET_NAME = re.compile(_NAMES, re.IGNORECASE)
_SAFE_SCHEMES = "https?|wss?|file|s3|imaps?|pop3?s?|smtps?|unix|tcp|udp"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A whole private key, on as many lines as it has, or with the line ends written as \n.
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    # Headers (RFC 9110, 11.6), as they are in traces and in representations of dictionaries.
    (
        re.compile(
            r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|x-(?:api|auth)-(?:key|token))"
            r"""(["']?\s*[:=]\s*["']?)[^"'\r\n]+"""
        ),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(rf"\b((?i:bearer|basic)\s+){_LOOKS_RANDOM}{_BLOB}{{8,}}"), rf"\1{HIDDEN}"),
    # SASL in IMAP, POP3 and SMTP (RFC 4959, 5034, 4954), and passwords in the commands of old.
    (
        re.compile(rf"\b((?i:auth(?:enticate)?)\s+[A-Za-z0-9_-]{{3,20}}\s+){_LOOKS_RANDOM}{_BLOB}{{4,}}"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(\b[A-Za-z]{{0,8}}\d+\s+LOGIN\s+{_ARGUMENT}\s+){_ARGUMENT}"), rf"\1{HIDDEN}"),
    (re.compile(r"(\bPASS\s+|\bAPOP\s+\S+\s+)\S+"), rf"\1{HIDDEN}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),  # a JSON web token
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    # name=value, and "name": "value". Not name: value, for that is how errors tell what is wrong with a key.
    (
        re.compile(
            rf"""(?i)(?<![a-z0-9])({_NAMES})(\\?["']?\s*[=:]\s*(?=\\?["'])|=)"""
            r"""(?:\\?"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"',;&)}\]]+)"""
        ),
        rf"\1\2{HIDDEN}",
    ),
    # Addresses: user and password in any; and of kinds that belong to a notification service, all but the kind.
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^\s/?#'\"<>@]*:[^\s/?#'\"<>]*@"), rf"\1{HIDDEN}@"),
    (
        re.compile(
            rf"(?i)\b(?!(?:{_SAFE_SCHEMES})://)([a-z][a-z0-9+.-]*://)(?!\[hidden\](?:[\s'\"]|$))[^\s'\"<>]+"
        ),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(
            r"(?i)\b(https?://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks|hc-ping\.com"
            r"|api\.telegram\.org|[a-z0-9.:-]+/(?:hooks?|ping))/)[^\s'\"<>]+"
        ),
        rf"\1{HIDDEN}",
    ),
)  # fmt: skip
# One of these is in whatever a pattern matches. Most texts have none, and looking for them first is quick.
_HINTS = (
    *("-----begin", "authorization", "cookie", "x-api", "x-auth", "bearer", "basic", "auth", "login", "pass", "apop"),
    *("eyj", "akia", "asia", "://", "token", "secret", "assertion", "verifier", "device", "key", "signature"),
    "credential",
)


def _looks_secret(text: str) -> str:
    lowered = text.lower()
    if not any(hint in lowered for hint in _HINTS):
        return text
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def names_a_secret(name: str) -> bool:
    """Whether a field of this name is not to be shown, whatever is in it: "password", "access_token" ..."""
    return _SECRET_NAME.fullmatch(name) is not None


_process = Redactor()


def learn(secret: str) -> None:
    """This process has fetched a secret: hide it from now on."""
    _process.learn(secret)


def scrub(text: str) -> str:
    """The text without any secret that this process has fetched, and without what looks like one."""
    return _process.scrub(text)
