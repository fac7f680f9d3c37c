"""A second opinion: the same attacks from other libraries, on a toy victim of 16,000 samples.

Each test is skipped where its library is absent. The others know images in [0, 1] or ask for bounds;
they get the box [-1, 1] that audio needs. Only success and orders of magnitude are compared: losses
and step rules differ between implementations.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from staanet.attacks import FGSM, MIFGSM, PGD, VFGA, SigmaZero, SparseFool, SparseRS
from staanet.core import Budget, Untargeted, Victim

EPSILONS = (655 / 32768, 328 / 32768)  # each fools some of the toy's clips and not others


class Toy(Victim):
    """One convolution, the loudness of its 16 bands over time, four classes."""

    architecture = "toy"

    def __init__(self) -> None:
        super().__init__(name="toy", labels=("a", "b", "c", "d"))
        self.body = nn.Sequential(
            nn.Conv1d(1, 16, 64, 16),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(8),
            nn.Flatten(),
            nn.Linear(128, 4),
        )

    def logits(self, standardised, lengths):
        return self.body(standardised[:, None])


def tones(count, seed):
    """``count`` clips of one second, tones of four pitches in noise, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(count) % 4
    phase = 6.283 * torch.rand(count, 1, generator=generator)
    hz = torch.tensor([250.0, 500.0, 1000.0, 2000.0])[label][:, None]
    noise = 0.05 * torch.randn(count, 16_000, generator=generator)
    return 0.2 * torch.sin(6.283 * hz * torch.arange(16_000) / 16_000 + phase) + noise, label


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    victim = Toy()
    optimiser = torch.optim.Adam(victim.parameters(), lr=3e-3)
    for step in range(8):  # knows every clip, and is easily fooled
        x, label = tones(16, step)
        optimiser.zero_grad()
        nn.functional.cross_entropy(victim(x), label).backward()
        optimiser.step()
    return victim.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def clips():
    return tones(8, 1000)[0]


@pytest.fixture(scope="module")
def answers(toy, clips):
    return toy(clips).argmax(dim=1)


@pytest.fixture(scope="module")
def fast_minimum_norm(toy, clips, answers):
    """Foolbox's fewest-samples attack, FMN: its clips, and which of them fool."""
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(toy, bounds=(-1, 1), device="cpu")
    _, x_adv, success = foolbox.attacks.L0FMNAttack(steps=200)(model, clips, answers, epsilons=None)
    return x_adv, success


def fooled(toy, x_adv, answers):
    return toy(x_adv).argmax(dim=1) != answers


def moved(x_adv, clips):
    return (x_adv != clips).sum(dim=1).double()


@pytest.mark.parametrize("name", ["fgsm", "pgd", "mi_fgsm"])
def test_foolbox_agrees_in_the_linf_ball(toy, clips, answers, name):
    foolbox = pytest.importorskip("foolbox")
    theirs, ours = {
        "fgsm": (foolbox.attacks.LinfFastGradientAttack(), FGSM),
        "pgd": (foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=20), PGD),
        "mi_fgsm": (
            foolbox.attacks.mi_fgsm.LinfMomentumIterativeFastGradientMethod(steps=10),
            MIFGSM,
        ),
    }[name]
    model = foolbox.PyTorchModel(toy, bounds=(-1, 1), device="cpu")
    for epsilon in (*EPSILONS, 0.2):
        _, x_adv, _ = theirs(model, clips, answers, epsilons=epsilon)
        mine = ours(budget=Budget(epsilon=epsilon + 1e-9), loss="margin")(
            toy, clips, Untargeted(answers)
        )  # the stronger loss on the source itself
        assert fooled(toy, mine, answers).sum() >= fooled(toy, x_adv, answers).sum()


