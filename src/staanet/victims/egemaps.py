"""The field's standard baseline: openSMILE's eGeMAPS functionals and a linear classifier (extra ``opensmile``)."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from staanet.config import SAMPLE_RATE
from staanet.core import Victim
from staanet.errors import MissingExtra
from staanet.victims.external import BlackBox, Floats

FEATURES = 88
"""The functionals of eGeMAPSv02."""
OUTLIER = 5.0
SECONDS = 0.0625
"""The shortest clip that openSMILE gives functionals for: its window for the pitch lasts 60 ms."""


class Egemaps(BlackBox):
    """88 functionals of a clip, standardised, and one linear layer, ``[B, T] -> [B, K]``: a black box.

    Eyben et al., "The Geneva minimalistic acoustic parameter set (GeMAPS) for voice research and affective
    computing", IEEE Transactions on Affective Computing, 2016. ``staanet.training.fit_linear`` gives it its
    weights.
    """

    architecture = "egemaps"
    mean: Tensor
    std: Tensor

    def __init__(
        self, labels: Sequence[str], *, name: str = "egemaps", sample_rate: int = SAMPLE_RATE
    ) -> None:
        if find_spec("opensmile") is None:
            raise MissingExtra("opensmile", "opensmile")
        super().__init__(name=name, labels=labels, sample_rate=sample_rate)
        self.register_buffer("mean", torch.zeros(FEATURES, dtype=torch.float64))
        self.register_buffer("std", torch.ones(FEATURES, dtype=torch.float64))
        self.layer = nn.Linear(FEATURES, len(self.labels), dtype=torch.float64)
        self.minimum_samples = round(SECONDS * sample_rate)

    def functionals(self, waveforms: Floats) -> NDArray[np.float64]:
        """eGeMAPSv02 of each clip, ``[B, T] -> [B, 88]``, in openSMILE's units."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [_smile().process_signal(x, self.sample_rate).to_numpy()[0] for x in waveforms]
        return np.array(rows, dtype=np.float64)

    def predict(self, waveforms: Floats) -> Any:
        mean, std = self.mean.cpu().numpy(), self.std.cpu().numpy()
        features = standardise_features(self.functionals(waveforms), mean, std)
        with torch.no_grad():
            return self.layer(torch.from_numpy(features).to(self.mean.device)).cpu().numpy()

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write ``model.safetensors`` and ``card.json``; ``card`` adds to what the card says."""
        Victim.save_pretrained(self, folder, **card)


def standardise_features(
    features: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(features - mean) / std``, within ``OUTLIER`` deviations, ``[B, F], [F], [F] -> [B, F]``.

    >>> standardise_features(np.array([[3.0, 99.0]]), np.array([1.0, 0.0]), np.array([2.0, 1.0]))
    array([[1., 5.]])
    """
    standardised: NDArray[np.float64] = ((features - mean) / std).clip(-OUTLIER, OUTLIER)
    return standardised


@functools.cache
def _smile() -> Any:
    import opensmile

    return opensmile.Smile(
        opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals, num_workers=1
    )
