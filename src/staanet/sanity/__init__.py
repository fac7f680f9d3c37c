"""Is a victim what an evaluation takes it for, and does an attack on it behave like one?

Each check is a function over a victim and clips and returns a ``Check``. They are the sanity checks of
Carlini et al. 2019 (arXiv 1902.06705, sections 3 to 5) and of AutoAttack (Croce and Hein 2020,
arXiv 2003.01690, section 3). What compares two attacks asks whether the one that must not be worse
loses more clips than chance explains (exact McNemar test), so that few clips raise no false alarm.
"""

from __future__ import annotations

from staanet.sanity.attack_checks import (
    Linear,
    finds_known_optimum,
    huge_epsilon,
    larger_epsilon,
    more_steps,
    white_box_wins,
)
from staanet.sanity.check import ALPHA, BLACK_BOX, Check, Figure, Probe, Verdict, answers, p_worse
from staanet.sanity.perturbation_checks import direction, p_one_more_draw
from staanet.sanity.victim_checks import (
    clean_accuracy,
    deterministic,
    eval_mode,
    gives_logits,
    gradients,
)

__all__ = [
    "ALPHA",
    "BLACK_BOX",
    "Check",
    "Figure",
    "Linear",
    "Probe",
    "Verdict",
    "answers",
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
    "p_one_more_draw",
    "p_worse",
    "white_box_wins",
]
