"""Checks a victim's gradient: finite, not zero, and equal to finite differences.

A victim with max-pooling or rectifiers has kinks: a finite difference across one is no slope, and in
float32 rounding hides the slope at the small steps that avoid them. So slopes are taken in float64,
along several directions, at several step sizes. The step size counts at which slopes and gradient agree
best: a wrong gradient agrees at none. Digital silence is a kink whatever the step (equal values under a
pool), so half a step of the 16-bit grid is added as noise first. The typical clip is judged, not the
worst. A victim that asks for float32 inside (``x.float()``) computes in float64 all the same. One that
cannot is judged in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from staanet import audio
from staanet.attacks.loss import AttackTask
from staanet.core import Clip, Untargeted, Victim
from staanet.defences import Defended
from staanet.results.checks import Check
from staanet.sanity.probe import no_gradient

DIRECTIONS = 3
PIECE_S = 1.0
"""Seconds of a clip that are tested, because the slopes of a second represent those of a minute."""
_BPDA = "a differentiable stand-in (BPDA, arXiv 1802.00420)"


@dataclass(frozen=True, slots=True)
class _Precision:
    """How finely a victim can be differentiated."""

    dtype: torch.dtype
    changes: tuple[float, ...]
    """Step sizes, as the changes of the margin that they aim at, in units of the largest logit, from large to small."""
    tolerance: float


_DOUBLE = _Precision(torch.float64, (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10), 0.05)
_SINGLE = _Precision(torch.float32, (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4), 0.3)
_ATTACK_TOLERANCE = 0.3  # of float32 against float64, where some pooled places may differ


def gradients(victim: Victim, clips: Sequence[Clip], seed: int = 0) -> Check:
    """The gradient is finite, nowhere all zero, and the slope that finite differences give.

    What is random in a victim is held still. A stand-in's gradient (BPDA) is not the slope, and is not
    compared.
    """
    if not victim.differentiable:
        return no_gradient("gradients", victim)
    if isinstance(victim, Defended) and victim.randomised:
        victim = victim.with_eot(1, shared_draws=True)
    generator = torch.Generator().manual_seed(seed)
    points = [_point(victim, clip, generator) for clip in clips]
    try:
        grads = [_gradient(victim, x.float()) for x in points]
    except RuntimeError as problem:  # torch: nothing that needs a gradient
        return Check.judge(
            "gradients",
            victim.name,
            is_wrong=True,
            explanation=f"no gradient reaches the waveform ({str(problem).splitlines()[0]})",
            remedy=f"Set differentiable = False and attack it as a black box, or through {_BPDA}",
        )
    norms = np.array([float(grad.norm()) for grad in grads])
    alive = [i for i, norm in enumerate(norms) if np.isfinite(norm) and norm > 0]
    error, tolerance = None, 0.0
    if victim.exact_gradient and alive:
        chosen = [points[i] for i in alive], [grads[i] for i in alive]
        error, tolerance = _slope_error(victim, *chosen, generator)
    return _judge(victim, norms, error, tolerance)


def _judge(
    victim: Victim, norms: NDArray[np.float64], error: float | None, tolerance: float
) -> Check:
    count, broken, zero = len(norms), int((~np.isfinite(norms)).sum()), int((norms == 0).sum())
    is_off = error is not None and not error <= tolerance
    reasons = [
        f"NaN or infinite on {broken} of {count} clips" if broken else "",
        f"zero everywhere on {zero} of {count} clips" if zero else "",
        f"off by {100 * (error or 0):.0f} % from finite differences" if is_off else "",
    ]
    right = "finite and right"
    if not victim.exact_gradient:
        right = "finite and that of a stand-in (BPDA), which slopes cannot prove"
    return Check.judge(
        "gradients",
        victim.name,
        is_wrong=bool(broken or zero or is_off),
        figures={"clips": count, "not_finite": broken, "zero": zero, "error": error},
        explanation="the gradient is " + (", ".join(filter(None, reasons)) or right),
        remedy=f"A masked gradient looks like robustness: attack it as a black box, or through {_BPDA}",
    )


def _point(victim: Victim, clip: Clip, generator: torch.Generator) -> Tensor:
    """The loudest stretch of a clip in float64, ``[1, T]``, with noise of half a step of the grid."""
    length = min(len(clip.pcm16), max(round(PIECE_S * clip.sample_rate), victim.minimum_samples))
    energy = np.concatenate([[0.0], np.cumsum(np.square(clip.samples, dtype=np.float64))])
    start = int(np.argmax(energy[length:] - energy[: len(energy) - length]))
    x = clip.waveform[start : start + length].double()
    noise = torch.rand(length, generator=generator, dtype=torch.float64) - 0.5
    return (x + noise / audio.FULL_SCALE)[None]


def _gradient(victim: Victim, x: Tensor) -> Tensor:
    """The gradient of the margin of the victim's own answer, ``[1, T] -> [T]`` in float64."""
    x = x.to(victim.device)
    with torch.inference_mode():
        goal = Untargeted(int(victim(x).argmax()))
    return AttackTask(victim, x, goal, None).gradient(x)[0].double().cpu()


