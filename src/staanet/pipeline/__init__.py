"""One function per command, and ``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

from staanet.pipeline.audit import audit
from staanet.pipeline.clips import ReadingClips, load_clips, split_warnings
from staanet.pipeline.context import Context
from staanet.pipeline.crafting import attack, join_recordings
from staanet.pipeline.defences import adapt, defend
from staanet.pipeline.distil import distil
from staanet.pipeline.dry_run import DryRun, dry_run
from staanet.pipeline.engine import AttackJob, joined_recordings
from staanet.pipeline.exporting import export_generator
from staanet.pipeline.folders import normal
from staanet.pipeline.guard import certified, detect, detecting, harden, hardening_of
from staanet.pipeline.judging import answers, evaluate
from staanet.pipeline.merging import merge
from staanet.pipeline.models import source_of, train_generator, train_uap, train_victim
from staanet.pipeline.plans import AttackPlan, aim, part_of, plan_attack
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.recipe import run
from staanet.pipeline.sweeping import SweepPlan, sweep

__all__ = [
    "DryRun",
    "AttackJob",
    "AttackPlan",
    "Context",
    "Quarantine",
    "ReadingClips",
    "SweepPlan",
    "adapt",
    "aim",
    "answers",
    "attack",
    "audit",
    "certified",
    "detect",
    "detecting",
    "defend",
    "distil",
    "evaluate",
    "export_generator",
    "dry_run",
    "harden",
    "hardening_of",
    "join_recordings",
    "joined_recordings",
    "load_clips",
    "merge",
    "normal",
    "part_of",
    "plan_attack",
    "run",
    "source_of",
    "sweep",
    "train_generator",
    "train_uap",
    "train_victim",
    "split_warnings",
]
