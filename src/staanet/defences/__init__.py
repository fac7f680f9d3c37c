"""Defences: what stands in front of a victim. ``DEFENCES`` names them, ``Defended`` is the victim behind."""

from __future__ import annotations

from typing import Any

from staanet.defences.base import Defence, Defended, straight_through
from staanet.defences.base import parse as _parse
from staanet.defences.transforms import Average, Bandpass, Lowpass, Median, Quantise

__all__ = [
    "Average", "Bandpass", "DEFENCES", "Defence", "Defended", "Lowpass", "Median", "Quantise",
    "parse_defence", "straight_through",
]  # fmt: skip

DEFENCES: dict[str, type[Any]] = {
    "average": Average,
    "bandpass": Bandpass,
    "lowpass": Lowpass,
    "median": Median,
    "quantise": Quantise,
}


def parse_defence(text: str) -> Defence:
    """The defence of ``NAME[:SETTING[,SETTING...]]``; a setting is a number, or ``KEY=NUMBER``.

    Raises ``InvalidInput`` that names what is wrong and what is known.

    >>> parse_defence("median:5"), str(parse_defence("bandpass:300-3400"))
    (Median(width=5), 'bandpass:300,3400')
    >>> parse_defence("medium")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown defence 'medium'. Did you mean 'median'? ...
    """
    return _parse(text, DEFENCES)
