"""A page of metrics as Prometheus has it after a scrape, and the metrics that a query names."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

SCRAPED = {"instance": "backup:9847", "job": "backupd"}
"""Labels that Prometheus adds."""


def series_of(page: bytes) -> list[tuple[str, float]]:
    """Each sample as a series, with its labels and its value."""
    families = text_string_to_metric_families(page.decode())
    found = []
    for family in families:
        for sample in family.samples:
            labels = ", ".join(f"{key}={json.dumps(value)}" for key, value in (sample.labels | SCRAPED).items())
            found.append((f"{sample.name}{{{labels}}}", sample.value))
    return found


def names_of(page: bytes) -> set[str]:
    """Names of all samples."""
    return {series.partition("{")[0] for series, _ in series_of(page)}


def names_in(query: str) -> set[str]:
    """Names of our metrics, and of the process, that a query speaks of."""
    without_text = re.sub(r'"[^"]*"', '""', query)
    return set(re.findall(r"\b(?:backupd|process)_[a-z0-9_]+", without_text))
