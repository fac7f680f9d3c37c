"""Randomised smoothing: certified radii within which no attack changes a victim's answer.

The smoothed victim answers what its base answers most often under noise. White noise gives a radius
in L2 (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918). Keeping only a few random samples gives a
number of samples, L0 (Levine and Feizi 2020, arXiv 1911.09272). Counting votes is random: each
certificate is wrong with probability at most ``alpha``. Where the votes do not suffice, it abstains.
The length of a clip does not matter.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.attacks import PGD, collate
from staanet.config import CertifyRecipe, default_of
from staanet.core import Budget, Clip, Untargeted, Victim, metrics
from staanet.errors import InvalidInput
from staanet.transforms.noise import Ablation, SmoothingNoise

ABSTAINED = -1


class Smoothed(Victim):
    """A victim with the base's mean probabilities under ``draws`` of noise, which attacks can follow.

    The noise is drawn from ``seed`` alone, so that an attack meets the same function at every step;
    ``certify`` draws its own. Gradients pass.
    """

    architecture = "smoothed"

    def __init__(
        self, base: Victim, noise: SmoothingNoise, *, draws: int = 16, seed: int = 0
    ) -> None:
        super().__init__(
            name=f"{base.name}+smoothed", labels=base.labels, sample_rate=base.sample_rate
        )
        self.base, self.noise, self.draws, self.seed = base, noise, draws, seed
        self.forward_passes = draws * base.forward_passes
        self.minimum_samples, self.differentiable = base.minimum_samples, base.differentiable
        self.eval()

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        batch, time = waveforms.shape
        outputs = []
        for row in range(batch):
            clip = waveforms[row, : time if lengths is None else int(lengths[row])]
            generator = torch.Generator().manual_seed(self.seed)
            noisy = self.noise(clip.expand(self.draws, -1), generator)
            logs = self.base(noisy).log_softmax(dim=1)  # in logarithms, where no gradient is lost
            outputs.append(logs.logsumexp(dim=0) - math.log(self.draws))
        return torch.stack(outputs)


def lowest_share(hits: int, count: int, alpha: float) -> float:
    """Returns the one-sided Clopper-Pearson bound: with probability ``1 - alpha`` the share is higher.

    >>> lowest_share(0, 10, 0.001), round(lowest_share(100, 100, 0.001), 4)  # 0.001 ** 0.01
    (0.0, 0.9333)
    """
    from scipy.stats import beta

    return 0.0 if hits == 0 else float(beta.ppf(alpha, hits, count - hits + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """How votes are counted: ``guesses`` choose the answer, ``votes`` more prove it at ``alpha``."""

    guesses: int = default_of(CertifyRecipe, "guesses")
    votes: int = default_of(CertifyRecipe, "votes")
    alpha: float = default_of(CertifyRecipe, "alpha")
    batch_size: int = default_of(CertifyRecipe, "batch_size")
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.guesses, self.votes, self.batch_size) < 1 or not 0 < self.alpha < 0.5:
            raise InvalidInput(
                f"guesses {self.guesses}, votes {self.votes}, batch {self.batch_size}, alpha {self.alpha}",
                remedy="Give at least one of each, and alpha in (0, 0.5)",
            )


@dataclass(frozen=True, slots=True)
class Certificate:
    """What holds of one clip; ``answer`` is the class, or ``ABSTAINED`` with radius 0."""

    answer: int
    radius: float
    agreement: float
    """The share of votes for the answer, at least, with probability ``1 - alpha``."""


def certify(base: Victim, noise: SmoothingNoise, x: Tensor, votes: Votes = Votes()) -> Certificate:
    """Returns the certificate of one clip ``x [T]`` (Cohen et al., algorithm CERTIFY).

    The draws depend on the clip and the seed alone.
    """
    clip_bytes = x.detach().cpu().numpy().tobytes()
    generator = torch.Generator().manual_seed(zlib.crc32(clip_bytes, votes.seed))
    guesses = count_votes(base, noise, x, votes.guesses, generator, votes.batch_size)
    guess = int(guesses.argmax())
    agreeing = count_votes(base, noise, x, votes.votes, generator, votes.batch_size)[guess]
    share = lowest_share(int(agreeing), votes.votes, votes.alpha)
    if share <= 0.5:
        return Certificate(ABSTAINED, 0.0, share)
    return Certificate(guess, noise.radius(share, len(x)), share)


def count_votes(
    base: Victim,
    noise: SmoothingNoise,
    x: Tensor,
    number: int,
    generator: torch.Generator,
    batch_size: int,
) -> NDArray[np.int64]:
    """Returns how often ``base`` answers each class to noisy copies of a clip, ``[K]``.

    Args:
        base: The victim behind the smoothed one.
        noise: Draws the copies.
        x: The clip, ``[T]``.
        number: How many copies.
        generator: Where the noise is drawn from.
        batch_size: Copies in one pass.
    """
    counts = torch.zeros(len(base.labels), dtype=torch.int64)
    with torch.inference_mode():
        for start in range(0, number, batch_size):
            rows = x.expand(min(batch_size, number - start), -1)
            answers = base(noise(rows, generator)).argmax(dim=1).cpu()
            counts += torch.bincount(answers, minlength=len(base.labels))
    votes: NDArray[np.int64] = counts.numpy()
    return votes


def certify_clip(
    base: Victim, noise: SmoothingNoise, clip: Clip, votes: Votes, *, attack_steps: int = 0
) -> dict[str, Any]:
    """Returns one clip's certificate as a row.

    With ``attack_steps`` the row also says whether an attack inside the radius made the smoothed victim
    give another answer; abstaining is no other answer.
    """
    x = collate([clip], base)[0][0]
    certificate = certify(base, noise, x, votes)
    is_answer = certificate.answer != ABSTAINED
    answer = base.labels[certificate.answer] if is_answer else None
    row: dict[str, Any] = {
        "id": clip.id,
        "label": clip.label,
        "speaker": clip.speaker,
        "samples": len(clip.pcm16),
        "answer": answer,
        "radius": certificate.radius,
        "agree_at_least": certificate.agreement,
        "right": answer == clip.label,
        "attacked": False,
        "broken": False,
    }
    if attack_steps and certificate.radius > 0 and base.differentiable:
        x_adv = attack_inside(base, noise, x, certificate, steps=attack_steps, seed=votes.seed)
        after = certify(base, noise, x_adv, votes).answer
        row |= {"attacked": True, "broken": after not in (certificate.answer, ABSTAINED)}
    return row


def attack_inside(
    base: Victim,
    noise: SmoothingNoise,
    x: Tensor,
    certificate: Certificate,
    *,
    steps: int,
    seed: int = 0,
) -> Tensor:
    """Returns the clip ``x [T]`` after the strongest attack we have within its certificate, ``[T]``.

    In L2 it takes projected gradient steps to the surface of the ball. In L0 it is PGD of unlimited size
    on as many samples as the certificate allows.

    Args:
        base: The victim behind the smoothed one.
        noise: What the certificate was drawn under.
        x: The certified clip.
        certificate: Its answer is what the attack moves away from, its radius the limit.
        steps: Gradient steps.
        seed: Draws the noise that the attack follows; another than that of the votes.
    """
    source = Smoothed(base, noise, seed=seed + 1)
    goal = Untargeted(certificate.answer)
    radius = certificate.radius
    if isinstance(noise, Ablation):
        budget = Budget(epsilon=2.0, max_l0=int(radius))
        return PGD(budget=budget, steps=steps, seed=seed)(source, x[None], goal)[0]
    delta = torch.zeros_like(x)
    for _ in range(steps):
        with torch.enable_grad():
            x_adv = (x + delta)[None].requires_grad_()
            (grad,) = torch.autograd.grad(goal.margin(source(x_adv)).sum(), x_adv)
        delta = delta - radius / max(1, steps // 4) * _unit(grad[0])
        delta = _unit(delta) * min(radius, float(delta.norm()))
    return x + _unit(delta) * radius * (1 - 1e-6) if float(delta.norm()) else x


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp_min(1e-20)
    return unit


def certified_accuracy(rows: Sequence[dict[str, Any]], points: int = 40) -> list[dict[str, Any]]:
    """Returns certified accuracy against radius: the share of clips right and certified that far.

    Each of ``rows`` is a clip; abstaining counts as wrong. Intervals of 95 % are clustered by speaker.
    The radii are where the share falls, from 0, at most ``points`` of them.

    >>> rows = [{"right": True, "radius": r, "speaker": s} for r, s in ((1.0, "a"), (3.0, "b"))]
    >>> [(p["radius"], p["certified_accuracy"]) for p in certified_accuracy(rows)]
    [(0.0, 1.0), (1.0, 1.0), (3.0, 0.5)]
    """
    radii = sorted({0.0, *(float(r["radius"]) for r in rows if r["right"])})
    if len(radii) > points:
        radii = [radii[i] for i in np.linspace(0, len(radii) - 1, points).round().astype(int)]
    speakers = [str(row["speaker"]) for row in rows]
    curve = []
    for radius in radii:
        share = metrics.rate([r["right"] and r["radius"] >= radius for r in rows], speakers)
        curve.append(
            {
                "radius": radius,
                "certified_accuracy": share.value,
                "low": share.low,
                "high": share.high,
                "count": share.count,
            }
        )
    return curve
