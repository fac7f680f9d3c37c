"""Epsilon, the largest change of a sample: a share of full scale, or decibels relative to the speech.

``0.03`` is a share of full scale, the same for each clip. ``"-20 dB"`` lies 20 dB below the active
speech level of each clip; ``Budget`` says how that is measured.
"""

from __future__ import annotations

import math
import re

from staanet.errors import InvalidInput, printable

Epsilon = float | str
ONE_STEP = 2.0**-15
"""The smallest change that a 16-bit sample can have, of full scale 1."""
LOWEST_DB, HIGHEST_DB = -100.0, 20.0
"""Range of a relative epsilon."""
_RELATIVE = re.compile(r"\s*([+-]?\d{1,4}(?:\.\d{1,6})?)\s*dB\s*", re.IGNORECASE)
_REMEDY = "Give a share of full scale in (0, {largest:g}], or a level relative to the speech, such as '-20 dB'"


def check_epsilon(value: object, *, least: float = ONE_STEP, largest: float = 1.0) -> Epsilon:
    """Returns an epsilon in its canonical form; raises ``InvalidInput`` for anything else.

    >>> check_epsilon(0.03), check_epsilon("-20dB")
    (0.03, '-20 dB')
    """
    remedy = _REMEDY.format(largest=largest)
    if isinstance(value, str):
        match = _RELATIVE.fullmatch(value)
        if match is None or not LOWEST_DB <= float(match[1]) <= HIGHEST_DB:
            text = f"epsilon is '{printable(value)[:80]}'"
            between = f", between {LOWEST_DB:g} and {HIGHEST_DB:g} dB" if match else ""
            raise InvalidInput(text, remedy=remedy + between)
        return f"{float(match[1]):g} dB"
    if isinstance(value, bool) or not isinstance(value, float | int) or not 0 < value <= largest:
        raise InvalidInput(f"epsilon is {printable(repr(value))[:80]}", remedy=remedy)
    if value < least:
        raise InvalidInput(
            f"epsilon {value:g} is below one 16-bit step ({least:.3g}), so that no sample could change",
            remedy=f"Give at least {least:.7f}",
        )
    return float(value)


def read_epsilon(text: str) -> Epsilon:
    """Parses the epsilon of a command line, without checking its range.

    >>> read_epsilon("0.03"), read_epsilon("-20 dB")
    (0.03, '-20 dB')
    """
    try:
        return float(text)
    except ValueError:
        return text


def relative_db(epsilon: Epsilon) -> float | None:
    """Returns the decibels of a relative epsilon, None of a share of full scale.

    >>> relative_db("-20 dB"), relative_db(0.03)
    (-20.0, None)
    """
    return float(epsilon.removesuffix(" dB")) if isinstance(epsilon, str) else None


def epsilon_text(epsilon: Epsilon) -> str:
    """Returns an epsilon as tables show it.

    >>> epsilon_text(0.03), epsilon_text("-20 dB")
    ('0.03', '-20 dB')
    """
    return epsilon if isinstance(epsilon, str) else f"{epsilon:g}"


def epsilon_order(epsilon: Epsilon) -> tuple[bool, float]:
    """Returns a key that sorts epsilons by size: shares of full scale first, then decibels.

    >>> sorted(["-20 dB", 0.03, "-30 dB", 0.01], key=epsilon_order)
    [0.01, 0.03, '-30 dB', '-20 dB']
    """
    db = relative_db(epsilon)
    return db is not None, float(epsilon) if db is None else db


def scale_epsilon(epsilon: Epsilon, factor: float) -> Epsilon:
    """Returns ``factor`` times an epsilon; a relative one stays within ``LOWEST_DB`` and ``HIGHEST_DB``.

    >>> scale_epsilon(0.03, 0.5), scale_epsilon("-20 dB", 0.1)
    (0.015, '-40 dB')
    """
    db = relative_db(epsilon)
    if db is None:
        return factor * float(epsilon)
    return f"{min(max(db + 20 * math.log10(factor), LOWEST_DB), HIGHEST_DB):.6g} dB"
