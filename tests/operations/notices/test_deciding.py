"""Never two messages for one cause, no cause that lasts is silent, and its end is told if and only if it was."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from backupd.config.telling import KINDS
from backupd.operations.notices.causes import FLIPS, WINDOW, Memory, Policy, forget_accounts
from backupd.operations.notices.deciding import HOUR, SPACING, Entry, Message, decide
from backupd.operations.notices.events import (
    AuditFailed,
    AuditPassed,
    Completed,
    Event,
    Failed,
    Incomplete,
    Lost,
    Met,
    Missed,
    Reachable,
    Reloaded,
    ReloadRefused,
    Unreachable,
    meaning,
)

MINUTE, DAY = 60.0, 86400.0
ALL = Policy(frozenset(KINDS))
START = 1_795_000_000.0


class Person:
    """Somebody who is told, and writes down what."""

    def __init__(self, policy: Policy = ALL) -> None:
        self.policy, self.memory, self.now = policy, Memory(), START
        self.messages: list[Message] = []

    def tell(self, *events: Event) -> list[Message]:
        """Something happens now."""
        meant = [each for event in events for each in meaning(event)]
        messages, self.memory = decide(self.memory, meant, self.now, self.policy)
        self.messages += messages
        return messages

    def wait(self, seconds: float, step: float = 30.0) -> list[Message]:
        """Time passes, and the messages that come of it."""
        told, until = [], self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + step)
            told += self.tell()
        return told

    def restart(self) -> None:
        """All that survives is what is stored."""
        self.memory = msgspec.json.decode(msgspec.json.encode(self.memory), type=Memory)

    def keeps(self, seconds: float, *events: Event, every: float = 300.0) -> list[Message]:
        """The same happens over and over again."""
        told = []
        until = self.now + seconds
        while self.now < until:
            told += self.tell(*events)
            told += self.wait(min(every, until - self.now))
        return told


def down(account: str = "alice", host: str = "mail.example.com", cause: str = "network") -> Failed:
    return Failed(account, cause, "cannot connect", "check the host", host)


def said(messages: list[Message]) -> list[list[tuple[str, str, int]]]:
    """What the messages say: (what, cause, how many are concerned)."""
    return [[(each.what, each.cause, len(each.members)) for each in message.entries] for message in messages]


# -- once --------------------------------------------------------------------------------------------------------------


def test_what_passes_by_itself_is_never_heard_of() -> None:
    person = Person()
    assert person.keeps(10 * MINUTE, down()) == []
    assert person.tell(Completed("alice")) == []
    assert person.wait(DAY) == []


def test_what_lasts_is_told_once_and_its_end_once() -> None:
    person = Person()
    assert said(person.keeps(10 * HOUR, down())) == [[("told", "network", 1)]]
    assert person.messages[0].at - START <= 15 * MINUTE + 30
    person.tell(Completed("alice"))
    assert said(person.wait(DAY)) == [[("recovered", "network", 1)]]


def test_a_restart_repeats_nothing() -> None:
    person = Person()
    person.keeps(HOUR, down())
    for _ in range(5):
        person.restart()
        assert person.keeps(HOUR, down()) == []
    person.tell(Completed("alice"))
    person.restart()
    assert said(person.wait(HOUR)) == [[("recovered", "network", 1)]]


def test_a_server_that_is_down_is_one_message_for_two_hundred_accounts() -> None:
    person = Person()
    accounts = [f"user{number}" for number in range(200)]
    for number in range(600):  # each fails every 15 minutes, one after the other
        person.tell(down(accounts[number % 200]))
        person.wait(4.5)
    assert said(person.messages) == [[("told", "network", 200)]]
    for number, account in enumerate(accounts):
        person.wait(4.5)
        assert person.tell(Completed(account)) == [], number
    assert said(person.wait(HOUR)) == [[("recovered", "network", 200)]]


def test_two_hundred_refused_logins_are_a_few_messages_and_none_is_left_out() -> None:
    person = Person()
    for number in range(600):
        person.tell(down(f"user{number % 200}", cause="login"))
        person.wait(6.0)
    person.wait(2 * HOUR)
    assert len(person.messages) <= 2
    assert sum(len(entry.members) for message in person.messages for entry in message.entries) == 200


def test_an_account_of_another_server_is_news() -> None:
    person = Person()
    assert len(person.keeps(HOUR, down())) == 1
    assert said(person.keeps(HOUR, down(), down("bob", "other.example.com"))) == [[("told", "network", 1)]]


def test_another_cause_is_told_once_and_the_end_of_all_once() -> None:
    person = Person()
    assert len(person.keeps(HOUR, down())) == 1
    assert said(person.keeps(HOUR, down(cause="login"))) == [[("told", "login", 1)]]
    assert person.keeps(HOUR, down()) == [], "the first cause is known already"
    assert person.keeps(HOUR, down(cause="login")) == [], "and so is the second"
    person.tell(Completed("alice"))
    assert said(person.wait(DAY)) == [[("recovered", "login", 1)]]


def test_a_cause_that_changes_all_the_time_is_not_silent() -> None:
    person = Person()
    for number in range(20):
        person.tell(down(cause=("network", "server", "throttled")[number % 3]))
        person.wait(MINUTE)
    assert len(person.messages) == 1
    person.tell(Completed("alice"))
    assert len(person.wait(HOUR)) == 1


def test_a_missed_objective_of_an_account_that_fails_is_no_second_message_but_makes_the_first_one_come() -> None:
    person = Person()
    person.keeps(2 * MINUTE, down(), every=30)
    assert said(person.keeps(3 * MINUTE, down(), Missed("alice", 3600.0), every=30)) == [[("told", "network", 1)]]
    assert person.keeps(2 * HOUR, down(), Missed("alice", 3600.0)) == []
    person.tell(Completed("alice"), Met("alice"))
    assert said(person.wait(HOUR)) == [[("recovered", "network", 1)]]


def test_a_missed_objective_without_a_failure_is_told_and_its_end_too() -> None:
    person = Person()
    assert said(person.keeps(HOUR, Missed("alice", 3600.0))) == [[("told", "", 1)]]
    person.tell(Met("alice"))
    assert said(person.wait(HOUR)) == [[("recovered", "", 1)]]
    only = Person(Policy(frozenset({"objective", "recovery"})))
    assert said(only.keeps(HOUR, down(), Missed("alice", 3600.0))) == [[("told", "", 1)]]


def test_a_loss_is_told_once_for_ever_and_soon() -> None:
    person = Person()
    loss = Lost("alice", "INBOX", 900, 1000, "20261124T020209474Z-0dec2955")
    assert person.tell(loss, loss) == []
    assert said(person.wait(2 * MINUTE)) == [[("told", loss.pinned, 1)]]
    person.restart()
    assert person.keeps(40 * DAY, loss, every=DAY / 4) == []
    assert said(person.keeps(HOUR, Lost("alice", "INBOX", 900, 1000, "another"))) == [[("told", "another", 1)]]


def test_a_repository_that_is_away_is_one_cause_for_itself_and_all_accounts() -> None:
    person = Person()
    storage = [Failed(name, "storage", "cannot write", "", "s3://b") for name in ("alice", "bob")]
    assert said(person.keeps(HOUR, Unreachable("s3://b", "503"), *storage)) == [[("told", "storage", 3)]]
    person.tell(Reachable("s3://b"), Completed("alice"))
    assert person.wait(HOUR) == []
    person.tell(Completed("bob"))
    assert said(person.wait(HOUR)) == [[("recovered", "storage", 3)]]


# -- comes and goes ----------------------------------------------------------------------------------------------------


def test_an_account_that_comes_and_goes_is_told_to_do_so_once_and_when_it_has_settled() -> None:
    person = Person()
    for _ in range(12):
        person.keeps(20 * MINUTE, down())
        person.tell(Completed("alice"))
        person.wait(10 * MINUTE)
    whats = [entry.what for message in person.messages for entry in message.entries]
    # The second time came within an hour of the first and went before the hour was over.
    assert whats == ["told", "recovered"] * (FLIPS - 2) + ["flapping"]
    assert said(person.wait(WINDOW)) == [[("recovered", "network", 1)]]
    assert len(person.keeps(HOUR, down())) == 1, "and then it is news again"


def test_short_failures_that_come_again_and_again_are_not_silent() -> None:
    person = Person()
    for _ in range(10):
        person.tell(down())
        person.wait(MINUTE)
        person.tell(Completed("alice"))
        person.wait(20 * MINUTE)
    assert said(person.messages) == [[("flapping", "network", 1)]]
    assert said(person.wait(DAY)) == [[("recovered", "network", 1)]]


def test_what_came_and_went_and_then_stays_is_reminded_of_and_its_end_is_told() -> None:
    person = Person()
    for _ in range(FLIPS):
        person.tell(down(), Completed("alice"))
        person.wait(10 * MINUTE)
    assert said(person.messages) == [[("flapping", "network", 1)]]
    assert said(person.keeps(25 * HOUR, down())) == [[("still", "network", 1)]]
    person.tell(Completed("alice"))
    assert said(person.wait(HOUR)) == [[("recovered", "network", 1)]]


# -- reminders, limits, filters ----------------------------------------------------------------------------------------


def test_one_is_reminded_once_a_day_of_everything_together() -> None:
    person = Person()
    first = person.keeps(3 * HOUR, down())
    both = (down(), down("bob", "other.example.com", "login"), AuditFailed("storage", "3 objects are damaged"))
    news = person.keeps(HOUR, *both)
    assert (len(first), len(news)) == (1, 2)
    reminders = person.keeps(5 * DAY, *both)
    assert [len(message.entries) for message in reminders] == [3] * 5
    assert all(entry.what == "still" for message in reminders for entry in message.entries)
    gaps = [later.at - sooner.at for sooner, later in pairwise(reminders)]
    assert min(gaps) >= DAY - MINUTE


def test_one_is_never_reminded_where_one_does_not_want_it() -> None:
    person = Person(Policy(frozenset(KINDS), remind=None))
    assert len(person.keeps(3 * DAY, down(), every=HOUR)) == 1


def test_a_message_that_cannot_be_read_is_worth_a_reminder_a_week() -> None:
    person = Person()
    assert len(person.keeps(6 * DAY, Incomplete("alice", 1, "INBOX 4711: too long a line"), every=HOUR)) == 1
    assert len(person.keeps(2 * DAY, Incomplete("alice", 1, "INBOX 4711: too long a line"), every=HOUR)) == 1


def test_when_there_is_too_much_to_say_it_is_said_together() -> None:
    person = Person(Policy(frozenset(KINDS), most=3))
    many = [down(f"user{number}", f"host{number}.example.com") for number in range(40)]
    messages = person.keeps(HOUR, *many)
    assert [len(message.entries) for message in messages] == [40]
    later = [down(f"more{number}", f"more{number}.example.com") for number in range(4)]
    for event in later:
        person.keeps(5 * MINUTE, event, *many)
    person.keeps(2 * HOUR, *later, *many)
    assert sum(len(message.entries) for message in person.messages) == 44
    for message in person.messages:
        assert sum(0 <= other.at - message.at < HOUR for other in person.messages) <= 3


def test_a_target_hears_only_of_what_it_wants() -> None:
    events = (down(), down("bob"), AuditFailed("content", "x"), Missed("carol", 60.0), ReloadRefused("line 3"))
    only = Person(Policy(frozenset({"failure"}), recovery=False, accounts=("b*",)))
    assert said(only.keeps(HOUR, *events)) == [[("told", "reload", 1)], [("told", "network", 1)]]
    only.tell(Completed("bob"), Reloaded())
    assert only.wait(DAY) == []
    assert len(only.keeps(HOUR, down("bob"))) == 1, "what began again is news, also to whom the end was not told"
    audits = Person(Policy(frozenset({"audit"})))
    assert said(audits.keeps(HOUR, *events)) == [[("told", "", 1)]]
    audits.tell(AuditPassed("content"))
    assert said(audits.wait(HOUR)) == [[("recovered", "", 1)]]


def test_an_account_that_is_not_configured_any_more_is_forgotten() -> None:
    person = Person()
    person.keeps(HOUR, down(), down("bob"), down("carol", cause="login"))
    person.memory = forget_accounts(person.memory, ALL, ["bob"])
    assert set(person.memory.causes) == {"failure:network@mail.example.com"}
    reminder = person.keeps(DAY, down("bob"))
    assert said(reminder) == [[("still", "network", 1)]]


def test_a_clock_that_is_set_back_silences_nothing_and_repeats_nothing() -> None:
    person = Person()
    person.keeps(HOUR, down())
    person.now -= 30 * DAY
    assert person.keeps(HOUR, down()) == []
    assert len(person.keeps(DAY, down())) == 1, "the reminder"
    assert said(person.keeps(HOUR, down(), down("bob", "other"))) == [[("told", "network", 1)]]
    person.tell(Completed("alice"))
    assert len(person.wait(HOUR)) == 1


# -- whatever happens --------------------------------------------------------------------------------------------------

ACCOUNTS = ("alice", "bob", "carol", "dave")
HOSTS = {"alice": "one", "bob": "one", "carol": "one", "dave": "two"}
CAUSES = ("network", "login", "server", "configuration")
SLACK = 2 * MINUTE


class Months(RuleBasedStateMachine):
    """Accounts fail and recover at random, time passes, the clock is set, the daemon restarts. The books that are kept
    here of who is in trouble are independent of those that are tested."""

    @initialize(most=st.sampled_from([2, 6, 100]), recovery=st.booleans())
    def begin(self, most: int, recovery: bool) -> None:
        self.person = Person(Policy(frozenset(KINDS), recovery=recovery, most=most))
        self.trouble: dict[str, Failed] = {}
        self.since: dict[str, float] = {}
        self.well: dict[str, float] = {}
        self.incident: Counter[str] = Counter()
        """How often each account has been in trouble."""
        self.last: dict[tuple[str, str], float] = {}
        """When an account last had a cause."""
        self.told: dict[tuple[str, str], int] = {}
        """In which of its troubles a cause of an account was told."""
        self.flapped: dict[str, float] = {}
        """When a cause was said to come and go."""
        self.open: set[str] = set()
        """Causes of which something was said and no end."""
        self.believed: set[str] = set()
        """Accounts that the person takes for such in trouble."""
        self.read = 0

    @rule(account=st.sampled_from(ACCOUNTS), cause=st.sampled_from(CAUSES))
    def fails(self, account: str, cause: str) -> None:
        event = down(account, HOSTS[account], cause)
        if account not in self.trouble:
            self.since[account] = self.person.now
            self.incident[account] += 1
        self.trouble[account] = event
        self.well.pop(account, None)
        self.happens(event)

    def happens(self, *events: Failed) -> None:
        for event in events:
            pair = event.account, meaning(event)[0].key  # type: ignore[union-attr]
            if self.person.now - self.last.get(pair, self.person.now) > WINDOW:
                self.told.pop(pair, None)  # a cause that was gone for so long is news, also in the same trouble
            self.last[pair] = self.person.now
        self.person.tell(*events)

    @rule(account=st.sampled_from(ACCOUNTS))
    def recovers(self, account: str) -> None:
        if self.trouble.pop(account, None):
            self.well[account] = self.person.now
        self.person.tell(Completed(account))

    @rule(seconds=st.sampled_from([10.0, 90.0, 20 * MINUTE, 3 * HOUR, 2 * DAY]))
    def time_passes(self, seconds: float) -> None:
        until = self.person.now + seconds
        while self.person.now < until:
            # Each account in trouble fails again and again, as it would.
            self.happens(*self.trouble.values())
            self.person.wait(min(10 * MINUTE, until - self.person.now), step=2 * MINUTE)

    @rule()
    def restart(self) -> None:
        self.person.restart()

    @rule(seconds=st.sampled_from([5.0, 2 * HOUR, 10 * DAY]))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.person.now -= seconds
        for times in (self.since, self.well, self.last, self.flapped):
            for name in times:
                times[name] = min(times[name], self.person.now)  # type: ignore[index]
        self.person.messages.clear()
        self.read = 0

    @invariant()
    def each_message_is_right(self) -> None:
        for message in self.person.messages[self.read :]:
            keys = [key for entry in message.entries for key in entry.keys]
            assert len(set(keys)) == len(keys), "a cause is in a message twice"
            for entry in message.entries:
                self.check(entry, message.at)
        self.read = len(self.person.messages)

    def check(self, entry: Entry, at: float) -> None:
        names = {member.trouble.subject for member in entry.members}
        keys = set(entry.keys)
        if entry.what == "recovered":
            assert self.person.policy.recovery
            # Of a trouble that had one cause when it was told, and another one, not told yet, when it ended.
            assert keys <= self.open or names <= self.believed, "the end of what nobody was told"
            self.open -= keys
            self.believed -= names | {name for name in ACCOUNTS if entry.shared and HOSTS[name] == entry.place}
            return
        self.believed |= names
        if entry.what == "still":
            assert keys <= self.open, "a reminder of what nobody was told"
            return
        for key in keys:
            assert at - self.flapped.get(key, at - WINDOW) >= WINDOW, "it is known to come and go"
        if entry.what == "flapping":
            self.flapped |= dict.fromkeys(keys, at)
        else:
            pairs = {(name, key) for name in names for key in keys if (name, key) in self.last}
            news = {pair for pair in pairs if self.told.get(pair) != self.incident[pair[0]]}
            assert news if entry.shared else news == pairs, "one cause is told twice"
        self.told |= {(name, key): self.incident[name] for name in names for key in keys}
        self.open |= keys

    @invariant()
    def no_hour_has_more_messages_than_wanted(self) -> None:
        times = [message.at for message in self.person.messages[-300:]]
        for number, time in enumerate(times):
            assert sum(time <= other < time + HOUR for other in times[number:]) <= self.person.policy.most

    @invariant()
    def nothing_that_lasts_is_silent(self) -> None:
        limit = self.person.policy.patience + SPACING + HOUR + SLACK
        for account in self.trouble:
            if self.person.now - self.since[account] < limit:
                continue
            causes = [each for each in self.person.memory.causes.values() if account in each.members]
            assert len(causes) == 1
            (cause,) = causes
            assert cause.members[account].told is not None or cause.flapping, f"nobody knows of {account}"

    @invariant()
    def nobody_is_taken_for_in_trouble_who_is_well(self) -> None:
        for account in self.well.keys() & self.believed if self.person.policy.recovery else ():
            # The end of what all accounts of a server had in common is told when it is over for all.
            those = [name for name in ACCOUNTS if HOSTS[name] == HOSTS[account]]
            if not set(those) & self.trouble.keys():
                latest = max(self.well[name] for name in those if name in self.well)
                assert self.person.now - latest <= WINDOW + HOUR + SLACK, f"the end of {account}'s trouble is silent"


Months.TestCase.settings = settings(max_examples=int(__import__("os").environ.get("N", "60")), stateful_step_count=25)
TestMonths = Months.TestCase
