"""STAA-Net: one pass of a trained generator (Chang et al., 2024, arXiv 2402.01227)."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from staanet import audio
from staanet.attacks.cuda_graphs import GraphCache
from staanet.attacks.gradient import PGD
from staanet.attacks.loss import AttackTask, unit_l1
from staanet.attacks.selection import masking_weight
from staanet.core import Budget, Goal, Targeted, Victim
from staanet.errors import InvalidInput
from staanet.generators.base import Generator, Perturbation, select_samples
from staanet.nn.precision import autocast

MAX_MAGNITUDE = 1 - 1e-6  # the largest of which tanh can be inverted
ROUNDING = 1e-3  # share of an energy: x + delta in float32 may round to the next step, 0.004 dB
BISECTIONS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Staa:
    """Adds ``epsilon * magnitude`` where the generator's position is highest.

    The budget says how many samples move, so that one generator serves every sparsity. A budget without
    a share or a number takes the positions of at least 1/2, as the paper does; of a published network
    the samples below 1/2 never move. The source is not called: its behaviour was learned in training.

    Args:
        generator: The trained network.
        budget: What may change; by default the paper's epsilon.
        iterations: How often a backward_net or surrogate runs, each time on the clip that its proposals
            so far make: more is stronger and slower. 0: as often as in training.
        refine: Steps of PGD that go on from the proposal. They do call the source.
        masking_power: Where above 0, a sample moves by less, and is chosen less often, where the clip
            masks less: see ``masking_weight``.
        precision: Precision of the network (``staanet.nn.precision``); limits and rounding are exact.
        graphs: Recorded passes on a GPU (``staanet.attacks.cuda_graphs``); None: none are recorded.
    """

    generator: Generator
    budget: Budget = Budget(epsilon=0.03, max_density=0.2)
    iterations: int = 0
    refine: int = 0
    masking_power: float = 0.0
    precision: str = "float32"
    graphs: GraphCache | None = field(default_factory=GraphCache, repr=False, compare=False)

    @property
    def needs_answer(self) -> bool:
        """Whether the goal must name the source's clean prediction; see ``craft_batch``."""
        return bool(self.refine)

    def __call__(
        self, source: Victim, x: Tensor, goal: Goal, lengths: Tensor | None = None
    ) -> Tensor:
        task = AttackTask(source, x, goal, lengths)
        with torch.inference_mode():
            x_adv, *refinement = self._one_pass(task)
        if not refinement:
            return x_adv
        pgd = PGD(budget=self.budget, steps=self.refine, relative_step=0.5, decay=0.8)
        return pgd.descend(task, *refinement)

    def _one_pass(self, task: AttackTask) -> tuple[Tensor, ...]:
        """The generator's proposal, applied: what ``_apply`` returns."""
        x, lengths, generator = task.x, task.lengths, self.generator
        if self.iterations:
            generator = generator.with_iterations(self.iterations)
        target_class = self._target_class(task)
        is_limited = self.budget.max_density is not None or self.budget.max_l0 is not None
        order_only = generator.has_ranking and is_limited and not self.masking_power
        order_only = order_only and not self.refine

        def propose(x: Tensor) -> Perturbation:
            with autocast(self.precision, x.device):
                change: Perturbation = generator(
                    x, lengths, target_class, self.budget, order_only=order_only
                )
            return change

        def propose_and_apply(x: Tensor) -> tuple[Tensor, ...]:
            return self._apply(task, propose(x), x)

        if self.graphs is None or lengths is not None or target_class is not None:
            return propose_and_apply(x)
        settings: Hashable = self.budget, self.precision, self.iterations
        if self.masking_power or self.budget.min_snr_db is not None:  # the rest depends on samples
            return self._apply(task, Perturbation(*self.graphs(generator, propose, x, settings)), x)
        return self.graphs(generator, propose_and_apply, x, settings)

    def _apply(self, task: AttackTask, change: Perturbation, x: Tensor) -> tuple[Tensor, ...]:
        """The clips ``x [B, T]`` with ``change``; where they are refined, also the change of every
        sample, the stand-in for past gradients, and the limits: the arguments of ``PGD.descend``."""
        has_ranking = self.generator.has_ranking
        weight = masking_weight(x, task.lengths, task.source.sample_rate, self.masking_power)
        if has_ranking and self.masking_power:
            change = change._replace(position=change.position * weight)
        mask = select_samples(change, self.budget, task.lengths, has_ranking=has_ranking)
        limit = self.budget.epsilon_of(x, task.lengths, task.source.sample_rate) * weight
        magnitude = project_to_snr(x, change.magnitude, mask * limit, self.budget)
        delta = limit * magnitude
        x_adv = (x + mask * delta).clamp(-1, 1)  # mask 0 leaves x bit-identical: l0 is exact
        if not self.refine:
            return (x_adv,)
        # a clip whose change was lowered for its SNR is refined within that change
        is_lowered = (magnitude != change.magnitude).any(dim=1, keepdim=True)
        limit = torch.where(is_lowered, limit * magnitude.abs(), limit)
        return x_adv, delta, unit_l1(-change.magnitude.sign() * change.position), limit

    def _target_class(self, task: AttackTask) -> Tensor | None:
        if not task.goal.is_targeted:
            return None
        if not self.generator.is_conditional:
            raise InvalidInput(
                "this generator was trained to change the prediction, not to reach a target class",
                remedy="Train one with --goal targeted, or use --attack pgd",
            )
        if self.generator.labels not in (task.source.labels, task.source.own_labels):
            raise InvalidInput(
                f"the generator knows the classes {', '.join(self.generator.labels)}, "
                f"{task.source.name} knows {', '.join(task.source.labels)}",
                remedy="Aim with a generator of this source",
            )
        assert isinstance(task.goal, Targeted), "a generator aims at classes"
        return torch.as_tensor(task.goal.label, device=task.x.device).expand(len(task.x))


