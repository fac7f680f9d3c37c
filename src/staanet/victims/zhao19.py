"""The victim ``zhao19``: Zhao, Mao and Chen, "Speech emotion recognition using deep 1D & 2D CNN LSTM
networks", BSPC 2019."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from staanet.config import SAMPLE_RATE
from staanet.core import Victim
from staanet.victims.layers import ConvBlock, ConvRecurrent


class Zhao19(Victim):
    """The 1-D network: four narrow convolutions (64, 64, 128, 128; k3), each pooled by 4, then an LSTM."""

    architecture = "zhao19"

    def __init__(
        self, labels: Sequence[str], *, name: str = "zhao19", sample_rate: int = SAMPLE_RATE
    ) -> None:
        super().__init__(name=name, labels=labels, sample_rate=sample_rate)
        shapes = [(1, 64), (64, 64), (64, 128), (128, 128)]
        self.network = ConvRecurrent(
            [ConvBlock(i, o, 3, 4, F.elu) for i, o in shapes], classes=len(self.labels)
        )
        self.minimum_samples = self.network.minimum_samples()

    @property
    def output_layer(self) -> nn.Linear:
        return self.network.head

    def logits(self, standardised: Tensor, lengths: Tensor | None) -> Tensor:
        logits: Tensor = self.network(standardised, lengths)
        return logits
