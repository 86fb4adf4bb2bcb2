"""Messages whose announced size is a lie, and connections that end in the middle of one: such a message is reported,
the others are stored, and nothing ever lands under another's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.support.command import Place, hashes
from tests.support.mail import message
from tests.support.scripted_imap import Box, Cut, ScriptedImap, uids_of

BAD = 2
"""The UID of the message that comes wrong."""

_SIZE = re.compile(rb"(BODY\[\] \{)(\d+)\}")
Distortion = Callable[[bytes], bytes]


def _sized(change: Callable[[int], int]) -> Distortion:
    return lambda answer: _SIZE.sub(lambda found: b"%s%d}" % (found[1], change(int(found[2]))), answer)


LIES: dict[str, Distortion] = {
    "too long": _sized(lambda size: size + 500_000),
    "too short": _sized(lambda size: size - 40),
    "negative": _sized(lambda size: -size),
    "huge": _sized(lambda size: 10**12),
    "no number": lambda answer: answer.replace(b"BODY[] {", b"BODY[] {x"),
}


class Liar(ScriptedImap):
    """distort: by mailbox, what becomes of the answer with the message BAD. cuts: how often to cut the connection in
    the middle of that message; cut_boxes: in which mailboxes."""

    def __init__(self, boxes: dict[bytes, Box], distort: dict[bytes, Distortion], cuts: dict[bytes, int]) -> None:
        self._distort, self.cuts = distort, dict(cuts)
        super().__init__(boxes)

    def _messages(self, words: bytes, box: Box) -> bytes | Cut:  # type: ignore[override]
        if b"BODY.PEEK[]" not in words:
            return super()._messages(words, box)
        name = next(name for name, each in self.boxes.items() if each is box)
        answers = b""
        for uid in uids_of(words, sorted(box.messages)):
            answer = self.fetched(box, uid, words)
            if uid == BAD and self.cuts.get(name, 0):
                self.cuts[name] -= 1
                return Cut(answers + answer[: len(answer) - len(box.messages[uid]) // 2])
            answers += self._distort.get(name, bytes)(answer) if uid == BAD else answer
        return answers + b"%TAG% OK done\r\n"


Serve = Callable[..., Liar]


@pytest.fixture
def serve(place: Place) -> Iterator[Serve]:
    """serve(distort={...}, cuts={...}) gives a server and configures the account alice on it."""
    running: list[Liar] = []

    def serve(
        boxes: dict[bytes, Box], *, distort: dict[bytes, Distortion] | None = None, cuts: dict[bytes, int] | None = None
    ) -> Liar:
        server = Liar(boxes, distort or {}, cuts or {})
        running.append(server)
        place.configure(
            {
                "alice": {
                    "host": server.host, "port": server.port, "tls": "none", "username": "tester",
                    "password": "pa55-word", "timeout": 0.5, "connections": 8,
                }
            }
        )  # fmt: skip
        return server

    place.create()
    yield serve
    for each in running:
        each.close()


def box(name: str) -> Box:
    return Box({uid: message(f"Message {uid} of {name}", size=1_000) for uid in range(1, 6)})


def held(boxes: dict[bytes, Box], *, without: int | None = None) -> object:
    return hashes(raw for each in boxes.values() for uid, raw in each.messages.items() if uid != without)


def test_a_literal_that_lies_about_its_size_costs_that_message_alone(place: Place, serve: Serve) -> None:
    boxes = {kind.encode(): box(kind) for kind in LIES}
    serve(boxes, distort={kind.encode(): lie for kind, lie in LIES.items()})

    saying = ["alice: ", f" UID {BAD}: the connection failed 3 times"]
    result = place.failed(3, "backup", saying=saying, lines=len(LIES))

    assert {line.split(": ")[2].removesuffix(f" UID {BAD}") for line in result.lines} == set(LIES)
    assert _restored_though_incomplete(place) == held(boxes, without=BAD)


def test_a_connection_cut_in_a_literal_each_time_costs_that_message_and_the_next_run_gets_it(
    place: Place, serve: Serve
) -> None:
    boxes = {b"Work": box("Work")}
    server = serve(boxes, cuts={b"Work": 1_000_000})

    place.failed(3, "backup", saying=["alice: ", f"Work UID {BAD}: the connection failed 3 times"])
    assert _restored_though_incomplete(place) == held(boxes, without=BAD)

    server.cuts.clear()
    place.done("backup")
    assert place.restored("alice@latest") == held(boxes)


def test_a_connection_cut_in_a_literal_once_costs_nothing(place: Place, serve: Serve) -> None:
    boxes = {b"Work": box("Work"), b"Home": box("Home")}
    serve(boxes, cuts={b"Work": 1, b"Home": 1})

    place.done("backup")

    assert place.restored("alice@latest") == held(boxes)
    assert [snapshot["complete"] for snapshot in place.snapshots()] == [True]


def _restored_though_incomplete(place: Place) -> object:
    """What a snapshot that lacks a message brings back; restoring it says on standard error that it is not complete."""
    folder = place.folder / "restored"
    result = place.run("restore", "alice@latest", f"eml:{folder}")
    assert result.code == 0
    place.clear(result, saying=["is not complete"])
    return hashes(path.read_bytes() for path in folder.rglob("*.eml"))
