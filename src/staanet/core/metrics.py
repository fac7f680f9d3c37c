"""Distances between clean and adversarial audio, per clip; rates over clips, with their intervals.

Distances take ``[B, T]`` waveforms (equal-length clips, or shorter ones padded with zeros in both)
and return ``[B]``; nothing is averaged here. Rates take one value per clip and name what they count.
Definitions: Chang et al. 2024, arXiv 2402.01227, section V, with ``snr_db`` beside its peak ratio.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def l0(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Number of samples that differ, ``[B, T], [B, T] -> [B]``.

    >>> l0(torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[0.1, 0.5, 0.4]]))
    tensor([2])
    """
    return (clean != adversarial).sum(dim=1)


def density(clean: Tensor, adversarial: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Share of samples that differ, ``l0 / T``, in [0, 1]; ``lengths [B]`` where clips are padded.

    >>> density(torch.zeros(1, 4), torch.tensor([[0.1, 0.0, 0.0, 0.0]]))
    tensor([0.2500])
    """
    batch, time = clean.shape
    total = torch.full((batch,), time, device=clean.device) if lengths is None else lengths
    return l0(clean, adversarial) / total


def linf(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Largest change of a sample, ``[B, T], [B, T] -> [B]``, on the scale of the waveform.

    >>> linf(torch.zeros(1, 2), torch.tensor([[0.25, -0.5]]))
    tensor([0.5000])
    """
    return (adversarial - clean).abs().amax(dim=1)


def snr_db(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Energy of speech over energy of perturbation in dB; ``inf`` if untouched, ``-inf`` for silence.

    >>> snr_db(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.1, 0.0]])).round()
    tensor([20.])
    """
    signal = clean.double().square().sum(dim=1)
    noise = (adversarial.double() - clean.double()).square().sum(dim=1)
    return _ratio_db(signal, noise, 10.0).float()


def peak_ratio_db(clean: Tensor, adversarial: Tensor) -> Tensor:
    """Peak of speech over peak of perturbation in dB (the paper's SNR).

    >>> peak_ratio_db(torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 0.6]])).round()
    tensor([20.])
    """
    return _ratio_db(
        clean.double().abs().amax(dim=1), linf(clean.double(), adversarial), 20.0
    ).float()


def _ratio_db(above: Tensor, below: Tensor, factor: float) -> Tensor:
    ratio = factor * torch.log10(above / below)
    return torch.where(below == 0, torch.full_like(ratio, math.inf), ratio)


def changed(before: ArrayLike, after: ArrayLike) -> NDArray[np.float64]:
    """1 where the answer changed: its mean is the paper's fooling rate, ``[N], [N] -> [N]``.

    >>> changed([0, 1, 2], [0, 2, 2])
    array([0., 1., 0.])
    """
    same: NDArray[np.bool_] = np.asarray(before) == np.asarray(after)
    return np.where(same, 0.0, 1.0)


def uar(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Unweighted average recall: the mean over the classes that occur of their recall, in [0, 1].

    >>> uar(["joy", "joy", "joy", "fear"], ["joy", "joy", "fear", "fear"])  # (2/3 + 1) / 2
    0.8333333333333333
    """
    truth, answer = np.asarray(labels), np.asarray(predictions)
    recalls = [float(np.mean(answer[truth == label] == label)) for label in np.unique(truth)]
    return float(np.mean(recalls)) if recalls else math.nan


def ccc(truth: ArrayLike, answers: ArrayLike) -> float:
    """Concordance correlation coefficient (Lin, 1989, Biometrics 45(1)), in [-1, 1]; NaN where both stand still.

    >>> ccc([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), round(ccc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 3)
    (1.0, 0.571)
    """
    x, y = np.asarray(truth, dtype=float), np.asarray(answers, dtype=float)
    if not len(x):
        return math.nan
    spread = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    covariance = float(((x - x.mean()) * (y - y.mean())).mean())
    return 2 * covariance / float(spread) if spread > 0 else math.nan


def chance_p(
    labels: ArrayLike, predictions: ArrayLike, *, draws: int = 2000, seed: int = 0
) -> float:
    """How likely answers that know nothing of the clips have this recall: a permutation test, in (0, 1].

    The answers are dealt to the clips anew ``draws`` times; returned is the share of deals whose unweighted
    average recall is at least as high (Ojala and Garriga 2010, JMLR 11, with one added to both counts).

    >>> chance_p(["a", "b"] * 10, ["a", "b"] * 10) < 0.001, chance_p(["a", "b"] * 10, ["a"] * 20)
    (True, 1.0)
    """
    truth, answer = np.asarray(labels), np.asarray(predictions)
    classes, codes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    weights = 1 / (len(classes) * counts[codes]) if len(truth) else np.zeros(0)
    rng = np.random.default_rng(seed)
    value = float(weights[truth == answer].sum())
    dealt = (weights[truth == rng.permutation(answer)].sum() for _ in range(draws))
    as_high = sum(float(recall) >= value - 1e-9 for recall in dealt)
    return (as_high + 1) / (draws + 1)


