"""A restore that is killed twice and run once more: no message is lost, and none is there twice."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Place, hashes, imap, kill, mail_of, when
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.mail import Attachment, message, noise

MESSAGES = 2_000
BOXES = ("INBOX", "Work")


@pytest.fixture(scope="module")
def archive(dovecot: Dovecot, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Account]:
    """A backup of 2,000 messages, some of which are equal, and the account it is of."""
    account = dovecot.account("mdbox")
    account.create("Work")
    for box in BOXES:
        mails = [message(f"{box} {number}", size=300 + number % 3_000) for number in range(MESSAGES // 2 - 20)]
        mails += [message("The same again and again")] * 10
        mails += [message(f"{box} large {n}", attachments=[Attachment("a", noise(n, 300_000))]) for n in range(10)]
        random.Random(box).shuffle(mails)
        account.deliver(box, mails)
    place = Place(tmp_path_factory.mktemp("archive"))
    place.configure({"alice": imap(account)})
    place.create()
    place.done("backup")
    return place, account


@pytest.fixture
def truth(archive: tuple[Place, Account]) -> Counter[str]:
    found = mail_of(archive[1])
    assert found.total() == MESSAGES
    return found


def killed_twice(place: Place, target: str, there: Callable[[], int], seed: int) -> None:
    """Restore; kill it at two moments drawn from the seed; then let it come to its end."""
    moments = sorted(random.Random(seed).sample(range(1, MESSAGES - 200), 2))
    codes = set()
    for least in moments:
        process = place.start("restore", "alice@latest", target)
        when(process, lambda least=least: there() >= least)  # type: ignore[misc]
        kill(process)
        codes.add(place.end(process).code)
    assert codes <= {-signal.SIGKILL, 0}
    assert -signal.SIGKILL in codes, "it was never killed"
    place.done("restore", "alice@latest", target)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_to_a_server(
    archive: tuple[Place, Account], place: Place, truth: Counter[str], dovecot: Dovecot, seed: int
) -> None:
    fresh = dovecot.account("mdbox")
    place.repository = archive[0].repository
    place.configure({"alice": imap(archive[1]), "fresh": imap(fresh)})

    def there() -> int:
        return sum(fresh.status(name)["MESSAGES"] for name in fresh.mailboxes())

    killed_twice(place, "imap:fresh", there, seed)

    assert mail_of(fresh) == truth
    again = place.done("restore", "alice@latest", "imap:fresh", "--json").document
    assert [each["written"] for each in again["report"]["mailboxes"]] == [0, 0]  # type: ignore[index, call-overload]


@pytest.mark.parametrize(("kind", "seed"), [("maildir", 4), ("maildir", 5), ("eml", 6), ("mbox", 7)])
def test_to_files(
    archive: tuple[Place, Account], place: Place, truth: Counter[str], kind: str, seed: int, tmp_path: Path
) -> None:
    place.repository = archive[0].repository
    place.configure({"alice": imap(archive[1])})
    folder = tmp_path / "mail"

    def there() -> int:
        if kind == "mbox":
            return sum(path.read_bytes().count(b"\nFrom ") for path in folder.rglob("*.mbox"))
        return sum(1 for path in folder.rglob("*") if _is_message(path))

    killed_twice(place, f"{kind}:{folder}", there, seed)

    if kind == "mbox":
        assert there() == MESSAGES - len(BOXES)
    else:
        assert hashes(path.read_bytes() for path in folder.rglob("*") if _is_message(path)) == truth
    again = place.done("restore", "alice@latest", f"{kind}:{folder}", "--json").document
    assert [each["written"] for each in again["report"]["mailboxes"]] == [0, 0]  # type: ignore[index, call-overload]


def _is_message(path: Path) -> bool:
    return path.parent.name in ("cur", "new") or (path.suffix == ".eml" and not path.name.startswith("."))
