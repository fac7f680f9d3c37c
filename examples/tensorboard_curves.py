"""The curves that ``--tensorboard`` logged, read back without a browser.

staanet train-victim emodb:PATH emo18 --out victims/emo18 --tensorboard   (pip install 'staanet[tensorboard]')
python examples/tensorboard_curves.py victims/emo18/tensorboard
"""

from __future__ import annotations

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def main(folder: str) -> None:
    """Print the first and last value of each curve."""
    for run in sorted(Path(folder).iterdir()):
        events = EventAccumulator(str(run)).Reload()
        for name in events.Tags()["scalars"]:
            curve = events.Scalars(name)
            print(
                f"{run.name} {name}: {curve[0].value:.4g} -> {curve[-1].value:.4g} at step {curve[-1].step}"
            )


if __name__ == "__main__":
    main(sys.argv[1])
