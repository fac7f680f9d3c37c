"""Runs an exported generator with numpy and onnxruntime, without torch.

``Runner(file)(waveform)`` returns the adversarial clip on the 16-bit grid, within epsilon and the largest
density, as the attack ``staa`` makes it. The file that ``staanet export GENERATOR`` wrote holds the
network and the choice of samples; ``Budget.project`` rounds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.config.epsilon import Epsilon
from staanet.core.budget import Budget
from staanet.errors import InvalidInput, printable

FORMAT = 3
"""Version of the card in the file's metadata; any other is refused."""
KEY = "staanet"
"""Key of the card in the file's metadata."""
INPUTS = ("waveform", "limit", "count")
"""Inputs of the file: the clip ``[1, T]``, the largest change ``[1, 1]``, the number of samples."""
REMEDY = "Write it again: staanet export GENERATOR --out FILE.onnx"


class Runner:
    """An exported generator, for clips of any length from ``minimum_samples`` on.

    Args:
        path: The file, or its bytes.
        epsilon: Largest change of a sample, of full scale or such as ``"-20 dB"`` (see ``Budget``); None: the generator's own.
        max_density: Largest share of samples that change; None: the generator's own.
        threads: Threads of onnxruntime.

    Raises:
        InvalidInput: The file is no such export, or a limit is out of range.
    """

    def __init__(
        self,
        path: Path | str | bytes,
        *,
        epsilon: Epsilon | None = None,
        max_density: float | None = None,
        threads: int = 1,
    ) -> None:
        where = "bytes" if isinstance(path, bytes) else str(path)
        self.session = _session(path, threads, where)
        self.card = _card(self.session, where)
        self.sample_rate = int(self.card["sample_rate"])
        self.minimum_samples = int(self.card["minimum_samples"])
        self.budget = Budget(
            epsilon=self.card["epsilon"] if epsilon is None else epsilon,
            max_density=self.card["max_density"] if max_density is None else max_density,
        )

    def __call__(
        self, waveform: NDArray[np.int16] | NDArray[np.floating[Any]]
    ) -> NDArray[np.int16]:
        """Returns the adversarial version ``[T]`` of a clip ``[T]`` at ``sample_rate`` Hz.

        Integers are taken as they are, floats in [-1, 1] as the nearest 16-bit integers. Raises
        ``InvalidInput`` for anything but one mono clip of at least ``minimum_samples``.
        """
        clean: NDArray[np.int16] = (
            waveform.astype(np.int16, copy=False)
            if waveform.dtype == np.int16
            else audio.snap(waveform.astype(np.float64))
        )
        if clean.ndim != 1 or len(clean) < self.minimum_samples:
            raise InvalidInput(
                f"the clip has shape {list(clean.shape)}, but the model needs one mono clip of at "
                f"least {self.minimum_samples} samples",
                remedy="Mix it down to mono, or give a longer clip",
            )
        count = self._count(len(clean))
        if not count:
            return clean.copy()
        largest = self.budget.for_clip(clean, self.sample_rate).epsilon_lsb
        limit = np.full((1, 1), largest / audio.FULL_SCALE, np.float32)
        inputs = audio.to_float(clean)[None], limit, np.asarray(count, np.int64)
        (x_adv,) = self.session.run(None, dict(zip(INPUTS, inputs, strict=True)))
        return self.budget.project(clean, x_adv[0], self.sample_rate)

    def _count(self, length: int) -> int:
        """How many samples may move: where no share is given, a ranking has its own density."""
        density = self.card["density"]
        if density is not None and self.budget.max_density is None:
            return max(1, int(density * length))
        return self.budget.max_samples(length)


def _session(path: Path | str | bytes, threads: int, where: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InvalidInput(
            "the package onnxruntime is not installed", remedy="Install it: pip install onnxruntime"
        ) from error
    if not isinstance(path, bytes) and not Path(path).is_file():
        raise InvalidInput("no such file", where=where, remedy=REMEDY)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    try:
        return onnxruntime.InferenceSession(
            path if isinstance(path, bytes) else str(path),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception as error:  # of many kinds, all of which say that it is no model
        raise InvalidInput(
            f"is not a model that onnxruntime can load ({printable(str(error))[:200]})",
            where=where,
            remedy=REMEDY,
        ) from error


def _card(session: Any, where: str) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    card = json.loads(text) if text else {}
    if card.get("format") != FORMAT:
        raise InvalidInput(
            f"is no generator of format {FORMAT} (it says {card.get('format', 'nothing')})",
            where=where,
            remedy=REMEDY,
        )
    return dict(card)
