"""Is a victim in order: deterministic, at rest, in logits, with true gradients, better than chance?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.attacks import collate, logits_of
from staanet.attacks.gradient import margin_gradient
from staanet.core import Clip, Victim, metrics
from staanet.defences import Defended
from staanet.sanity.check import BATCH, Check, Verdict, answer_goal, no_gradient

_STAND_IN = "finite and that of a stand-in (BPDA), which slopes cannot prove"


def deterministic(victim: Victim, clips: Sequence[Clip]) -> Check:
    """The same clip gets the same logits twice, and in a batch with others as alone."""
    alone, again = logits_of(victim, clips), logits_of(victim, clips)
    together = np.concatenate(
        [_batch(victim, clips[i : i + BATCH]) for i in range(0, len(clips), BATCH)]
    )
    scale = _spread(alone)
    twice, batched = (float(np.abs(alone - other).max()) / scale for other in (again, together))
    bad = not (twice <= 1e-4 and batched <= 1e-2)  # NaN is bad
    return Check(
        name="deterministic",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={"twice": twice, "in_a_batch": batched},
        explanation="one clip, asked twice and in a batch with others, gets "
        + ("different logits" if bad else "the same logits"),
        remedy="Call eval(), fix the randomness or average it inside the victim, and mask padding: "
        "else an attack is measured on noise"
        if bad
        else "",
    )


def eval_mode(victim: Victim, clips: Sequence[Clip]) -> Check:
    """BatchNorm and dropout stand still: by their flags, and by what the victim does."""
    flagged = [
        name or type(module).__name__ for name, module in victim.named_modules() if module.training
    ]
    before = {name: tensor.clone() for name, tensor in victim.named_buffers()}
    length = min(len(clip.pcm16) for clip in clips)
    cut = [replace(clip, pcm16=clip.pcm16[:length]) for clip in clips]
    alone = logits_of(victim, cut[:1])
    beside = [_batch(victim, [cut[0], other])[0] for other in cut[1:4]]
    drift = max((float(np.abs(alone[0] - row).max()) for row in beside), default=0.0)
    drift /= _spread(logits_of(victim, cut))
    moved = [
        name for name, tensor in victim.named_buffers() if not torch.equal(tensor, before[name])
    ]
    bad = bool(flagged or moved) or not drift <= 1e-2
    reasons = [
        f"{len(flagged)} modules in training mode ({', '.join(flagged[:3])})" if flagged else "",
        f"asking it changed {', '.join(moved[:3])}" if moved else "",
        "a clip's logits depend on its neighbours in the batch" if not drift <= 1e-2 else "",
    ]
    return Check(
        name="eval_mode",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={"training_modules": len(flagged), "moved_buffers": len(moved), "drift": drift},
        explanation="; ".join(filter(None, reasons)) or "no statistic moves, no neighbour matters",
        remedy="Call victim.eval() before it is attacked or judged" if bad else "",
    )


def gives_logits(victim: Victim, clips: Sequence[Clip]) -> Check:
    """Its answers are logits: probabilities saturate, and the gradient with them."""
    found = logits_of(victim, clips)
    total = found.sum(axis=1)
    inside = bool(((found >= -1e-6) & (found <= 1 + 1e-6)).all())
    bad = inside and bool(np.abs(total - 1).max() < 1e-3)
    return Check(
        name="logits",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={
            "lowest": float(found.min()),
            "highest": float(found.max()),
            "mean_sum": float(total.mean()),
        },
        explanation="every answer lies in [0, 1] and sums to 1: these are probabilities"
        if bad
        else "the answers are no probabilities",
        remedy="Return the values before the softmax (probabilities=True for a black box)"
        if bad
        else "",
    )


def gradients(victim: Victim, clips: Sequence[Clip], seed: int = 0, directions: int = 4) -> Check:
    """Finite, nowhere all zero, and the slope that finite differences find along random directions.

    The slopes are taken in double precision where the victim can compute in it. What is random in a
    victim is held still, and a stand-in's gradient (BPDA) is not the slope and is not compared.
    """
    if not victim.differentiable:
        return no_gradient("gradients", victim)
    if isinstance(victim, Defended) and victim.randomised:
        victim = victim.with_eot(1, shared_draws=True)
    rng = torch.Generator().manual_seed(seed)
    told, found, zero, broken = [], [], 0, 0
    function, change, tolerance = _slope_function(victim, clips[0])
    for clip in clips:
        x, _ = collate([clip], victim)
        goal = answer_goal(victim, clip)
        try:
            gradient = margin_gradient(victim, x, goal, None).double().cpu()
        except RuntimeError as problem:  # torch: nothing that needs a gradient
            return Check(
                name="gradients",
                subject=victim.name,
                verdict="fail",
                explanation=f"no gradient reaches the waveform ({str(problem).splitlines()[0]})",
                remedy="Set differentiable = False and attack it as a black box, or through a "
                "differentiable stand-in (BPDA, arXiv 1802.00420)",
            )
        norm = float(gradient.norm())
        broken += not np.isfinite(norm)
        zero += norm == 0
        if not np.isfinite(norm) or norm == 0 or not victim.exact_gradient:
            continue
        for _ in range(directions):
            u = (2.0 * torch.randint(2, x.shape, generator=rng) - 1).double()
            step = change / norm * u
            up, down = (float(goal.margin(function(x.double().cpu() + s))) for s in (step, -step))
            told.append(float((gradient * u).sum()) / norm)
            found.append((up - down) / 2 / change)
    return _judged_gradients(victim, len(clips), broken, zero, np.array([told, found]), tolerance)


def _judged_gradients(
    victim: Victim,
    count: int,
    broken: int,
    zero: int,
    slopes: NDArray[np.float64],
    tolerance: float,
) -> Check:
    error = None
    if slopes.size:
        told, found = slopes
        scale = max(float(np.linalg.norm(told)), float(np.linalg.norm(found)))
        error = float(np.linalg.norm(told - found)) / scale if scale else None
    wrong = error is not None and not error <= tolerance
    bad = bool(broken or zero or wrong)
    reasons = [
        f"NaN or infinite on {broken} of {count} clips" if broken else "",
        f"zero everywhere on {zero} of {count} clips" if zero else "",
        f"off by {100 * (error or 0):.0f} % from finite differences" if wrong else "",
    ]
    return Check(
        name="gradients",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={"clips": count, "not_finite": broken, "zero": zero, "error": error},
        explanation="the gradient is "
        + (", ".join(filter(None, reasons)) or ("finite and right" if slopes.size else _STAND_IN)),
        remedy="A masked gradient iterations like robustness: attack it as a black box, or through a "
        "differentiable stand-in (BPDA, arXiv 1802.00420)"
        if bad
        else "",
    )


def _slope_function(victim: Victim, clip: Clip) -> tuple[Callable[[Tensor], Tensor], float, float]:
    """The victim on double waveforms, the change of margin to aim at, the error to tolerate."""
    x = clip.waveform[None].double()
    try:
        precise = copy.deepcopy(victim).double().cpu()
        with torch.inference_mode():
            if precise(x).dtype == torch.float64:
                return lambda y: _asked(precise, y), 1e-7, 0.05
    except (RuntimeError, TypeError, ValueError):  # one that cannot be copied or computes in float
        pass
    return lambda y: _asked(victim, y.float().to(victim.device)).cpu(), 1e-2, 0.3


def _asked(victim: Victim, x: Tensor) -> Tensor:
    with torch.inference_mode():
        answer: Tensor = victim(x).double()
    return answer


def clean_accuracy(
    name: str, labels: Sequence[str], predictions: Sequence[str], speakers: Sequence[str]
) -> Check:
    """Better than the best constant answer, before any attack; else fooling it proves nothing."""
    from scipy.stats import binomtest

    truth, told = np.array(labels), np.array(predictions)
    chance = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    right = metrics.rate(truth == told, list(speakers))
    value = right.value or 0.0
    p = float(binomtest(int((truth == told).sum()), len(truth), chance, "greater").pvalue)
    verdict: Verdict = "fail" if value <= chance else "warn" if p > 0.05 else "pass"
    return Check(
        name="clean_accuracy",
        subject=name,
        verdict=verdict,
        figures={
            "accuracy": value,
            "low": right.low,
            "high": right.high,
            "chance": chance,
            "count": len(truth),
        },
        explanation=f"right on {100 * value:.1f} % of {len(truth)} clean clips; always naming the "
        f"commonest class would be on {100 * chance:.1f} %",
        remedy=""
        if verdict == "pass"
        else "Train the victim longer, or evaluate on more clips, and "
        "check that labels and clips belong together",
    )


def _batch(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    with torch.inference_mode():
        found: NDArray[np.float64] = victim(*collate(clips, victim)).double().cpu().numpy()
    return found


def _spread(logits: NDArray[np.float64]) -> float:
    """How far a clip's logits lie apart: the scale on which differences count."""
    return max(float(np.mean(logits.max(axis=1) - logits.min(axis=1))), 1e-9)
