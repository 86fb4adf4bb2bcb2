"""Messages on their way: in order, tried again, given up in the end and mentioned later; nobody waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backupd.errors import ConfigError
from backupd.operations.notices import outbox as outbox_module
from backupd.operations.notices.causes import Memory
from backupd.operations.notices.outbox import GIVEN_UP_AFTER, MOST, Outbox
from backupd.operations.notices.sending import NotDelivered
from backupd.operations.notices.store import NoticeStore, Waiting
from backupd.operations.notices.wording import Text
from tests.support.listeners import wait_for

QUICK = (0.01, 0.02)


class Post:
    """A target whose ways fail as long as told."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0
        self.fails: list[Exception] = []
        self.arrived: list[Text] = []
        self.tried = 0

    def send(self, text: Text) -> None:
        self.tried += 1
        if self.fails:
            raise self.fails.pop(0) if len(self.fails) > 1 else self.fails[0]
        self.arrived.append(text)

    @property
    def subjects(self) -> list[str]:
        return [text.subject for text in self.arrived]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[NoticeStore]:
    store = NoticeStore(tmp_path / "state.sqlite")
    yield store
    store.close()


@pytest.fixture
def post() -> Post:
    return Post()


Begin = Callable[..., Outbox]


@pytest.fixture
def begin(post: Post, store: NoticeStore) -> Iterator[Begin]:
    """begin() is an outbox, with what is stored of before."""
    begun: list[Outbox] = []

    def begin(pauses: tuple[float, ...] = QUICK) -> Outbox:
        begun.append(Outbox("phone", post.send, store, waiting=store.outbox(), clock=lambda: post.now, pauses=pauses))
        return begun[-1]

    yield begin
    for each in begun:
        each.end()
        assert each.join(5)


def made(store: NoticeStore, post: Post, *subjects: str) -> list[Waiting]:
    waiting = [Waiting(0, "phone", post.now, Text(subject, "body", "failure")) for subject in subjects]
    return store.save("phone", Memory(), Memory(), waiting)


def test_messages_arrive_in_their_order_though_the_first_fails_at_first(
    store: NoticeStore, post: Post, begin: Begin
) -> None:
    post.fails = [NotDelivered("no route"), ConfigError("the file is not there"), ValueError("a bug")]
    outbox = begin()
    outbox.put(made(store, post, "one", "two"))
    wait_for(lambda: post.tried >= 3)
    post.fails = []
    wait_for(lambda: post.subjects == ["one", "two"])
    wait_for(lambda: store.outbox() == [])
    assert post.arrived[0].body == "body"


def test_what_has_not_arrived_at_the_end_is_sent_after_the_next_start(
    store: NoticeStore, post: Post, begin: Begin
) -> None:
    post.fails = [NotDelivered("no route")]
    outbox = begin((100.0,))
    outbox.put(made(store, post, "one"))
    wait_for(lambda: [each.error for each in store.outbox()] == ["no route"])
    outbox.end()
    assert outbox.join(5)
    post.fails = []
    begin()
    wait_for(lambda: post.subjects == ["one"])


def test_a_new_message_means_an_attempt_at_once(store: NoticeStore, post: Post, begin: Begin) -> None:
    post.fails = [NotDelivered("no route")]
    outbox = begin((1000.0,))
    outbox.put(made(store, post, "one"))
    wait_for(lambda: post.tried == 1 and outbox.idle)
    post.fails = []
    outbox.put(made(store, post, "two"))
    wait_for(lambda: post.subjects == ["one", "two"])


def test_a_message_that_never_arrives_is_given_up_and_the_next_one_mentions_it(
    store: NoticeStore, post: Post, begin: Begin
) -> None:
    post.fails = [NotDelivered("no route")]
    outbox = begin()
    outbox.put(made(store, post, "alice is not backed up"))
    wait_for(lambda: post.tried > 6)
    assert not store.outbox()[0].given_up, "for hours it may still arrive"
    post.now += GIVEN_UP_AFTER + 60
    wait_for(lambda: store.outbox()[0].given_up)
    assert store.outbox()[0].error == "no route"
    post.fails = []
    outbox.put(made(store, post, "alice is backed up again"))
    wait_for(lambda: post.subjects == ["alice is backed up again"])
    assert post.arrived[0].body.splitlines()[-2:] == [
        "1 earlier message did not reach you:", "- alice is not backed up (6 h 1 min ago)"
    ]  # fmt: skip
    wait_for(lambda: store.outbox() == [])


def test_given_up_messages_survive_a_restart(store: NoticeStore, post: Post, begin: Begin) -> None:
    (waiting,) = made(store, post, "lost")
    store.not_arrived(Waiting(waiting.number, "phone", post.now, waiting.text, 9, "no route", True))
    outbox = begin()
    outbox.put(made(store, post, "later"))
    wait_for(lambda: post.subjects == ["later"])
    assert "did not reach you" in post.arrived[0].body


def test_the_number_of_messages_that_wait_is_bounded(store: NoticeStore, post: Post, begin: Begin) -> None:
    post.fails = [NotDelivered("no route")]
    outbox = begin((1000.0,))
    outbox.put(made(store, post, "first"))
    wait_for(lambda: post.tried == 1 and outbox.idle)
    outbox.put(made(store, post, *(str(number) for number in range(2 * MOST + 50))))
    wait_for(lambda: post.tried == 2 and outbox.idle)
    kept = store.outbox()
    assert sum(each.given_up for each in kept) == MOST
    assert [each.text.subject for each in kept if not each.given_up][:1] == ["first"]
    assert sum(not each.given_up for each in kept) == MOST


def test_nobody_waits_for_a_message(store: NoticeStore, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck(Post):
        def send(self, text: Text) -> None:
            time.sleep(0.3)

    stuck = Stuck()
    monkeypatch.setattr(outbox_module, "MOST", 5)
    outbox = Outbox("phone", stuck.send, None)
    began = time.monotonic()
    for number in range(1000):
        outbox.put([Waiting(-number - 1, "phone", 0.0, Text(str(number), "", "info"))])
    assert time.monotonic() - began < 0.3
    outbox.end()
    assert outbox.join(5)
