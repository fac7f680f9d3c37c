"""What every generator answers: for each sample how far to move it, and how much that is wanted."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from staanet.core import Budget, Goal, Targeted, Untargeted, valid
from staanet.core.top_k import alike, column, highest, top_k_mask
from staanet.errors import InvalidInput


class Perturbation(NamedTuple):
    """What the generator proposes for each sample, both ``[B, T]``."""

    magnitude: Tensor
    """``tanh(o_v)`` in (-1, 1), in units of epsilon."""
    position: Tensor
    """``p = (tanh(o_m) + 1) / 2`` in (0, 1): how much this sample should be changed."""

    def mask(self) -> Tensor:
        """The binary choice of the paper, ``1[p >= 0.5]``, as float."""
        return (self.position >= 0.5).float()


class Generator(nn.Module):
    """Waveforms ``[B, T]`` of any length -> ``Perturbation(magnitude, position)``, both ``[B, T]``.

    A subclass implements ``heads``. ``wanted [B]`` numbers, among ``labels``, the class that each clip
    shall be taken for; without it any answer but the clip's own will do.

    Two things go beyond the published network, each off by default:

    * ``gain``: ``o_v`` is scaled to this root mean square over the clip before its tanh. Samples then
      move by nearly all of epsilon from the first step, and the tanh can never saturate for good,
      which stops an unbounded head from learning.
    * ``density``: ``o_m`` is shifted, clip by clip, so that this share of positions is at least 1/2.
      The mask can then neither empty nor fill up; what is learned is which samples rank first.
    """

    architecture: ClassVar[str]
    ranked_by_magnitude: ClassVar[bool] = False
    """Whether samples that would move most are wanted most, unless ``o_m`` objects."""
    iterations: int | None = None
    """How often it iterations, at what it proposed before; None: once, always."""

    def __init__(
        self,
        *,
        gain: float | None,
        density: float | None,
        sample_rate: int = 16_000,
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
    def ranks(self) -> bool:
        """Whether its positions rank samples for any budget; those of a published network choose."""
        return self.density is not None

    @property
    def aims(self) -> bool:
        """Whether it can be given a ``wanted`` class."""
        return bool(self.labels)

    def with_iterations(self, iterations: int) -> Self:
        """The same weights with another number of ``iterations``; ``InvalidInput`` where it cannot be."""
        if self.iterations is None or iterations < 1:
            raise InvalidInput(
                f"a generator of kind '{self.architecture}' cannot look {iterations} times",
                remedy="Leave iterations out, or give 1 or more to a mirror or reflection",
            )
        other = copy.copy(self)  # shares every weight
        other.iterations = iterations
        return other

    def forward(
        self,
        waveforms: Tensor,
        lengths: Tensor | None = None,
        target_class: Tensor | None = None,
        budget: Budget | None = None,
        *,
        order_only: bool = False,
    ) -> Perturbation:
        """``order_only``: positions only rank the samples of a clip, of any size; quicker to make."""
        heads = self.heads(waveforms, lengths, target_class, budget)
        return self.propose(*heads, lengths, order_only=order_only)

    def heads(
        self,
        waveforms: Tensor,
        lengths: Tensor | None,
        target_class: Tensor | None,
        budget: Budget | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The raw answers ``o_v, o_m``, both ``[B, T]``.

        ``budget`` is that of the attack, for a generator that iterations at what it proposed before; None:
        that of its training.
        """
        raise TypeError(f"{type(self).__name__} does not implement heads")

    def propose(
        self,
        magnitude: Tensor,
        position: Tensor,
        lengths: Tensor | None,
        *,
        order_only: bool = False,
    ) -> Perturbation:
        """The heads' raw answers ``o_v, o_m [B, T]`` as a perturbation, in float32 whatever they are in."""
        magnitude, position = magnitude.float(), position.float()
        if self.ranked_by_magnitude:
            magnitude = unit_rms(magnitude, lengths)
            position = magnitude.abs() + position
        if self.gain is not None:
            magnitude = self.gain * unit_rms(magnitude, lengths)
        if order_only:
            return Perturbation(torch.tanh(magnitude), position)
        if self.density is not None:
            position = 2 * shifted(unit_rms(position, lengths), self.density, lengths)
        return Perturbation(torch.tanh(magnitude), (torch.tanh(position) + 1) / 2)


