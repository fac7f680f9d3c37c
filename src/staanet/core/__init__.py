"""Core types: victims, goals, budgets, attacks, clips and corpora.

Waveforms are ``[B, T]`` float tensors in [-1, 1]; on disk and in a ``Clip`` they are 16-bit integers.
A batch of clips of different lengths is padded with zeros and carries ``lengths [B]``; without
``lengths`` every clip fills its row. Names are loaded when first used, so that a module which needs
no torch, such as ``staanet.core.budget``, imports none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from staanet.core.answers import answers_to, goal_of, goal_on, possible_answers, require_classes
    from staanet.core.attack import Attack
    from staanet.core.budget import LOUDEST_DB, Budget
    from staanet.core.clips import NO_CHANNEL, Clip, Samples, Utterance
    from staanet.core.corpus import Corpus, OnUnusable, Store
    from staanet.core.goals import Goal, Shift, Targeted, Untargeted
    from staanet.core.progress import MetricLogger, Progress, silent
    from staanet.core.sampling import clip_generators, stratified_subset
    from staanet.core.victim import Victim, standardise, valid_mask

_MODULE_OF = {
    "Attack": "attack",
    "Budget": "budget",
    "Clip": "clips",
    "Corpus": "corpus",
    "Goal": "goals",
    "LOUDEST_DB": "budget",
    "MetricLogger": "progress",
    "NO_CHANNEL": "clips",
    "OnUnusable": "corpus",
    "Progress": "progress",
    "Samples": "clips",
    "Shift": "goals",
    "Store": "corpus",
    "Targeted": "goals",
    "Untargeted": "goals",
    "Utterance": "clips",
    "Victim": "victim",
    "answers_to": "answers",
    "clip_generators": "sampling",
    "goal_of": "answers",
    "goal_on": "answers",
    "possible_answers": "answers",
    "require_classes": "answers",
    "silent": "progress",
    "standardise": "victim",
    "stratified_subset": "sampling",
    "valid_mask": "victim",
}

__all__ = [
    "LOUDEST_DB",
    "NO_CHANNEL",
    "Attack",
    "Budget",
    "Clip",
    "Corpus",
    "Goal",
    "MetricLogger",
    "OnUnusable",
    "Progress",
    "Samples",
    "Shift",
    "Store",
    "Targeted",
    "Untargeted",
    "Utterance",
    "Victim",
    "answers_to",
    "clip_generators",
    "goal_of",
    "goal_on",
    "possible_answers",
    "require_classes",
    "silent",
    "standardise",
    "stratified_subset",
    "valid_mask",
]


if not TYPE_CHECKING:  # a type checker sees the imports above, and finds a wrong name

    def __getattr__(name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'staanet.core' has no attribute '{name}'")
        return getattr(importlib.import_module(f"staanet.core.{_MODULE_OF[name]}"), name)
