"""Checks of a victim before any attack: each takes the victim and clean clips, and returns a ``Check``.

They find random answers, a model in training mode, probabilities instead of logits, and answers that
are no better than chance.
"""

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

REPEAT_TOLERANCE, BATCH_TOLERANCE = 1e-4, 1e-2
"""How far logits of a clip may differ when it is repeated, and in a batch; a share of their spread."""


def deterministic(victim: Victim, clips: Sequence[Clip]) -> Check:
    """Checks that a clip gets the same logits twice, and the same in a batch as alone."""
    alone, again = logits_of(victim, clips), logits_of(victim, clips)
    batches = [_batch_logits(victim, clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)]
    scale = _logit_spread(alone)
    twice, batched = (
        float(np.abs(alone - other).max()) / scale for other in (again, np.concatenate(batches))
    )
    is_wrong = not (twice <= REPEAT_TOLERANCE and batched <= BATCH_TOLERANCE)  # NaN is wrong
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
    """Checks that BatchNorm and dropout are in evaluation mode.

    No module may have its training flag set, no buffer may change, and the neighbours of a clip in a batch
    may not change its logits.
    """
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
    is_unsteady = not drift <= BATCH_TOLERANCE
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
    """Checks that the outputs are logits; probabilities saturate, and then the gradient vanishes."""
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
    """Checks that the accuracy on clean clips is above that of the best constant answer.

    Fooling a victim at chance level proves nothing. A one-sided binomial test with p > 0.05 is a warning.
    The three sequences are aligned, with an item per clip.
    """
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
    """Returns the mean difference of a clip's largest and smallest logit, ``[N, K]``."""
    return max(float(np.mean(logits.max(axis=1) - logits.min(axis=1))), 1e-9)
