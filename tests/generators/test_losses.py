"""The loss means the same at any batch size and length; the controller reaches its density."""

from __future__ import annotations

import math

import pytest
import torch

from staanet.core import Untargeted
from staanet.generators.base import Perturbation
from staanet.generators.losses import Objective, SparsityController, Terms, mixed_mask


def proposal(batch: int, time: int, seed: int = 0) -> Perturbation:
    random = torch.Generator().manual_seed(seed)
    return Perturbation(
        2 * torch.rand(batch, time, generator=random) - 1, torch.rand(batch, time, generator=random)
    )


def test_terms_are_the_written_formulas():
    change = Perturbation(torch.tensor([[0.6, -0.8]]), torch.tensor([[0.25, 0.75]]))
    binary = torch.tensor([[False, True]])
    terms = Objective().terms(torch.tensor([2.0]), change, binary)
    assert terms.adversarial.item() == 2.0
    assert terms.magnitude.item() == pytest.approx(math.sqrt(0.5))
    assert terms.sparsity.item() == pytest.approx(0.5)
    assert terms.quantisation.item() == pytest.approx(0.25)


def test_doubling_batch_or_length_leaves_the_loss_as_it_was():
    change, logits = proposal(4, 100), torch.randn(4, 3)
    objective = Objective(magnitude=0.3, quantisation=0.2)
    binary = change.mask()
    once = objective.loss(objective.terms(Untargeted(1).margin(logits), change, binary), 0.7)
    more = Perturbation(change.magnitude.repeat(2, 3), change.position.repeat(2, 3))
    terms = objective.terms(Untargeted(1).margin(logits.repeat(2, 1)), more, binary.repeat(2, 3))
    twice = objective.loss(terms, 0.7)
    assert once.item() == pytest.approx(twice.item(), rel=1e-5)


@pytest.mark.parametrize("kappa, pushes", [(0.0, False), (math.inf, True)])
def test_a_fooled_clip_pushes_on_only_beyond_kappa(kappa, pushes):
    logits = torch.tensor([[0.0, 5.0]], requires_grad=True)
    change = proposal(1, 4)
    terms = Objective(kappa=kappa).terms(Untargeted(0).margin(logits), change, change.mask())
    terms.adversarial.sum().backward()
    assert bool(logits.grad.abs().sum() > 0) is pushes


def test_every_position_gets_a_gradient_from_the_sparsity_term():
    change = proposal(2, 50)
    position = change.position.requires_grad_()
    moved = Perturbation(change.magnitude, position)
    terms = Objective().terms(torch.zeros(2), moved, change.mask())
    terms.sparsity.sum().backward()
    assert torch.allclose(position.grad, torch.full((2, 50), 1 / 50))


def test_the_mixed_mask_is_soft_for_half_and_binary_without_gradient_for_the_rest():
    position = torch.rand(1, 10_000).requires_grad_()
    uniform = torch.rand(1, 10_000)
    binary = position.detach() > 0.8
    mask = mixed_mask(position, binary, uniform)
    mask.sum().backward()
    assert torch.equal(position.grad == 1, uniform < 0.5)
    assert torch.equal(mask[uniform >= 0.5], binary[uniform >= 0.5].float())
    assert torch.equal(Objective(mixing=True).mask(position, binary, uniform), mask)
    assert torch.equal(Objective().mask(position, binary, uniform), position)


def test_the_controller_waits_then_brings_a_responding_mask_to_its_target():
    controller = SparsityController(target=0.2, warmup=10)
    density = 1.0
    for step in range(3000):
        density = 1 / (1 + controller.weight**2)  # a mask that answers to its weight
        controller.update(step, density, fooling=0.9)
        if step < 8:
            assert controller.weight == 0
    assert density == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize(
    "density, fooling", [(0.0, 0.9), (1.0, 0.1)], ids=["empty", "fools no more"]
)
def test_the_controller_lets_go(density, fooling):
    controller = SparsityController(target=0.2, warmup=0, weight=50.0, fooling=0.9, best=0.9)
    for step in range(500):
        controller.update(step, density, fooling)
    assert controller.weight < 0.1


def test_the_published_weight_stays_as_it_is_given():
    terms = Terms(*(torch.tensor([value]) for value in (-1.0, 0.0, 0.5, 0.0)))
    assert Objective(sparsity=2.0).loss(terms, sparsity_weight=9.0).item() == 0.0
    assert Objective().loss(terms, sparsity_weight=4.0).item() == 1.0
