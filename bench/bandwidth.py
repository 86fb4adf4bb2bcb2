"""`python -m bench bandwidth`: what connections take together that share a bound, and what one costs that is far off.

Mail is read from a Dovecot on loopback by one connection, and by four at once, for some seconds each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from backupd.wire.bandwidth import Bandwidth
from backupd.wire.imap_connection import Fetch, ImapSettings, connect
from tests.support.dovecot import Dovecot, DovecotMissing
from tests.support.dovecot_account import Account
from tests.support.mail import large_message

SECONDS = 5.0
MB = 10**6


def read(account: Account, flow: Bandwidth | None, until: float) -> int:
    """Read all mail, over and over; octets."""
    settings = ImapSettings(
        account.host, account.username, account.password, port=account.port, tls="none", flow=flow
    )
    with connect(settings) as connection:
        connection.command(b"EXAMINE INBOX")
        while time.monotonic() < until:
            tag = connection.send(b"UID FETCH 1:* (UID BODY.PEEK[])")
            for answer in connection.fetches(tag):
                if isinstance(answer, Fetch) and time.monotonic() > until:
                    octets = connection.stream.octets_received
                    connection.close()
                    return octets
        return connection.stream.octets_received


def measure(account: Account, rate: float | None, connections: int) -> float:
    """Octets a second that the connections take together."""
    flow = None if rate is None else Bandwidth(rate)
    began = time.monotonic()
    with ThreadPoolExecutor(connections) as pool:
        octets = sum(pool.map(lambda _: read(account, flow, began + SECONDS), range(connections)))
    return octets / (time.monotonic() - began)


def main(words: Sequence[str]) -> int:
    try:
        with Dovecot() as server:
            account = server.account()
            account.append_many("INBOX", [large_message(MB, seed=number) for number in range(30)])
            print("| bound | 1 connection | 4 connections |\n|---|---:|---:|")
            for rate in (1 * MB, 10 * MB, 50 * MB, 10_000 * MB, None):
                found = [measure(account, rate, connections) for connections in (1, 4)]
                name = "none" if rate is None else f"{rate / MB:,.0f} MB/s"
                print(f"| {name} | {' | '.join(f'{one / MB:,.1f} MB/s' for one in found)} |", flush=True)
    except DovecotMissing as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    return 0
