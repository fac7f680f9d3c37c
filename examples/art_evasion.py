"""An attack of the Adversarial Robustness Toolbox and one of ours, side by side in its own API.

python examples/art_evasion.py runs/quick/victims/emo18 speech.wav   (pip install 'staanet[baselines]')
"""

from __future__ import annotations

import sys

from art.attacks.evasion import FastGradientMethod

import staanet
from staanet import audio
from staanet.apps.interop import art


def main(folder: str, file: str) -> None:
    """Print what the victim says after each."""
    victim = staanet.load_victim(folder)
    clip = staanet.Clip("mine", audio.load_samples(file, victim.sample_rate), victim.sample_rate)
    x = clip.waveform[None].numpy()
    classifier = art.estimator(victim, x.shape[1])
    sparse = staanet.ATTACKS["sigma_zero"](budget=staanet.Budget(epsilon=0.1), steps=50)
    for name, attack in {
        "FGM of ART": FastGradientMethod(classifier, eps=0.03),
        "sigma-zero": art.evasion(sparse, classifier),
    }.items():
        x_adv = attack.generate(x)
        before, after = (classifier.labels[classifier.predict(one).argmax()] for one in (x, x_adv))
        print(f"{name}: {before} -> {after}, {(x_adv != x).sum()} samples changed")


if __name__ == "__main__":
    main(*sys.argv[1:3])
