"""`python -m bench s3`: the same mail to an S3 server and back, beside restic and beside boto3 alone.

The server is SeaweedFS on this machine: it takes its share of the processors, and no line is between. So these figures
say what the programs cost, and not what a far bucket does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.contestants import (
    OWN,
    PASSPHRASE,
    RESTIC,
    ROOT,
    Backupd,
    Contestant,
    WithRestic,
    contestants,
    quietly,
    secret,
)
from bench.figures import Measure, Sample
from bench.mailboxes import KINDS, Box, Kind, fill
from bench.process import Command, Failed, run, stored
from bench.rounds import FIRST, TO_FILES, UNCHANGED, messages_below, turned
from bench.s3_report import ALONE, COPY_DOWN, COPY_UP, LIST, LOCAL, Measured, text, write
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.seaweedfs import ACCESS_KEY, SECRET_KEY, SeaweedFS, SeaweedMissing

OBJECTS, OBJECTS_QUICK = 100_000, 2_000
SECONDS_EACH = 900.0
MEASURED = ("bulk", "office")
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip
Say = Callable[[str], None]


class InBucket(Backupd):
    """backupd with its repository in a bucket, and a copy on the disk."""

    def __init__(self, program: str, server: SeaweedFS) -> None:
        super().__init__(program)
        self._server = server
        self.bucket = server.bucket()

    def _places(self) -> dict[str, Any]:
        s3 = {
            "endpoint_url": self._server.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
            "secret_access_key": {"file": str(secret(self._folder / "s3-secret", SECRET_KEY))},
        }  # fmt: skip
        return {"repository": {"url": f"s3://{self.bucket}", "s3": s3}, "copies": [{"url": str(self._folder / "copy")}]}

    def stored(self) -> dict[Measure, int]:
        listed = self._server.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {"stored": sum(each["Size"] for page in listed for each in page.get("Contents", []))}


class OnDisk(InBucket):
    """backupd with its repository on the disk, and a copy in a bucket."""

    name = LOCAL

    def _places(self) -> dict[str, Any]:
        there = super()._places()
        return {"repository": {"url": str(self._folder / "repository")}, "copies": [there["repository"]]}

    def stored(self) -> dict[Measure, int]:
        return {"stored": stored(self._folder / "repository")}


class ResticInBucket(WithRestic):
    """mbsync to a Maildir, and restic from there to a bucket."""

    def __init__(self, server: SeaweedFS) -> None:
        super().__init__()
        self._server = server
        self._bucket = server.bucket()

    def _set_up(self, folder: Path) -> dict[str, str]:
        environment = {
            **CREDENTIALS,
            "RESTIC_REPOSITORY": f"s3:{self._server.endpoint_url}/{self._bucket}",
            "RESTIC_PASSWORD_FILE": str(secret(folder / "passphrase", PASSPHRASE)),
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }
        quietly(["restic", "init", "--repository-version", "2"], folder, environment)
        return environment

    def stored(self) -> dict[Measure, int]:
        listed = self._server.client().get_paginator("list_objects_v2").paginate(Bucket=self._bucket)
        return {"stored": sum(each["Size"] for page in listed for each in page.get("Contents", []))}


class Round:
    """One round of one mailbox."""

    def __init__(self, server: SeaweedFS, program: str, box: Box, scratch: Path, say: Say) -> None:
        self._server, self._box, self._scratch, self._say = server, box, scratch, say
        self._bucket, self._disk = InBucket(program, server), OnDisk(program, server)
        self._everybody: list[Contestant] = [self._bucket, self._disk, ResticInBucket(server)]

    def run(self, number: int) -> Iterator[Sample]:
        order = turned(self._everybody, number)
        for one in order:
            folder = self._scratch / one.name.replace(" ", "").replace(",", "-")
            folder.mkdir()
            one.prepare(folder, self._box.account)
            yield from self._measured(FIRST, one.name, one.snapshot())
            for measure, size in one.stored().items():
                yield Sample(self._box.name, FIRST, one.name, measure, size)
        for one in order:
            yield from self._measured(UNCHANGED, one.name, one.snapshot())
        for one in order:
            target = self._scratch / "restored"
            commands = one.restore_files(target)
            if commands is None:
                raise RuntimeError(f"{one.name} restores nothing")
            yield from self._measured(TO_FILES, one.name, commands)
            self._check(f"{one.name}: {TO_FILES}", messages_below(target), self._box.count)
            shutil.rmtree(target)
        yield from self._copies(number)

    def _copies(self, number: int) -> Iterator[Sample]:
        """The same octets, by backupd and by boto3 alone: from the disk to a bucket, and from a bucket to the disk."""
        repository = self._disk.folder / "repository"
        bucket, folder = self._server.bucket(), self._scratch / "down"
        up = [(OWN, self._disk.ask("copy")), (ALONE, [self._alone("up", bucket, str(repository))])]
        down = [(OWN, self._bucket.ask("copy")), (ALONE, [self._alone("down", self._bucket.bucket, str(folder))])]
        for work, both in ((COPY_UP, up), (COPY_DOWN, down)):
            for name, commands in turned(both, number):
                yield from self._measured(work, name, commands)
        for what, place in (("copied", self._disk.bucket), ("uploaded", bucket)):
            self._check(f"octets {what}", self._octets_in(place), stored(repository))
        self._check("octets copied down", stored(self._bucket.folder / "copy"), stored(folder))

    def _octets_in(self, bucket: str) -> int:
        listed = self._server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(each["Size"] for page in listed for each in page.get("Contents", []))

    def _check(self, what: str, found: int, expected: int) -> None:
        if found != expected:
            raise Failed(f"{what}: {found} of {expected}")

    def _alone(self, what: str, bucket: str, *more: str) -> Command:
        return alone(self._server, self._scratch, what, bucket, *more)

    def _measured(self, work: str, name: str, commands: Sequence[Command]) -> Iterator[Sample]:
        cost = run(commands, limit=SECONDS_EACH)
        self._say(f"{self._box.name}: {work}, {name}: {cost.wall:.2f} s, CPU {cost.cpu:.2f} s")
        yield Sample(self._box.name, work, name, "wall", cost.wall)
        yield Sample(self._box.name, work, name, "cpu", cost.cpu)
        yield Sample(self._box.name, work, name, "peak", cost.peak)


def alone(server: SeaweedFS, folder: Path, what: str, bucket: str, *more: str) -> Command:
    """boto3 alone, as a program."""
    words: list[str | Path] = [sys.executable, "-m", "bench.transfer", what, server.endpoint_url, bucket, *more]
    return Command(words, folder, {**CREDENTIALS, "PYTHONPATH": str(ROOT)})


def list_many(server: SeaweedFS, scratch: Path, count: int, rounds: int, say: Say) -> Iterator[Sample]:
    """A listing of so many objects."""
    bucket = server.bucket()
    cost = run([alone(server, scratch, "fill", bucket, str(count))], limit=SECONDS_EACH)
    say(f"{count} objects were stored in {cost.wall:.0f} s")
    for number in range(rounds):
        for name, what in turned([(OWN, "list-own"), (ALONE, "list")], number):
            cost = run([alone(server, scratch, what, bucket)], limit=SECONDS_EACH)
            say(f"{LIST}, {name}: {cost.wall:.2f} s, {cost.peak / 1e6:.0f} MB")
            yield Sample(LIST, LIST, name, "wall", cost.wall)
            yield Sample(LIST, LIST, name, "cpu", cost.cpu)
            yield Sample(LIST, LIST, name, "peak", cost.peak)


def measure(box: Box, program: str, scratch: Path, rounds: int, say: Say) -> Iterator[Sample]:
    """Everything of one sort of mail. Each round has a server of its own, so that none finds a fuller one."""
    for number in range(rounds):
        folder = scratch / f"round-{number}"
        folder.mkdir()
        with SeaweedFS() as server:
            yield from Round(server, program, box, folder, say).run(number)
        shutil.rmtree(folder)


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench s3", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little mail, one round; writes nothing down")
    parser.add_argument("--only", choices=MEASURED, help="this sort of mail alone; writes nothing down")
    parser.add_argument("--scratch", type=Path, help="where to work (default: a temporary folder)")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> int:
    wish = arguments(words)
    rounds = 1 if wish.quick else 3

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    everybody, versions, _ = contestants()
    if RESTIC not in [one.name for one in everybody]:
        say("error: mbsync and restic are needed (apt-get install isync restic)")
        return 1
    program = str(Path(sys.executable).parent / "backupd")
    began, clock = datetime.now(UTC), time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="bench-", dir=wish.scratch))
    boxes: list[Box] = []
    samples: list[Sample] = []
    chosen: list[Kind] = [kind for kind in KINDS if kind.name in ([wish.only] if wish.only else MEASURED)]
    load = os.getloadavg()[0]
    try:
        with Dovecot() as mail:
            for kind in chosen:
                folder = scratch / kind.name
                folder.mkdir()
                box = fill(mail, kind, folder, quick=wish.quick)
                say(f"{kind.name}: {box.count} messages, {box.octets / 1e6:.0f} MB")
                boxes.append(box)
                samples += measure(box, program, folder, rounds, say)
                shutil.rmtree(box.account.home)
        count = OBJECTS_QUICK if wish.quick else OBJECTS
        with SeaweedFS() as server:
            samples += list_many(server, scratch, count, rounds, say)
        measured = Measured(began, (time.monotonic() - clock) / 60, load, versions, boxes, count, samples)
        print(text(measured))
        if wish.quick or wish.only:
            say("nothing written down: only a run of everything goes to the page")
        else:
            for path in write(measured):
                say(f"wrote {path}")
    except (Failed, DovecotMissing, SeaweedMissing) as problem:
        say(f"error: {problem}")
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0
