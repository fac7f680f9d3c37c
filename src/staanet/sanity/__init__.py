"""Sanity checks of victims, attacks and finished runs.

Each check is a function over a victim, an attack or a finished run, and returns a ``Check``. They are the
sanity checks of Carlini et al. 2019 (arXiv 1902.06705, sections 3 to 5) and of AutoAttack (Croce and
Hein 2020, arXiv 2003.01690, section 3). What compares two attacks tests whether the one that must not
be worse loses more clips than chance explains (exact McNemar test), so that few clips raise no false
alarm.
"""

from __future__ import annotations

from staanet.results.checks import Check
from staanet.sanity.attack_checks import (
    finds_known_optimum,
    huge_epsilon,
    larger_epsilon,
    more_steps,
    white_box_wins,
)
from staanet.sanity.change_checks import direction
from staanet.sanity.gradient_check import gradients
from staanet.sanity.probe import Probe
from staanet.sanity.victim_checks import clean_accuracy, deterministic, eval_mode, gives_logits

__all__ = [
    "Check",
    "Probe",
    "clean_accuracy",
    "deterministic",
    "direction",
    "eval_mode",
    "finds_known_optimum",
    "gives_logits",
    "gradients",
    "huge_epsilon",
    "larger_epsilon",
    "more_steps",
    "white_box_wins",
]
