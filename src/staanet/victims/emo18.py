"""The victim ``emo18``: Tzirakis, Zhang and Schuller, "End-to-end speech emotion recognition", ICASSP 2018."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from staanet.config import SAMPLE_RATE
from staanet.core import Victim
from staanet.victims.layers import ConvBlock, ConvRecurrent


class Emo18(Victim):
    """Three wide convolutions with long pooling, then an LSTM: 64 k8, 128 k6, 256 k6; pool 10, 8, 8."""

    architecture = "emo18"

    def __init__(
        self, labels: Sequence[str], *, name: str = "emo18", sample_rate: int = SAMPLE_RATE
    ) -> None:
        super().__init__(name=name, labels=labels, sample_rate=sample_rate)
        shapes = [(1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8)]
        self.network = ConvRecurrent(
            [ConvBlock(i, o, kernel, pool, F.leaky_relu) for i, o, kernel, pool in shapes],
            classes=len(self.labels),
        )
        self.minimum_samples = self.network.minimum_samples()

    @property
    def output_layer(self) -> nn.Linear:
        return self.network.head

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        logits: Tensor = self.network(standardised, lengths)
        return logits
