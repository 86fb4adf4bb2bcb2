"""How long a server may keep us waiting, whatever it drips at us meanwhile.

A socket's time-out ends silence alone: one octet in 50 seconds holds a connection for ever. So time spent waiting is
paid from a credit, which octets earn back, and which is whole again whenever we have asked something new. A server may
be silent for its time-out, and slow for some of them on end; not slower than a telegraph for longer than that.
"""

from __future__ import annotations

TIMEOUTS = 5
"""The credit, as a multiple of the time-out: five minutes with the default of 60 s."""
OCTETS_A_SECOND = 64
"""What earns a second back. Gmail, when it throttles, still sends some hundreds a second."""
GREETING_OCTETS = 1 << 20
"""Most octets up to the end of a login: more is no answer to what was asked, and is kept in memory."""


class Patience:
    """The credit of one connection.

    Args:
        timeout: seconds the server may be silent.
    """

    def __init__(self, timeout: float) -> None:
        self._whole = self._left = TIMEOUTS * timeout
        self._known = False
        self._octets = 0

    def asked(self) -> None:
        """A command was sent. Before the end of the login that earns nothing: it must end within one credit."""
        if self._known:
            self._left = self._whole

    def logged_in(self) -> None:
        """The server knows us; what it answers from now on may take as long as all that we ask."""
        self._known = True
        self._left = self._whole

    def waited(self, seconds: float, octets: int) -> bool:
        """So long was waited, for so many octets; whether it is worth waiting on."""
        self._left = min(self._whole, self._left - seconds + (octets / OCTETS_A_SECOND if self._known else 0.0))
        if not self._known:
            self._octets += octets
            return self._left > 0 and self._octets <= GREETING_OCTETS
        return self._left > 0
