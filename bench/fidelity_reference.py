"""The other side of ``bench.fidelity``: attacks of other libraries, on clips that come in a file.

    python bench/fidelity_reference.py INPUT.npz OUTPUT.npz

It runs in the environment that ``bench.fidelity`` makes for torchattacks and adversarial-library, or in
the main one for Foolbox, ART and pyautoattack. The libraries know images in [0, 1] of four dimensions;
``Images`` shows them the victim as that.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from staanet.core import Victim
from staanet.victims import load_victim


class Images(nn.Module):
    """A victim of images ``[B, 1, 1, T]`` in [0, 1], which counts the clips that it sees."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.queries = victim, 0

    def forward(self, images: Tensor) -> Tensor:
        self.queries += len(images)
        logits: Tensor = self.victim(2 * images.flatten(1) - 1)
        return logits


def run_torchattacks(
    model: Images, images: Tensor, label: Tensor, name: str, **settings: Any
) -> Tensor:
    """Attack ``name`` of torchattacks (Kim, 2020), ``[B, 1, 1, T] -> [B, 1, 1, T]``."""
    import torchattacks

    x_adv: Tensor = getattr(torchattacks, name)(model, **settings)(images, label)
    return x_adv


def run_adv_lib(model: Images, images: Tensor, label: Tensor, name: str, **settings: Any) -> Tensor:
    """Attack ``name`` of adversarial-library (Rony and Ben Ayed), ``[B, 1, 1, T] -> [B, 1, 1, T]``."""
    module = adv_lib_module({"vfga": "stochastic_sparse_attacks"}.get(name, name))
    x_adv: Tensor = getattr(module, name)(model, images, label, targeted=False, **settings)
    return x_adv


def adv_lib_module(name: str) -> ModuleType:
    """A file of ``adv_lib.attacks`` by itself: the package imports torchvision for another attack."""
    package = importlib.util.find_spec("adv_lib")
    assert package is not None and package.submodule_search_locations
    path = Path(next(iter(package.submodule_search_locations))) / "attacks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_foolbox(
    model: Images, images: Tensor, label: Tensor, name: str, epsilon: float, **settings: Any
) -> Tensor:
    """Attack ``name`` of Foolbox (Rauber et al., 2020), ``[B, 1, 1, T] -> [B, 1, 1, T]``."""
    import foolbox

    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    attack = getattr(foolbox.attacks, name)(**settings)
    x_adv: Tensor = attack(bounded, images, label, epsilons=epsilon)[1]
    return x_adv


def run_art(model: Images, images: Tensor, label: Tensor, name: str, **settings: Any) -> Tensor:
    """Attack ``name`` of the Adversarial Robustness Toolbox, ``[B, 1, 1, T] -> [B, 1, 1, T]``."""
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    classes = len(model.victim.labels)
    classifier = PyTorchClassifier(
        model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=classes,
        clip_values=(0, 1),
        device_type="cpu",
    )
    attack = getattr(evasion, name)(classifier, **settings)
    one_hot = np.eye(classes, dtype=np.float32)[label.numpy()]
    return torch.from_numpy(attack.generate(images.numpy(), y=one_hot)).float()


def run_pyautoattack(
    model: Images, images: Tensor, label: Tensor, name: str, epsilon: float, steps: int
) -> Tensor:
    """Attack ``name`` of pyautoattack, the authors' AutoAttack, ``[B, 1, 1, T] -> [B, 1, 1, T]``."""
    import pyautoattack

    adversary = pyautoattack.AutoAttack(
        model, norm="Linf", eps=epsilon, version="custom", attacks=[name], seed=0
    )
    adversary.apgd.n_iter, adversary.apgd.n_restarts, adversary.verbose = steps, 1, False
    x_adv: Tensor = adversary.run_standard_evaluation(images, label)[0]
    return x_adv


LIBRARIES = {
    "adv-lib": run_adv_lib,
    "art": run_art,
    "foolbox": run_foolbox,
    "pyautoattack": run_pyautoattack,
    "torchattacks": run_torchattacks,
}


def main(source: Path, target: Path) -> None:
    """Reads clips and the names of victim and attack, writes adversarial clips and queries per clip."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with np.load(source) as file:
        case, x = json.loads(str(file["case"])), torch.from_numpy(file["x"])
    victim = load_victim(case["victim"])
    with torch.inference_mode():
        label = victim(x).argmax(dim=1)
    label, model = label.clone(), Images(victim).eval()
    images = ((x + 1) / 2)[:, None, None]
    x_adv = LIBRARIES[case["library"]](model, images, label, case["name"], **case["settings"])
    np.savez(
        target, x_adv=(2 * x_adv.detach().flatten(1) - 1).numpy(), queries=model.queries / len(x)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
