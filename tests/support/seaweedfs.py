"""A real S3 server for tests: SeaweedFS on free loopback ports, in a folder of its own.

Master, volume server, filer and S3 gateway run in one process, our child, which dies with us (PR_SET_PDEATHSIG) and is
stopped by its process id alone. Each test asks for a bucket of its own, so that none needs another's leftovers.
"""

from __future__ import annotations

import http.client
import json
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

INSTALL = "pip install 'backupd[test]'"
START_SECONDS = 30.0

ACCESS_KEY, SECRET_KEY = "test-key", "test-secret-0123456789"
WRITER_KEY, WRITER_SECRET = "writer-key", "writer-secret-0123456789"


class SeaweedMissing(RuntimeError):
    """SeaweedFS cannot run here; the message holds the one line that mends it."""


def _program() -> str:
    found = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if not found:
        raise SeaweedMissing(f"these tests need a real S3 server, and SeaweedFS is not installed; run: {INSTALL}")
    return found


class SeaweedFS:
    """One running server."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self._weed = _program()
        self._process: subprocess.Popen[bytes] | None = None
        self._buckets = 0
        # Sockets lie below it, and their paths may have 107 bytes only.
        self.state = Path(tempfile.mkdtemp(prefix="seaweedfs-", dir="/tmp"))
        for folder in ("data", "tmp"):
            (self.state / folder).mkdir()
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        reader = {
            "name": "reader",
            "credentials": [{"accessKey": "reader-key", "secretKey": "reader-secret"}],
            "actions": ["Read", "List"],
        }
        # All that there is to objects, but nothing of buckets.
        writer = {
            "name": "writer",
            "credentials": [{"accessKey": WRITER_KEY, "secretKey": WRITER_SECRET}],
            "actions": ["Read", "Write", "List", "PutObjectRetention", "GetObjectRetention"],
        }
        (self.state / "s3.json").write_text(json.dumps({"identities": [identity, reader, writer]}), encoding="utf-8")
        self.start()

    @property
    def endpoint_url(self) -> str:
        """Where its S3 gateway listens."""
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start on new free ports; another try when somebody else was quicker to take one."""
        for _ in range(3):
            self.port, *others = free_ports(8)
            if self._try_start(others):
                return
        raise RuntimeError(f"SeaweedFS did not start:\n{self.log()[-3000:]}")

    def _try_start(self, ports: list[int]) -> bool:
        master, master_rpc, volume, volume_rpc, filer, filer_rpc, s3_rpc = ports
        options = {
            "ip": self.host,
            "ip.bind": self.host,
            "dir": self.state / "data",
            "master.port": master,
            "master.port.grpc": master_rpc,
            "master.volumeSizeLimitMB": 64,  # space is taken in advance
            "master.electionTimeout": "500ms",
            "master.heartbeatInterval": "150ms",
            "master.telemetry": "false",
            "volume.port": volume,
            "volume.port.grpc": volume_rpc,
            "volume.max": 1000,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.port": filer,
            "filer.port.grpc": filer_rpc,
            "filer.localSocket": self.state / "tmp/filer.sock",
            "s3": "true",
            "s3.port": self.port,
            "s3.port.grpc": s3_rpc,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.state / "s3.json",
            "s3.iam": "false",
            "s3.localSocket": self.state / "tmp/s3.sock",
        }
        with (self.state / "log").open("wb") as out:
            command = ["setpriv", "--pdeathsig", "TERM", self._weed, f"-logdir={self.state / 'tmp'}", "server"]
            self._process = subprocess.Popen(
                [*command, *(f"-{key}={value}" for key, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=self.state,
                env={
                    "PATH": os.environ.get("PATH", ""), "HOME": str(self.state), "TMPDIR": str(self.state / "tmp"),
                    "GOMAXPROCS": "2",
                    # Each bucket takes volumes of its own: one, and not seven, or after some buckets none is left.
                    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
                },
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            # Objects can be stored when the gateway lives and the master gives out places.
            if self._answers(self.port, "/healthz", b"") and self._answers(master, "/dir/assign", b'"fid"'):
                return True
            time.sleep(0.05)
        self.stop()
        return False

    def _answers(self, port: int, path: str, with_: bytes) -> bool:
        connection = http.client.HTTPConnection(self.host, port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status == 200 and with_ in answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """End the server and wait until it has gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.kill()  # it takes ten seconds to end by itself, and nobody needs its objects any more
        process.wait()

    def close(self) -> None:
        """Stop, and remove everything."""
        self.stop()
        shutil.rmtree(self.state, ignore_errors=True)

    def __enter__(self) -> SeaweedFS:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self) -> str:
        """What the server wrote to its log."""
        return (self.state / "log").read_text(errors="replace")

    # -- buckets -------------------------------------------------------------------------------------------------------

    def bucket(self, *, versioned: bool = False, locks: bool = False) -> str:
        """A new, empty bucket. versioned: it keeps what is removed. locks: made with Object Lock, and so versioned."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=locks)
        if versioned:
            self.client().put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def settings(self, **others: Any) -> S3Settings:
        """How to reach it, as its administrator; failing requests are tried again for a short time only."""
        known = {
            "endpoint_url": self.endpoint_url, "region": "us-east-1", "access_key_id": ACCESS_KEY,
            "secret_access_key": lambda: SECRET_KEY, "retry_seconds": 20.0,
        }  # fmt: skip
        return S3Settings(**{**known, **others})

    def client(self) -> Any:
        """A boto3 client of the administrator's, to look at objects and to spoil them."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint_url, region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip
