"""promtool, Prometheus' own judge of rules, queries and metrics."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

INSTALL = "make test fetches it; else install Prometheus, whose tool it is"


class PromtoolMissing(RuntimeError):
    """promtool is not here; the message says how to have it."""


def program() -> str:
    """Where promtool is: beside our Python, or in the path. Raises PromtoolMissing."""
    beside = Path(sys.executable).parent / "promtool"
    found = str(beside) if beside.exists() else shutil.which("promtool")
    if found is None:
        raise PromtoolMissing(f"these tests need promtool, and it is not here: {INSTALL}")
    return found


def run(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str]:
    """(exit code, what it says)."""
    done = subprocess.run(
        [program(), *map(str, arguments)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, done.stdout.decode()


def lint(page: bytes) -> str:
    """What it has against a page of metrics; empty if nothing."""
    code, said = run("check", "metrics", stdin=page)
    return said if code else ""


def hold_to(
    folder: Path, rules: Path | None, tests: Sequence[Mapping[str, object]], *, every: str = "1m"
) -> str:
    """What it says of these tests of rules ("Unit testing for rules" in Prometheus' manual); empty if all hold. every:
    the time between two evaluations."""
    document = {"rule_files": [str(rules)] if rules else [], "evaluation_interval": every, "tests": list(tests)}
    file = folder / "rules.test.yaml"
    file.write_text(json.dumps(document))  # JSON is YAML
    code, said = run("test", "rules", file)
    return said if code else ""


