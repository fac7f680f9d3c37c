"""My torch module in three lines

This page attacks a `torch.nn.Module` that takes a waveform. The module needs no change. The attack
uses its gradients.
"""

# %%
# This example module compares the mean energy of two frequency bands. The module is not trained.

import torch
from torch import nn


class TwoBands(nn.Module):
    """Returns the log energy of a low and a high band, ``[B, T] -> [B, 2]``."""

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(400) / 16_000
        filters = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (220.0, 1000.0)])
        self.filters = nn.Parameter(filters[:, None] * torch.hann_window(400))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        bands = nn.functional.conv1d(waveform[:, None], self.filters, stride=80)
        return bands.square().mean(dim=2).add(1e-6).log()


# %%
# Three lines make the table. The first line wraps the module. The second line attacks the
# victim with `pgd` (projected gradient descent) and with the control `random`. The third line prints
# the fooling rates.

import staanet
from staanet.apps.web.example_voices import EXAMPLES, speak_example

clips = [staanet.Clip(title, *speak_example(title)) for title in EXAMPLES]
budget = staanet.Budget(epsilon="-20 dB")

victim = staanet.TorchVictim(TwoBands(), labels=["low", "high"], sample_rate=16_000)
sets = [staanet.craft(staanet.ATTACKS[n](budget=budget), victim, clips) for n in ("pgd", "random")]
print(staanet.transfer_matrix(sets, [victim]).to_markdown())

# %%
# The figure shows the margin of the clean prediction after PGD, at each level of the change. A negative
# margin means that the prediction changed.

import matplotlib.pyplot as plt

levels = range(-50, -9, 5)
figure, axes = plt.subplots(figsize=(6.4, 3.0))
for clip in clips:
    margins = []
    for level in levels:
        attack = staanet.ATTACKS["pgd"](budget=staanet.Budget(epsilon=f"{level} dB"))
        (pair,) = staanet.craft(attack, victim, [clip])
        before = victim(clip.waveform[None])[0]
        after = victim(torch.from_numpy(pair.adversarial / 32_768).float()[None])[0]
        label = int(before.argmax())
        margins.append(float(after[label] - after[1 - label]))
    axes.plot(levels, margins, "o-", markersize=3, label=clip.id)
axes.axhline(0, color="#8a8a87", linewidth=0.8)
axes.set(
    xlabel="largest change, dB relative to the speech", ylabel="margin of the clean prediction"
)
axes.legend()
figure.tight_layout()
figure.savefig("margin_against_level.svg")
