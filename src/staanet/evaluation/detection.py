"""Measures a detector on the clips of one attack: ROC, and rates at the chosen threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from staanet.attacks import logits_of
from staanet.core import Progress, metrics, silent
from staanet.core.roc import auroc, roc
from staanet.defences import DetectorGated
from staanet.results.adversarial_set import AdversarialClip
from staanet.training.detectors import detector_scores


def detection_figures(
    attack: str,
    target: DetectorGated,
    pairs: Sequence[AdversarialClip],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Returns ROC, AUROC and the rates at the chosen threshold for the pairs of one attack.

    ``fooled`` counts changed answers as if there were no detector, ``fooled_undetected`` those that the
    victim gave rather than abstained. Rates have intervals clustered by speaker.
    """
    detector, inner, what = target.detector, target.inner, f"look for {attack}"
    originals = [pair.clean for pair in pairs]
    twins = [replace(pair.clean, pcm16=pair.adversarial) for pair in pairs]
    clean = detector_scores(detector, inner, originals, what=f"{what}: clean", progress=progress)
    attacked = detector_scores(detector, inner, twins, what=what, progress=progress)
    before, after = (logits_of(inner, clips).argmax(axis=1) for clips in (originals, twins))
    is_changed, is_detected = before != after, attacked > target.threshold
    outcomes = {
        "false_positive_rates": clean > target.threshold,
        "detected": is_detected,
        "fooled": is_changed,
        "fooled_undetected": is_changed & ~is_detected,
    }
    speakers = [clip.speaker for clip in originals]
    return {
        "attack": attack,
        "count": len(pairs),
        "auroc": auroc(clean, attacked),
        **{name: asdict(metrics.rate(hits, speakers)) for name, hits in outcomes.items()},
        "roc": [{"false_positive_rate": x, "detected": y} for x, y in roc(clean, attacked)],
    }