def _slope_error(
    victim: Victim, points: Sequence[Tensor], grads: Sequence[Tensor], generator: torch.Generator
) -> tuple[float, float]:
    """The relative distance of gradients from slopes on the typical clip, and its tolerance."""
    precise = _in_double(victim, points[0])
    subject, precision, exact = victim, _SINGLE, list(grads)
    if precise is not None:
        with _InDouble():
            exact = [_gradient(precise, x) for x in points]
        subject, precision = precise, _DOUBLE
        attack = float(np.median([_relative(g, e) for g, e in zip(grads, exact, strict=True)]))
        if not attack <= _ATTACK_TOLERANCE:  # right in float64 or not, attacks see another
            return attack, _ATTACK_TOLERANCE
    errors = [
        _clip_error(subject, precision, x, grad, generator)
        for x, grad in zip(points, exact, strict=True)
    ]
    return float(np.median(errors)), precision.tolerance


def _clip_error(
    victim: Victim, precision: _Precision, x: Tensor, grad: Tensor, generator: torch.Generator
) -> float:
    """The relative distance of a gradient's slopes along random signs from finite differences."""
    norm = grad.norm()
    signs = 2.0 * torch.randint(2, (DIRECTIONS, x.shape[1]), generator=generator).double() - 1
    with torch.inference_mode(), _InDouble() if precision is _DOUBLE else nullcontext():
        clean = victim(x.to(precision.dtype).to(victim.device))
        answer, scale = int(clean.argmax()), float(clean.abs().max())
        steps = max(scale, 1e-6) * torch.tensor(precision.changes, dtype=torch.float64)
        moves = steps[:, None, None] / norm * signs  # [steps, directions, T]
        rows = torch.cat([x + moves.flatten(0, 1), x - moves.flatten(0, 1)])
        logits = [
            victim(row.to(precision.dtype).to(victim.device)).cpu() for row in torch.split(rows, 8)
        ]
        margins = Untargeted(answer).margin(torch.cat(logits).double())
    up, down = margins.view(2, len(steps), DIRECTIONS)
    estimates = (up - down) / 2 / steps[:, None]
    slopes = signs @ grad / norm
    return min(_relative(slopes, estimate) for estimate in estimates)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / torch.maximum(a.norm(), b.norm()).clamp_min(1e-30))


def _in_double(victim: Victim, x: Tensor) -> Victim | None:
    """A copy of the victim that computes in float64 on the CPU; None where it cannot."""
    try:
        precise = copy.deepcopy(victim).double().cpu()
        with torch.inference_mode(), _InDouble():
            return precise if precise(x).dtype == torch.float64 else None
    except (RuntimeError, TypeError, ValueError):
        return None


class _InDouble(TorchFunctionMode):
    """Conversions of float64 to float32 do nothing, so that a whole network computes in float64."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.float and args[0].dtype == torch.float64:
            return args[0]
        if func in (Tensor.to, Tensor.type) and args[0].dtype == torch.float64:
            args = tuple(torch.float64 if value is torch.float32 else value for value in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        return func(*args, **kwargs)
