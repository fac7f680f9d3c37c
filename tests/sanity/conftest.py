"""One honest run, and a copy of it to plant a fraud in."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest
from tests.support.hum_runs import honest_run


@pytest.fixture(scope="session")
def run(tmp_path_factory, worker_id) -> Path:
    """The run is made once for all processes of a test run: the first one makes it, others wait."""
    if worker_id == "master":
        return honest_run(tmp_path_factory.mktemp("honest0"), 0)
    root = tmp_path_factory.getbasetemp().parent / "honest0"
    root.mkdir(exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            honest_run(root, 0)
            (root / "made").touch()
    return root / "run"


@pytest.fixture
def tampered(run, tmp_path) -> Path:
    """A copy to plant a fraud in."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"