def project_to_snr(x: Tensor, magnitude: Tensor, limit: Tensor, budget: Budget) -> Tensor:
    """Returns ``magnitude [B, T]`` in [-1, 1], lowered, clip by clip, to keep ``budget.min_snr_db``.

    Of all changes of one energy, the one in proportion to the gradient does most (Cauchy and Schwarz).
    Therefore the argument of the magnitude's tanh is scaled: a little less leaves most samples near
    ``limit``, much less leaves that proportion. Gradients pass through.

    Args:
        x: Clips, ``[B, T]``, zero beyond their lengths.
        magnitude: Change of each sample in units of ``limit``.
        limit: Largest change of each sample, ``[B, T]``; it is rounded to steps of the 16-bit grid.
        budget: Names the SNR; without one nothing is lowered.

    >>> x, magnitude = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([[0.9, 0.9, 0.1]])
    >>> project_to_snr(x, magnitude, torch.tensor(0.1), Budget(epsilon=0.1, min_snr_db=0))
    tensor([[0.9000, 0.9000, 0.1000]])
    >>> project_to_snr(x, magnitude, torch.tensor(0.1), Budget(epsilon=0.1, min_snr_db=40))
    tensor([[0.0612, 0.0612, 0.0042]])
    """
    if budget.min_snr_db is None:
        return magnitude
    energy = x.double().square().sum(dim=1, keepdim=True) * audio.FULL_SCALE**2
    allowed = (1 - ROUNDING) * energy / 10 ** (budget.min_snr_db / 10)
    raw = magnitude.clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE).atanh()
    steps = limit * audio.FULL_SCALE

    def keeps_snr(scale: Tensor) -> Tensor:
        change = (steps * torch.tanh(scale * raw.detach())).round()
        return change.double().square().sum(dim=1, keepdim=True) <= allowed

    low, high = torch.zeros_like(raw[:, :1]), torch.ones_like(raw[:, :1])
    is_too_loud = ~keeps_snr(high)
    for _ in range(BISECTIONS if bool(is_too_loud.any()) else 0):
        middle = (low + high) / 2
        fits = keeps_snr(middle)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return torch.where(is_too_loud, torch.tanh(low * raw), magnitude)
