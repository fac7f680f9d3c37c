"""STAA-Net: one pass of a trained generator (Chang et al. 2024, arXiv 2402.01227)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.gradient import descend, normalised
from staanet.attacks.replay import GraphCache
from staanet.attacks.support import masking_weight
from staanet.core import Budget, Goal, Untargeted, Victim
from staanet.errors import InvalidInput
from staanet.generators.base import Generator, Perturbation, select_samples
from staanet.nn.precision import autocast

MOST = 1 - 1e-6  # of a magnitude whose tanh can be undone
ROUNDING = 1e-3  # of an energy: x + delta in float32 may round to the next step, 0.004 dB
HALVINGS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Staa:
    """Add ``epsilon * magnitude`` where the generator's position is highest.

    How many samples that is, the budget says: one generator serves every sparsity. A budget that names
    neither share nor number takes the positions of at least 1/2, as the paper does, and one of a
    published network never more. The source is not called: what it answers was learned in training.

    With ``iterations`` a mirror or reflection iterations so often, at what it proposed before: the more, the
    surer and the slower (0: as often as in training).

    Only with ``refine`` it is: that many steps of PGD go on from what the generator proposed. With
    ``hide`` a sample moves by less, and is wanted less, where the clip would not mask it; see ``PGD``.

    The network alone runs in ``precision`` (``staanet.nn.precision``); limits and rounding never do. On a
    GPU ``replays`` remembers passes (``staanet.attacks.replay``); None: none.
    """

    generator: Generator
    budget: Budget = Budget(epsilon=0.03, max_density=0.2)  # the paper's epsilon
    iterations: int = 0
    refine: int = 0
    masking_power: float = 0.0
    precision: str = "float32"
    graphs: GraphCache | None = field(default_factory=GraphCache, repr=False, compare=False)

    @property
    def needs_answer(self) -> bool:
        """Whether the goal has to say what the source answers to the clean clip; see ``craft_batch``."""
        return bool(self.refine)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        with torch.inference_mode():
            generator = (
                self.generator.with_iterations(self.iterations)
                if self.iterations
                else self.generator
            )
            wanted = self._wanted(source, goal, x)
            rate = source.sample_rate
            limited = self.budget.max_density is not None or self.budget.max_l0 is not None
            order_only = (
                generator.has_ranking and limited and not (self.masking_power or self.refine)
            )

            def proposed(x: Tensor) -> Perturbation:
                with autocast(self.precision, x.device):
                    answer: Perturbation = generator(
                        x, lengths, wanted, self.budget, order_only=order_only
                    )
                return answer

            def attacked(x: Tensor) -> tuple[Tensor, ...]:
                return self._moved(x, lengths, proposed(x), rate)

            if self.graphs is None or lengths is not None or wanted is not None:
                moved = attacked(x)
            elif (
                self.masking_power or self.budget.min_snr_db is not None
            ):  # the rest depends on the samples
                change = self.graphs(generator, proposed, x, self._settings)
                moved = self._moved(x, lengths, Perturbation(*change), rate)
            else:
                moved = self.graphs(generator, attacked, x, self._settings)
        x_adv, *start = moved
        if not start:
            return x_adv
        by, ball, so_far = start
        return descend(
            source,
            x,
            goal,
            lengths,
            self.budget,
            by,
            so_far,
            limit=ball,
            steps=self.refine,
            relative_step=0.5,
            decay=0.8,
        )

    @property
    def _settings(self) -> Hashable:
        return self.budget, self.precision, self.iterations

    def _moved(
        self, x: Tensor, lengths: Tensor | None, change: Perturbation, sample_rate: int
    ) -> tuple[Tensor, ...]:
        """The clips as ``change`` moves them; and what a refinement begins with: by how much each sample
        would move, how far it may, and what stands for the gradients of steps before."""
        ranks = self.generator.has_ranking
        weight = masking_weight(x, lengths, sample_rate, self.masking_power)
        if ranks and self.masking_power:
            change = change._replace(position=change.position * weight)
        mask = select_samples(change, self.budget, lengths, has_ranking=ranks)
        limit = (self.budget.epsilon_lsb / audio.FULL_SCALE) * weight
        magnitude = project_to_snr(x, change.magnitude, mask * limit, self.budget)
        by = limit * magnitude
        x_adv = (x + mask * by).clamp(-1, 1)  # mask 0 leaves x bit-identical: l0 is exact
        if not self.refine:
            return (x_adv,)
        # what had to become quieter is refined within what it became
        lowered = (magnitude != change.magnitude).any(dim=1, keepdim=True)
        ball = torch.where(lowered, limit * magnitude.abs(), limit)
        return x_adv, by, ball, normalised(-change.magnitude.sign() * change.position)

    def _wanted(self, source: Victim, goal: Goal, x: Tensor) -> Tensor | None:
        if isinstance(goal, Untargeted):
            return None
        if not self.generator.is_conditional:
            raise InvalidInput(
                "this generator was trained to change the answer, not to reach a wanted class",
                remedy="Train one with --goal targeted, or use --attack pgd",
            )
        if self.generator.labels != source.labels:
            raise InvalidInput(
                f"the generator knows the classes {', '.join(self.generator.labels)}, "
                f"{source.name} knows {', '.join(source.labels)}",
                remedy="Aim with a generator of this source",
            )
        return torch.as_tensor(goal.label, device=x.device).expand(len(x))


def project_to_snr(x: Tensor, magnitude: Tensor, limit: Tensor, budget: Budget) -> Tensor:
    """``magnitude [B, T]`` in [-1, 1], lowered, clip by clip, until ``budget.min_snr_db`` is kept.

    ``x`` is zero beyond each clip; a sample moves by ``limit [B, T] * magnitude``, in whole steps of
    the 16-bit grid. Of all changes of one energy the one in proportion to how much each is wanted does
    most (Cauchy and Schwarz), so what the magnitude's tanh was given is what is scaled: a little less
    leaves samples near ``limit``, much less leaves that proportion. Gradients pass through.

    >>> x, wanted = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[0.9, 0.9, 0.1]])
    >>> project_to_snr(x, wanted, torch.tensor(0.1), Budget(epsilon=0.1, min_snr_db=0))
    tensor([[0.9000, 0.9000, 0.1000]])
    >>> project_to_snr(x, wanted, torch.tensor(0.1), Budget(epsilon=0.1, min_snr_db=40))
    tensor([[0.0612, 0.0612, 0.0042]])
    """
    if budget.min_snr_db is None:
        return magnitude
    energy = x.double().square().sum(dim=1, keepdim=True) * audio.FULL_SCALE**2
    allowed = (1 - ROUNDING) * energy / 10 ** (budget.min_snr_db / 10)
    wanted, steps = magnitude.clamp(-MOST, MOST).atanh(), limit * audio.FULL_SCALE

    def keeps(scale: Tensor) -> Tensor:
        moved = (steps * torch.tanh(scale * wanted.detach())).round()
        return moved.double().square().sum(dim=1, keepdim=True) <= allowed

    low, high = torch.zeros_like(wanted[:, :1]), torch.ones_like(wanted[:, :1])
    loud = ~keeps(high)
    for _ in range(HALVINGS if bool(loud.any()) else 0):
        middle = (low + high) / 2
        fits = keeps(middle)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(loud, torch.tanh(low * wanted), magnitude)
