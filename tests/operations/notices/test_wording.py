"""What people read: a subject for the phone, and a body that says what happened, what is at stake and what to run."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.names import UNSAFE
from backupd.operations.notices.causes import Memory, Policy
from backupd.operations.notices.deciding import decide
from backupd.operations.notices.events import (
    AuditFailed,
    Completed,
    Event,
    Expiring,
    Failed,
    Incomplete,
    LocksEnding,
    Lost,
    Missed,
    ReloadRefused,
    Unreachable,
    meaning,
)
from backupd.operations.notices.wording import LONGEST_SUBJECT, Text, worded
from backupd.redaction import learn

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
START = NOON.timestamp()
POLICY = Policy(frozenset({"failure", "loss", "objective", "expiry", "lock", "audit"}))
PINNED = "20261124T020209474Z-0dec2955"


def told(*events: Event, after: float = 1200.0, then: tuple[Event, ...] = ()) -> Text:
    """The message that comes of these events after so many seconds; or of their end."""
    meant = [each for event in events for each in meaning(event)]
    _, memory = decide(Memory(), meant, START, POLICY)
    messages, memory = decide(memory, (), START + after, POLICY)
    if then:
        _, memory = decide(memory, [each for event in then for each in meaning(event)], START + 2 * after, POLICY)
        messages, memory = decide(memory, (), START + 2 * after + 60, POLICY)
    (message,) = messages
    return worded(message, "box", UTC)


FAILED = Failed(
    "alice", "network", "mail.example.com:993: no connection: timed out", "check host and port", "mail.example.com",
    datetime(2026, 11, 24, 9, 0, tzinfo=UTC), 3600.0,
)  # fmt: skip


def test_an_account_that_fails() -> None:
    text = told(FAILED)
    assert text.subject == "alice is not backed up: mail.example.com cannot be reached"
    assert text.severity == "failure"
    assert (
        text.body
        == """\
mail.example.com:993: no connection: timed out.
Since 12:00 (20 min).
Last good snapshot 3 h 20 min ago, objective 1 h, missed.
What to do: check host and port.
Next: backupd doctor

backupd on box, 2026-11-24 12:20"""
    )


def test_its_end() -> None:
    text = told(FAILED, then=(Completed("alice"),))
    assert (text.subject, text.severity) == ("alice is backed up again", "success")
    assert text.body.startswith("The trouble began 12:00 (41 min) and is over.\n")


def test_many_accounts_of_one_server() -> None:
    text = told(*(Failed(f"user{number:03}", "network", "timed out", "", "mail.example.com") for number in range(200)))
    assert text.subject == "200 accounts are not backed up: mail.example.com cannot be reached"
    assert "user000, user001, " in text.body
    assert "user009 and 190 more." in text.body
    assert len(text.body) < 600


def test_a_mailbox_name_cannot_smuggle_anything_into_the_command_that_is_to_be_pasted() -> None:
    evil = "INBOX'; rm -rf ~; echo '"
    text = told(Lost("alice", evil, 900, 1000, PINNED))
    assert text.subject == "sudden loss of mail: alice"
    command = next(line for line in text.body.splitlines() if line.startswith("Next:")).partition("to have it back: ")[
        2
    ]
    words = shlex.split(command)
    assert words == ["backupd", "restore", PINNED, "imap:alice", "--missing-only", "--mailbox", evil]


@pytest.mark.parametrize(
    ("event", "subject", "says", "severity"),
    [
        (Incomplete("alice", 3, "INBOX 4711: too long"), "alice: some mail could not be backed up",
         "INBOX 4711: too long (and 2 more).", "warning"),
        (Missed("alice", 3600.0, datetime(2026, 11, 24, 9, 0, tzinfo=UTC)), "alice is older than its objective",
         "Last good snapshot 3 h 20 min ago, objective 1 h, missed.", "failure"),
        (Expiring("alice", datetime(2026, 11, 29, 12, 30, tzinfo=UTC)), "alice: the OAuth token expires soon",
         "Ends 2026-11-29 12:30, in 5 days.\nNext: backupd auth login alice", "warning"),
        (LocksEnding("s3://b/x", datetime(2026, 11, 24, 13, 0, tzinfo=UTC)),
         "Object Locks run out, and are not renewed", "Ends 13:00, in 40 min.", "warning"),
        (AuditFailed("audit storage", "3 objects are damaged", "backupd repair mends them"),
         "the job audit storage failed", "What to do: backupd repair mends them.", "failure"),
        (Unreachable("s3://b/x", "the service answered 503"), "the repository cannot be used",
         "the service answered 503.", "failure"),
        (ReloadRefused("/etc/backupd/config.yaml:8: objectve: unknown key; did you mean objective?"),
         "the changed configuration is wrong, the one before stays in force", "did you mean objective?\n", "warning"),
        (Failed("alice", "login", "the server does not accept the password"),
         "alice is not backed up: the login is refused", "Next: backupd doctor", "failure"),
        (Failed("alice", "unheard of", "what"), "alice is not backed up: unheard of", "Next:", "failure"),
    ],
)  # fmt: skip
def test_each_trouble_has_its_words(event: Event, subject: str, says: str, severity: str) -> None:
    text = told(event)
    assert text.subject == subject
    assert says in text.body
    assert text.severity == severity


def test_several_things_are_numbered_and_the_subject_says_how_many() -> None:
    text = told(
        FAILED, Failed("bob", "login", "refused", "", "other.example.com"), AuditFailed("copy", "x"),
        *(Failed(f"c{number}", "bug", "y", "", f"host{number}") for number in range(60)),
    )  # fmt: skip
    assert text.subject.startswith("63 troubles: ")
    assert "\n\n2. " in text.body
    assert "And besides:\n- " in text.body
    assert text.body.count("\n") < 150


@given(
    account=st.just("alice"),
    what=st.text(max_size=2000) | st.text("\n\r\x1b\u202e<0>", max_size=50),
    remedy=st.text(max_size=300),
    place=st.text(max_size=200),
    cause=st.sampled_from(["network", "login", "bug"]),
)
def test_whatever_a_server_says_the_message_is_short_clean_and_without_secrets(
    account: str, what: str, remedy: str, place: str, cause: str
) -> None:
    learn("hunter2-is-the-password")
    text = told(Failed(account, cause, f"hunter2-is-the-password{what}", remedy, place))
    assert len(text.subject) <= LONGEST_SUBJECT
    assert len(text.body) < 4000
    assert not UNSAFE.search(text.subject)
    assert not UNSAFE.search(text.body.replace("\n", ""))
    assert "hunter2" not in text.body
    assert text.body.count("\n") <= 9
