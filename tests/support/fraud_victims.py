"""Victims that are not what they seem: each wraps an honest one and spoils one thing."""

from __future__ import annotations

import torch

from staanet.core import Victim


class Wrapped(Victim):
    """Passes its input on to an honest victim."""

    architecture = "wrapped"

    def __init__(self, inner: Victim) -> None:
        super().__init__(name=inner.name, labels=inner.labels, sample_rate=inner.sample_rate)
        self.inner, self.minimum_samples = inner, inner.minimum_samples
        self.eval()

    def forward(self, waveforms, lengths=None):
        return self.inner(waveforms, lengths)


class Softmax(Wrapped):
    def forward(self, waveforms, lengths=None):
        return super().forward(waveforms, lengths).softmax(dim=1)


class Noisy(Wrapped):
    def forward(self, waveforms, lengths=None):
        logits = super().forward(waveforms, lengths)
        return logits + logits.std() * torch.randn_like(logits)


class Quantised(Wrapped):
    """Rounds its input to eight bits: right answers, and a gradient of zero."""

    def forward(self, waveforms, lengths=None):
        return super().forward(torch.round(waveforms * 128) / 128, lengths)


class Straight(Wrapped):
    """Rounds, and passes on a gradient as if it did not."""

    def forward(self, waveforms, lengths=None):
        rounded = torch.round(waveforms * 128) / 128
        return super().forward(waveforms + (rounded - waveforms).detach(), lengths)


class Detached(Wrapped):
    def forward(self, waveforms, lengths=None):
        return super().forward(waveforms.detach(), lengths)


class Broken(Wrapped):
    """A square root at 0: right answers, and a gradient that is NaN."""

    def forward(self, waveforms, lengths=None):
        zero = torch.sqrt((waveforms - waveforms).sum(dim=1, keepdim=True))
        return super().forward(waveforms + zero, lengths)


class Training(Wrapped):
    """Never leaves training mode."""

    def eval(self):
        return self.train()


class Denying(Wrapped):
    """Trains while it answers, and says that it does not."""

    def forward(self, waveforms, lengths=None):
        self.inner.train()
        logits = super().forward(waveforms, lengths)
        self.inner.eval()
        return logits


class Masked(Wrapped):
    """A gradient that leads uphill."""

    def forward(self, waveforms, lengths=None):
        return super().forward(2 * waveforms.detach() - waveforms, lengths)
