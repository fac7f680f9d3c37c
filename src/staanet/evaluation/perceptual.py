"""Perceptual quality of adversarial clips by published metrics of hearing.

Each metric gives a number, or the reason why there is none: the clip is too short, silent or at a
rate that the model does not know, or a package is not installed (extra ``perceptual``). The native
code behind two metrics writes beyond its memory outside the lengths it was made for: pesq 0.0.4
above 50 utterances, zimtohrli 0.2.1 below a tenth of a second. Such clips never reach that code.
"""

from __future__ import annotations

import importlib.util
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.audio import psychoacoustics
from staanet.core import Samples
from staanet.errors import printable

PACKAGES = ("pesq", "pystoi", "zimtohrli", "speechmos", "onnxruntime")
_DNSMOS_S = 9.01  # length of the network's input
MISSING = "perceptual_missing"
"""Column of a row of results: which metrics have no score, and why."""


@dataclass(frozen=True, slots=True)
class Score:
    """A finite ``value``, or None and a ``reason``, which ends in details in brackets."""

    value: float | None
    reason: str = ""


def panel(
    clean: Samples, adversarial: Samples, rate: int, only: Collection[str] | None = None
) -> dict[str, Score]:
    """Returns the score of each metric for a pair of 16-bit clips ``[T]``; it never raises.

    ``pesq_wb`` (1 to 4.64, ITU-T P.862.2), ``stoi`` (0 to 1, Taal et al. 2010) and ``zimtohrli_mos``
    (1 to 5, made for differences that are barely audible) are highest for equal clips.
    ``dnsmos_ovrl`` (1 to 5, Reddy et al. 2022, arXiv 2110.01763) judges the adversarial clip alone;
    ``dnsmos_change`` subtracts the original's score, and is 0 for equal clips. ``masked_excess`` (0 to
    1) is the share of time-frequency bins where the change exceeds the original's masking threshold.
    ``masked_excess_db`` is by how much it does so there. For equal clips these two are 0 and no score.
    They need no extra package.

    Args:
        clean: The original.
        adversarial: The clip that is judged, of the same length.
        rate: Sampling rate of both, in Hz.
        only: Names of ``METRICS``; None for all.

    >>> panel(np.zeros(16_000, np.int16), np.ones(16_000, np.int16), 16_000)["stoi"]
    Score(value=None, reason='clean clip: digital silence')
    """
    return {
        name: _score(measure, clean, adversarial, rate)
        for name, measure in METRICS.items()
        if only is None or name in only
    }


def versions() -> dict[str, str | None]:
    """Returns the installed version of each package behind the panel, None where it is absent."""
    return {name: _version(name) for name in PACKAGES}


