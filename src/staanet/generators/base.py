"""The generator interface: a score for selecting samples, and a magnitude, for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from staanet.config import SAMPLE_RATE
from staanet.config.epsilon import Epsilon
from staanet.core import Budget, valid_mask
from staanet.core.top_k import are_equal, column, top_k_mask, top_k_values
from staanet.errors import InvalidInput


class Perturbation(NamedTuple):
    """The generator's proposal for each sample, both ``[B, T]``."""

    magnitude: Tensor
    """``tanh(o_v)`` in (-1, 1), in units of epsilon."""
    position: Tensor
    """``p = (tanh(o_m) + 1) / 2`` in (0, 1): how much this sample should be changed."""

    def mask(self) -> Tensor:
        """The binary mask of the paper, ``1[p >= 0.5]``, as float."""
        return (self.position >= 0.5).float()


class Generator(nn.Module):
    """Waveforms ``[B, T]`` of any length -> ``Perturbation(magnitude, position)``, both ``[B, T]``.

    A subclass implements ``heads``. Two settings go beyond the published network, both off by default:

    * ``gain``: ``o_v`` is scaled to this root mean square over the clip before its tanh. Samples then
      move by nearly all of epsilon from the first training step. An unbounded head can stop learning
      because its tanh saturates; this one cannot.
    * ``density``: ``o_m`` is shifted, clip by clip, so that this share of positions is at least 1/2.
      The mask can then neither empty nor fill up. What is learned is which samples rank first.

    Args:
        gain: Root mean square of ``o_v``, or None to leave it as it is.
        density: Share of positions at or above 1/2, or None to leave them as they are.
        sample_rate: Rate of the waveforms in Hz.
        labels: Classes of a class-conditional generator; empty for one that takes no target class.
    """

    architecture: ClassVar[str]
    is_ranked_by_magnitude: ClassVar[bool] = False
    """Whether the samples that would move most rank first, corrected by ``o_m``."""
    iterations: int | None = None
    """How often the network runs, each time on the clip that its proposals so far make; None: once."""

    def __init__(
        self,
        *,
        gain: float | None,
        density: float | None,
        sample_rate: int = SAMPLE_RATE,
        labels: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.gain, self.density, self.sample_rate = gain, density, sample_rate
        self.labels = tuple(labels)
        self.settings: dict[str, Any] = {
            "gain": gain,
            "density": density,
            "sample_rate": sample_rate,
            "labels": list(labels),
        }

    @property
    def has_ranking(self) -> bool:
        """Whether its positions rank the samples for any budget.

        The positions of the published network do not: they choose samples by the threshold 1/2.
        """
        return self.density is not None

    @property
    def is_conditional(self) -> bool:
        """Whether it takes a ``target_class``."""
        return bool(self.labels)

    def with_iterations(self, iterations: int) -> Self:
        """Returns the same weights with another number of iterations.

        Raises ``InvalidInput`` for a generator that runs once, always.
        """
        raise InvalidInput(
            f"a generator of kind '{self.architecture}' cannot run {iterations} iterations",
            remedy="Leave iterations out, or use a generator of kind backward_net or surrogate",
        )

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        target_class: Tensor | None = None,
        budget: Budget | None = None,
        *,
        order_only: bool = False,
    ) -> Perturbation:
        """Returns the perturbation of each clip.

        Args:
            waveforms: ``[B, T]`` in [-1, 1], zero beyond ``lengths``.
            lengths: Samples of each clip, ``[B]``; None where every clip fills its row.
            target_class: Index of a class in ``labels`` for each clip, ``[B]``; None to change the
                prediction to any other class.
            budget: The budget of the attack, for a generator that iterates; None for that of training.
            order_only: Whether positions need only rank the samples of a clip, which is quicker.
        """
        heads = self.heads(waveforms, lengths, target_class, budget)
        return self.propose(*heads, lengths, order_only=order_only)

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Returns the raw outputs ``o_v, o_m``, both ``[B, T]``; see ``forward`` for the arguments."""
        raise TypeError(f"{type(self).__name__} does not implement heads")

    def propose(
        self,
        magnitude: Tensor,
        position: Tensor,
        lengths: Tensor | None,
        *,
        order_only: bool = False,
    ) -> Perturbation:
        """Returns the raw outputs ``o_v, o_m [B, T]`` as a perturbation in float32."""
        magnitude, position = magnitude.float(), position.float()
        if self.is_ranked_by_magnitude:
            magnitude = unit_rms(magnitude, lengths)
            position = magnitude.abs() + position
        if self.gain is not None:
            magnitude = self.gain * unit_rms(magnitude, lengths)
        if order_only:
            return Perturbation(torch.tanh(magnitude), position)
        if self.density is not None:
            position = 2 * self.shift(unit_rms(position, lengths), self.density, lengths)
        return Perturbation(torch.tanh(magnitude), (torch.tanh(position) + 1) / 2)

    def shift(self, position: Tensor, density: float, lengths: Tensor | None) -> Tensor:
        """Returns ``shift_to_density(position, density, lengths)``; an export writes it another way."""
        return shift_to_density(position, density, lengths)


def select_samples(
    change: Perturbation,
    budget: Budget,
    lengths: Tensor | None = None,
    *,
    has_ranking: bool = False,
) -> Tensor:
    """Returns the samples of top_k_values position that the budget allows, ``[B, T]`` bool.

    Samples of a position below 1/2 are left out, except where ``has_ranking`` and the budget limits the
    number of samples.
    """
    position = change.position.detach()
    limited = budget.max_density is not None or budget.max_l0 is not None
    if not (has_ranking and limited):
        position = position.masked_fill(position < 0.5, -torch.inf)
    return top_k_mask(position, budget, lengths)


def apply_perturbation(
    waveforms: Tensor,
    change: Perturbation,
    lengths: Tensor | None,
    epsilon: Epsilon,
    budget: Budget | None,
    *,
    has_ranking: bool = False,
    sample_rate: int | None = None,
) -> Tensor:
    """Returns the clips ``[B, T]`` with a proposal added to them.

    Args:
        waveforms: ``[B, T]`` in [-1, 1].
        change: The proposal.
        lengths: Samples of each clip, ``[B]``, or None.
        epsilon: Largest change of a sample where ``budget`` is None. Then the samples of position at
            least 1/2 move.
        budget: How far samples move, and how many; see ``select_samples``.
        has_ranking: As in ``select_samples``.
        sample_rate: In Hz; needed where epsilon is relative.

    >>> change = Perturbation(torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[0.6, 0.4, 0.9]]))
    >>> apply_perturbation(torch.zeros(1, 3), change, None, 0.5, None)
    tensor([[0.5000, 0.0000, 0.5000]])
    >>> apply_perturbation(torch.zeros(1, 3), change, None, 0.5, Budget(epsilon=0.25, max_l0=1))
    tensor([[0.0000, 0.0000, 0.2500]])
    """
    limit = (budget or Budget(epsilon=epsilon)).step_limit(waveforms, lengths, sample_rate)
    if budget is None:
        mask = change.mask()
    else:
        mask = select_samples(change, budget, lengths, has_ranking=has_ranking).to(waveforms.dtype)
    return (waveforms + limit * change.magnitude * mask).clamp(-1, 1)


def unit_rms(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Returns ``[B, T]`` scaled, clip by clip, to a root mean square of 1 over the clip's samples.

    >>> unit_rms(torch.tensor([[3.0, -3.0]]), None)
    tensor([[ 1., -1.]])
    """
    squares = values.square()
    if lengths is None:
        mean = squares.mean(dim=1, keepdim=True)
    else:
        total = (squares * valid_mask(lengths, values.shape[1])).sum(dim=1, keepdim=True)
        mean = total / lengths[:, None]
    return values / (mean + 1e-12).sqrt()


def shift_to_density(values: Tensor, density: float, lengths: Tensor | None) -> Tensor:
    """Returns ``[B, T]`` less the value that a share ``density`` of the clip's samples reaches.

    >>> shift_to_density(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 0.5, None)
    tensor([[ 1., -2.,  0., -1.]])
    """
    time = values.shape[1]
    sizes = [time] * len(values) if lengths is None else lengths.tolist()
    counts = [max(1, int(density * size)) for size in sizes]
    scores = values.detach()
    if lengths is not None:
        scores = scores.masked_fill(~valid_mask(lengths, time), -torch.inf)
    best = top_k_values(scores, counts).values
    if are_equal(counts):
        return values - best.amin(dim=1, keepdim=True)
    return values - best.gather(1, column(counts, values.device) - 1)
