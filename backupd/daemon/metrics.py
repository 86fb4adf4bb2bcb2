"""What Prometheus scrapes, made from the report at each scrape.

Names are Prometheus' own conventions: base units, `_total` for what only grows, times as seconds since 1970. A time
that there never was is 0, so that an alarm about what is too old rings for what never came. The one label that grows is
the account.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backupd import __version__
from backupd.daemon.board import Job
from backupd.daemon.report import AccountReport, DaemonReport, Facts, Queue, Report
from backupd.operations.status import Level

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FRESH_SECONDS = 1.0
"""A page so young is given again: a thousand accounts take a tenth of a second, and many may ask at once."""


_LEVELS = {Level.OK: 0, Level.WARNING: 1, Level.CRITICAL: 2}


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


class _Each(NamedTuple):
    """A metric of accounts. value: of an account, None where there is nothing to tell. A label's value goes before."""

    name: str
    text: str
    value: Callable[[AccountReport], float | tuple[str, float] | None]
    label: str = ""
    total: bool = False


_ACCOUNTS = (
    _Each(
        "level",
        "How the account stands, as in backupd status: 0 ok, 1 warning, 2 critical.",
        lambda account: _LEVELS[account.level],
    ),
    _Each(
        "last_good_timestamp_seconds",
        "When the last run that went well began, whether or not it found anything new; 0: never.",
        lambda account: _seconds(account.now.last_good),
    ),
    _Each(
        "last_complete_timestamp_seconds",
        "When the last run that went well and left nothing out began; 0: never.",
        lambda account: _seconds(account.now.last_complete),
    ),
    _Each(
        "age_seconds",
        "Time since the last run that went well began; none of an account without one.",
        lambda account: account.age,
    ),
    _Each(
        "objective_seconds",
        "Oldest acceptable snapshot, where the configuration has one.",
        lambda account: account.objective,
    ),
    _Each(
        "overdue",
        "1 where the account is older than its objective, or was never backed up.",
        lambda account: account.is_overdue,
    ),
    _Each("messages", "Messages in the newest snapshot.", lambda account: account.messages),
    _Each(
        "bytes",
        "Size of the messages in the newest snapshot, as they were on the server.",
        lambda account: account.octets,
    ),
    _Each(
        "problems",
        "Pieces of mail that could not be read for the newest snapshot.",
        lambda account: account.problems,
    ),
    _Each(
        "sudden_losses",
        "Sudden losses on the server whose last good snapshot is still kept.",
        lambda account: len(account.losses),
    ),
    _Each("last_run_duration_seconds", "How long the last run took.", lambda account: account.last_seconds),
    _Each("consecutive_failures", "Runs that have failed in a row.", lambda account: account.now.failures),
    _Each(
        "failing",
        "1 while runs fail, with what the last one failed of.",
        lambda account: (account.now.cause, 1) if account.now.failures else None,
        label="cause",
    ),
    _Each(
        "failing_since_timestamp_seconds",
        "When the first of the runs failed that fail in a row.",
        lambda account: _seconds(account.now.failing_since) if account.now.failures else None,
    ),
    _Each(
        "state",
        "1 with what is done with the account now: running, waiting, held or idle.",
        lambda account: (account.doing or "idle", 1),
        label="state",
    ),
    _Each(
        "held_until_timestamp_seconds",
        "Until when the account is left alone, and for what.",
        lambda account: (account.now.held_for, _seconds(account.now.held_until)) if account.doing == "held" else None,
        label="cause",
    ),
    _Each(
        "next_run_timestamp_seconds",
        "When the next run is due.",
        lambda account: _seconds(account.now.next_run) if account.now.next_run else None,
    ),
    _Each(
        "watching",
        "1 with how changes of a continuously backed up account are learnt of.",
        lambda account: (account.now.watching, 1) if account.now.watching else None,
        label="how",
    ),
    _Each("runs", "Runs that have ended.", lambda account: account.now.runs + account.now.failed_runs, total=True),
    _Each("failed_runs", "Runs that have failed.", lambda account: account.now.failed_runs, total=True),
    _Each("new_messages", "Messages that were read and stored.", lambda account: account.now.new_messages, total=True),
    _Each("downloaded_bytes", "Octets of mail that were read.", lambda account: account.now.downloaded, total=True),
    _Each(
        "throttled_seconds",
        "Time for which the server asked to be left alone.",
        lambda account: account.now.throttled_seconds,
        total=True,
    ),
)


class Metrics:
    """The page of metrics. Safe to use from several threads."""

    def __init__(self, facts: Facts, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_OfReport(facts))
        ProcessCollector(registry=self._registry)
        self._clock, self._lock = clock, threading.Lock()
        self._page, self._made = b"", -FRESH_SECONDS

    def page(self) -> bytes:
        """Prometheus' text format, as things stand now, or stood a second ago."""
        with self._lock:
            if self._clock() - self._made >= FRESH_SECONDS:
                self._page = generate_latest(self._registry)
                self._made = self._clock()
            return self._page


