"""Victims for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from staanet.core import Victim


class LinearVictim(Victim):
    """Two classes, logits ``(w . x, -w . x)`` on the raw waveform: the optimum is known by hand.

    Within epsilon the margin ``2 |w . x|`` falls by at most ``2 epsilon ||w||_1``; with k samples,
    by twice epsilon times the sum of the k largest ``|w|``.
    """

    architecture = "linear"

    def __init__(self, weight: Tensor) -> None:
        super().__init__(name="linear", labels=("up", "down"))
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        score = waveforms @ self.weight[: waveforms.shape[1]]
        return torch.stack([score, -score], dim=1)


class LinearNumbers(Victim):
    """Numbers ``(w . x, -2 w . x)``: within epsilon the first moves by ``epsilon ||w||_1`` at most."""

    architecture = "linear_numbers"

    def __init__(self, weight: Tensor, tolerance: tuple[float, float]) -> None:
        super().__init__(name="numbers", labels=("arousal", "valence"), tolerance=tolerance)
        self.weight = torch.nn.Parameter(weight, requires_grad=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        score = waveforms @ self.weight[: waveforms.shape[1]]
        return torch.stack([score, -2 * score], dim=1)
