"""How much may go on at once: accounts, connections to one host, and bytes in memory.

The three are one question, "how many connections may this account open now?", because the memory of a run is that of
its connections: each holds a buffer of 1 MiB, messages up to 4 MiB beside it, and what waits to be packed.
"""

from __future__ import annotations

from typing import NamedTuple

OCTETS_PER_CONNECTION = 24 << 20
"""What a connection and its share of the packs under way are reckoned to take at most. With office mail, over 4 of
them, a first snapshot took 71 MB more than a run that found nothing to do (docs/benchmarks.md): 18 MB each."""


class Limits(NamedTuple):
    """accounts, per_host (connections), memory (octets for all runs together)."""

    accounts: int
    per_host: int
    memory: int

    @property
    def connections(self) -> int:
        """Most connections of all runs together; one always fits."""
        return max(1, self.memory // OCTETS_PER_CONNECTION)


class Budget:
    """What is taken of the limits. Not thread-safe: the desk holds its lock meanwhile."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._accounts = 0
        self._connections = 0
        self._hosts: dict[str, int] = {}

    def take(self, host: str, wanted: int) -> int:
        """How many connections the account may open, which count from now on; 0 when it must wait."""
        if self._accounts >= self.limits.accounts:
            return 0
        free = min(
            self.limits.connections - self._connections, self.limits.per_host - self._hosts.get(host, 0)
        )
        granted = min(wanted, free)
        if granted < 1:
            return 0
        self._accounts += 1
        self._connections += granted
        self._hosts[host] = self._hosts.get(host, 0) + granted
        return granted

    def give_back(self, host: str, granted: int) -> None:
        """What `take` has granted is free again."""
        self._accounts -= 1
        self._connections -= granted
        self._hosts[host] -= granted
        if not self._hosts[host]:
            del self._hosts[host]
