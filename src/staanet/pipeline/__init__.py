"""One function per command, and ``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

from staanet.pipeline.audit import audit
from staanet.pipeline.crafting import (
    Plan,
    SweepPlan,
    aim,
    answers,
    attack,
    evaluate,
    plan_attack,
    sweep,
)
from staanet.pipeline.defences import adapt, defend
from staanet.pipeline.distil import distil
from staanet.pipeline.folders import Quarantine, load_clips, normal
from staanet.pipeline.foresight import Foresight, foresee
from staanet.pipeline.guard import certified, detect, harden
from staanet.pipeline.models import source_of, train_generator, train_uap, train_victim
from staanet.pipeline.recipe import run

__all__ = [
    "Foresight",
    "Plan",
    "Quarantine",
    "SweepPlan",
    "adapt",
    "aim",
    "answers",
    "attack",
    "audit",
    "certified",
    "detect",
    "defend",
    "distil",
    "evaluate",
    "foresee",
    "harden",
    "load_clips",
    "normal",
    "plan_attack",
    "run",
    "source_of",
    "sweep",
    "train_generator",
    "train_uap",
    "train_victim",
]