class _OfReport(Collector):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def describe(self) -> Iterable[Metric]:
        return []  # nothing need be asked when the registry is made

    def collect(self) -> Iterator[Metric]:
        report = self._facts.report()
        yield from _accounts(report.accounts)
        yield from _repository(report)
        if report.daemon:
            yield from _maintenance(report.daemon.jobs)
            yield from _daemon(report.daemon, self._facts.queue())
        yield from _audits(self._facts)
        yield from _tokens(self._facts)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"backupd_{name}", text, labels=labels)


def _accounts(accounts: list[AccountReport]) -> Iterator[Metric]:
    for each in _ACCOUNTS:
        labels = ["account", each.label] if each.label else ["account"]
        kind = CounterMetricFamily if each.total else GaugeMetricFamily
        metric = kind(f"backupd_account_{each.name}", each.text, labels=labels)
        for account in accounts:
            found = each.value(account)
            if isinstance(found, tuple):
                metric.add_metric([account.account, found[0]], found[1])
            elif found is not None:
                metric.add_metric([account.account], found)
        yield metric


def _tokens(facts: Facts) -> Iterator[Metric]:
    metric = _gauge(
        "account_token_expiry_timestamp_seconds", "When the right to log in runs out that OAuth has granted.", "account"
    )
    for name, until in facts.tokens().items():
        metric.add_metric([name], _seconds(until))
    yield metric


def _repository(report: Report) -> Iterator[Metric]:
    if report.repository is None:
        return
    stored = report.repository
    yield GaugeMetricFamily("backupd_repository_bytes", "Octets of all packs in the repository.", stored.octets)
    yield GaugeMetricFamily("backupd_repository_packs", "Packs in the repository.", stored.objects)
    held = sum(account.octets for account in report.accounts)
    if stored.octets:
        yield GaugeMetricFamily(
            "backupd_repository_dedup_ratio",
            "Size of the messages in all accounts' newest snapshots, over the octets of all packs.",
            held / stored.octets,
        )
    if stored.requests is not None:
        requests = _gauge("repository_requests_today", "What the bucket was asked for since midnight, UTC.", "kind")
        for kind, count in stored.requests.today.items():
            requests.add_metric([kind], count)
        yield requests


def _maintenance(jobs: list[Job]) -> Iterator[Metric]:
    # The label is not "job": that is what Prometheus calls whatever it scrapes.
    def task(name: str, text: str) -> GaugeMetricFamily:
        return _gauge(f"maintenance_{name}", text, "task")

    last = task("last_run_timestamp_seconds", "When the task began last; none of one that never has.")
    good = task("last_success_timestamp_seconds", "When the task began last that went well; 0: never.")
    seconds = task("last_duration_seconds", "How long the task took the last time.")
    ok = task("last_run_ok", "1 if the task went well the last time, 0 if it failed.")
    running = task("running", "1 while the task runs.")
    following = task("next_run_timestamp_seconds", "When the task is due next.")
    for job in jobs:
        if job.last_run:
            last.add_metric([job.name], _seconds(job.last_run))
            good.add_metric([job.name], _seconds(job.last_good))
        if job.outcome:
            ok.add_metric([job.name], job.outcome == "ok")
            seconds.add_metric([job.name], job.seconds)
        running.add_metric([job.name], job.running_since is not None)
        if job.next_run:
            following.add_metric([job.name], _seconds(job.next_run))
    yield from (last, good, seconds, ok, running, following)


def _audits(facts: Facts) -> Iterator[Metric]:
    last = _gauge("audit_last_timestamp_seconds", "When the last audit of the level ended.", "level")
    code = _gauge("audit_last_result", "What it came to: 0 OK, 1 warning, 2 critical, 3 unknown.", "level")
    seconds = _gauge("audit_last_duration_seconds", "How long it took.", "level")
    for audit in facts.audits():
        last.add_metric([audit.level], _seconds(audit.time))
        code.add_metric([audit.level], audit.code)
        seconds.add_metric([audit.level], audit.seconds)
    yield from (last, code, seconds)


def _daemon(daemon: DaemonReport, queue: Queue) -> Iterator[Metric]:
    yield GaugeMetricFamily("backupd_ready", "1 while the repository is open and schedules run.", not daemon.not_ready)
    yield GaugeMetricFamily("backupd_alive", "1 while the main loop and all work advance.", daemon.alive)
    quiet = daemon.quiet_until is not None
    yield GaugeMetricFamily("backupd_quiet", "1 in quiet hours, in which nothing is begun.", quiet)
    yield GaugeMetricFamily("backupd_queue_accounts", "Accounts that are due and wait for their turn.", queue.accounts)
    yield GaugeMetricFamily(
        "backupd_queue_longest_seconds", "For how long the first of them has waited: the schedule's lag.", queue.seconds
    )
    yield GaugeMetricFamily("backupd_threads", "Threads of the daemon.", threading.active_count())
    build = _gauge("build_info", "1, with the versions of backupd and Python.", "version", "python")
    build.add_metric([__version__, sys.version.split()[0]], 1)
    yield build
