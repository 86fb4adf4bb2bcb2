"""Each promise of a file target is tried on all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.file_targets import CLASSES, Files


@pytest.fixture(params=sorted(CLASSES))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Each kind of file target in turn."""
    return Files(request.param, tmp_path / "out" / "restored.zip" if request.param == "zip" else tmp_path / "out")
