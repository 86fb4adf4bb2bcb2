"""A link with a long round trip and a bounded rate, so that what a network costs can be measured on one machine.

Real TCP runs over it: two TUN devices, one in this network namespace (the servers' side), one in a namespace of its
own (the clients' side), and a process that carries the packets between them, each as late as a line of that rate and
length would. `tc netem` does the same where the kernel has it; TUN devices are there more often. Needs root.

The carrier is `python -m bench.link ADDRESS RTT_MS MBIT`. Its devices and its namespace are gone when it ends, and it
ends when its standard input does: nothing is left over, whatever happens to the harness.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

MTU = 1500
QUEUE_SECONDS = 0.2
"""What the line's buffers hold; more is dropped, as routers do."""

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
_PACKETS_AT_ONCE = 64
_SYN = 0x02


class Unavailable(RuntimeError):
    """No such link can be made here; the message says why."""


class Traffic(NamedTuple):
    """What the link carried. down: octets of packets to the clients; up: from them; dropped: packets the queues lost.

    connections: that clients opened. turns: how often a client sent something after it had heard something new,
    which is how many round trips there would be if every answer was waited for.
    """

    down: int
    up: int
    dropped: int
    connections: int
    turns: int


class Link:
    """The link, while it lasts. far: the servers' address, on which they must listen.

    Args:
        rtt: seconds there and back.
        mbit: megabits a second in each direction.
    """

    def __init__(self, *, rtt: float, mbit: float) -> None:
        self.rtt, self.mbit = rtt, mbit
        # Other runs of the harness have other addresses; one run has one link at a time.
        third, fourth = divmod(os.getpid() * 4 % 65536, 256)
        self.far = f"198.18.{third}.{fourth + 1}"  # RFC 2544: addresses for benchmarks
        self._near = f"198.18.{third}.{fourth + 2}"

    def __enter__(self) -> Link:
        words = [sys.executable, "-m", "bench.link", self.far, self._near, str(self.rtt), str(self.mbit)]
        root = Path(__file__).resolve().parents[1]
        self._carrier = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, text=True)
        if self._answer() != "ready":
            self._carrier.communicate()
            raise Unavailable(f"the link could not be made (exit code {self._carrier.returncode}; does it have root?)")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._carrier.communicate()

    def inside(self, words: Sequence[str | Path]) -> list[str | Path]:
        """The same command, on the clients' side."""
        return ["nsenter", f"--net=/proc/{self._carrier.pid}/ns/net", "--", *words]

    def traffic(self) -> Traffic:
        """What was carried since this was last asked."""
        assert self._carrier.stdin is not None  # noqa: S101 it is a pipe
        self._carrier.stdin.write("\n")
        self._carrier.stdin.flush()
        return Traffic(*json.loads(self._answer()))

    def _answer(self) -> str:
        assert self._carrier.stdout is not None  # noqa: S101 it is a pipe
        return self._carrier.stdout.readline().strip()


def missing() -> str:
    """Why no link can be made here; empty if one can."""
    if os.geteuid() != 0:
        return "root is needed for network namespaces"
    for program in ("ip", "nsenter"):
        if not shutil.which(program):
            return f"{program} is not installed (apt-get install iproute2 util-linux)"
    return "" if Path("/dev/net/tun").exists() else "/dev/net/tun is not there"


# -- the carrier -------------------------------------------------------------------------------------------------------


class _Line:
    """One direction: packets go in when they come, and out when their time has come."""

    def __init__(self, out: int, delay: float, octets_a_second: float) -> None:
        self._out, self._delay, self._rate = out, delay, octets_a_second
        self._packets: deque[tuple[float, bytes]] = deque()
        self._free = 0.0
        self.octets = self.dropped = 0

    def take(self, packet: bytes, now: float) -> None:
        begin = max(now, self._free)
        if begin - now > QUEUE_SECONDS:
            self.dropped += 1
            return
        self._free = begin + len(packet) / self._rate
        self.octets += len(packet)
        self._packets.append((self._free + self._delay, packet))

    def deliver(self, now: float, heard: _Conversations) -> float | None:
        """Send on what is due. Returns when there is more to do, or None."""
        while self._packets:
            due, packet = self._packets[0]
            if due > now:
                return due
            os.write(self._out, packet)
            heard.delivered(packet)
            self._packets.popleft()
        return None


class _Conversations:
    """Counts connections and turns; see Traffic."""

    def __init__(self, near: str) -> None:
        self._near = socket.inet_aton(near)
        self._heard: set[bytes] = set()
        self.connections = self.turns = 0

    def sent(self, packet: bytes) -> None:
        """A packet that comes from a client."""
        start = (packet[0] & 15) * 4
        flags, port = packet[start + 13], packet[start : start + 2]
        if flags & _SYN:
            self.connections += 1
            self.turns += 1
        elif len(packet) > start + (packet[start + 12] >> 4) * 4 and port in self._heard:
            self._heard.discard(port)
            self.turns += 1

    def delivered(self, packet: bytes) -> None:
        """A packet that has reached its end."""
        if packet[16:20] == self._near:
            start = (packet[0] & 15) * 4
            if len(packet) > start + (packet[start + 12] >> 4) * 4:
                self._heard.add(packet[start + 2 : start + 4])


def _device(name: str, address: str) -> int:
    """A new TUN device in the namespace we are in, up, with its address; it lives as long as the descriptor."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    network = f"{address.rsplit('.', 1)[0]}.{int(address.rsplit('.', 1)[1]) & ~3}/30"
    for words in (
        f"addr add {address}/32 dev {name}",
        f"link set {name} mtu {MTU} txqueuelen 10000 up",
        # The congestion control most servers have, whatever this machine has.
        f"route add {network} dev {name} src {address} congctl cubic",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    return tun


def carry(far: str, near: str, rtt: float, mbit: float) -> None:
    """Carry packets until standard input ends; for each line of it, write what was carried since the last."""
    servers = _device(f"bench{os.getpid()}", far)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no new network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    clients = _device("bench", near)
    rate = mbit * 1e6 / 8
    down, up = _Line(clients, rtt / 2, rate), _Line(servers, rtt / 2, rate)
    talk = _Conversations(near)
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = [when for line in (down, up) if (when := line.deliver(now, talk)) is not None]
        wait = max(0.0, min(due) - time.monotonic()) if due else None
        ready, _, _ = select.select([servers, clients, 0], [], [], wait)
        now = time.monotonic()
        for device, line in ((servers, down), (clients, up)):
            if device in ready:
                _take(device, line, now, talk if line is up else None)
        if 0 in ready:
            if not os.read(0, 1):
                return
            dropped = down.dropped + up.dropped
            print(json.dumps([down.octets, up.octets, dropped, talk.connections, talk.turns]), flush=True)
            down.octets = up.octets = down.dropped = up.dropped = talk.connections = talk.turns = 0


def _take(device: int, line: _Line, now: float, talk: _Conversations | None) -> None:
    for _ in range(_PACKETS_AT_ONCE):
        try:
            packet = os.read(device, MTU + 100)
        except BlockingIOError:
            return
        if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP:
            continue  # the kernel's own IPv6 notices
        line.take(packet, now)
        if talk:
            talk.sent(packet)


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
