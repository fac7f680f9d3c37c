"""Is a victim what an evaluation takes it for, and does an attack on it behave like one?

Each check is a function over a victim and clips and returns a ``Check``. They are the sanity checks of
Carlini et al. 2019 (arXiv 1902.06705, sections 3 to 5) and of AutoAttack (Croce and Hein 2020,
arXiv 2003.01690, section 3). What compares two attacks asks whether the one that must not be worse
loses more clips than chance explains (exact McNemar test), so that few clips raise no false alarm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from staanet import audio, metrics
from staanet.attacks import PGD, Random, SparseRS, collate, craft_batch
from staanet.attacks.gradient import margin_gradient
from staanet.core import Attack, Budget, Clip, Goal, Targeted, Untargeted, Victim
from staanet.defences import Defended
from staanet.results import AdversarialClip

Verdict = Literal["pass", "fail", "warn", "skipped"]
Figure = float | int | str | None
Bools = NDArray[np.bool_]

ALPHA = 0.01
"""A difference that chance makes as large once in a hundred honest evaluations is a failure."""
FEWEST = 7
"""With fewer clips no paired difference, however clear, is that improbable: ``0.5**7 < ALPHA``."""
FEW_STEPS, MANY_STEPS = 2, 10
HUGE_EPSILON = 1.0
BATCH = 4
DRAWS = 4
"""Of a randomised victim, that an attack follows the mean of."""
SPARSE = 0.05
"""Share of samples where white box and black box may change few."""
BLACK_BOX = ("sparsers", "onepixel")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question and its answer; ``subject`` is the victim or adversarial set that it is about."""

    name: str
    verdict: Verdict
    subject: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    explanation: str
    remedy: str = ""


def p_worse(weak: Bools, strong: Bools) -> float:
    """How likely chance alone makes ``strong [N]`` lose so many clips that ``weak [N]`` won.

    One-sided exact McNemar test on clips that only one of two equal attacks fooled.

    >>> p_worse(np.array([True] * 3), np.array([False] * 3))  # 3 of 3 coins
    0.125
    """
    from scipy.stats import binomtest

    lost, won = int((weak & ~strong).sum()), int((~weak & strong).sum())
    return float(binomtest(lost, lost + won, alternative="greater").pvalue) if lost else 1.0


_STAND_IN = "finite and that of a stand-in (BPDA), which slopes cannot prove"


class Probe:
    """A victim and clips to try it on; an attack that several checks ask for is made once.

    ``epsilon`` is the one that the evaluation under examination allows.
    """

    def __init__(
        self, victim: Victim, clips: Sequence[Clip], *, epsilon: float = 0.03,
        progress: Callable[[str], None] = lambda what: None,
    ) -> None:  # fmt: skip
        self.victim, self.clips, self.epsilon = victim, list(clips), epsilon
        self.progress = progress
        self._made: dict[Attack, list[AdversarialClip]] = {}
        self.clean = answers(victim, self.clips)

    def made(self, attack: Attack) -> list[AdversarialClip]:
        """Every clip attacked on the victim."""
        if attack not in self._made:
            source, done = self.victim, list[AdversarialClip]()
            if isinstance(source, Defended) and source.randomised:  # as one who knows it does
                source = source.expected(DRAWS)
            for start in range(0, len(self.clips), BATCH):
                done += craft_batch(attack, source, self.clips[start : start + BATCH])
                self.progress(f"{type(attack).__name__} {len(done)}/{len(self.clips)}")
            self._made[attack] = done
        return self._made[attack]

    def fooled(self, attack: Attack) -> Bools:
        """Whether the victim's answer changes, ``[N]``."""
        return self.misled(self.made(attack))

    def misled(self, pairs: Sequence[AdversarialClip]) -> Bools:
        """Whether the victim's answer changes on clips that were attacked anywhere, ``[N]``."""
        after = answers(
            self.victim, [replace(pair.clean, samples=pair.adversarial) for pair in pairs]
        )
        changed: Bools = after != self.clean
        return changed


