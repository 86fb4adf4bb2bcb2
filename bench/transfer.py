"""`python -m bench.transfer`: what it takes to bring bytes to S3 and back with boto3 alone, as `aws s3 cp` does.

    up ENDPOINT BUCKET FOLDER      every file below the folder, ten at a time, large ones in parts
    down ENDPOINT BUCKET FOLDER    every object of the bucket
    list ENDPOINT BUCKET           all names, page by page
    list-own ENDPOINT BUCKET       the same through backupd's storage
    fill ENDPOINT BUCKET COUNT     so many small objects

Credentials come from the environment. It is a program, so that it is measured as the others are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config

from backupd.storage.s3 import S3Storage
from backupd.storage.s3_settings import S3Settings

FILES_AT_ONCE = 10
"""As many as `aws s3 cp` has requests under way."""


def _up(client: Any, bucket: str, folder: Path) -> None:
    def put(path: Path) -> None:
        client.upload_file(str(path), bucket, path.relative_to(folder).as_posix(), Config=TransferConfig())

    _each(put, (path for path in sorted(folder.rglob("*")) if path.is_file()))


def _down(client: Any, bucket: str, folder: Path) -> None:
    def get(key: str) -> None:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        client.download_file(bucket, key, str(path), Config=TransferConfig())

    _each(get, _names(client, bucket))


def _names(client: Any, bucket: str) -> Iterator[str]:
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        yield from (each["Key"] for each in page.get("Contents", []))


def _each(work: Any, things: Iterator[Any]) -> None:
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for _ in pool.map(work, things):
            pass


def main(words: Sequence[str]) -> None:
    what, endpoint, bucket, *rest = words
    client = boto3.client("s3", endpoint_url=endpoint, config=Config(max_pool_connections=2 * FILES_AT_ONCE))
    match what:
        case "up":
            _up(client, bucket, Path(rest[0]))
        case "down":
            _down(client, bucket, Path(rest[0]))
        case "fill":
            count = int(rest[0])
            names = (f"packs/{number % 256:02x}/{number:064x}" for number in range(count))
            _each(lambda name: client.put_object(Bucket=bucket, Key=name, Body=b"x"), names)
        case "list":
            print(sum(1 for _ in _names(client, bucket)))
        case "list-own":
            storage = S3Storage(f"s3://{bucket}", S3Settings(endpoint_url=endpoint))
            print(sum(1 for _ in storage.list()))
        case _:
            raise SystemExit(f"not known: {what}")


if __name__ == "__main__":
    main(sys.argv[1:])
