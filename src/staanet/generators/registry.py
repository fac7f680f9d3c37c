"""The generator networks by name: builds, saves and loads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.errors import unknown_name
from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator, Perturbation
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.surrogate import SurrogateGradient
from staanet.generators.wave_u_net import WaveUNet

__all__ = [
    "GENERATORS",
    "BackwardNet",
    "EnsembleGenerator",
    "Generator",
    "Perturbation",
    "SurrogateGradient",
    "WaveUNet",
    "build_generator",
    "load_generator",
    "save_generator",
]

ARCHITECTURES: dict[str, type[Generator]] = {
    "ensemble": EnsembleGenerator,
    "backward_net": BackwardNet,
    "surrogate": SurrogateGradient,
    "wave_u_net": WaveUNet,
}

GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("wave_u_net", {"features": 32}),
    "small": ("wave_u_net", {"features": 8, "gain": 2.0}),
    "compact": ("wave_u_net", {"features": 64, "levels": 3, "fold": 16, "gain": 2.0}),
    "narrow": ("wave_u_net", {"features": 32, "levels": 3, "fold": 16, "gain": 2.0}),
    "backward_net": ("backward_net", {}),
}
"""Architecture and settings of each network.

``paper`` is the published one and ``small`` has a quarter of its features. ``compact`` has no layer at
the full sample rate, and ``narrow`` is half as wide. ``backward_net`` is the default: a convolutional
classifier and its learned backward pass. Where the source is a transformer, a ``SurrogateGradient``
replaces it (``staanet.generators.warm_start``).
"""


def build_generator(
    network: str, density: float | None = None, labels: Sequence[str] = ()
) -> Generator:
    """Returns an untrained generator, its weights from torch's global random generator.

    Args:
        network: A key of ``GENERATORS``.
        density: See ``Generator``; ``paper`` has none, whatever is given.
        labels: Classes that it can be conditioned on; see ``Generator``.

    >>> sum(weight.numel() for weight in build_generator("small").parameters())
    3176066
    """
    if network not in GENERATORS:
        raise unknown_name("generator", network, GENERATORS)
    architecture, settings = GENERATORS[network]
    density = None if network == "paper" else density
    return ARCHITECTURES[architecture](**settings, density=density, labels=labels)


def save_generator(generator: Generator, folder: Path | str, **card: object) -> None:
    """Writes ``model.safetensors`` and ``card.json``; ``card`` is added to the card."""
    storage.save_model(
        Path(folder),
        kind="generator",
        tensors=generator.state_dict(),
        card={"architecture": generator.architecture, "settings": generator.settings, **card},
    )


def load_generator(folder: Path | str) -> Generator:
    """Reads what ``save_generator`` wrote, frozen and in ``eval()``.

    Raises ``InvalidInput`` where the folder holds no generator, or a damaged one.
    """
    tensors, card = storage.load_model(Path(folder), kind="generator")
    architecture = str(card.get("architecture", "wave_u_net"))
    if architecture not in ARCHITECTURES:
        raise unknown_name("generator", architecture, ARCHITECTURES, where=folder)
    kind = ARCHITECTURES[architecture]
    generator = storage.build_from_card(lambda: kind(**card["settings"]), folder)
    storage.fill_module(generator, tensors, folder)
    return generator.requires_grad_(False).eval()