def logits_of(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    """Each clip alone, ``[N, K]``."""
    rows = []
    with torch.inference_mode():
        for clip in clips:
            rows.append(victim(*collate([clip], victim))[0].double().cpu().numpy())
    return np.stack(rows)


def answers(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.intp]:
    """Index of each clip's answer, ``[N]``."""
    found: NDArray[np.intp] = logits_of(victim, clips).argmax(axis=1)
    return found


# ---------------------------------------------------------------- the victim


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
    flagged = [name or type(module).__name__ for name, module in victim.named_modules()
               if module.training]  # fmt: skip
    before = {name: tensor.clone() for name, tensor in victim.named_buffers()}
    length = min(len(clip.samples) for clip in clips)
    cut = [replace(clip, samples=clip.samples[:length]) for clip in clips]
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
        figures={"lowest": float(found.min()), "highest": float(found.max()),
                 "mean_sum": float(total.mean())},
        explanation="every answer lies in [0, 1] and sums to 1: these are probabilities"
        if bad
        else "the answers are no probabilities",
        remedy="Return the values before the softmax (probabilities=True for a black box)"
        if bad
        else "",
    )  # fmt: skip


def gradients(victim: Victim, clips: Sequence[Clip], seed: int = 0, directions: int = 4) -> Check:
    """Finite, nowhere all zero, and the slope that finite differences find along random directions.

    The slopes are taken in double precision where the victim can compute in it. What is random in a
    victim is held still, and a stand-in's gradient (BPDA) is not the slope and is not compared.
    """
    if not victim.differentiable:
        return _no_gradient("gradients", victim)
    if isinstance(victim, Defended) and victim.randomised:
        victim = victim.expected(1, pinned=True)
    rng = torch.Generator().manual_seed(seed)
    told, found, zero, broken = [], [], 0, 0
    function, change, tolerance = _slope_function(victim, clips[0])
    for clip in clips:
        x, _ = collate([clip], victim)
        goal = _own(victim, clip)
        try:
            gradient = margin_gradient(victim, x, goal, None).double().cpu()
        except RuntimeError as problem:  # torch: nothing that needs a gradient
            return Check(
                name="gradients", subject=victim.name, verdict="fail",
                explanation=f"no gradient reaches the waveform ({str(problem).splitlines()[0]})",
                remedy="Set differentiable = False and attack it as a black box, or through a "
                "differentiable stand-in (BPDA, arXiv 1802.00420)",
            )  # fmt: skip
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
    victim: Victim, count: int, broken: int, zero: int, slopes: NDArray[np.float64],
    tolerance: float,
) -> Check:  # fmt: skip
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
        remedy="A masked gradient looks like robustness: attack it as a black box, or through a "
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
        figures={"accuracy": value, "low": right.low, "high": right.high, "chance": chance,
                 "count": len(truth)},
        explanation=f"right on {100 * value:.1f} % of {len(truth)} clean clips; always naming the "
        f"commonest class would be on {100 * chance:.1f} %",
        remedy="" if verdict == "pass" else "Train the victim longer, or evaluate on more clips, and "
        "check that labels and clips belong together",
    )  # fmt: skip


# ---------------------------------------------------------------- attacks on it


def more_steps(probe: Probe) -> Check:
    """PGD with more steps fools no fewer clips."""
    if (reason := _cannot(probe, "more_steps")) is not None:
        return reason
    many = _telling(probe)
    few = replace(many, steps=FEW_STEPS)
    return _compared(
        "more_steps", probe, [(f"{FEW_STEPS} steps", few), (f"{MANY_STEPS} steps", many)],
        "The attack does not converge: check its step size and the victim's gradient",
    )  # fmt: skip


def larger_epsilon(probe: Probe) -> Check:
    """PGD that may change more fools no fewer clips."""
    return _compared(
        "larger_epsilon", probe,
        [(f"epsilon {a.budget.epsilon:g}", a) for a in _ladder(probe)],
        "The gradient is masked: try a black-box attack, and look at the gradient check",
    )  # fmt: skip


