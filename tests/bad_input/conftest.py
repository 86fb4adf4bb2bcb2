"""A place of its own for each test: configuration, repository and state, for the real command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place without configuration and repository."""
    return Place(tmp_path)
