"""Checks a victim: deterministic, in evaluation mode, logits as output, better than chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from staanet.attacks import collate, logits_of
from staanet.core import Clip, Victim, metrics
from staanet.results.checks import Check, Verdict
from staanet.sanity.probe import BATCH

SAME_TWICE, SAME_IN_BATCH = 1e-4, 1e-2
"""How far logits may differ, as a share of their spread: of one clip twice, and beside others."""


def deterministic(victim: Victim, clips: Sequence[Clip]) -> Check:
    """The same clip gets the same logits twice, and in a batch with others as alone."""
    alone, again = logits_of(victim, clips), logits_of(victim, clips)
    batches = [_batch_logits(victim, clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)]
    scale = _logit_spread(alone)
    twice, batched = (
        float(np.abs(alone - other).max()) / scale for other in (again, np.concatenate(batches))
    )
    is_wrong = not (twice <= SAME_TWICE and batched <= SAME_IN_BATCH)  # NaN is wrong
    return Check.judge(
        "deterministic",
        victim.name,
        is_wrong=is_wrong,
        figures={"twice": twice, "in_a_batch": batched},
        explanation="one clip, twice and in a batch with others, gets "
        + ("different logits" if is_wrong else "the same logits"),
        remedy="Call eval(), fix the randomness or average it inside the victim, and mask padding: "
        "else an attack is measured on noise",
    )


def eval_mode(victim: Victim, clips: Sequence[Clip]) -> Check:
    """Checks that BatchNorm and dropout are in evaluation mode, by their flags and by repeated answers."""
    training = [
        name or type(module).__name__ for name, module in victim.named_modules() if module.training
    ]
    before = {name: tensor.clone() for name, tensor in victim.named_buffers()}
    length = min(len(clip.pcm16) for clip in clips)
    cut = [replace(clip, pcm16=clip.pcm16[:length]) for clip in clips]
    alone = logits_of(victim, cut[:1])[0]
    beside = [_batch_logits(victim, [cut[0], other])[0] for other in cut[1:4]]
    drift = max((float(np.abs(alone - row).max()) for row in beside), default=0.0)
    drift /= _logit_spread(logits_of(victim, cut))
    buffers = dict(victim.named_buffers())
    moved = [name for name, tensor in buffers.items() if not torch.equal(tensor, before[name])]
    is_unsteady = not drift <= SAME_IN_BATCH
    reasons = [
        f"{len(training)} modules in training mode ({', '.join(training[:3])})" if training else "",
        f"answering changed {', '.join(moved[:3])}" if moved else "",
        "a clip's logits depend on its neighbours in the batch" if is_unsteady else "",
    ]
    return Check.judge(
        "eval_mode",
        victim.name,
        is_wrong=bool(training or moved) or is_unsteady,
        figures={"training_modules": len(training), "moved_buffers": len(moved), "drift": drift},
        explanation="; ".join(filter(None, reasons)) or "no statistic moves, no neighbour matters",
        remedy="Call victim.eval() before it is attacked or judged",
    )


def gives_logits(victim: Victim, clips: Sequence[Clip]) -> Check:
    """Its answers are logits: probabilities saturate, and the gradient with them."""
    logits = logits_of(victim, clips)
    sums = logits.sum(axis=1)
    is_inside = bool(((logits >= -1e-6) & (logits <= 1 + 1e-6)).all())
    is_wrong = is_inside and bool(np.abs(sums - 1).max() < 1e-3)
    return Check.judge(
        "logits",
        victim.name,
        is_wrong=is_wrong,
        figures={
            "lowest": float(logits.min()),
            "highest": float(logits.max()),
            "mean_sum": float(sums.mean()),
        },
        explanation="every answer lies in [0, 1] and sums to 1: these are probabilities"
        if is_wrong
        else "the answers are no probabilities",
        remedy="Return the values before the softmax (probabilities=True for a black box)",
    )


def clean_accuracy(
    name: str, labels: Sequence[str], predictions: Sequence[str], speakers: Sequence[str]
) -> Check:
    """Better than the best constant answer, before any attack; else fooling it proves nothing."""
    from scipy.stats import binomtest

    truth, answers = np.array(labels), np.array(predictions)
    chance = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    accuracy = metrics.rate(truth == answers, list(speakers))
    value = accuracy.value or 0.0
    right = int((truth == answers).sum())
    p = float(binomtest(right, len(truth), chance, "greater").pvalue)
    verdict: Verdict = "fail" if value <= chance else "warn" if p > 0.05 else "pass"
    remedy = "Train the victim longer, or evaluate on more clips, and check that labels and clips "
    return Check(
        name="clean_accuracy",
        subject=name,
        verdict=verdict,
        figures={
            "accuracy": value,
            "low": accuracy.low,
            "high": accuracy.high,
            "chance": chance,
            "count": len(truth),
        },
        explanation=f"right on {100 * value:.1f} % of {len(truth)} clean clips; always naming the "
        f"commonest class would be on {100 * chance:.1f} %",
        remedy="" if verdict == "pass" else remedy + "belong together",
    )


def _batch_logits(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    with torch.inference_mode():
        logits: NDArray[np.float64] = victim(*collate(clips, victim)).double().cpu().numpy()
    return logits


def _logit_spread(logits: NDArray[np.float64]) -> float:
    """Mean distance of a clip's largest and smallest logit: the scale on which differences count."""
    return max(float(np.mean(logits.max(axis=1) - logits.min(axis=1))), 1e-9)
