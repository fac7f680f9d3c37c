"""Stages in worker processes: order, notes, errors, and a process that is killed."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest
from tests.support import stages

from staanet import storage
from staanet.errors import StorageFault, WorkerError
from staanet.pipeline import Context
from staanet.pipeline.stage import StageTimer
from staanet.pipeline.workers import MakeStages, perform_together


def together(make: MakeStages, out: Path, count: int) -> Context:
    context = Context(workers=count)
    perform_together(make, context, StageTimer.of(out))
    return context


def test_a_stage_waits_for_the_stages_that_it_needs(tmp_path: Path) -> None:
    context = together(partial(stages.sums, tmp_path), tmp_path, count=2)
    pids = {storage.read_card(tmp_path / name, "sum")["pid"] for name in ("left", "right", "both")}
    assert os.getpid() not in pids and len(pids) <= 2
    names = [row["stage"] for row in StageTimer.of(tmp_path).journal.records()]
    assert sorted(names) == ["both", "left", "right"] and names[-1] == "both"
    assert len(context.quarantine.rows) == 1
    assert context.quarantine.recordings.counts == {"clipped": 4}  # three clips, and "same" once


def test_an_error_keeps_its_words_and_its_exit_code(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"no clips\. Add clips") as error:
        together(partial(stages.refused, tmp_path), tmp_path, count=1)
    assert error.value.exit_code == 3


def test_a_killed_worker_is_a_fault_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageFault, match="'killed' ended.*--workers 1") as error:
        together(partial(stages.killed, tmp_path), tmp_path, count=1)
    assert error.value.exit_code == 5
