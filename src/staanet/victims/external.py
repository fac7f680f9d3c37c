"""What external classifiers share: copying into a folder, and black boxes without gradient.

A black box can be attacked without gradients and judged as a target. It raises an error where a gradient
is needed, because a silent zero would read as robustness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet import storage
from staanet.core import Victim
from staanet.errors import InvalidInput, StaaNetError, VictimError, printable
from staanet.nn.padding import require_samples, run_by_length

Floats = NDArray[np.float32]


class External(Victim):
    """A victim whose weights, if we can see any, are kept elsewhere."""

    architecture = "external"

    def model_files(self) -> dict[str, bytes]:
        """The files that it can be read from again, by name; none where it cannot be copied."""
        return {}

    def save_pretrained(self, folder: Path | str, **card: Any) -> None:
        """Write a copy of the model and ``card.json``, as the inside of a defended victim.

        Raises ``InvalidInput`` where the model is no file, such as a Python function.
        """
        files = self.model_files()
        if not files:
            raise InvalidInput(
                f"{self.name} was made elsewhere and is not saved as a victim folder",
                where=folder,
                remedy="Keep the original, and name it again as you did",
            )
        for name, data in files.items():
            storage.write_bytes(Path(folder) / name, data)
        storage.write_card(
            folder,
            {
                "kind": "victim",
                "architecture": self.architecture,
                "name": self.name,
                "labels": list(self.labels),
                "sample_rate": self.sample_rate,
                **card,
                "sha256": self.sha256,
            },
        )


class BlackBox(External):
    """A victim that torch does not differentiate: a subclass implements ``predict`` in NumPy."""

    differentiable = False
    probabilities = False
    """Whether ``predict`` returns probabilities, whose logarithms are then the logits."""

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        if waveforms.requires_grad and torch.is_grad_enabled():
            raise InvalidInput(
                f"{self.name} is a black box: it gives answers and no gradients",
                remedy="Use an attack that needs none (random, sparse_rs, one_pixel), or craft against "
                "another source and evaluate on this one",
            )
        clips = waveforms.detach().cpu()
        counts = None if lengths is None else lengths.cpu()
        return run_by_length(self._logits_of, clips, counts).to(waveforms.device)

    def predict(self, waveforms: Floats) -> Any:
        """The outputs for clips of one length without padding, ``[B, T]`` in [-1, 1] -> ``[B, K]``."""
        raise TypeError(f"{type(self).__name__} does not implement predict")

    def _logits_of(self, clips: Tensor) -> Tensor:
        require_samples(self, clips.shape[1])
        try:
            outputs = np.array(self.predict(clips.numpy().copy()), dtype=np.float32)
        except StaaNetError:
            raise
        except Exception as problem:
            reason = " ".join(str(problem).split())
            raise VictimError(
                f"{self.name} raised {type(problem).__name__}: {printable(reason)[:200]}",
                remedy="Correct the function, or leave the clip out",
            ) from problem
        check_outputs(self, outputs, len(clips))
        if self.probabilities:
            outputs = logits_from_probabilities(self.name, outputs)
        return torch.from_numpy(outputs)


def check_outputs(victim: Victim, outputs: Floats, batch: int) -> None:
    """Raise ``InvalidInput`` where outputs are not finite or not ``[batch, labels]``."""
    expected = (batch, len(victim.labels))
    if outputs.shape != expected:
        raise InvalidInput(
            f"{victim.name} answered {list(outputs.shape)} where {list(expected)} is due: "
            f"{batch} clips, {len(victim.labels)} labels",
            remedy="Give as many labels as it has classes, in its order",
        )
    if not np.isfinite(outputs).all():
        raise InvalidInput(
            f"{victim.name} answered {int((~np.isfinite(outputs)).sum())} non-finite numbers",
            remedy="Correct the model: such an answer names no class",
        )


def logits_from_probabilities(name: str, outputs: Floats) -> Floats:
    """The logarithms of probabilities ``[B, K]``; ``InvalidInput`` where the rows are none."""
    total = outputs.sum(axis=1)
    if outputs.min() < -1e-4 or np.abs(total - 1).max() > 1e-2:
        raise InvalidInput(
            f"{name} was said to answer probabilities, but a row sums to "
            f"{total[np.abs(total - 1).argmax()]:.3g} and the least value is {outputs.min():.3g}",
            remedy="Leave out probabilities where it answers logits",
        )
    logits: Floats = np.log(outputs.clip(1e-30))
    return logits


def sha256_of_files(files: Mapping[str, bytes]) -> str:
    """The sha256 of files by their names and contents."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(name.encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()
