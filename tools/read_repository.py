"""Reads a backupd repository without backupd: lists its snapshots, and extracts every message as an .eml file.

    python read_repository.py [--passphrase-file FILE] REPOSITORY list
    python read_repository.py [--passphrase-file FILE] REPOSITORY extract DIRECTORY [--snapshot ID] [--account NAME]

REPOSITORY is the directory with repository.json (download a bucket first). The passphrase is asked for; or give
--passphrase-file, --key-file or --exported-key. Needs Python 3.11 and four packages: zstandard, cryptography (48 or
newer), blake3, msgspec. Everything below follows docs/format.md, section by section, and imports nothing of backupd.

A message that was erased is in no file: its line in messages.jsonl says when that was, and why.

Exit code: 0 all well, 1 something is damaged (told on standard error; the rest is extracted), 2 wrong key or usage.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import hashlib
import json
import struct
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

import msgspec
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
CONTENT, METADATA, INDEX, SNAPSHOT, ERASURE = 1, 2, 3, 4, 6
PLAIN, RECIPE, MEMBERSHIP, STATE = 0, 1, 2, 3
LARGEST_PAYLOAD = 67_108_864
CACHE_OCTETS = 64 * 1024 * 1024


class Damage(Exception):
    """Something stored is not what it should be."""


class WrongKey(Exception):
    """What was given opens nothing here."""


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


# -- Key slots and secrets ---------------------------------------------------------------------------------------------


class Secrets:
    """The opened secrets, and the keys derived from them."""

    def __init__(self, packed: bytes) -> None:
        fields = msgspec.msgpack.decode(packed)
        self.repository: bytes = fields["repository"]
        self.public_key: bytes = fields["public_key"]
        writer_secret: bytes = fields["writer_secret"]
        private_key: bytes = fields.get("private_key", b"")
        if not private_key:
            raise WrongKey("this key is a writer's, which cannot read mail; a reader's is needed")
        self.private_key = hpke.MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(private_key[:64]),
            x25519.X25519PrivateKey.from_private_bytes(private_key[64:]),
        )
        self.content_id = hkdf(writer_secret, self.repository, b"backupd v1 content id")
        self.metadata_id = hkdf(writer_secret, self.repository, b"backupd v1 metadata id")
        self.metadata_block = hkdf(writer_secret, self.repository, b"backupd v1 metadata block")


def open_slots(root: Path, secret: str) -> Secrets:
    """Try the passphrase, or the text of a key file, on each slot."""
    is_key_file = secret.startswith("BACKUPD-KEY-1 ")
    for path in sorted((root / "keys").glob("*.json")):
        try:
            slot = json.loads(path.read_text())
            salt, wrapped = base64.b64decode(slot["salt"]), base64.b64decode(slot["wrapped"])
            costs = slot.get("argon2")
            if is_key_file and not costs:
                key = hkdf(secret.strip().encode(), salt, b"backupd v1 key slot")
            elif costs and not is_key_file:
                key = Argon2id(
                    salt=salt, length=32, iterations=costs["iterations"], lanes=costs["lanes"],
                    memory_cost=costs["memory_kib"],
                ).derive(secret.encode())  # fmt: skip
            else:
                continue
            bound = b"\0".join([b"backupd v1 key slot", slot["label"].encode(), slot["role"].encode()])
            return Secrets(AESGCM(key).decrypt(wrapped[:12], wrapped[12:], bound))
        except InvalidTag:
            continue
        except (ValueError, KeyError, TypeError) as error:
            complain(f"{path}: this key slot cannot be read: {error}")
    raise WrongKey("the passphrase or key opens no slot of this repository")


def unlock(root: Path, secret: str) -> Secrets:
    """The secrets, proved to belong to this repository."""
    try:
        description = json.loads((root / "repository.json").read_text())
    except FileNotFoundError:
        raise WrongKey(f"{root} is no repository: it has no repository.json") from None
    if description["format"] != 1:
        raise WrongKey(f"the repository is of format {description['format']}, and this program knows format 1")
    if secret.startswith("BACKUPD-SECRETS-1 "):
        secrets = Secrets(base64.b64decode(secret.split()[2]))
    else:
        secrets = open_slots(root, secret)
    # Whoever can write to the storage could have put a public key of their own there.
    public_key = base64.b64decode(description["public_key"])
    if secrets.public_key != public_key or secrets.repository.hex() != description["id"]:
        raise WrongKey("the key is another repository's, or repository.json was altered")
    return secrets


# -- Blocks ------------------------------------------------------------------------------------------------------------


def open_block(data: bytes, secrets: Secrets, expected: tuple[int, ...]) -> bytes:
    """The payload of a block."""
    if len(data) < 16:
        raise Damage("a block is cut short")
    magic, kind, compression, key_length, sealed_length, plain_length = struct.unpack_from("<4sBBHII", data)
    if magic != b"BKB1" or kind not in expected or compression not in (0, 1) or plain_length > LARGEST_PAYLOAD:
        raise Damage("there is no such block here")
    start = 16 + key_length
    if len(data) != start + sealed_length:
        raise Damage("a block has another length than it says")
    field = data[16:start]
    try:
        if kind == CONTENT:
            key = SUITE.decrypt(field, secrets.private_key, b"backupd v1 content block" + secrets.repository)
        else:
            key = hkdf(secrets.metadata_block, field, b"backupd v1 block" + bytes([kind]))
        body = AESGCM(key).decrypt(bytes(12), data[start:], data[:start])
        if compression:
            if zstandard.get_frame_parameters(body).content_size != plain_length:
                raise Damage("a block holds another length than it says")
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=plain_length)
    except (InvalidTag, ValueError, zstandard.ZstdError) as error:
        raise Damage("a block cannot be opened: it was altered") from error
    if len(body) != plain_length:
        raise Damage("a block holds another length than it says")
    return body


def open_payload(payload: bytes) -> list[tuple[int, bytes]]:
    """(kind, octets) of each blob in a block of kind 1 or 2."""
    (size,) = struct.unpack_from("<I", payload)
    kinds, lengths = msgspec.msgpack.decode(payload[4 : 4 + size])
    blobs, at = [], 4 + size
    for kind, length in zip(kinds, lengths, strict=True):
        blobs.append((kind, payload[at : at + length]))
        at += length
    if at != len(payload):
        raise Damage("a block's directory does not fit what is in it")
    return blobs


# -- Index and packs ---------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    pack: bytes
    offset: int
    length: int
    number: int


class Repository:
    """Blobs by id."""

    def __init__(self, root: Path, secrets: Secrets) -> None:
        self.root, self.secrets = root, secrets
        self._places: dict[bytes, Place] = {}
        self._cache: OrderedDict[tuple[bytes, int], list[tuple[int, bytes]]] = OrderedDict()
        self._cached = 0
        for path in sorted((root / "index").glob("*")):
            try:
                self._read_index(path)
            except (Damage, ValueError, TypeError, KeyError) as error:
                complain(f"{path}: this index cannot be read: {error}")
        self.erased: dict[bytes, str] = {}
        for path in sorted((root / "erasures").glob("*")):
            try:
                self._read_erasure(path)
            except (Damage, ValueError, TypeError, KeyError) as error:
                complain(f"{path}: this erasure cannot be read: {error}")

    def _read_erasure(self, path: Path) -> None:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:8] != path.name[-8:]:
            raise Damage("its bytes are not those its name promises")
        record = msgspec.msgpack.decode(open_block(data, self.secrets, (ERASURE,)))
        ids = record.get("messages", b"")
        for at in range(0, len(ids), 32):
            self.erased.setdefault(ids[at : at + 32], f"erased on {record['created'][:10]}: {record['reason']}")

    def _read_index(self, path: Path) -> None:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != path.name:
            raise Damage("its bytes are not those its name promises")
        for pack in msgspec.msgpack.decode(open_block(data, self.secrets, (INDEX,)))["packs"]:
            first = 0
            if not self._path(pack["name"]).exists():  # what it held may be in another one
                continue
            for offset, length, _kind, _plain, count in pack["blocks"]:
                for number in range(count):
                    blob_id = pack["ids"][32 * (first + number) : 32 * (first + number + 1)]
                    self._places.setdefault(blob_id, Place(pack["name"], offset, length, number))
                first += count

    def _path(self, pack: bytes) -> Path:
        return self.root / "packs" / pack.hex()[:2] / pack.hex()

    def blob(self, blob_id: bytes) -> tuple[int, bytes]:
        """(kind, octets), proved by the id; a recipe is proved by whoever joins it."""
        place = self._places.get(blob_id)
        if place is None:
            raise Damage(f"blob {blob_id.hex()[:16]} is in no pack that is there and in an index")
        kind, octets = self._block(place)[place.number]
        if kind != RECIPE:
            key = self.secrets.metadata_id if kind in (MEMBERSHIP, STATE) else self.secrets.content_id
            if blake3(octets, key=key).digest() != blob_id:
                raise Damage(f"blob {blob_id.hex()[:16]} is not what its id says")
        return kind, octets

    def _block(self, place: Place) -> list[tuple[int, bytes]]:
        key = (place.pack, place.offset)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        path = self._path(place.pack)
        try:
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
            blobs = open_payload(open_block(data, self.secrets, (CONTENT, METADATA)))
        except (Damage, OSError, struct.error, msgspec.DecodeError, ValueError) as error:
            raise Damage(f"{path} at {place.offset}: {error}") from error
        self._cache[key] = blobs
        self._cached += sum(len(octets) for _, octets in blobs)
        while self._cached > CACHE_OCTETS and len(self._cache) > 1:
            self._cached -= sum(len(octets) for _, octets in self._cache.popitem(last=False)[1])
        return blobs

    def message(self, message_id: bytes, file: Path) -> str:
        """Write a message to a file, and prove it; its SHA-256."""
        kind, octets = self.blob(message_id)
        identity, digest = blake3(key=self.secrets.content_id), hashlib.sha256()
        with file.open("wb") as out:
            for chunk in [octets] if kind == PLAIN else self._joined(octets):
                identity.update(chunk)
                digest.update(chunk)
                out.write(chunk)
        if kind not in (PLAIN, RECIPE) or identity.digest() != message_id:
            file.unlink()
            raise Damage("the message does not join to its id")
        return digest.hexdigest()

    def _joined(self, recipe: bytes) -> Iterator[bytes]:
        for piece in msgspec.msgpack.decode(recipe):
            if piece[0] == 0:
                yield piece[1]
            elif piece[0] == 1:
                yield from (self.blob(each)[1] for each in piece[1])
            elif piece[0] == 2:
                yield from self._base64(*piece[1:])
            else:
                raise Damage(f"a recipe with a piece of the unknown kind {piece[0]}")

    def _base64(self, blobs: list[bytes], line_length: int, line_end: bytes, padding: int) -> Iterator[bytes]:
        rest, column = b"", 0
        for number, blob_id in enumerate(blobs):
            octets = rest + self.blob(blob_id)[1]
            whole = len(octets) if number == len(blobs) - 1 else len(octets) - len(octets) % 3
            rest = octets[whole:]
            text = base64.b64encode(octets[:whole])
            if number == len(blobs) - 1:
                text = text.rstrip(b"=") + b"=" * padding
            if not line_length:
                yield text
            while line_length and text:
                # The line end comes only when another character follows.
                if column == line_length:
                    yield line_end
                    column = 0
                part, text = text[: line_length - column], text[line_length - column :]
                column += len(part)
                yield part

    def snapshots(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(id, content) of every snapshot that can be read, oldest first."""
        for path in sorted((self.root / "snapshots").glob("*/*"), key=lambda each: each.name):
            try:
                data = path.read_bytes()
                if hashlib.sha256(data).hexdigest()[:8] != path.name[-8:]:
                    raise Damage("its bytes are not those its name promises")
                yield path.name, msgspec.msgpack.decode(open_block(data, self.secrets, (SNAPSHOT,)))
            except (Damage, OSError, msgspec.DecodeError) as error:
                complain(f"{path}: this snapshot cannot be read: {error}")

    def messages(self, segment: list[Any]) -> Iterator[tuple[int, bytes, bytes, list[bytes]]]:
        """(UID, message id, INTERNALDATE, flags) of a segment: those its state run names."""
        membership, state = (msgspec.msgpack.decode(self.blob(run)[1]) for run in segment[5:7])
        flags = dict(zip(unpack(state["uids"]), state["flags"], strict=True))
        for number, uid in enumerate(unpack(membership["uids"])):
            if uid in flags:
                message_id = membership["messages"][32 * number : 32 * number + 32]
                yield uid, message_id, membership["dates"][number], state["flag_sets"][flags[uid]]