def huge_epsilon(probe: Probe) -> Check:
    """With nearly any change allowed, PGD leaves no more answers than chance."""
    from scipy.stats import binomtest

    if (reason := _cannot(probe, "huge_epsilon")) is not None:
        return reason
    victim, count = probe.victim, len(probe.clips)
    if len(set(probe.clean.tolist())) == 1:
        return Check(
            name="huge_epsilon", subject=victim.name, verdict="skipped",
            explanation=f"it gives the same answer to all {count} clips: there may be no other",
            remedy="See the check of its clean accuracy",
        )  # fmt: skip
    held = int((~probe.fooled(PGD(budget=Budget(epsilon=HUGE_EPSILON), steps=MANY_STEPS))).sum())
    chance = 1 / len(victim.labels)
    bad = held > 0 and float(binomtest(held, count, chance, "greater").pvalue) < ALPHA
    return Check(
        name="huge_epsilon",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={"epsilon": HUGE_EPSILON, "held": held, "count": count, "chance": chance},
        explanation=f"{held} of {count} answers hold at epsilon {HUGE_EPSILON:g}; chance would leave "
        f"{100 * chance:.0f} %",
        remedy="The gradient is masked: a robustness figure of this victim says nothing"
        if bad
        else "",
    )


def white_box_wins(probe: Probe, others: Sequence[Probe] = (), queries: int = 50) -> Check:
    """PGD, which knows the victim, beats noise, search by queries and transfer at equal budget."""
    if (reason := _cannot(probe, "white_box_wins")) is not None:
        return reason
    told = _telling(probe)
    sparse = replace(_ladder(probe)[-1].budget, max_density=SPARSE)
    white, white_sparse = probe.fooled(told), probe.fooled(PGD(budget=sparse, steps=MANY_STEPS))
    rivals = [
        ("random", white, probe.fooled(Random(budget=told.budget))),
        ("sparse_rs", white_sparse, probe.fooled(SparseRS(budget=sparse, steps=queries))),
    ]
    for other in others:
        if other.victim.differentiable and other is not probe:
            rivals.append(
                (f"transfer from {other.victim.name}", white, probe.misled(other.made(told)))
            )
    losing = [name for name, own, theirs in rivals if p_worse(theirs, own) < ALPHA]
    figures: dict[str, Figure] = {"epsilon": told.budget.epsilon, "pgd": float(white.mean()),
                                  "pgd_sparse": float(white_sparse.mean())}  # fmt: skip
    figures |= {name: float(theirs.mean()) for name, _, theirs in rivals}
    return Check(
        name="white_box_wins",
        subject=probe.victim.name,
        verdict="fail" if losing else "pass",
        figures=figures,
        explanation=f"PGD fools fewer clips than {', '.join(losing)}, which know less"
        if losing
        else "no attack that knows less beats PGD at the same budget",
        remedy="The gradient is masked: report the black-box figure, and look at the gradient check"
        if losing
        else "",
    )


def _ladder(probe: Probe) -> list[PGD]:
    return [
        PGD(budget=Budget(epsilon=min(1.0, max(probe.epsilon * factor, 2**-13))), steps=MANY_STEPS)
        for factor in (1 / 16, 1 / 4, 1, 4)
    ]


def _telling(probe: Probe) -> PGD:
    """The first rung where PGD fools half the clips: there a difference shows."""
    rungs = _ladder(probe)
    return next((attack for attack in rungs if probe.fooled(attack).mean() >= 0.5), rungs[-1])


def _compared(name: str, probe: Probe, rungs: Sequence[tuple[str, Attack]], remedy: str) -> Check:
    """Attacks in the order of their strength: none may lose clips to the one before."""
    if (reason := _cannot(probe, name)) is not None:
        return reason
    fooled = [probe.fooled(attack) for _, attack in rungs]
    lowest = min(p_worse(a, b) for a, b in pairwise(fooled))
    shown = ", ".join(
        f"{int(hit.sum())} with {title}" for (title, _), hit in zip(rungs, fooled, strict=True)
    )
    bad = lowest < ALPHA
    return Check(
        name=name,
        subject=probe.victim.name,
        verdict="fail" if bad else "pass",
        figures={**{title: float(hit.mean()) for (title, _), hit in zip(rungs, fooled, strict=True)},
                 "p": lowest},
        explanation=f"of {len(probe.clips)} clips PGD fools {shown}",
        remedy=remedy if bad else "",
    )  # fmt: skip


