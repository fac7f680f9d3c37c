"""Measures adversarial audio on targets: transfer matrices, sweeps, certificates, perceptual scores."""

from __future__ import annotations

from staanet.evaluation.controls import CONTROLS
from staanet.evaluation.transfer import (
    ATTACK_FIELDS,
    check_names,
    defence_knowledge,
    recount_matrix,
    transfer_matrix,
)

__all__ = [
    "ATTACK_FIELDS",
    "CONTROLS",
    "check_names",
    "defence_knowledge",
    "recount_matrix",
    "transfer_matrix",
]
