"""A generator without torch: numpy and onnxruntime run what ``staanet export GENERATOR`` wrote.

``Runner(file)(waveform)`` gives the adversarial clip on the 16-bit grid, within epsilon and the largest
density, chosen as the attack ``staa`` chooses. The network's two heads are computed by onnxruntime;
what turns them into samples is here, in the order of ``staanet.generators.base``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.errors import InvalidInput, printable

FORMAT = 2
"""Of what ``KEY`` of the file's metadata says; another one is refused."""
KEY = "staanet"
REMEDY = "Write it again: staanet export GENERATOR --out FILE.onnx"

Float = NDArray[np.float32]


class Runner:
    """An exported generator (a file, or its bytes) for clips of any length from ``minimum_samples`` on.

    ``epsilon`` and ``max_density`` are the generator's own unless given. Raises ``InvalidInput`` where
    the file is not such an export.
    """

    def __init__(
        self,
        path: Path | str | bytes,
        *,
        epsilon: float | None = None,
        max_density: float | None = None,
        threads: int = 1,
    ) -> None:
        where = "bytes" if isinstance(path, bytes) else str(path)
        self.session = _session(path, threads, where)
        self.card = _card(self.session, where)
        self.sample_rate = int(self.card["sample_rate"])
        self.minimum_samples = int(self.card["minimum_samples"])
        own = self.card["epsilon"], self.card["max_density"]
        self.epsilon = float(own[0] if epsilon is None else epsilon)
        self.max_density = own[1] if max_density is None else max_density
        if not 0 < self.epsilon <= 2:
            raise InvalidInput(f"epsilon is {self.epsilon}", remedy="Give a value in (0, 2]")
        if self.max_density is not None and not 0 < self.max_density <= 1:
            raise InvalidInput(
                f"max_density is {self.max_density}", remedy="Give a value in (0, 1]"
            )

    def __call__(
        self, waveform: NDArray[np.int16] | NDArray[np.floating[Any]]
    ) -> NDArray[np.int16]:
        """The adversarial twin ``[T]`` of a clip ``[T]`` at ``sample_rate`` Hz.

        Integers are taken as they are, floats in [-1, 1] as the nearest 16-bit integers.
        """
        clean: NDArray[np.int16] = (
            waveform.astype(np.int16, copy=False)
            if waveform.dtype == np.int16
            else audio.snap(waveform.astype(np.float64))
        )
        if clean.ndim != 1 or len(clean) < self.minimum_samples:
            raise InvalidInput(
                f"a clip of shape {list(clean.shape)}; one of at least {self.minimum_samples} "
                f"samples is needed",
                remedy="Give one mono clip, at least so long",
            )
        x = audio.to_float(clean)
        steps = math.floor(self.epsilon * audio.FULL_SCALE)
        step = np.float32(steps / audio.FULL_SCALE)
        magnitude, position = self.propose(x, step)
        delta = step * magnitude
        moved = np.clip(x + delta * self._chosen(position), -1, 1).astype(np.float64)
        change = np.clip(np.rint(moved * audio.FULL_SCALE) - clean, -steps, steps)
        kept = np.clip(clean + change, -audio.FULL_SCALE, audio.FULL_SCALE - 1)
        adversarial: NDArray[np.int16] = kept.astype(np.int16)
        return adversarial

    def propose(self, x: Float, step: np.float32) -> tuple[Float, Float]:
        """Magnitude in (-1, 1) and position in (0, 1) of each sample, ``[T] -> [T], [T]``; later iterations
        of a mirror see the clip moved by at most ``step``."""
        if self.card["architecture"] != "backward_net":
            magnitude, position = self.session.run(None, {"waveforms": x[None]})
            return self._squashed(magnitude[0], position[0])
        own, lowest, best = 0, 0.0, None  # the class of the clip, and what left it furthest behind
        magnitude, position, heard = np.zeros_like(x), np.zeros_like(x), x
        for look in range(int(self.card["iterations"])):
            if look:
                change, place = self._proposed(magnitude, position)
                heard = np.clip(x + step * change * self._chosen(place), -1, 1)
            given = {"own": np.full(1, own), "known": np.full(1, look, np.float32)}
            more, place, answers = self.session.run(None, {"waveforms": heard[None], **given})
            if not look:
                own = int(answers[0].argmax())
            elif (margin := answers[0][own] - np.delete(answers[0], own).max()) < lowest:
                lowest, best = margin, (magnitude, position)
            magnitude, position = magnitude + unit_rms(more[0]), position + place[0]
        return self._proposed(*(best or (magnitude, position)))

    def _proposed(self, magnitude: Float, position: Float) -> tuple[Float, Float]:
        """As ``Generator.propose`` of a mirror."""
        magnitude = unit_rms(magnitude)
        return self._squashed(magnitude, np.abs(magnitude) + position)

    def _squashed(self, magnitude: Float, position: Float) -> tuple[Float, Float]:
        """As ``Generator.propose``."""
        if self.card["gain"] is not None:
            magnitude = np.float32(self.card["gain"]) * unit_rms(magnitude)
        if self.card["density"] is not None:
            ranked = unit_rms(position)
            kept = max(1, int(self.card["density"] * len(ranked)))
            position = 2 * (ranked - np.partition(ranked, -kept)[-kept])
        wanted: Float = (np.tanh(position) + np.float32(1)) / np.float32(2)
        return np.tanh(magnitude), wanted

    def _chosen(self, position: Float) -> NDArray[np.bool_]:
        """As ``staanet.generators.base.chosen``: the best-ranked samples that the budget allows; without
        a budget, or of a published network, those of position at least 1/2 alone."""
        ranks = self.card["density"] is not None and self.max_density is not None
        chosen = np.full(len(position), True) if ranks else position >= 0.5
        share = 1.0 if self.max_density is None else float(self.max_density)
        most = math.floor(share * len(position))
        if int(chosen.sum()) > most:
            chosen = np.zeros(len(position), dtype=bool)
            chosen[np.argpartition(position, -most)[-most:] if most else []] = True
        return chosen


def unit_rms(values: Float) -> Float:
    """``[T]`` scaled to a root mean square of 1.

    >>> unit_rms(np.float32([3.0, -3.0]))
    array([ 1., -1.], dtype=float32)
    """
    mean = np.mean(np.square(values), dtype=np.float32)
    scaled: Float = values / np.sqrt(mean + np.float32(1e-12))
    return scaled


def _session(path: Path | str | bytes, threads: int, where: str) -> Any:
    try:
        import onnxruntime
    except ImportError as problem:
        raise InvalidInput(
            "the package onnxruntime is not installed", remedy="Install it: pip install onnxruntime"
        ) from problem
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
    except Exception as problem:  # of many kinds, all of which say that it is no model
        raise InvalidInput(
            f"is not a model that onnxruntime can load ({printable(str(problem))[:200]})",
            where=where,
            remedy=REMEDY,
        ) from problem


def _card(session: Any, where: str) -> dict[str, Any]:
    told = session.get_modelmeta().custom_metadata_map.get(KEY)
    card = json.loads(told) if told else {}
    if card.get("format") != FORMAT:
        raise InvalidInput(
            f"is no generator of format {FORMAT} (it says {card.get('format', 'nothing')})",
            where=where,
            remedy=REMEDY,
        )
    return dict(card)