def _cannot(probe: Probe, name: str) -> Check | None:
    """Why a comparison of gradient attacks cannot be made."""
    if not probe.victim.differentiable:
        return _no_gradient(name, probe.victim)
    if len(probe.clips) < FEWEST:
        return Check(
            name=name, subject=probe.victim.name, verdict="skipped",
            explanation=f"{len(probe.clips)} clips tell nothing; {FEWEST} are the fewest",
            remedy="Give more test clips, or raise --clips",
        )  # fmt: skip
    return None


def _no_gradient(name: str, victim: Victim) -> Check:
    return Check(
        name=name, subject=victim.name, verdict="skipped",
        explanation="a black box: it gives answers and no gradients",
    )  # fmt: skip


# ---------------------------------------------------------------- audio that was made against it


def direction(
    victim: Victim, pairs: Sequence[AdversarialClip], subject: str, *, algorithm: str = "pgd",
    goal_label: str | None = None, seed: int = 0, draws: int = 8,
) -> Check:  # fmt: skip
    """Signs and places of an attack's changes matter: drawn anew, they mislead its source less.

    The source's margins on the set are held against those after the signs are drawn at random and
    after the changes are shuffled in time: noise presented as an attack is one more such draw. With
    all signs flipped it must do worse, too; a generator's flipped changes may do as well (a tone upside
    down is a tone), so that for ``staa`` flipping is told and not judged. Draws that mislead most clips
    by themselves, as changes without a limit on epsilon do, are told and not judged either.
    """
    rng = np.random.default_rng(seed)
    touched = [pair for pair in pairs if len(pair.support)]
    if len(touched) < FEWEST:
        return Check(
            name="direction", subject=subject,
            verdict="warn" if pairs and not touched else "skipped",
            figures={"touched": len(touched), "count": len(pairs)},
            explanation=f"{len(touched)} of {len(pairs)} clips were changed; {FEWEST} are the fewest",
            remedy="Give more test clips, raise --clips, or mend an attack that changes nothing",
        )  # fmt: skip
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in VARIANTS}
    for pair in touched:
        goal: Goal = _own(victim, pair.clean)
        if goal_label is not None:
            goal = Targeted(victim.labels.index(goal_label))
        delta, size = pair.delta, np.abs(pair.delta)
        variants = {
            "set": [delta],
            "flipped": [-delta],
            "resigned": [rng.choice([-1, 1], len(delta)) * size for _ in range(draws)],
            "shuffled": [rng.permutation(delta) for _ in range(draws)],
        }
        for name, deltas in variants.items():
            found[name].append(_margins(victim, pair, np.stack(deltas), goal))
    margins = {name: np.stack(rows) for name, rows in found.items()}
    return _judged_direction(subject, margins, algorithm)


VARIANTS = ("set", "flipped", "resigned", "shuffled")


def p_one_more_draw(own: NDArray[np.float64], draws: NDArray[np.float64]) -> float:
    """How likely one more draw per clip has as low a sum as ``own [N]``, given ``draws [N, D]``.

    >>> p_one_more_draw(np.zeros(2), np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]))
    0.5
    """
    from scipy.stats import t

    count, number = draws.shape
    variance = float(draws.var(axis=1, ddof=1).sum()) * (1 + 1 / number)
    distance = float((own - draws.mean(axis=1)).sum())
    if variance == 0:
        return 0.0 if distance < 0 else 1.0
    return float(t.cdf(distance / variance**0.5, count * (number - 1)))


