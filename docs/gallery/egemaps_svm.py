"""eGeMAPS and an SVM

The usual baseline of the field: 88 functionals of openSMILE and a support vector machine. It has no gradient. The attack is
crafted on a network and transferred to it.
"""

# %%
# Compute the functionals of synthetic voices and fit an SVM of scikit-learn to them. openSMILE (extra `opensmile`) is free for
# research only.

from pathlib import Path

import opensmile
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from staanet.corpora import render_synthetic

corpus = render_synthetic(Path("voices"), voices=8, sentences=2)
train, dev, test = corpus.split(seed=0)
smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)


def features(waveforms):
    """eGeMAPSv02 of each clip, ``[B, T] -> [B, 88]``."""
    return [smile.process_signal(x, 16_000).to_numpy()[0] for x in waveforms]


fitting = [*train.clips(16_000), *dev.clips(16_000)]
machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=0.1))
machine.fit(features(c.waveform.numpy() for c in fitting), [c.label for c in fitting])
clips = list(test.clips(16_000))
answers = machine.predict(features(c.waveform.numpy() for c in clips))
print(sum(a == c.label for a, c in zip(answers, clips, strict=True)), "of", len(clips), "right")

# %%
# A function from waveforms to scores is a victim.

import staanet
from staanet.attacks import PGD, Random


def answer(waveforms):
    """The distances to the planes of the SVM, ``[B, T] -> [B, 4]``."""
    return machine.decision_function(features(waveforms))


svm = staanet.CallableVictim(answer, list(machine.classes_), 16_000, name="svm")
print("gradients:", svm.differentiable)

# %%
# Two attacks: random signs, and signs along the gradient of a network that comes with the package. The network knows nothing
# of the SVM, of its features or of these voices.

network = staanet.load_victim("shipped:emo18")
levels, rates = ("-35 dB", "-20 dB"), {}
for level in levels:
    budget = staanet.Budget(epsilon=level)
    sets = [
        staanet.craft(attack, network, clips)
        for attack in (PGD(budget=budget, steps=2), Random(budget=budget))
    ]
    matrix = staanet.transfer_matrix(sets, [network, svm])
    for cell in matrix.cells:
        rates[level, cell["attack"], cell["target"]] = cell["fooling_rate"]["value"]
print(matrix.to_markdown())

# %%
# What transfers from the network to the SVM, beside noise of the same size.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 3.0))
for attack, target in (("pgd", "emo18"), ("pgd", "svm"), ("random", "svm")):
    heights = [100 * rates[level, attack, target] for level in levels]
    axes.plot(levels, heights, "o-", label=f"{attack} on {target}")
axes.set(xlabel="largest change, relative to the speech", ylabel="answers changed, %")
axes.set_ylim(-4, 104)
axes.legend()
figure.tight_layout()
figure.savefig("transfer_to_the_svm.svg")
