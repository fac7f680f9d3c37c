"""Checks that attacks behave: more steps, a larger epsilon and knowledge help, an optimum is found.

The checks are those of Carlini et al. 2019 (arXiv 1902.06705, sections 3 to 5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from staanet import audio
from staanet.attacks import PGD, Random, SparseRS
from staanet.core import Attack, Budget, Clip, Victim
from staanet.results.checks import Check, Figure
from staanet.sanity.probe import ALPHA, MIN_CLIPS, Probe, no_gradient, p_worse

FEW_STEPS, MANY_STEPS = 2, 10
HUGE_EPSILON = 1.0
SPARSE = 0.05
"""Share of samples where white box and black box may change few."""


def more_steps(probe: Probe) -> Check:
    """PGD with more steps fools no fewer clips."""
    if (reason := _reason_to_skip(probe, "more_steps")) is not None:
        return reason
    many = _telling_attack(probe)
    few = replace(many, steps=FEW_STEPS)
    return _compare(
        "more_steps",
        probe,
        [(f"{FEW_STEPS} steps", few), (f"{MANY_STEPS} steps", many)],
        "The attack does not converge: check its step size and the victim's gradient",
    )


def larger_epsilon(probe: Probe) -> Check:
    """PGD that may change more fools no fewer clips."""
    return _compare(
        "larger_epsilon",
        probe,
        [(f"epsilon {attack.budget.epsilon:g}", attack) for attack in _ladder(probe)],
        "The gradient is masked: try a black-box attack, and look at the gradient check",
    )


def huge_epsilon(probe: Probe) -> Check:
    """With nearly any change allowed, PGD leaves no more answers than chance, or than noise of that size."""
    from scipy.stats import binomtest

    if (reason := _reason_to_skip(probe, "huge_epsilon")) is not None:
        return reason
    victim, count = probe.victim, len(probe.clips)
    if len(set(probe.clean.tolist())) == 1:
        return Check.skip(
            "huge_epsilon",
            victim.name,
            f"it gives the same answer to all {count} clips: there may be no other",
            remedy="See the check of its clean accuracy",
        )
    budget = Budget(epsilon=HUGE_EPSILON)
    held_by_noise = float((~probe.fooled(Random(budget=budget))).mean())
    if held_by_noise == 1:
        return Check.skip(
            "huge_epsilon",
            victim.name,
            f"noise of any size changes none of its {count} answers: there may be no other",
            remedy="See the checks of its clean accuracy and of its gradient",
        )
    held = int((~probe.fooled(PGD(budget=budget, steps=MANY_STEPS))).sum())
    chance = max(1 / len(victim.labels), held_by_noise)
    return Check.judge(
        "huge_epsilon",
        victim.name,
        is_wrong=held > 0 and float(binomtest(held, count, chance, "greater").pvalue) < ALPHA,
        figures={"epsilon": HUGE_EPSILON, "held": held, "count": count, "chance": chance},
        explanation=f"{held} of {count} answers hold at epsilon {HUGE_EPSILON:g}; chance or noise "
        f"leaves {100 * chance:.0f} %",
        remedy="The gradient is masked: a robustness figure of this victim says nothing",
    )


def white_box_wins(probe: Probe, others: Sequence[Probe] = (), queries: int = 50) -> Check:
    """PGD, which knows the victim, beats noise, search by queries and transfer at equal budget."""
    if (reason := _reason_to_skip(probe, "white_box_wins")) is not None:
        return reason
    dense = _telling_attack(probe)
    budget = replace(_ladder(probe)[-1].budget, max_density=SPARSE)
    white, white_sparse = probe.fooled(dense), probe.fooled(PGD(budget=budget, steps=MANY_STEPS))
    rivals = [
        ("random", white, probe.fooled(Random(budget=dense.budget))),
        ("sparse_rs", white_sparse, probe.fooled(SparseRS(budget=budget, steps=queries))),
    ]
    for other in others:
        if other.victim.differentiable and other is not probe:
            transferred = probe.fooled_by(other.attacked(dense))
            rivals.append((f"transfer from {other.victim.name}", white, transferred))
    losing = [name for name, strong, weak in rivals if p_worse(weak, strong) < ALPHA]
    figures: dict[str, Figure] = {
        "epsilon": dense.budget.epsilon,
        "pgd": float(white.mean()),
        "pgd_sparse": float(white_sparse.mean()),
    }
    return Check.judge(
        "white_box_wins",
        probe.victim.name,
        is_wrong=bool(losing),
        figures=figures | {name: float(weak.mean()) for name, _, weak in rivals},
        explanation=f"PGD fools fewer clips than {', '.join(losing)}, which know less"
        if losing
        else "no attack that knows less beats PGD at the same budget",
        remedy="The gradient is masked: report the black-box figure, and look at the gradient check",
    )


def _ladder(probe: Probe) -> list[PGD]:
    return [
        PGD(budget=Budget(epsilon=min(1.0, max(probe.epsilon * factor, 2**-13))), steps=MANY_STEPS)
        for factor in (1 / 16, 1 / 4, 1, 4)
    ]


def _telling_attack(probe: Probe) -> PGD:
    """The first rung where PGD fools half the clips: there a difference shows."""
    rungs = _ladder(probe)
    return next((attack for attack in rungs if probe.fooled(attack).mean() >= 0.5), rungs[-1])


def _compare(name: str, probe: Probe, rungs: Sequence[tuple[str, Attack]], remedy: str) -> Check:
    """Attacks in the order of their strength: none may lose clips to the one before."""
    if (reason := _reason_to_skip(probe, name)) is not None:
        return reason
    fooled = {title: probe.fooled(attack) for title, attack in rungs}
    lowest = min(p_worse(weak, strong) for weak, strong in pairwise(fooled.values()))
    counts = ", ".join(f"{int(hits.sum())} with {title}" for title, hits in fooled.items())
    return Check.judge(
        name,
        probe.victim.name,
        is_wrong=lowest < ALPHA,
        figures={**{title: float(hits.mean()) for title, hits in fooled.items()}, "p": lowest},
        explanation=f"of {len(probe.clips)} clips PGD fools {counts}",
        remedy=remedy,
    )


def _reason_to_skip(probe: Probe, name: str) -> Check | None:
    """Why gradient attacks cannot be compared; None where they can."""
    if not probe.victim.differentiable:
        return no_gradient(name, probe.victim)
    if len(probe.clips) < MIN_CLIPS:
        return Check.skip(
            name,
            probe.victim.name,
            f"{len(probe.clips)} clips tell nothing; {MIN_CLIPS} are the fewest",
            remedy="Give more test clips, or raise --clips",
        )
    return None


class Linear(Victim):
    """Two classes with logits ``(w . x, -w . x)``: the least epsilon that changes an answer is exact.

    Within epsilon the margin ``2 w . x`` falls by at most ``2 epsilon ||w||_1``.

    >>> Linear(torch.tensor([2.0, 1.0])).least_epsilon(torch.tensor([0.3, 0.3]))
    0.3
    """

    architecture = "linear"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(name="linear", labels=("up", "down"))
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        score = waveforms @ self.weight
        return torch.stack([score, -score], dim=1)

    def least_epsilon(self, x: Tensor) -> float:
        """Returns the smallest change of every sample of ``x [T]`` that reaches the boundary."""
        return round(float((x @ self.weight).abs() / self.weight.abs().sum()), 7)


def finds_known_optimum(attack: Callable[[Budget], Attack], seed: int = 0) -> Check:
    """An attack crosses a linear victim's boundary at 1.02 x the least epsilon, not at 0.98 x.

    ``attack`` makes it from its budget: ``lambda budget: PGD(budget=budget)``.
    """
    generator = torch.Generator().manual_seed(seed)
    victim = Linear(torch.randn(1600, generator=generator).sign())
    noise = 0.2 * torch.randn(1600, generator=generator) + 0.05 * victim.weight
    clip = Clip("planted", audio.snap(noise.clamp(-0.7, 0.7).numpy()), victim.sample_rate)
    least = victim.least_epsilon(clip.waveform)
    crossed = {
        factor: bool(Probe(victim, [clip]).fooled(attack(Budget(epsilon=factor * least)))[0])
        for factor in (0.98, 1.02)
    }
    is_wrong = crossed != {0.98: False, 1.02: True}
    return Check.judge(
        "known_optimum",
        "linear",
        is_wrong=is_wrong,
        figures={"epsilon": least, "at_0.98": int(crossed[0.98]), "at_1.02": int(crossed[1.02])},
        explanation=f"on a victim whose least epsilon is {least:.4f} PGD "
        + ("misses the optimum" if is_wrong else "succeeds just above it and fails just below"),
        remedy="This installation's attack is broken: reinstall staanet",
    )