def _judged_direction(
    subject: str, margins: Mapping[str, NDArray[np.float64]], algorithm: str
) -> Check:
    from scipy.stats import wilcoxon

    own, flipped = margins["set"][:, 0], margins["flipped"][:, 0]
    p = {name: p_one_more_draw(own, margins[name]) for name in ("resigned", "shuffled")}
    if algorithm != "staa":
        same = bool((own == flipped).all())
        p["flipped"] = 1.0 if same else float(wilcoxon(own, flipped, alternative="less").pvalue)
    # where noise of this size misleads most clips anyway, it says nothing of the attack
    loud = [name for name in p if float(margins[name].mean()) < 0]
    figures = {
        **{f"margin_{name}": float(found.mean()) for name, found in margins.items()},
        **{f"p_{name}": value for name, value in p.items()}, "count": len(own),
    }  # fmt: skip
    if len(loud) == len(p):
        return Check(
            name="direction", subject=subject, verdict="skipped", figures=figures,
            explanation="changes of this size mislead whatever their signs and places",
            remedy="Look at the random control at the same epsilon and number of samples",
        )  # fmt: skip
    weak = [name for name, value in p.items() if name not in loud and not value < ALPHA]
    verdict: Verdict = "pass"
    if weak:  # search by queries is no stronger than it can be
        useless = any(not p[name] < 0.05 for name in weak) and algorithm not in BLACK_BOX
        verdict = "fail" if useless else "warn"
    return Check(
        name="direction",
        subject=subject,
        verdict=verdict,
        figures=figures,
        explanation=f"{' or '.join(weak)}, its changes mislead as much: they look like noise"
        if weak
        else f"{' or '.join(name for name in p if name not in loud)}, its changes mislead less",
        remedy="" if verdict == "pass" else "Make the set again from the attack that its card names; if "
        "it stays so, the attack is no stronger than noise and must not be called one",
    )  # fmt: skip


def _margins(
    victim: Victim, pair: AdversarialClip, deltas: NDArray[np.int32], goal: Goal
) -> NDArray[np.float64]:
    """The margin with each of ``deltas [V, T]`` added to the clean clip, ``[V]``."""
    limits = np.iinfo(np.int16)
    moved = np.clip(pair.clean.samples.astype(np.int32) + deltas, limits.min, limits.max)
    x = torch.from_numpy(audio.to_float(moved.astype(np.int16))).to(victim.device)
    with torch.inference_mode():
        parts = [
            goal.margin(victim(x[start : start + 2 * BATCH])).double().cpu()
            for start in range(0, len(x), 2 * BATCH)
        ]
    found: NDArray[np.float64] = torch.cat(parts).numpy()
    return found


def _own(victim: Victim, clip: Clip) -> Untargeted:
    """The goal to change the victim's clean answer."""
    return Untargeted(int(answers(victim, [clip])[0]))


def _batch(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    with torch.inference_mode():
        found: NDArray[np.float64] = victim(*collate(clips, victim)).double().cpu().numpy()
    return found


def _spread(logits: NDArray[np.float64]) -> float:
    """How far a clip's logits lie apart: the scale on which differences count."""
    return max(float(np.mean(logits.max(axis=1) - logits.min(axis=1))), 1e-9)


# ---------------------------------------------------------------- a victim known by heart


class Linear(Victim):
    """Two classes, logits ``(w . x, -w . x)``: within epsilon the margin ``2 w . x`` falls by at most
    ``2 epsilon ||w||_1``, so that the least epsilon that can change the answer is known.

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
        """The smallest change of every sample of ``x [T]`` that reaches the boundary."""
        return round(float((x @ self.weight).abs() / self.weight.abs().sum()), 7)


def finds_known_optimum(attack: Callable[[Budget], Attack], seed: int = 0) -> Check:
    """An attack crosses a linear victim's boundary at 1.02 x the least epsilon, not at 0.98 x.

    ``attack`` makes it from its budget: ``lambda budget: PGD(budget=budget)``.
    """
    draw = torch.Generator().manual_seed(seed)
    victim = Linear(torch.randn(1600, generator=draw).sign())
    noise = 0.2 * torch.randn(1600, generator=draw) + 0.05 * victim.weight
    clip = Clip("planted", audio.snap(noise.clamp(-0.7, 0.7).numpy()), victim.sample_rate)
    least = victim.least_epsilon(clip.waveform)
    crossed = {
        factor: bool(Probe(victim, [clip]).fooled(attack(Budget(epsilon=factor * least)))[0])
        for factor in (0.98, 1.02)
    }
    bad = crossed != {0.98: False, 1.02: True}
    return Check(
        name="known_optimum",
        subject="linear",
        verdict="fail" if bad else "pass",
        figures={"epsilon": least, "at_0.98": int(crossed[0.98]), "at_1.02": int(crossed[1.02])},
        explanation=f"on a victim whose least epsilon is {least:.4f} PGD "
        + ("does not find what is there" if bad else "succeeds just above it and fails just below"),
        remedy="This installation's attack is broken: reinstall staanet" if bad else "",
    )
