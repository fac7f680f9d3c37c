"""An adversarial set is an audiofolder: Hugging Face ``datasets`` opens it as it is.

python examples/hugging_face_audiofolder.py runs/quick/adversarial/staa__emo18   (pip install datasets)
"""

from __future__ import annotations

import sys

from datasets import Audio, load_dataset

from staanet import audio


def main(folder: str) -> None:
    """Print each clip's label, density and length."""
    clips = load_dataset("audiofolder", data_dir=folder, split="train")
    clips = clips.cast_column("audio", Audio(decode=False))  # decoding would need torchcodec
    for row in clips:
        samples, rate = audio.read_int16(row["audio"]["path"])
        print(f"{row['id']}: {row['label']}, {row['density']:.3f}, {len(samples) / rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1])
