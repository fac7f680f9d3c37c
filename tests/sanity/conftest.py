"""One honest run, and a copy of it to plant a fraud in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.hum_runs import honest_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    return honest_run(tmp_path_factory.mktemp("honest0"), 0)


@pytest.fixture
def tampered(run, tmp_path) -> Path:
    """A copy to plant a fraud in."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"