def rank_chance_p(truth: ArrayLike, answers: ArrayLike) -> float:
    """How likely numbers that know nothing of the clips agree with the truth so well, in (0, 1].

    The one-sided test of Spearman's rank correlation, by the t distribution; 1 for fewer than three clips
    and for numbers that stand still.

    >>> rank_chance_p(range(20), range(20)) < 0.001, rank_chance_p(range(20), [1.0] * 20)
    (True, 1.0)
    """
    from scipy.stats import spearmanr

    x, y = np.asarray(truth, float), np.asarray(answers, float)
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return 1.0
    return float(spearmanr(x, y, alternative="greater").pvalue)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure over ``count`` clips with its 95 % interval; ``value`` is None where nothing counts."""

    value: float | None
    low: float | None
    high: float | None
    count: int
    clusters: int

    def __str__(self) -> str:
        if self.value is None:
            return f"n/a (0 of {self.count})" if self.count else "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def rate(outcomes: ArrayLike, clusters: Sequence[str], level: float = 0.95) -> Estimate:
    """Share of ones among ``outcomes [N]``, with an interval that knows that clips share speakers.

    Korn and Graubard (1998): Clopper-Pearson on the effective sample size, i.e. N divided by the
    design effect between speakers and corrected for their number, so that two speakers give a wide
    interval however many clips they spoke. One speaker says nothing about others: no interval.

    >>> rate([1, 1, 0, 1], ["a", "b", "c", "d"]).value
    0.75
    """
    hits = np.asarray(outcomes, dtype=float)
    groups = np.unique(np.asarray(clusters, dtype=str)) if len(hits) else np.array([])
    if not len(hits):
        return Estimate(None, None, None, 0, 0)
    mean, number = float(hits.mean()), len(groups)
    if number < 2:
        return Estimate(mean, None, None, len(hits), number)
    size = _effective_size(hits, np.asarray(clusters, dtype=str), level)
    low, high = _clopper_pearson(mean, size, level)
    return Estimate(mean, low, high, len(hits), number)


def _effective_size(hits: NDArray[np.float64], clusters: NDArray[np.str_], level: float) -> float:
    from scipy.stats import t

    n, groups = len(hits), np.unique(clusters)
    mean, number = hits.mean(), len(groups)
    sums = np.array([(hits[clusters == group] - mean).sum() for group in groups])
    variance = number / (number - 1) * np.square(sums).sum() / n**2
    simple = mean * (1 - mean)
    size = n if variance == 0 or simple == 0 else min(float(n), simple / variance)
    upper = 0.5 + level / 2
    return float(size * (t.ppf(upper, n - 1) / t.ppf(upper, number - 1)) ** 2)


def _clopper_pearson(mean: float, size: float, level: float) -> tuple[float, float]:
    from scipy.stats import beta

    tail, hits = (1 - level) / 2, mean * size
    low = 0.0 if hits <= 0 else float(beta.ppf(tail, hits, size - hits + 1))
    high = 1.0 if hits >= size else float(beta.ppf(1 - tail, hits + 1, size - hits))
    return min(low, mean), max(high, mean)


def jackknife(
    statistic: Callable[[NDArray[np.intp]], float],
    clusters: Sequence[str],
    level: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """A statistic of clip indices (such as a UAR) with a delete-one-speaker jackknife interval.

    The interval ends at ``bounds``, beyond which the statistic cannot be.

    >>> jackknife(lambda i: float(i.mean()), ["a", "b", "c"]).value
    1.0
    """
    from scipy.stats import t

    names = np.asarray(clusters, dtype=str)
    everything, groups = np.arange(len(names)), np.unique(names)
    if not len(names):
        return Estimate(None, None, None, 0, 0)
    value, number = statistic(everything), len(groups)
    if number < 2:
        return Estimate(value, None, None, len(names), number)
    left_out = np.array([statistic(everything[names != group]) for group in groups])
    error = math.sqrt((number - 1) / number * float(np.square(left_out - left_out.mean()).sum()))
    reach = float(t.ppf(0.5 + level / 2, number - 1)) * error
    low, high = max(bounds[0], value - reach), min(bounds[1], value + reach)
    return Estimate(value, low, high, len(names), number)
