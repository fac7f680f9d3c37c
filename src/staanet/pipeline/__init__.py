"""One function per command, and ``run``: a recipe from corpus to report, as a list of stages."""

from __future__ import annotations

from staanet.pipeline.attack import attack
from staanet.pipeline.attack_job import AttackJob
from staanet.pipeline.attack_plan import (
    AttackPlan,
    plan_attack,
    require_trained,
    shard_plan,
    target_class,
)
from staanet.pipeline.audit import audit
from staanet.pipeline.certify import certify
from staanet.pipeline.clips import ReadingClips, load_clips, split_warnings
from staanet.pipeline.context import Context
from staanet.pipeline.control import control_rates
from staanet.pipeline.defend import adapt, defend
from staanet.pipeline.detect import check_detection, detect
from staanet.pipeline.distil import distil
from staanet.pipeline.dry_run import DryRun, dry_run
from staanet.pipeline.evaluate import evaluate, predictions
from staanet.pipeline.everyday_change import everyday
from staanet.pipeline.export import export_generator
from staanet.pipeline.harden import harden
from staanet.pipeline.join_recordings import join_recordings, read_recordings
from staanet.pipeline.merge import merge
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.quiet_budget import find_budgets
from staanet.pipeline.run_folds import run
from staanet.pipeline.sources import source_of
from staanet.pipeline.stage import Stage, walk
from staanet.pipeline.sweep import SweepPlan, sweep
from staanet.pipeline.train_generator import train_generator
from staanet.pipeline.train_uap import train_uap
from staanet.pipeline.train_victim import train_victim
from staanet.pipeline.victim_check import match_corpus_labels

__all__ = [
    "find_budgets",
    "AttackJob",
    "AttackPlan",
    "Context",
    "DryRun",
    "Quarantine",
    "ReadingClips",
    "Stage",
    "SweepPlan",
    "adapt",
    "attack",
    "audit",
    "certify",
    "check_detection",
    "control_rates",
    "defend",
    "detect",
    "distil",
    "dry_run",
    "evaluate",
    "everyday",
    "export_generator",
    "harden",
    "join_recordings",
    "load_clips",
    "match_corpus_labels",
    "merge",
    "plan_attack",
    "predictions",
    "read_recordings",
    "require_trained",
    "run",
    "shard_plan",
    "source_of",
    "split_warnings",
    "sweep",
    "target_class",
    "train_generator",
    "train_uap",
    "train_victim",
    "walk",
]
