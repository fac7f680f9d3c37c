"""Clips as the report shows them: picture, sounds, and the answers of the victims."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from staanet import audio
from staanet.core import Progress, Samples
from staanet.report.clip_pictures import triptych_picture, waveform_picture
from staanet.report.example_clips import ExampleClip, choose_clips
from staanet.report.headlines import Headline
from staanet.report.verify import measure
from staanet.results import formatting
from staanet.results.cells import ClipResult, Distances
from staanet.results.run_folder import RunFolder

EXCERPT_S = 8.0
"""Of longer clips the report shows and plays this many seconds from their start."""
AMPLIFIED_PEAK = 0.5
"""Peak of the amplified perturbation, on a full scale of 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipView:
    """A clip ready to be shown: its picture, its sounds, the victims' answers."""

    example: ExampleClip
    clean: Samples
    adversarial: Samples
    sample_rate: int
    whole_seconds: float
    distances: Distances
    png: bytes
    narrow_png: bytes
    """The picture for a phone."""
    answers: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    """Probabilities before and after, by target."""


def clip_views(run: RunFolder, lead: Headline, number: int, progress: Progress) -> list[ClipView]:
    """Chooses clips of the headline's set and draws them; see ``choose_clips``."""
    examples = choose_clips(run, lead, number)
    ids = [example.id for example in examples]
    answers = run.probabilities(lead.cell.key, ids) if ids else {}
    views = []
    for count, example in enumerate(examples, start=1):
        pair = run.sets[lead.cell.key].pair(example.id)
        rate, end = pair.clean.sample_rate, round(EXCERPT_S * pair.clean.sample_rate)
        clean, adversarial = pair.clean.pcm16[:end], pair.adversarial[:end]
        views.append(
            ClipView(
                example=example,
                clean=clean,
                adversarial=adversarial,
                sample_rate=rate,
                whole_seconds=len(pair.adversarial) / rate,
                distances=measure(pair.clean.pcm16, pair.adversarial),
                png=triptych_picture(clean, adversarial, rate),
                narrow_png=waveform_picture(clean, adversarial, rate, narrow=True),
                answers={
                    target: both for (name, target), both in answers.items() if name == example.id
                },
            )
        )
        progress("draw clips", count, len(examples), "")
    return views


def clip_context(run: RunFolder, view: ClipView, number: int) -> dict[str, Any]:
    """Returns the values that the page's template needs to show a clip."""
    example, length = view.example, len(view.clean) / view.sample_rate
    alt = (
        f"Original, adversarial clip and perturbation of {example.id}, waveform above log-mel "
        f"spectrogram; {formatting.number(view.distances.l0, 0)} samples changed, SNR "
        f"{formatting.number(view.distances.snr_db, 1, 'dB')}. The lower part shows ten "
        "milliseconds, sample by sample."
    )
    delta = view.adversarial.astype(np.int32) - view.clean
    gain_db, amplified = amplify(delta)
    sounds = {
        "original": view.clean,
        "adversarial": view.adversarial,
        "perturbation": _int16(delta),
        f"perturbation, amplified by {gain_db} dB": amplified,
    }
    return {
        "number": number,
        "example": example,
        "fooled": formatting.join_words([row.target for row in example.rows if row.fooled]),
        "seconds": f"{view.whole_seconds:.1f} s",
        "excerpt": f"first {length:.0f} s" if length < view.whole_seconds else "",
        "distances": view.distances,
        "image": data_uri("image/png", view.png),
        "narrow": data_uri("image/png", view.narrow_png),
        "alt": alt,
        "gain_db": gain_db,
        "sounds": [
            (label, data_uri("audio/flac", audio.encode(samples, view.sample_rate, "FLAC")))
            for label, samples in sounds.items()
        ],
        "answers": [_answer(run, row, view) for row in example.rows if row.target in view.answers],
    }


def _answer(run: RunFolder, row: ClipResult, view: ClipView) -> dict[str, Any]:
    before, after = view.answers[row.target]
    labels = run.labels.get(row.target, ())
    return {
        "target": row.target,
        "row": row,
        "bars": [
            {"label": label, "before": 100 * p, "after": 100 * q}
            for label, p, q in zip(labels, before, after, strict=False)
        ],
    }


def amplify(delta: np.ndarray[Any, np.dtype[np.int32]]) -> tuple[int, Samples]:
    """Raises a perturbation ``[T]`` by whole dB to a peak of at most ``AMPLIFIED_PEAK``.

    Returns the gain in dB and the 16-bit samples.

    >>> amplify(np.array([0, 983, -100]))
    (24, array([    0, 15580, -1585], dtype=int16))
    """
    peak = int(np.abs(delta).max(initial=0))
    if peak == 0:
        return 0, _int16(delta)
    gain_db = max(0, math.floor(20 * math.log10(AMPLIFIED_PEAK * audio.FULL_SCALE / peak)))
    return gain_db, _int16(delta * 10 ** (gain_db / 20))


def _int16(samples: np.ndarray[Any, Any]) -> Samples:
    limits = np.iinfo(np.int16)
    rounded: Samples = np.clip(np.rint(samples), limits.min, limits.max).astype(np.int16)
    return rounded


def data_uri(kind: str, data: bytes) -> Markup:
    """Returns bytes as an address that a page can hold.

    >>> str(data_uri("image/png", b"abc"))
    'data:image/png;base64,YWJj'
    """
    return Markup(f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}")
