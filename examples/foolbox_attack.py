"""An attack of Foolbox inside ``craft``: on the 16-bit grid, its budget proven, saved as audio.

python examples/foolbox_attack.py runs/quick/victims/emo18 speech.wav out   (pip install 'staanet[baselines]')
"""

from __future__ import annotations

import sys

import foolbox

import staanet
from staanet import audio
from staanet.apps.interop.foolbox import FoolboxAttack


def main(folder: str, file: str, out: str) -> None:
    """Print how the victim's answer changes."""
    victim = staanet.load_victim(folder)
    clip = staanet.Clip("mine", audio.load_samples(file, victim.sample_rate), victim.sample_rate)
    attack = FoolboxAttack(
        attack=foolbox.attacks.LinfPGD(steps=10),
        budget=staanet.Budget(epsilon=0.03, max_density=0.2),
    )
    made = staanet.craft(attack, victim, [clip])
    made.save(out)
    print(staanet.transfer_matrix([made], [victim]).to_markdown())


if __name__ == "__main__":
    main(*sys.argv[1:4])