@pytest.mark.parametrize(
    "attack, most",
    [
        (SigmaZero(budget=Budget(epsilon=2)), 1.5),
        (VFGA(budget=Budget(epsilon=2)), 1.5),
        (
            SparseFool(budget=Budget(epsilon=2), control=3.0),
            5,
        ),  # control is what it pays for success
    ],
    ids=["sigma_zero", "vfga", "sparsefool"],
)
def test_minimal_l0_is_that_of_foolbox(toy, clips, answers, fast_minimum_norm, attack, most):
    x_adv, success = fast_minimum_norm
    mine = attack(toy, clips, Untargeted(answers))
    assert bool(fooled(toy, mine, answers).all()) and int(success.sum()) >= 4
    ratio = (moved(mine, clips) / moved(x_adv, clips))[success].median()
    assert 0.2 < float(ratio) < most


def test_art_agrees_on_pgd(toy, clips, answers):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    evasion = pytest.importorskip("art.attacks.evasion")
    estimators = pytest.importorskip("art.estimators.classification")
    model = estimators.PyTorchClassifier(
        toy,
        loss=nn.CrossEntropyLoss(),
        input_shape=(16_000,),
        nb_classes=4,
        clip_values=(-1, 1),
        device_type="cpu",
    )
    made = evasion.ProjectedGradientDescentPyTorch(
        model, eps=EPSILONS[0], eps_step=EPSILONS[0] / 4, max_iter=20, verbose=False
    ).generate(clips.numpy(), y=np.eye(4, dtype=np.float32)[answers.numpy()])
    mine = PGD(budget=Budget(epsilon=EPSILONS[0]))(toy, clips, Untargeted(answers))
    theirs = fooled(toy, torch.from_numpy(made).float(), answers)
    assert torch.equal(fooled(toy, mine, answers), theirs)


def test_art_agrees_on_fgsm_sample_by_sample(toy, clips, answers):
    pytest.importorskip("art", reason="adversarial-robustness-toolbox")
    evasion = pytest.importorskip("art.attacks.evasion")
    from staanet.apps.interop import art

    epsilon = EPSILONS[0]
    model = art.estimator(toy, 16_000)
    made = evasion.FastGradientMethod(model, eps=epsilon).generate(
        clips.numpy(), y=np.eye(4, dtype=np.float32)[answers.numpy()]
    )
    theirs = torch.from_numpy(made)
    mine = FGSM(budget=Budget(epsilon=epsilon))(toy, clips, Untargeted(answers))
    # the losses differ, margin and cross-entropy, and so may the sign where a gradient is next to 0
    assert float((theirs - clips).abs().max()) <= epsilon + 1e-6
    assert float(((mine - theirs).abs() < 1e-6).double().mean()) > 0.7
    assert fooled(toy, mine, answers).sum() >= fooled(toy, theirs, answers).sum()


def test_random_search_needs_fewer_samples_than_salt_and_pepper(toy, clips, answers):
    """Foolbox has no sparse random search; its black box that touches few samples is salt and pepper."""
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(toy, bounds=(-1, 1), device="cpu")
    torch.manual_seed(0)
    attack = foolbox.attacks.SaltAndPepperNoiseAttack(steps=100)
    _, x_adv, success = attack(model, clips, answers, epsilons=None)
    allowed = int(moved(x_adv, clips)[success].median())
    mine = SparseRS(budget=Budget(epsilon=2, max_l0=allowed), steps=100)(
        toy, clips, Untargeted(answers)
    )
    assert int(moved(mine, clips).max()) <= allowed
    assert fooled(toy, mine, answers).sum() >= success.sum() / 2


def test_pgd_fools_as_many_clips_as_auto_pgd(toy, clips, answers):
    pyautoattack = pytest.importorskip("pyautoattack")

    class Halved(nn.Module):
        """The victim as seen by a library that only knows inputs in [0, 1]."""

        def forward(self, x):
            return toy(2 * x - 1)

    adversary = pyautoattack.AutoAttack(
        Halved(), norm="Linf", eps=EPSILONS[1] / 2, version="custom", attacks=["apgd-ce"], seed=0
    )
    adversary.apgd.n_iter, adversary.apgd.n_restarts, adversary.verbose = 20, 1, False
    made, _ = adversary.run_standard_evaluation((clips + 1) / 2, answers)
    mine = PGD(budget=Budget(epsilon=EPSILONS[1]))(toy, clips, Untargeted(answers))
    assert fooled(toy, mine, answers).sum() >= fooled(toy, 2 * made - 1, answers).sum()