@dataclass(frozen=True, slots=True)
class Best:
    """Of what a generator proposes look by look, the one that the classifier inside it is fooled most by.

    Clips that none has fooled take the last. ``goal`` is what ``wanted [B]`` says, or any answer but
    the first.
    """

    goal: Goal
    magnitude: Tensor
    position: Tensor
    margin: Tensor
    """``[B]``: of the goal, below 0 where it is reached; 0 where no proposal has done so."""

    @classmethod
    def none(cls, waveforms: Tensor, answers: Tensor, target_class: Tensor | None) -> Self:
        """Before the first proposal, from the ``answers [B, K]`` to clips ``[B, T]`` as they are."""
        goal = Untargeted(answers.argmax(dim=1)) if target_class is None else Targeted(target_class)
        silent = torch.zeros_like(waveforms)
        return cls(goal, silent, silent, answers.new_zeros(len(answers)))

    def or_this(self, magnitude: Tensor, position: Tensor, answers: Tensor) -> Self:
        """A proposal ``[B, T], [B, T]`` in its place where its ``answers [B, K]`` are better."""
        margin = self.goal.margin(answers.detach())
        better = margin < self.margin
        return replace(
            self,
            magnitude=torch.where(better[:, None], magnitude, self.magnitude),
            position=torch.where(better[:, None], position, self.position),
            margin=torch.where(better, margin, self.margin),
        )

    def or_last(self, magnitude: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept of each clip, or the last proposal where nothing is."""
        reached = self.margin[:, None] < 0
        return (
            torch.where(reached, self.magnitude, magnitude),
            torch.where(reached, self.position, position),
        )


def select_samples(
    change: Perturbation, budget: Budget, lengths: Tensor | None = None, *, ranks: bool = False
) -> Tensor:
    """The samples of highest position that the budget allows, ``[B, T]`` bool.

    Without ``ranks``, or where the budget limits nothing, those below 1/2 are left out.
    """
    position = change.position.detach()
    limited = budget.max_density is not None or budget.max_l0 is not None
    if not (ranks and limited):
        position = position.masked_fill(position < 0.5, -torch.inf)
    return top_k_mask(position, budget, lengths)


def apply_perturbation(
    waveforms: Tensor,
    change: Perturbation,
    lengths: Tensor | None,
    epsilon: float,
    budget: Budget | None,
    *,
    ranks: bool = False,
) -> Tensor:
    """``[B, T]`` as a proposal would leave it: where its position is at least 1/2, by ``epsilon``; or
    as ``budget`` has it, see ``select_samples``.

    >>> change = Perturbation(torch.tensor([[1.0, -1.0, 1.0]]), torch.tensor([[0.6, 0.4, 0.9]]))
    >>> apply_perturbation(torch.zeros(1, 3), change, None, 0.5, None)
    tensor([[0.5000, 0.0000, 0.5000]])
    >>> apply_perturbation(torch.zeros(1, 3), change, None, 0.5, Budget(epsilon=0.25, max_l0=1))
    tensor([[0.0000, 0.0000, 0.2500]])
    """
    if budget is None:
        reach, mask = waveforms.new_tensor(epsilon), change.mask()
    else:
        reach = budget.step_limit(waveforms, lengths)
        mask = select_samples(change, budget, lengths, ranks=ranks).to(waveforms.dtype)
    return (waveforms + reach * change.magnitude * mask).clamp(-1, 1)


def unit_rms(values: Tensor, lengths: Tensor | None) -> Tensor:
    """``[B, T]`` scaled, clip by clip, to a root mean square of 1 over its own samples.

    >>> unit_rms(torch.tensor([[3.0, -3.0]]), None)
    tensor([[ 1., -1.]])
    """
    squares = values.square()
    if lengths is None:
        mean = squares.mean(dim=1, keepdim=True)
    else:
        mean = (squares * valid(lengths, values.shape[1])).sum(dim=1, keepdim=True) / lengths[
            :, None
        ]
    return values / (mean + 1e-12).sqrt()


def shifted(values: Tensor, density: float, lengths: Tensor | None) -> Tensor:
    """``[B, T]`` less the value that a share ``density`` of a clip's own samples reaches.

    >>> shifted(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 0.5, None)
    tensor([[ 1., -2.,  0., -1.]])
    """
    time = values.shape[1]
    sizes = [time] * len(values) if lengths is None else lengths.tolist()
    counts = [max(1, int(density * size)) for size in sizes]
    scores = values.detach()
    if lengths is not None:
        scores = scores.masked_fill(~valid(lengths, time), -torch.inf)
    best = highest(scores, counts).values
    if alike(counts):
        return values - best.amin(dim=1, keepdim=True)
    return values - best.gather(1, column(counts, values.device) - 1)


def logit_gradient(answers: Tensor, goal: Goal) -> Tensor:
    """How ``answers [B, K]`` should change: the clip's own down and the others up as far as they are
    likely; or the wanted one up and the others down likewise. In all by nothing.

    >>> logit_gradient(torch.tensor([[2.0, 1.0, 1.0]]), Untargeted(0))
    tensor([[-1.0000,  0.5000,  0.5000]])
    """
    label = torch.as_tensor(goal.label, device=answers.device).expand(len(answers))
    own = label[:, None] == torch.arange(answers.shape[1], device=answers.device)
    others = torch.softmax(answers.masked_fill(own, -torch.inf), dim=1)
    one = own.to(answers.dtype)
    return one - others if isinstance(goal, Targeted) else others - one
