"""One function per command, and ``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

from staanet.pipeline.attack import attack, join_recordings
from staanet.pipeline.attack_job import AttackJob, joined_recordings
from staanet.pipeline.attack_plan import AttackPlan, aim, part_of, plan_attack
from staanet.pipeline.audit import audit
from staanet.pipeline.certify import certified
from staanet.pipeline.clips import ReadingClips, load_clips, split_warnings
from staanet.pipeline.context import Context
from staanet.pipeline.defend import adapt, defend
from staanet.pipeline.detect import detect, detecting
from staanet.pipeline.distil import distil
from staanet.pipeline.dry_run import DryRun, dry_run
from staanet.pipeline.evaluate import answers, evaluate
from staanet.pipeline.export import export_generator
from staanet.pipeline.folders import normal
from staanet.pipeline.harden import harden, hardening_of
from staanet.pipeline.merge import merge
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.run_recipe import run
from staanet.pipeline.sweep import SweepPlan, sweep
from staanet.pipeline.train import source_of, train_generator, train_uap, train_victim

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
