"""Reading a transfer table

This page explains each part of a transfer table. The table shows how often each attack changes the
prediction of each model.
"""

# %%
# The script loads three pretrained classifiers and synthetic speech of eight speakers.

from pathlib import Path

import staanet
from staanet.corpora import render_synthetic

victims = [staanet.load_victim(f"shipped:{n}") for n in ("emo18", "zhao19", "wav2vec2_tiny")]
clips = list(render_synthetic(Path("voices"), voices=8, sentences=1).clips(16_000))[::2]
budget = staanet.Budget(epsilon="-30 dB")

# %%
# PGD (projected gradient descent) crafts clips on each of the first two classifiers. `random` crafts
# clips with random signs. The script then evaluates each adversarial set on each classifier.

sets = [
    staanet.craft(staanet.ATTACKS["pgd"](budget=budget, steps=5), source, clips)
    for source in victims[:2]
]
sets.append(staanet.craft(staanet.ATTACKS["random"](budget=budget), victims[0], clips))
matrix = staanet.transfer_matrix(sets, victims)
print(matrix.to_markdown())

# %%
# How to read it:
#
# * **A row** is one attack that was crafted on one model, the source.
# * **A column** is one model that receives the clips, the target.
# * **White box** means that source and target are the same model. These rates are usually the highest.
# * **Transfer** means that source and target differ. An attacker without access to your model can
#   reach these rates.
# * **`random`** is the control. Compare each rate with the control in the same column.
# * **The brackets** hold the 95 % confidence interval, clustered by speaker.
# * **N** is the number of clips.
#
# The script also prints the difference between each rate and the control, with a 95 % interval.

for cell in matrix.cells:
    above = cell.get("above_control")
    if above:
        low, high = (100 * above[key] for key in ("low", "high"))
        text = f"{100 * above['value']:+4.0f} points [{low:+.0f}, {high:+.0f}]"
        print(f"{cell['attack']} on {cell['source']:6} -> {cell['target']:13} {text}")

# %%
# The figure shows the same rates with their intervals.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 3.4))
names = []
for index, cell in enumerate(matrix.cells):
    rate = cell["fooling_rate"]
    ink = "#8a8a87" if cell["attack"] == "random" else "#d55e00" if cell["white_box"] else "#0072b2"
    axes.plot([100 * rate["low"], 100 * rate["high"]], [index, index], color=ink, linewidth=2)
    axes.plot(100 * rate["value"], index, "o", color=ink)
    names.append(f"{cell['attack']} on {cell['source']}, target {cell['target']}")
axes.set_yticks(range(len(names)), names)
axes.invert_yaxis()
axes.set(xlabel="predictions changed, %", xlim=(-2, 102))
figure.tight_layout()
figure.savefig("rates_with_intervals.svg")