def score_columns(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Returns a column per metric, None where there is no value, and one column with the reasons."""
    missing = [f"{name}: {score.reason}" for name, score in scores.items() if score.value is None]
    return {name: score.value for name, score in scores.items()} | {MISSING: "; ".join(missing)}


def scores_of_rows(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[dict[str, Score]]:
    """Returns what ``score_columns`` wrote into ``rows``, for the metrics ``names``."""
    separator = re.compile(rf"; (?=(?:{'|'.join(map(re.escape, names))}): )")
    scores = []
    for row in rows:
        missing = separator.split(row[MISSING]) if row[MISSING] else []
        reasons = dict(text.split(": ", 1) for text in missing)
        scores.append({name: Score(row[name], reasons.get(name, "")) for name in names})
    return scores


def summarise_scores(scores: Sequence[Mapping[str, Score]]) -> dict[str, Any]:
    """Returns the mean of each metric over the clips that have it, and why others do not."""
    summary = {}
    for name in scores[0] if scores else ():
        column = [clip[name] for clip in scores]
        values = [score.value for score in column if score.value is not None]
        reasons = Counter(s.reason.partition(" (")[0] for s in column if s.value is None)
        summary[name] = {
            "value": float(np.mean(values)) if values else None,
            "count": len(values),
            "of": len(scores),
            "missing": dict(reasons),
        }
    return summary


class _NoScore(Exception):
    """Why this clip has no score."""


def _score(measure: _Measure, clean: Samples, adversarial: Samples, rate: int) -> Score:
    if clean.shape != adversarial.shape:
        return Score(None, f"{len(clean)} samples in one clip, {len(adversarial)} in the other")
    for name, clip in (("clean", clean), ("adversarial", adversarial)):
        if reason := audio.degeneracy(clip):
            return Score(None, f"{name} clip: {reason}")
    try:
        value = measure(audio.to_float(clean), audio.to_float(adversarial), rate)
    except _NoScore as problem:
        return Score(None, str(problem))
    except ImportError as problem:
        name = problem.name or str(problem)
        return Score(None, f"{name} is not installed (pip install 'staanet[perceptual]')")
    except Exception as problem:  # a metric that fails on a clip must not end an evaluation
        return Score(None, f"{type(problem).__name__}: {printable(str(problem))[:120]}")
    return Score(value) if math.isfinite(value) else Score(None, f"the result is {value}")


# ---------------------------------------------------------------- the metrics

_Wave = NDArray[np.float32]
_Measure = Callable[[_Wave, _Wave, int], float]


def _pesq(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    from pesq import NoUtterancesError, pesq

    _require_length(rate, clean, hz=16_000, shortest_s=0.25, longest_s=20)
    try:
        return float(pesq(rate, clean, adversarial, "wb"))
    except NoUtterancesError:
        raise _NoScore("no speech found in it") from None


def _stoi(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    from pystoi import stoi

    _require_length(rate, clean, shortest_s=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            value = stoi(clean.astype(np.float64), adversarial.astype(np.float64), rate)
        except RuntimeWarning:
            raise _NoScore("too short: fewer than 30 frames of speech in it") from None
    return min(1.0, float(value))  # rounding


def _zimtohrli(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    import zimtohrli

    _require_length(rate, clean, shortest_s=0.25, longest_s=60)
    model = zimtohrli.Pyohrli()
    pair = [audio.resample(clip, rate, 48_000) for clip in (clean, adversarial)]
    return float(zimtohrli.mos_from_zimtohrli(model.distance(*pair)))


def _dnsmos_change(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    return _dnsmos(clean, adversarial, rate) - _dnsmos(clean, clean, rate)


def _dnsmos(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    _require_length(rate, adversarial, hz=16_000, shortest_s=0.25, longest_s=60)
    return _dnsmos_overall(adversarial.tobytes())


@lru_cache(maxsize=256)  # each clean clip meets every attack
def _dnsmos_overall(data: bytes, rate: int = 16_000) -> float:
    """Windows of 9.01 s, a new one each second, over a clip repeated until it fills one; as published."""
    session, length = _dnsmos_session(), int(_DNSMOS_S * rate)
    clip = np.frombuffer(data, dtype=np.float32)
    while len(clip) < length:
        clip = np.append(clip, clip)
    starts = range(0, rate * (int(len(clip) // rate - _DNSMOS_S) + 1), rate)
    windows = [clip[start : start + length] for start in starts]
    raw = [session.run(None, {"input_1": w[None]})[0][0][2] for w in windows if len(w) == length]
    return float(np.mean(np.polyval([-0.06766283, 1.11546468, 0.04602535], raw)))


@lru_cache(maxsize=1)
def _dnsmos_session() -> Any:
    """The network in the ``speechmos`` wheel, whose own code needs librosa."""
    import onnxruntime

    spec = importlib.util.find_spec("speechmos")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    model = Path(folders[0]) / "dnsmos_models" / "sig_bak_ovr.onnx" if folders else None
    if model is None or not model.is_file():
        raise _NoScore("speechmos is not installed (pip install --no-deps speechmos==0.0.1.1)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # waiting threads would take the cores from others
    return onnxruntime.InferenceSession(model.read_bytes(), options)


def _masked_excess(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    return _excess(clean.tobytes(), adversarial.tobytes(), rate)[0]


def _masked_excess_db(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    share, excess_db = _excess(clean.tobytes(), adversarial.tobytes(), rate)
    if not share:
        raise _NoScore("nothing of the change is above the masking threshold")
    return excess_db


@lru_cache(maxsize=1)  # both figures of a pair come from one computation
def _excess(clean: bytes, adversarial: bytes, rate: int) -> tuple[float, float]:
    import torch

    pair = np.frombuffer(clean + adversarial, dtype=np.float32).reshape(2, 1, -1).copy()
    before, after = torch.from_numpy(pair)
    share, excess_db = psychoacoustics.masked_excess(before, after, None, rate)
    return float(share), float(excess_db)


METRICS: Mapping[str, _Measure] = {
    "pesq_wb": _pesq,
    "stoi": _stoi,
    "zimtohrli_mos": _zimtohrli,
    "dnsmos_ovrl": _dnsmos,
    "dnsmos_change": _dnsmos_change,
    "masked_excess": _masked_excess,
    "masked_excess_db": _masked_excess_db,
}


def _require_length(
    rate: int, clip: _Wave, *, hz: int | None = None, shortest_s: float, longest_s: float = math.inf
) -> None:
    seconds = len(clip) / rate
    if hz is not None and rate != hz:
        raise _NoScore(f"wrong rate: {rate} Hz, not {hz} Hz")
    if seconds < shortest_s:
        raise _NoScore(f"too short: under {shortest_s:g} s ({seconds:.3f} s)")
    if seconds > longest_s:
        raise _NoScore(f"too long: over {longest_s:g} s ({seconds:.1f} s)")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
