"""A Hugging Face model

This page attacks an audio classifier in the format of `transformers`. The model is a small wav2vec 2.0
that comes with staanet. The script downloads nothing.
"""

# %%
# A model folder holds `config.json`, `preprocessor_config.json` and the weights. Use `hf:NAME` for a
# model from the hub.

from staanet.storage import pretrained

folder = pretrained.folder("victims", "wav2vec2_tiny")
print("\n".join(sorted(path.name for path in folder.iterdir())))

# %%
# The victim (the model under attack) includes the feature extractor. Gradients therefore reach the
# waveform.

import staanet

victim = staanet.load_victim(f"hf:{folder}")
print("gradients:", victim.differentiable, "| rate:", victim.sample_rate, "Hz")
print("classes:", ", ".join(victim.labels))

# %%
# `pgd` (projected gradient descent) attacks the model on synthetic speech. The control `random` adds
# random signs of the same size.

from pathlib import Path

from staanet.corpora import render_synthetic

clips = list(render_synthetic(Path("voices"), voices=4, sentences=1).clips(16_000))
budget = staanet.Budget(epsilon="-30 dB")
sets = [
    staanet.craft(staanet.ATTACKS["pgd"](budget=budget, steps=5), victim, clips),
    staanet.craft(staanet.ATTACKS["random"](budget=budget), victim, clips),
]
matrix = staanet.transfer_matrix(sets, [victim])
print(matrix.to_markdown())

# %%
# The figure counts the predictions before and after the attack.

import matplotlib.pyplot as plt
import numpy as np

counts = np.zeros((len(victim.labels), len(victim.labels)), dtype=int)
for row in matrix.rows:
    if row["attack"] == "pgd":
        before, after = row["clean_prediction"], row["adversarial_prediction"]
        counts[victim.labels.index(before), victim.labels.index(after)] += 1
figure, axes = plt.subplots(figsize=(5.2, 3.9))
axes.imshow(counts, cmap="Blues", vmax=1.6 * counts.max())
for (i, j), count in np.ndenumerate(counts):
    if count:
        axes.text(j, i, str(count), ha="center", va="center", color="#0072b2")
axes.set_xticks(range(len(victim.labels)), victim.labels, rotation=30, ha="right")
axes.set_yticks(range(len(victim.labels)), victim.labels)
axes.set(xlabel="prediction after the attack", ylabel="prediction before")
figure.tight_layout()
figure.savefig("predictions_before_and_after.svg")
