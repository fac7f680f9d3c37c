"""One function per command, and ``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

from staanet.pipeline.crafting import (
    Plan,
    SweepPlan,
    answers,
    attack,
    evaluate,
    join_recordings,
    part_of,
    plan_attack,
    sweep,
)
from staanet.pipeline.engine import Job, joined_recordings
from staanet.pipeline.exporting import export_generator
from staanet.pipeline.folders import Quarantine, ReadingClips, load_clips
from staanet.pipeline.merging import merge
from staanet.pipeline.models import source_of, train_generator, train_uap, train_victim
from staanet.pipeline.recipe import run

__all__ = [
    "Job",
    "Plan",
    "Quarantine",
    "ReadingClips",
    "SweepPlan",
    "answers",
    "attack",
    "evaluate",
    "export_generator",
    "join_recordings",
    "joined_recordings",
    "load_clips",
    "merge",
    "part_of",
    "plan_attack",
    "run",
    "source_of",
    "sweep",
    "train_generator",
    "train_uap",
    "train_victim",
]
