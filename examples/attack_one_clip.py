"""Attack one file with a trained generator and print what its source thinks before and after.

python examples/attack_one_clip.py speech.wav runs/quick/generators/emo18
"""

from __future__ import annotations

import sys
from pathlib import Path

import staanet
from staanet import audio, pipeline


def main(file: str, generator: str) -> None:
    """Print one line per victim."""
    victim = pipeline.source_of(Path(generator))
    clip = staanet.Clip("mine", audio.load_samples(file, victim.sample_rate), victim.sample_rate)
    attack = staanet.ATTACKS["staa"](
        generator=staanet.load_generator(generator),
        budget=staanet.Budget(epsilon=0.03, max_density=0.2),
    )
    made = staanet.craft(attack, victim, [clip])
    for row in pipeline.predictions(made, [victim], pipeline.Context()):
        print(f"{row['before']} -> {row['after']}: {row['l0']} samples, {row['snr_db']:.1f} dB SNR")


if __name__ == "__main__":
    main(*sys.argv[1:3])
