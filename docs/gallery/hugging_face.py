"""A Hugging Face model

Any audio classifier of `transformers` can be attacked, from the hub or from a folder. Here it is a folder, so that nothing
is downloaded: the small wav2vec 2.0 that comes with the package.
"""

# %%
# A folder of `transformers` holds `config.json`, `preprocessor_config.json` and the weights. `hf:NAME` would take one from
# the hub instead.

from staanet.storage import pretrained

folder = pretrained.folder("victims", "wav2vec2_tiny")
print("\n".join(sorted(path.name for path in folder.iterdir())))

# %%
# The front end is part of the victim, so that gradients reach the waveform.

import staanet

victim = staanet.load_victim(f"hf:{folder}")
print("gradients:", victim.differentiable, "| rate:", victim.sample_rate, "Hz")
print("classes:", ", ".join(victim.labels))

# %%
# Attack it on synthetic voices, beside the control.

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
# Which classes the answers moved to.

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
axes.set(xlabel="answer after the attack", ylabel="answer before")
figure.tight_layout()
figure.savefig("answers_before_and_after.svg")
