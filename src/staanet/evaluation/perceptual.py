"""How an adversarial clip sounds beside its original, by published models of human hearing.

Every metric gives a number or the reason why there is none: a clip too short, silent or at a rate
that the model does not know, a package that is not installed (extra ``perceptual``). The native
code behind two of them writes beyond its memory outside the lengths it was made for (pesq 0.0.4
above 50 utterances, zimtohrli 0.2.1 below a tenth of a second): such clips never reach it.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Collection, Mapping
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
_DNSMOS_S = 9.01  # what the network hears at a time


@dataclass(frozen=True, slots=True)
class Score:
    """A finite ``value``, or None and the ``reason``, whose details stand in brackets at its end."""

    value: float | None
    reason: str = ""


def panel(
    clean: Samples, adversarial: Samples, rate: int, only: Collection[str] | None = None
) -> dict[str, Score]:
    """Each metric of ``METRICS`` (or ``only`` some) for two 16-bit clips ``[T]`` at ``rate`` Hz; never raises.

    ``pesq_wb`` (1 to 4.64, ITU-T P.862.2), ``stoi`` (0 to 1, Taal et al. 2010), ``zimtohrli_mos``
    (1 to 5, made for differences that are barely heard): each is highest for equal clips.
    ``dnsmos_ovrl`` (1 to 5, Reddy et al. 2022, arXiv 2110.01763) judges the adversarial clip by
    itself, ``dnsmos_change`` takes the original's away: 0 for equal clips. ``masked_excess`` (0 to 1)
    is the share of time-frequency bins in which the change is above the original's masking
    threshold, ``masked_excess_db`` by how much it is so there: 0 and no score for equal clips. These
    two need nothing that is not installed.

    >>> panel(np.zeros(16_000, np.int16), np.ones(16_000, np.int16), 16_000)["stoi"]
    Score(value=None, reason='clean clip: digital silence')
    """
    return {
        name: _score(measure, clean, adversarial, rate)
        for name, measure in METRICS.items()
        if only is None or name in only
    }


def versions() -> dict[str, str | None]:
    """The installed version of each package behind the panel, None where it is absent."""
    return {name: _version(name) for name in PACKAGES}


class _NoScore(Exception):
    """Why this clip has no score."""


def _score(measure: _Measure, clean: Samples, adversarial: Samples, rate: int) -> Score:
    if clean.shape != adversarial.shape:
        return Score(None, f"{len(clean)} samples in one clip, {len(adversarial)} in the other")
    for name, clip in (("clean", clean), ("adversarial", adversarial)):
        if reason := audio.degenerate(clip):
            return Score(None, f"{name} clip: {reason}")
    try:
        value = measure(audio.to_float(clean), audio.to_float(adversarial), rate)
    except _NoScore as problem:
        return Score(None, str(problem))
    except ImportError as problem:
        name = problem.name or str(problem)
        return Score(None, f"{name} is not installed (pip install 'staanet[perceptual]')")
    except Exception as problem:  # a judge that fails on a clip must not end an evaluation
        return Score(None, f"{type(problem).__name__}: {printable(str(problem))[:120]}")
    return Score(value) if math.isfinite(value) else Score(None, f"the result is {value}")


# ---------------------------------------------------------------- the metrics

_Wave = NDArray[np.float32]
_Measure = Callable[[_Wave, _Wave, int], float]


def _pesq(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    from pesq import NoUtterancesError, pesq

    _needs(rate, clean, hz=16_000, shortest_s=0.25, longest_s=20)
    try:
        return float(pesq(rate, clean, adversarial, "wb"))
    except NoUtterancesError:
        raise _NoScore("no speech found in it") from None


def _stoi(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    from pystoi import stoi

    _needs(rate, clean, shortest_s=0.4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            value = stoi(clean.astype(np.float64), adversarial.astype(np.float64), rate)
        except RuntimeWarning:
            raise _NoScore("too short: fewer than 30 frames of speech in it") from None
    return min(1.0, float(value))  # rounding


def _zimtohrli(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    import zimtohrli

    _needs(rate, clean, shortest_s=0.25, longest_s=60)
    judge = zimtohrli.Pyohrli()
    heard = [audio.resample(clip, rate, 48_000) for clip in (clean, adversarial)]
    return float(zimtohrli.mos_from_zimtohrli(judge.distance(*heard)))


def _dnsmos_change(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    return _dnsmos(clean, adversarial, rate) - _dnsmos(clean, clean, rate)


def _dnsmos(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    _needs(rate, adversarial, hz=16_000, shortest_s=0.25, longest_s=60)
    return _dnsmos_overall(adversarial.tobytes())


@lru_cache(maxsize=256)  # each clean clip is judged beside every attack
def _dnsmos_overall(data: bytes, rate: int = 16_000) -> float:
    """As its authors do: windows of 9.01 s, one each second, over a clip repeated until it fills one."""
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

    found = importlib.util.find_spec("speechmos")
    folders = list(found.submodule_search_locations or ()) if found else []
    model = Path(folders[0]) / "dnsmos_models" / "sig_bak_ovr.onnx" if folders else None
    if model is None or not model.is_file():
        raise _NoScore("speechmos is not installed (pip install --no-deps speechmos==0.0.1.1)")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # threads that wait would take the cores from others
    return onnxruntime.InferenceSession(model.read_bytes(), options)


def _masked_excess(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    return _excess(clean.tobytes(), adversarial.tobytes(), rate)[0]


def _masked_excess_db(clean: _Wave, adversarial: _Wave, rate: int) -> float:
    share, excess_db = _excess(clean.tobytes(), adversarial.tobytes(), rate)
    if not share:
        raise _NoScore("nothing of the change is above the masking threshold")
    return excess_db


@lru_cache(maxsize=1)  # both figures of a pair are asked for, one after the other
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


def _needs(
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
