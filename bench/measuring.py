"""Measuring alternatives by turns, and writing what was found."""

from __future__ import annotations

import statistics
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from staanet import audio, storage
from staanet.core import Clip

LABELS = ("anger", "boredom", "disgust", "fear", "joy", "neutral", "sadness")
RATE = 16_000
Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    batch: int
    factor: int
    square: int
    many: int
    steps: int
    large: int = 256
    """A batch that fills a GPU."""


FULL = Size(rounds=9, seconds=6.0, batch=16, factor=100, square=2048, many=100, steps=10)
QUICK = Size(rounds=2, seconds=1.0, batch=2, factor=5, square=512, many=4, steps=2, large=8)


# ---------------------------------------------------------------- measuring


def paired(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round; the order turns, and a first round is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun = time.perf_counter()
            works[name]()
            if turn >= 0:
                taken[name].append(time.perf_counter() - begun)
    return taken


def ratio(above: list[float], below: list[float]) -> str:
    """Median and range of the rounds' own ratios."""
    own = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(own):.1f} ({min(own):.1f} to {max(own):.1f})"


def spread(values: list[float], scale: float = 1000.0, digits: int = 1) -> str:
    """Median and range, in milliseconds unless scaled otherwise."""
    low, middle, high = (
        f"{scale * v:.{digits}f}" for v in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def clips(number: int, seconds: float) -> list[Clip]:
    """Noise, each clip its own."""
    rng = np.random.default_rng(0)
    length = round(seconds * RATE)
    return [
        Clip(
            f"c{i}", audio.snap(0.1 * rng.standard_normal(length)), RATE, LABELS[i % 7], f"s{i % 5}"
        )
        for i in range(number)
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Rows as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_noise(path: Path, seconds: float, rate: int = RATE) -> None:
    """Writes a file of noise, block by block; another for each of its last three names."""
    rng, count = (
        np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode())),
        round(seconds * rate),
    )
    with storage.FileWriter(path) as file:
        file.write(audio.wav_header(count, rate))
        for start in range(0, count, rate):
            block = audio.snap(0.1 * rng.standard_normal(min(rate, count - start)))
            file.write(block.astype("<i2").tobytes())