def unpack(packed: list[int]) -> list[int]:
    """UIDs from [gap, count, gap, count, ...]."""
    uids: list[int] = []
    end = 0
    for gap, count in zip(packed[::2], packed[1::2], strict=True):
        uids += range(end + gap, end + gap + count)
        end += gap + count
    return uids


# -- The program -------------------------------------------------------------------------------------------------------

complaints = 0


def complain(text: str) -> None:
    global complaints  # noqa: PLW0603 - the exit code of the whole program
    complaints += 1
    print(text, file=sys.stderr)


def component(name: bytes) -> str:
    """A name as one component of a path: nothing but letters, digits and a few more stays as it is."""
    text = quote_from_bytes(name, safe=" @+")
    return text.replace(".", "%2E") if text.startswith(".") else text or "%"


def show(repository: Repository) -> None:
    for name, snapshot in repository.snapshots():
        state = "complete" if snapshot["complete"] else "not complete"
        print(f"{name}  {snapshot['account']}  {snapshot['started']}  {snapshot['messages']} messages  {state}")
        for mailbox in snapshot["mailboxes"]:
            print(f"    {mailbox['mailbox']['name']!r}  {mailbox.get('messages', 0)} messages")


def extract(repository: Repository, target: Path, prefix: str, account: str | None) -> None:
    for name, snapshot in repository.snapshots():
        if not (name.startswith(prefix) or name[-8:].startswith(prefix)) or account not in (None, snapshot["account"]):
            continue
        for mailbox in snapshot["mailboxes"]:
            raw_name = mailbox["mailbox"]["raw_name"]
            folder = target / component(snapshot["account"].encode()) / name / component(raw_name)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "messages.jsonl").open("w", encoding="utf-8") as notes:
                for segment in mailbox.get("segments", []):
                    try:
                        rows = list(repository.messages(segment))
                    except (Damage, KeyError, ValueError, TypeError, IndexError) as error:
                        complain(f"{folder}: UIDs {segment[0]} to {segment[1]} are lost: {error}")
                        continue
                    for uid, message_id, date, flags in rows:
                        if message_id in repository.erased:
                            note = {"uid": uid, "mailbox": raw_name.hex(), "erased": repository.erased[message_id]}
                            notes.write(json.dumps(note) + "\n")
                            continue
                        file = folder / f"{uid}.eml"
                        try:
                            digest = repository.message(message_id, file)
                        except (Damage, ValueError, TypeError) as error:
                            file.unlink(missing_ok=True)
                            complain(f"{file}: lost: {error}")
                            continue
                        shown = [each.decode("latin-1") for each in (date, *flags)]
                        note = {"uid": uid, "file": file.name, "sha256": digest, "mailbox": raw_name.hex()}
                        note |= {"internaldate": shown[0], "flags": shown[1:]}
                        notes.write(json.dumps(note) + "\n")


def secret_of(arguments: argparse.Namespace) -> str:
    file: Path | None = arguments.passphrase_file or arguments.key_file or arguments.exported_key
    return file.read_text().removesuffix("\n").removesuffix("\r") if file else getpass.getpass("Passphrase: ")


def main() -> int:
    parser = argparse.ArgumentParser(description="Read a backupd repository without backupd.")
    parser.add_argument("repository", type=Path)
    parser.add_argument("--passphrase-file", type=Path)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--exported-key", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="show all snapshots and their mailboxes")
    wanted = commands.add_parser("extract", help="write all messages as .eml files")
    wanted.add_argument("directory", type=Path)
    wanted.add_argument("--snapshot", default="", help="only the snapshot whose id, or its last 8 digits, begin so")
    wanted.add_argument("--account", help="only this account")
    arguments = parser.parse_args()
    root = arguments.repository
    try:
        repository = Repository(root, unlock(root, secret_of(arguments)))
    except (WrongKey, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.command == "list":
        show(repository)
    else:
        extract(repository, arguments.directory, arguments.snapshot, arguments.account)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
