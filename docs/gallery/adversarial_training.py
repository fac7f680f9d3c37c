"""Adversarial training

This page compares a model before and after training on adversarial clips. Adversarial clips are inputs
with small changes that mislead the model. Each attack is crafted on the model that it attacks.
"""

# %%
# The script trains a small classifier on synthetic speech. UAR is the unweighted average recall.
# Chance is a UAR of 0.25.

from pathlib import Path

import staanet
from staanet import pipeline, storage
from staanet.attacks import PGD, Random
from staanet.config import HardenRecipe, VictimRecipe
from staanet.corpora import render_synthetic

context = pipeline.Context()
corpus = render_synthetic(Path("voices"), voices=8, sentences=2)
recipe = VictimRecipe(steps=40, batch_size=8, seconds=0.5, evaluate_every=40, augment=("none",))
before = pipeline.train_victim(corpus, "logmel_cnn", Path("before"), recipe=recipe, context=context)
print(f"UAR on test speakers {storage.read_card(Path('before'), 'victim')['test_uar']:.2f}")

# %%
# `harden` trains a copy of the model further. Each training step uses clean clips and adversarial
# clips. The adversarial clips are crafted anew at each step.

hardening = HardenRecipe(
    method="pgd",
    epsilon="-25 dB",
    inner_steps=1,
    steps=60,
    batch_size=8,
    seconds=0.5,
    evaluate_every=60,
)
after = pipeline.harden(
    corpus,
    staanet.load_victim("before"),
    Path("after"),
    recipe=hardening,
    context=context,
    name="hardened",
)
print(f"UAR on test speakers {storage.read_card(Path('after'), 'victim')['test_uar']:.2f}")

# %%
# `pgd` (projected gradient descent) attacks each model with the gradient of that model. The control
# `random` adds random signs within the same budget. The level is the largest change of a sample, in
# dB relative to the speech.

levels, rates = (-40, -32, -25), {}
test = corpus.split(seed=0)[2]
for level in levels:
    budget = staanet.Budget(epsilon=f"{level} dB")
    for victim in (before, after):
        for attack in (PGD(budget=budget, steps=4), Random(budget=budget)):
            crafted = staanet.craft(attack, victim, test)
            (cell,) = staanet.transfer_matrix([crafted], [victim]).cells
            rates[victim.name, cell["attack"], level] = cell["fooling_rate"]["value"]
for victim in (before, after):
    row = "  ".join(f"{100 * rates[victim.name, 'pgd', level]:4.0f} %" for level in levels)
    print(f"{victim.name:10}  {row}")

# %%
# A lower solid line means a more robust model. The dotted lines show the control.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 3.2))
for victim, ink in ((before, "#d55e00"), (after, "#0072b2")):
    for name, style in (("pgd", "o-"), ("random", "o:")):
        heights = [100 * rates[victim.name, name, level] for level in levels]
        axes.plot(levels, heights, style, color=ink, markersize=4, label=f"{victim.name}, {name}")
axes.set(xlabel="largest change, dB relative to the speech", ylabel="predictions changed, %")
axes.set_ylim(-4, 104)
axes.legend()
figure.tight_layout()
figure.savefig("before_and_after_adversarial_training.svg")
