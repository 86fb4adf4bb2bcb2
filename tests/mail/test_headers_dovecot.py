"""The header that is taken from a message is the one that a real server serves: restores compare the two."""

from __future__ import annotations

import re

from backupd.mail.headers import header_of
from tests.support import corpus
from tests.support.dovecot_account import Account
from tests.support.mail import nasty_mail, nasty_octets

_HEADER = re.compile(rb"\* \d+ FETCH \(UID (\d+) BODY\[HEADER\] (?:\{\d+\}\r\n|(NIL|\"\"))")


def test_the_header_is_body_header_of_imap(account: Account) -> None:
    nasty = [*nasty_mail().values(), *nasty_octets().values(), *(found.raw for found in corpus.spread("nasty", 150))]
    account.append_many("INBOX", [corpus.crlf(raw) for raw in nasty if raw])

    stored = {one.uid: header_of(one.raw) for one in account.messages("INBOX")}
    with account.wire("INBOX") as wire:
        served = {}
        for answer in wire.command(b"UID FETCH 1:* (BODY.PEEK[HEADER])"):
            found = _HEADER.match(answer)
            if found:
                served[int(found[1])] = b"" if found[2] else answer[found.end() : -len(b")\r\n")]

    assert stored.keys() == served.keys()
    assert {uid: (stored[uid][-99:], served[uid][-99:]) for uid in stored if stored[uid] != served[uid]} == {}
