"""The control of an attack: random signs with as many samples and the same level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from staanet import audio
from staanet.attacks import Random, craft, logits_of
from staanet.core import Budget, Clip, Victim, answers_to, stratified_subset
from staanet.pipeline.context import Context
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet

CONTROL_DRAWS = 5
"""How often random signs are drawn to compare with an attack."""
CONTROL_CLIPS = 40
"""The control is drawn for at most so many clips of a set, spread over labels and speakers."""


def control_hits(
    pair: AdversarialClip, source: Victim, victims: Sequence[Victim], draws: int = CONTROL_DRAWS
) -> dict[str, int]:
    """Counts, for each victim, the draws of random signs that change its answer to a clip.

    Each draw changes as many samples as the attack did, by its root mean square in whole 16-bit steps.
    """
    change = pair.delta[pair.support].astype(np.float64)
    if not len(change):
        return {victim.name: 0 for victim in victims}
    size = math.ceil(math.sqrt(float(np.square(change).mean()))) / audio.FULL_SCALE  # never weaker
    budget = Budget(epsilon=min(size, 1.0), max_l0=len(change))
    noisy = [
        craft(Random(budget=budget, seed=seed), source, [pair.clean]).clips[0].adversarial
        for seed in range(draws)
    ]
    clips = [pair.clean, *(Clip(f"noise-{i}", x, source.sample_rate) for i, x in enumerate(noisy))]
    hits = {}
    for victim in victims:
        outputs = torch.from_numpy(logits_of(victim, clips))
        answers = answers_to(victim, outputs[:1], outputs)
        hits[victim.name] = sum(answer != answers[0] for answer in answers[1:])
    return hits


def control_rates(
    adversarial: AdversarialSet, source: Victim, victims: Sequence[Victim], context: Context
) -> dict[str, dict[str, Any]]:
    """How often random signs change the answers of victims, beside how often the attack does.

    Each draw changes as many samples of a clip as the attack did, by the same root mean square.

    Args:
        adversarial: The set of the attack.
        source: The model that it was crafted on.
        victims: Whose answers count.
        context: The shared settings of the command.

    Returns:
        For each victim ``clips``, ``draws``, and ``hits``: in how many of ``clips * draws`` pairs the
        answer changed.
    """
    subset = stratified_subset([pair.clean for pair in adversarial], CONTROL_CLIPS)
    ids = {clip.id for clip in subset}
    totals = dict.fromkeys((victim.name for victim in victims), 0)
    pairs = (pair for pair in adversarial if pair.clean.id in ids)
    for number, pair in enumerate(pairs, start=1):
        for name, hits in control_hits(pair, source, victims).items():
            totals[name] += hits
        context.progress("compare with random signs", number, len(ids), "")
    return {
        name: {"clips": len(ids), "draws": CONTROL_DRAWS, "hits": hits}
        for name, hits in totals.items()
    }
