"""An adversarial set in Hugging Face ``datasets``, without torchcodec: its table, and audio by its path.

python examples/hugging_face_audiofolder.py runs/quick/adversarial/staa__emo18   (pip install datasets)

Where torchcodec is installed, the folder opens as it is: load_dataset("audiofolder", data_dir=FOLDER).
"""

from __future__ import annotations

import sys
from pathlib import Path

from datasets import Audio, load_dataset

from staanet import audio


def main(folder: str) -> None:
    """Print each clip's label, density and length."""
    clips = load_dataset("csv", data_files=str(Path(folder) / "metadata.csv"), split="train")
    clips = clips.map(lambda row: {"audio": str(Path(folder) / row["file_name"])})
    for row in clips.cast_column("audio", Audio(decode=False)):
        samples, rate = audio.read_int16(row["audio"]["path"])
        print(f"{row['id']}: {row['label']}, {row['density']:.3f}, {len(samples) / rate:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1])
