"""Certificates: how far a clip may be changed, by whatever attack, and a smoothed victim's answer stays.

The smoothed victim answers what its base answers most often under ``Noise``: white noise gives a
radius in L2 (Cohen, Rosenfeld and Kolter 2019, arXiv 1902.02918), seeing only a few random samples
gives a number of samples, L0 (Levine and Feizi 2020, arXiv 1911.09272). Counting votes is random, so a
certificate is wrong with probability at most ``alpha``, each; where the votes do not suffice, it
abstains. Neither kind cares how long a clip is.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.attacks import PGD, collate
from staanet.core import Budget, Clip, Progress, Untargeted, Victim, metrics, silent
from staanet.errors import InvalidInput

ABSTAINED = -1


class Noise(Protocol):
    """What a smoothed victim votes under: ``x [B, T] -> [B, T]``, drawn from ``draws``."""

    def __call__(self, x: Tensor, draws: torch.Generator) -> Tensor: ...

    def radius(self, votes: float, length: int) -> float:
        """How far a clip of ``length`` may go where at least a share ``votes`` > 1/2 agrees."""


@dataclass(frozen=True, slots=True)
class Gaussian:
    """White noise of standard deviation ``sigma``, of full scale 1; the radius is an L2 norm.

    >>> Gaussian(sigma=0.5).radius(0.9772498680518208, length=1)  # 0.5 * 2 sigma
    1.0
    """

    sigma: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise InvalidInput(f"sigma is {self.sigma}", remedy="Give a value in (0, 1]")

    def __call__(self, x: Tensor, draws: torch.Generator) -> Tensor:
        return x + self.sigma * torch.randn(x.shape, generator=draws).to(x)

    def radius(self, votes: float, length: int) -> float:
        """``sigma * Phi^-1(votes)``, Cohen et al., theorem 1 with the runner-up at ``1 - votes``."""
        from scipy.stats import norm

        return float(round(self.sigma * norm.ppf(votes), 12))


@dataclass(frozen=True, slots=True)
class Ablation:
    """Only ``ceil(keep * T)`` random samples are seen, the rest are drawn as straight lines between.

    Lines depend on nothing but the samples seen and their places, so the theorem holds for them as it
    does for the paper's empty pixels. The radius is the number of samples that an attacker may set to
    any value.
    """

    keep: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise InvalidInput(f"keep is {self.keep}", remedy="Give a share of samples in (0, 1]")

    def seen(self, length: int) -> int:
        """Samples that are seen of a clip of ``length``.

        >>> Ablation(keep=0.3).seen(10)
        3
        """
        return min(length, max(1, math.ceil(round(self.keep * length, 9))))

    def __call__(self, x: Tensor, draws: torch.Generator) -> Tensor:
        batch, time = x.shape
        order = torch.rand(batch, time, generator=draws, dtype=torch.float64).argsort(dim=1)
        places = order[:, : self.seen(time)].sort(dim=1).values.to(x.device)
        return between(x, places)

    def radius(self, votes: float, length: int) -> float:
        """The most samples rho with ``votes - Delta(rho) > 1/2``, by bisection: Delta grows with rho."""
        low, high = 0, length - self.seen(length) + 1
        while high - low > 1:
            middle = (low + high) // 2
            enough = votes - touched(length, self.seen(length), middle) > 0.5
            low, high = (middle, high) if enough else (low, middle)
        return float(low)


def touched(length: int, seen: int, changed: int) -> float:
    """Delta: how probably ``seen`` random samples of ``length`` hold one of ``changed`` samples.

    ``1 - C(T - rho, k) / C(T, k)`` by logarithms of the gamma function, for any T.

    >>> round(touched(4, 2, 1), 12), touched(4, 3, 2)
    (0.5, 1.0)
    """
    if changed <= 0:
        return 0.0
    if changed > length - seen:
        return 1.0
    rest = length - changed
    logs = math.lgamma(rest + 1) - math.lgamma(rest - seen + 1)
    logs -= math.lgamma(length + 1) - math.lgamma(length - seen + 1)
    return min(1.0, -math.expm1(min(0.0, logs)))


def between(x: Tensor, places: Tensor) -> Tensor:
    """``x [B, T]`` at ascending ``places [B, k]``, straight lines between, flat beyond both ends.

    >>> between(torch.tensor([[0.0, 9.0, 2.0, 9.0]]), torch.tensor([[0, 2]]))
    tensor([[0., 1., 2., 2.]])
    """
    batch, time = x.shape
    seen = x.gather(1, places)
    at = torch.arange(time, device=x.device).expand(batch, time).contiguous()
    right = torch.searchsorted(places.contiguous(), at).clamp_max(places.shape[1] - 1)
    left = (torch.searchsorted(places.contiguous(), at, right=True) - 1).clamp_min(0)
    start, end = places.gather(1, left), places.gather(1, right)
    share = (at - start) / (end - start).clamp_min(1)
    return torch.lerp(seen.gather(1, left), seen.gather(1, right), share.to(x.dtype).clamp(0, 1))


class Smoothed(Victim):
    """The base's mean probabilities under ``draws`` of noise, as a victim: an attack's way to see it.

    The noise is drawn from ``seed`` alone, so that an attack meets the same function at every step;
    ``certify`` draws its own. Gradients pass.
    """

    architecture = "smoothed"

    def __init__(self, base: Victim, noise: Noise, *, draws: int = 16, seed: int = 0) -> None:
        super().__init__(
            name=f"{base.name}+smoothed", labels=base.labels, sample_rate=base.sample_rate
        )
        self.base, self.noise, self.draws, self.seed = base, noise, draws, seed
        self.forward_passes = draws * base.forward_passes
        self.minimum_samples, self.differentiable = base.minimum_samples, base.differentiable
        self.eval()

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        batch, time = waveforms.shape
        answers = []
        for row in range(batch):
            clip = waveforms[row, : time if lengths is None else int(lengths[row])]
            drawn = torch.Generator().manual_seed(self.seed)
            noisy = self.noise(clip.expand(self.draws, -1), drawn)
            sure = self.base(noisy).log_softmax(dim=1)  # in logarithms, where no gradient is lost
            answers.append(sure.logsumexp(dim=0) - math.log(self.draws))
        return torch.stack(answers)


def share_at_least(hits: int, of: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson bound: with probability ``1 - alpha`` the share is no less.

    >>> share_at_least(0, 10, 0.001), round(share_at_least(100, 100, 0.001), 4)  # 0.001 ** 0.01
    (0.0, 0.9333)
    """
    from scipy.stats import beta

    return 0.0 if hits == 0 else float(beta.ppf(alpha, hits, of - hits + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Votes:
    """How votes are counted: ``guesses`` choose the answer, ``votes`` more prove it at ``alpha``."""

    guesses: int = 64
    votes: int = 500
    alpha: float = 0.001
    batch_size: int = 32
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
    agree: float
    """The share of votes for the answer, at least, with probability ``1 - alpha``."""


def certify(base: Victim, noise: Noise, x: Tensor, how: Votes = Votes()) -> Certificate:
    """The certificate of one clip ``x [T]`` (Cohen et al., algorithm CERTIFY).

    The draws depend on the clip and the seed alone.
    """
    drawn = torch.Generator().manual_seed(zlib.crc32(x.detach().cpu().numpy().tobytes(), how.seed))
    guess = int(count(base, noise, x, how.guesses, drawn, how.batch_size).argmax())
    agree = int(count(base, noise, x, how.votes, drawn, how.batch_size)[guess])
    least = share_at_least(agree, how.votes, how.alpha)
    if least <= 0.5:
        return Certificate(ABSTAINED, 0.0, least)
    return Certificate(guess, noise.radius(least, len(x)), least)


def count(
    base: Victim, noise: Noise, x: Tensor, number: int, drawn: torch.Generator, batch_size: int
) -> NDArray[np.int64]:
    """How often ``base`` answers each class to ``x [T]`` under ``number`` draws of noise, ``[K]``."""
    counts = torch.zeros(len(base.labels), dtype=torch.int64)
    with torch.inference_mode():
        for start in range(0, number, batch_size):
            rows = x.expand(min(batch_size, number - start), -1)
            answers = base(noise(rows, drawn)).argmax(dim=1).cpu()
            counts += torch.bincount(answers, minlength=len(base.labels))
    votes: NDArray[np.int64] = counts.numpy()
    return votes


def certified_row(
    base: Victim, noise: Noise, clip: Clip, how: Votes, *, attack_steps: int = 0
) -> dict[str, Any]:
    """One clip's certificate as a row; with ``attack_steps`` also whether an attack inside the radius
    made the smoothed victim give another answer (abstaining is no other answer)."""
    x = collate([clip], base)[0][0]
    found = certify(base, noise, x, how)
    answer = None if found.answer == ABSTAINED else base.labels[found.answer]
    row: dict[str, Any] = {
        "id": clip.id,
        "label": clip.label,
        "speaker": clip.speaker,
        "samples": len(clip.pcm16),
        "answer": answer,
        "radius": found.radius,
        "agree_at_least": found.agree,
        "right": answer == clip.label,
        "attacked": False,
        "broken": False,
    }
    if attack_steps and found.radius > 0 and base.differentiable:
        x_adv = inside(base, noise, x, found, steps=attack_steps, seed=how.seed)
        after = certify(base, noise, x_adv, how).answer
        row |= {"attacked": True, "broken": after not in (found.answer, ABSTAINED)}
    return row


def inside(
    base: Victim, noise: Noise, x: Tensor, found: Certificate, *, steps: int, seed: int = 0
) -> Tensor:
    """The strongest attack we have on the smoothed victim within a certificate, ``[T] -> [T]``.

    L2: projected gradient steps to the surface of the ball. L0: PGD of unlimited size on as many
    samples as the certificate allows.
    """
    source = Smoothed(base, noise, seed=seed + 1)
    goal = Untargeted(found.answer)
    if isinstance(noise, Ablation):
        budget = Budget(epsilon=2.0, max_l0=int(found.radius))
        return PGD(budget=budget, steps=steps, seed=seed)(source, x[None], goal)[0]
    delta = torch.zeros_like(x)
    for _ in range(steps):
        with torch.enable_grad():
            x_adv = (x + delta)[None].requires_grad_()
            (gradient,) = torch.autograd.grad(goal.margin(source(x_adv)).sum(), x_adv)
        delta = delta - found.radius / max(1, steps // 4) * _unit(gradient[0])
        delta = _unit(delta) * min(found.radius, float(delta.norm()))
    return x + _unit(delta) * found.radius * (1 - 1e-6) if float(delta.norm()) else x


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / vector.norm().clamp_min(1e-20)
    return unit


def curve(rows: Sequence[dict[str, Any]], points: int = 40) -> list[dict[str, Any]]:
    """Certified accuracy against radius: the share of clips that are right and certified that far.

    Every ``rows`` entry is a clip; abstaining counts as wrong. With 95 % intervals clustered by
    speaker. The radii are where the share falls, at most ``points`` of them, from 0.

    >>> rows = [{"right": True, "radius": r, "speaker": s} for r, s in ((1.0, "a"), (3.0, "b"))]
    >>> [(p["radius"], p["certified_accuracy"]) for p in curve(rows)]
    [(0.0, 1.0), (1.0, 1.0), (3.0, 0.5)]
    """
    reached = sorted({0.0, *(float(r["radius"]) for r in rows if r["right"])})
    if len(reached) > points:
        reached = [reached[i] for i in np.linspace(0, len(reached) - 1, points).round().astype(int)]
    speakers = [str(row["speaker"]) for row in rows]
    told = []
    for radius in reached:
        held = metrics.rate([r["right"] and r["radius"] >= radius for r in rows], speakers)
        told.append(
            {
                "radius": radius,
                "certified_accuracy": held.value,
                "low": held.low,
                "high": held.high,
                "count": held.count,
            }
        )
    return told


def certify_clips(
    base: Victim,
    noise: Noise,
    clips: Sequence[Clip],
    how: Votes,
    *,
    attack_steps: int = 0,
    known: Sequence[dict[str, Any]] = (),
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """A row per clip (``certified_row``), those of ``known`` taken as they are."""
    done = {row["id"]: row for row in known}
    rows = []
    for number, clip in enumerate(clips, start=1):
        rows.append(
            done.get(clip.id) or certified_row(base, noise, clip, how, attack_steps=attack_steps)
        )
        progress(f"certify {base.name}", number, len(clips), "")
    return rows
