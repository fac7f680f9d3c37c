"""Defences: what stands in front of a victim. ``DEFENCES`` names them, ``Defended`` is the victim behind."""

from __future__ import annotations

from typing import Any

from staanet.defences.base import Defence, Defended, chain_of, straight_through
from staanet.defences.base import parse as _parse
from staanet.defences.repair import Repair
from staanet.defences.transforms import (
    Average,
    Bandpass,
    Filter,
    Gain,
    Gsm,
    Lowpass,
    Median,
    Mp3,
    MuLaw,
    Noise,
    Opus,
    Quantise,
    Resample,
)
from staanet.errors import InvalidInput

__all__ = [
    "Average",
    "Bandpass",
    "DEFENCES",
    "Defence",
    "Defended",
    "Filter",
    "Gain",
    "Gsm",
    "Lowpass",
    "Median",
    "Mp3",
    "MuLaw",
    "Noise",
    "Opus",
    "Quantise",
    "Repair",
    "Resample",
    "chain_of",
    "parse_defence",
    "straight_through",
]

DEFENCES: dict[str, type[Any]] = {
    "average": Average,
    "bandpass": Bandpass,
    "gain": Gain,
    "gsm": Gsm,
    "lowpass": Lowpass,
    "median": Median,
    "mp3": Mp3,
    "mulaw": MuLaw,
    "noise": Noise,
    "opus": Opus,
    "quantise": Quantise,
    "repair": Repair,
    "resample": Resample,
}
ELSEWHERE = {
    "adversarial": "staanet harden CORPUS --victim FOLDER --out FOLDER",
    "detector": "staanet detect CORPUS --victim FOLDER --out FOLDER",
}
"""Defences that are no transformation of the input, by the command that makes a victim with one."""


def parse_defence(text: str) -> Defence:
    """The defence of ``NAME[:SETTING[,SETTING...]]``; a setting is a number, or ``KEY=NUMBER``.

    Raises ``InvalidInput`` that names what is wrong and what is known.

    >>> parse_defence("median:5"), str(parse_defence("bandpass:300-3400"))
    (Median(width=5), 'bandpass:300,3400')
    >>> parse_defence("medium")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown defence 'medium'. Did you mean 'median'? ...
    """
    name = text.partition(":")[0]
    if name in ELSEWHERE:
        raise InvalidInput(
            f"'{name}' is no transformation of the input: it comes of training or of dev clips",
            remedy=f"Run {ELSEWHERE[name]}; its folder is a victim, which staanet defend takes too",
        )
    return _parse(text, DEFENCES)
