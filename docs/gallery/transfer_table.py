"""Reading a transfer table

A transfer table tells which model was attacked, on which model the attack was crafted, and how sure the figure is.
"""

# %%
# The table compares three classifiers of different kinds, on synthetic voices of eight speakers.

from pathlib import Path

import staanet
from staanet.corpora import render_synthetic

victims = [staanet.load_victim(f"shipped:{n}") for n in ("emo18", "zhao19", "wav2vec2_tiny")]
clips = list(render_synthetic(Path("voices"), voices=8, sentences=1).clips(16_000))[::2]
budget = staanet.Budget(epsilon="-30 dB")

# %%
# Craft clips with PGD on each of the first two, and with random signs. Then evaluate every adversarial set on every classifier.

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
# * **A row** is one attack, crafted on one source. **A column** is one target.
# * **White box**: source and target are the same. Expect the highest rates there.
# * **Transfer**: source and target differ. An attacker without your model achieves this.
# * **`random`** is the control. A rate counts only as far as it is above the control in the same column.
# * **The brackets** hold the 95 % interval, which counts speakers, not clips. **N** is the number of clips.
#
# Each cell also tells how far its rate lies above the control, with an interval of that difference.

for cell in matrix.cells:
    above = cell.get("above_control")
    if above:
        low, high = (100 * above[key] for key in ("low", "high"))
        text = f"{100 * above['value']:+4.0f} points [{low:+.0f}, {high:+.0f}]"
        print(f"{cell['attack']} on {cell['source']:6} -> {cell['target']:13} {text}")

# %%
# The same figures as a picture: rates with their intervals.

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
axes.set(xlabel="answers changed, %", xlim=(-2, 102))
figure.tight_layout()
figure.savefig("rates_with_intervals.svg")
