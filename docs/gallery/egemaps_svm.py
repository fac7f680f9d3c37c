"""eGeMAPS and an SVM

This page attacks a support vector machine (SVM) on openSMILE features. The features are the 88
functionals of the eGeMAPS set, a common baseline of the field. The SVM gives no gradient. The attack
is therefore crafted on a neural network.
"""

# %%
# The script trains an SVM of scikit-learn on synthetic speech. Install openSMILE with the extra
# `opensmile`. Its licence allows research only.

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
    """Returns the eGeMAPSv02 features of each clip, ``[B, T] -> [B, 88]``."""
    return [smile.process_signal(x, 16_000).to_numpy()[0] for x in waveforms]


fitting = [*train.clips(16_000), *dev.clips(16_000)]
machine = make_pipeline(StandardScaler(), SVC(kernel="linear", C=0.1))
machine.fit(features(c.waveform.numpy() for c in fitting), [c.label for c in fitting])
clips = list(test.clips(16_000))
answers = machine.predict(features(c.waveform.numpy() for c in clips))
print(sum(a == c.label for a, c in zip(answers, clips, strict=True)), "of", len(clips), "right")

# %%
# A victim is a model under attack. `CallableVictim` turns a function from waveforms to scores into a
# victim. This victim has no gradient.

import staanet
from staanet.attacks import PGD, Random


def answer(waveforms):
    """Returns the decision function of each class, ``[B, T] -> [B, 4]``."""
    return machine.decision_function(features(waveforms))


svm = staanet.CallableVictim(answer, list(machine.classes_), 16_000, name="svm")
print("gradients:", svm.differentiable)

# %%
# `PGD` (projected gradient descent) crafts clips on `emo18`, a pretrained network that comes with
# staanet. The network shares no features and no training data with the SVM. The control `Random` adds
# random signs of the same size.

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
# The figure compares the transfer to the SVM with the control.

import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6.4, 3.0))
for attack, target in (("pgd", "emo18"), ("pgd", "svm"), ("random", "svm")):
    heights = [100 * rates[level, attack, target] for level in levels]
    axes.plot(levels, heights, "o-", label=f"{attack} on {target}")
axes.set(xlabel="largest change, relative to the speech", ylabel="predictions changed, %")
axes.set_ylim(-4, 104)
axes.legend()
figure.tight_layout()
figure.savefig("transfer_to_the_svm.svg")
