"""My torch module in three lines

Any `torch.nn.Module` that takes a waveform becomes a victim with gradients. Nothing in the module changes.
"""

# %%
# A module of your own. This one is small and fresh: it weighs two bands of frequency and compares their loudest moment.

import torch
from torch import nn


class TwoBands(nn.Module):
    """Low or high: the larger of two band energies, ``[B, T] -> [B, 2]``."""

    def __init__(self) -> None:
        super().__init__()
        time = torch.arange(400) / 16_000
        filters = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (220.0, 1000.0)])
        self.filters = nn.Parameter(filters[:, None] * torch.hann_window(400))

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        bands = nn.functional.conv1d(waveform[:, None], self.filters, stride=80)
        return bands.square().mean(dim=2).add(1e-6).log()


# %%
# Three lines lead from the module to a table: wrap it, attack it, count.

import staanet
from staanet.apps.web.example_voices import EXAMPLES, speak_example

clips = [staanet.Clip(title, *speak_example(title)) for title in EXAMPLES]
budget = staanet.Budget(epsilon="-20 dB")

victim = staanet.TorchVictim(TwoBands(), labels=["low", "high"], sample_rate=16_000)
sets = [staanet.craft(staanet.ATTACKS[n](budget=budget), victim, clips) for n in ("pgd", "random")]
print(staanet.transfer_matrix(sets, [victim]).to_markdown())

# %%
# How far the answer moves at each level of the change. The line crosses zero where the answer changes.

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
axes.set(xlabel="largest change, dB relative to the speech", ylabel="margin of the clean answer")
axes.legend()
figure.tight_layout()
figure.savefig("margin_against_level.svg")
