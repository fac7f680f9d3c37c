"""Codec survival

This page measures which adversarial clips still fool a model behind a channel. The channels are
codecs, filters, noise and a room.
"""

# %%
# `pgd` (projected gradient descent) crafts clips that fool a pretrained classifier. The control
# `random` adds random signs of the same size.

from pathlib import Path

import staanet
from staanet.corpora import render_synthetic

victim = staanet.load_victim("shipped:emo18")
clips = list(render_synthetic(Path("voices"), voices=4, sentences=1).clips(16_000))
budget = staanet.Budget(epsilon="-25 dB")
sets = [
    staanet.craft(staanet.ATTACKS["pgd"](budget=budget, steps=5), victim, clips),
    staanet.craft(staanet.ATTACKS["random"](budget=budget), victim, clips),
]

# %%
# Both the clean and the adversarial clip pass through each channel. The fooling rate compares the two
# predictions behind the same channel. `pcm16` is the WAV file without a channel.

CHANNELS = ["mp3:32", "opus:16", "gsm", "mulaw", "lowpass:3000", "noise:20", "rir:0.4"]
matrix = staanet.transfer_matrix(sets, [victim], channels=CHANNELS)
rates = {}
for cell in matrix.cells:
    rates[cell["attack"], cell["channel"]] = 100 * cell["fooling_rate"]["value"]
for channel in ("pcm16", *CHANNELS):
    pgd, noise = rates["pgd", channel], rates["random", channel]
    print(f"{channel:13} pgd {pgd:3.0f} %   random {noise:3.0f} %")

# %%
# This attack was crafted without the channels. Use `train-generator --augment` to train a generator
# through a channel. More of its clips then survive that channel.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 3.2))
names = ["pcm16", *CHANNELS]
for shift, attack in ((-0.2, "pgd"), (0.2, "random")):
    heights = [rates[attack, channel] for channel in ("pcm16", *CHANNELS)]
    axes.bar([i + shift for i in range(len(names))], heights, width=0.38, label=attack)
axes.set_xticks(range(len(names)), names, rotation=25, ha="right")
axes.set_ylabel("predictions changed, %")
axes.legend()
figure.tight_layout()
figure.savefig("predictions_changed_behind_each_channel.svg")

# %%
# These two sounds are one adversarial clip before and after the telephone codec GSM.

import torch

from staanet import audio
from staanet.transforms import parse_transform

pair = sets[0].clips[0]
Path("adversarial.wav").write_bytes(audio.encode(pair.adversarial, 16_000))
waveform = torch.from_numpy(audio.to_float(pair.adversarial))[None]
phone = parse_transform("gsm")(waveform, None, 16_000)[0].numpy()
Path("adversarial_after_gsm.wav").write_bytes(audio.encode(audio.snap(phone), 16_000))
