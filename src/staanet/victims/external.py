"""What external classifiers share: copying into a folder, and black boxes without gradient.

A black box can be attacked without gradients and judged as a target. It raises an error where a gradient
is needed, because a silent zero would read as robustness.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from staanet.victims.code_hash import is_library_file
from staanet.victims.model_card import check_outputs, logits_from_probabilities

_PACKAGE = Path(__file__).parents[1]
_POINTER = b"version https://git-lfs"
Floats = NDArray[np.float32]


class External(Victim):
    """A victim whose weights, if we can see any, are kept elsewhere."""

    architecture = "external"

    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures has to know, as sentences without the name before them."""
        return self.remarks

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
                **({"tolerance": list(self.tolerance)} if self.tolerance else {}),
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
        with user_errors(self.name):
            answer = self.predict(clips.numpy().copy())
            if np.iscomplexobj(answer):
                raise TypeError("it answered complex numbers")
            outputs = torch.from_numpy(np.array(answer, dtype=np.float32))
        check_outputs(self.name, self.labels, outputs, len(clips))
        return logits_from_probabilities(self.name, outputs) if self.probabilities else outputs


@contextmanager
def user_errors(name: str) -> Iterator[None]:
    """Turns an exception in a model's code into a ``VictimError`` that names file, line and function."""
    try:
        yield
    except (StaaNetError, MemoryError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as problem:
        raise VictimError(
            f"{name} raised {describe_exception(problem)}",
            remedy="Correct the model, or leave the clip out",
        ) from problem


def describe_exception(problem: BaseException) -> str:
    """An exception's type, text and place in the user's code, in one line.

    >>> describe_exception(ValueError("too loud"))
    'ValueError: too loud'
    """
    text = str(problem)
    if isinstance(problem, torch.jit.Error):  # a traceback, whose last line is the message
        text = text.strip().rpartition("\n")[2]
    text = printable(" ".join(text.split()))[:200]
    frames = traceback.extract_tb(problem.__traceback__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path.is_file() and not is_library_file(frame.filename) and _PACKAGE not in path.parents:
            return f"{type(problem).__name__}: {text} ({path.name}:{frame.lineno}, in {frame.name})"
    return f"{type(problem).__name__}: {text}"


def refuse_pointers(*paths: Path) -> None:
    """Raises ``InvalidInput`` where a file of a model is a pointer of git-lfs, and not the model."""
    for path in paths:
        if path.is_file():
            with path.open("rb") as stream:
                is_pointer = stream.read(len(_POINTER)) == _POINTER
            if is_pointer:
                raise InvalidInput(
                    "is a git-lfs pointer, not the model",
                    where=path,
                    remedy="Fetch it: git lfs pull",
                )


def sha256_of_files(files: Mapping[str, bytes]) -> str:
    """The sha256 of files by their names and contents."""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(name.encode() + hashlib.sha256(data).digest())
    return digest.hexdigest()
