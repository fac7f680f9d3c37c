"""Arousal and valence

This page attacks a regression model of arousal and valence. The model counts as fooled when a
prediction changes by more than a tolerance. An attack can also raise or lower one prediction.
"""

# %%
# The clips are synthetic speech of four emotions. Each emotion has a fixed arousal and valence, on a
# scale from 1 to 5.

from pathlib import Path

import torch
from torch import nn

import staanet
from staanet.corpora import render_synthetic

NUMBERS = {"anger": (5, 1), "happiness": (4, 5), "neutral": (3, 3), "sadness": (1, 2)}
corpus = render_synthetic(Path("voices"), voices=6, sentences=2)
clips = list(corpus.clips(16_000))
print(corpus.labels)

# %%
# The model computes the mean and the standard deviation of the log energy in 24 frequency bands.
# The method of least squares fits one linear layer to these features.


class Bands(nn.Module):
    """Predicts arousal and valence from the log energy of 24 bands, ``[B, T] -> [B, 2]``."""

    def __init__(self) -> None:
        super().__init__()
        hz = torch.linspace(100, 4000, 24)[:, None]
        time = torch.arange(400) / 16_000
        window = torch.hann_window(400)
        self.register_buffer("cosine", (torch.cos(2 * torch.pi * hz * time) * window)[:, None])
        self.register_buffer("sine", (torch.sin(2 * torch.pi * hz * time) * window)[:, None])
        self.layer = nn.Linear(48, 2)

    def features(self, waveform: torch.Tensor) -> torch.Tensor:
        """Returns the mean and the standard deviation over time, ``[B, T] -> [B, 48]``."""
        x = waveform[:, None]
        cosine = nn.functional.conv1d(x, self.cosine, stride=160)
        sine = nn.functional.conv1d(x, self.sine, stride=160)
        energy = (cosine.square() + sine.square() + 1e-3).log()
        return torch.cat([energy.mean(dim=2), energy.std(dim=2)], dim=1)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        return self.layer(self.features(waveform))


module = Bands()
with torch.no_grad():
    x = torch.cat([module.features(clip.waveform[None]) for clip in clips])
    mean = x.mean(dim=0)
    y = torch.tensor([NUMBERS[clip.label] for clip in clips]).float()
    ridge = (x - mean).T @ (x - mean) + 5.0 * torch.eye(48)
    weight = torch.linalg.solve(ridge, (x - mean).T @ (y - y.mean(dim=0)))
    module.layer.weight.copy_(weight.T)
    module.layer.bias.copy_(y.mean(dim=0) - mean @ weight)
    error = (module.layer(x) - y).abs().mean(dim=0)
print(f"mean error: arousal {error[0]:.2f}, valence {error[1]:.2f}, on a scale of 1 to 5")

# %%
# A prediction counts as changed when it moves by more than `tolerance`. The table compares `pgd`
# (projected gradient descent) with the control `random`. The control adds random signs of the same
# size.

victim = staanet.TorchVictim(module, ["arousal", "valence"], 16_000, name="bands")
victim.tolerance = (0.5, 0.5)
budget = staanet.Budget(epsilon="-25 dB")
pgd, noise = (
    staanet.ATTACKS["pgd"](budget=budget, steps=5),
    staanet.ATTACKS["random"](budget=budget),
)
any_number = [staanet.craft(attack, victim, clips) for attack in (pgd, noise)]
print(staanet.transfer_matrix(any_number, [victim]).to_markdown())

# %%
# The argument `label="valence-"` makes the attack lower valence. The figure shows where the
# predictions move.

lower = staanet.craft(pgd, victim, clips, label="valence-")

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(5.2, 4.0))
for crafted, name in ((any_number[1], "noise"), (lower, "valence down")):
    points = [
        victim(torch.from_numpy(pair.adversarial / 32_768).float()[None])[0] for pair in crafted
    ]
    axes.plot(*zip(*[p.tolist() for p in points], strict=True), "o", markersize=4, label=name)
points = [victim(clip.waveform[None])[0].tolist() for clip in clips]
axes.plot(*zip(*points, strict=True), "o", color="#8a8a87", markersize=3, label="clean")
axes.set(xlabel="arousal", ylabel="valence")
axes.legend()
figure.tight_layout()
figure.savefig("arousal_and_valence.svg")
