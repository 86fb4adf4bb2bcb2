"""A door before a server that cuts what goes through it when it is told to: the network at its worst, on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress


class CuttingDoor:
    """Passes connections on to a port that may change. port: where it listens on loopback."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._pass, "127.0.0.1", 0, backlog=1024), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._writers)

    def cut(self, share: float) -> int:
        """Cut so many of the connections, without a goodbye; how many that were."""

        async def abort() -> int:
            some = list(self._writers)[: int(len(self._writers) * share)]
            for writer in some:
                writer.transport.abort()
            return len(some)

        return asyncio.run_coroutine_threadsafe(abort(), self._loop).result()

    def close(self) -> None:
        """Cut everything, and listen no more."""

        async def end() -> None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:  # the server is down: so is the door
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            self._writers.discard(writer)
            for each in (writer, back):
                each.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
