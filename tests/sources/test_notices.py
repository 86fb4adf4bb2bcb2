"""What a server says on a connection that waits is understood however it is cut, and never held."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import ProtocolError
from backupd.sources.imap.notices import MOST_OCTETS, Kind, Notices

# As Dovecot 2.3 sends them, but for the last three.
CHANGES = [
    b"* 3 EXISTS\r\n",
    b"* 1 EXPUNGE\r\n",
    b"* VANISHED 1:4,7\r\n",
    b"* 2 FETCH (MODSEQ (9) FLAGS (\\Seen))\r\n",
    b"* STATUS INBOX (MESSAGES 2 UIDNEXT 3 UNSEEN 2)\r\n",
    b"* STATUS {7}\r\nH\xc3\xa4user (MESSAGES 1 UIDNEXT 2)\r\n",
    b'* LIST (\\HasNoChildren) "/" "we\\"ird"\r\n',
    b'* LIST (\\HasNoChildren) "/" Alt ("OLDNAME" (Neu))\r\n',
    b'* LIST () "/" {30}\r\n* BYE is only a name (1)\r\n* 2 EX (x {4}\r\n\r\n\r\n)\r\n',
    b"* STATUS {0}\r\n (MESSAGES 1)\r\n",
    b"* exists\n",
]
NOTHING = [
    b"* OK Still here\r\n",
    b"* OK [HIGHESTMODSEQ 5] {12}\r\n",  # braces in a text announce nothing
    b"* FLAGS (\\Seen)\r\n",
    b"* NO disk nearly full\r\n",
    b"* 0 RECENT\r\n",
    b"*\r\n",
    b"* \r\n",
]
GONE = [b"* BYE Logging out\r\n", b"* OK [NOTIFICATIONOVERFLOW] too much\r\n", b"* bye\r\n"]
OTHERS = {b"+ idling\r\n": Kind.GO_ON, b"+\r\n": Kind.GO_ON, b"b5 OK Idle completed\r\n": Kind.DONE, b"\r\n": Kind.DONE}

MEANING = {
    **dict.fromkeys(CHANGES, Kind.CHANGE),
    **dict.fromkeys(NOTHING, Kind.NOTHING),
    **dict.fromkeys(GONE, Kind.GONE),
    **OTHERS,
}
ANSWERS = st.lists(st.sampled_from(sorted(MEANING)), max_size=12)


def pieces(octets: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({min(cut, len(octets)) for cut in cuts} | {0, len(octets)})
    return [octets[first:last] for first, last in pairwise(places)]


@given(ANSWERS, st.lists(st.integers(0, 600)))
def test_answers_mean_the_same_however_they_are_cut(answers: list[bytes], cuts: list[int]) -> None:
    notices = Notices()
    said = [one.kind for piece in pieces(b"".join(answers), cuts) for one in notices.feed(piece)]
    assert said == [MEANING[answer] for answer in answers]


@given(st.lists(st.binary(max_size=300), max_size=30))
def test_octets_of_any_kind_do_no_harm(octets: list[bytes]) -> None:
    notices = Notices()
    try:
        for piece in octets:
            list(notices.feed(piece))
    except ProtocolError:
        return
    assert len(notices._head) <= 512
    assert len(notices._tail) <= 32


def test_the_end_of_a_command_says_which_and_how() -> None:
    (said,) = Notices().feed(b"w7 NO [UNAVAILABLE] try later\r\n")
    assert (said.tag, said.status.kind, said.status.code) == (b"w7", b"NO", b"UNAVAILABLE")


def test_a_long_answer_is_read_past_without_being_held() -> None:
    notices = Notices()
    many = b"* VANISHED " + b",".join(b"%d" % uid for uid in range(1, 200_000, 2))
    assert list(notices.feed(many[:MOST_OCTETS])) == []
    assert len(notices._head) <= 512
    assert [said.kind for said in notices.feed(b"\r\n* 1 EXISTS\r\n")] == [Kind.CHANGE, Kind.CHANGE]


@pytest.mark.parametrize(
    "octets",
    [
        b"* VANISHED " + b"1," * MOST_OCTETS,
        b"* STATUS {%d}\r\n" % (MOST_OCTETS + 1),
        b"* STATUS {99999999999999999999}\r\n",
        b"* STATUS {-1}\r\n",
        b"* LIST () {600000}\r\n" + b"x" * 600_000 + b" {600000}\r\n",
    ],
)
def test_an_answer_that_cannot_be_meant_is_the_end(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Notices().feed(octets))
