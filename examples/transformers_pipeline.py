"""A wav2vec2, wavlm or hubert that was trained here, in the pipeline of transformers.

python examples/transformers_pipeline.py runs/mine/victims/wavlm speech.wav   (pip install 'staanet[ssl]')
"""

from __future__ import annotations

import sys

from transformers import pipeline

from staanet import audio

RATE = 16_000


def main(folder: str, file: str) -> None:
    """Print the probability of each class."""
    classify = pipeline("audio-classification", model=folder, device="cpu")
    samples = audio.to_float(audio.load_samples(file, RATE))
    for answer in classify({"raw": samples, "sampling_rate": RATE}, top_k=None):
        print(f"{answer['label']}: {answer['score']:.6f}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
