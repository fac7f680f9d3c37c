"""Formats numbers, rates and budgets for tables and sentences.

A value that is not defined is ``None`` as input and ``n/a`` as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from staanet import audio
from staanet.config import epsilon_text, relative_db
from staanet.core import Budget
from staanet.core.metrics import Estimate

NONE = "n/a"
"""Text of a value that is not defined."""


def percent(value: float | None) -> str:
    """Returns a share in [0, 1] in per cent.

    >>> percent(0.8517), percent(None)
    ('85.2 %', 'n/a')
    """
    return NONE if value is None else f"{100 * value:.1f} %"


def non_breaking_units(sentence: str) -> str:
    """Returns a sentence with non-breaking spaces between numbers and their units.

    >>> non_breaking_units("58.3 % of 12 at 32 dB").count("\N{NO-BREAK SPACE}")
    2
    """
    return re.sub(r"(?<=\d) (?=(?:%|dB|Hz|s)(?!\w))", "\N{NO-BREAK SPACE}", sentence)


def rate(estimate: Estimate, of: int) -> str:
    """Returns a rate in per cent; ``of`` is the number of all clips, shown where no clip counts.

    >>> rate(Estimate(None, None, None, 0, 0), 107)
    'n/a (0 of 107)'
    """
    return percent(estimate.value) if estimate.value is not None else f"{NONE} (0 of {of})"


def interval(estimate: Estimate) -> str:
    """Returns the 95 % interval in per cent, or the reason why there is none.

    >>> interval(Estimate(0.5, 0.25, 0.75, 8, 4)), interval(Estimate(0.5, None, None, 8, 1))
    ('25.0 to 75.0 %', 'no interval: 1 speaker')
    """
    if estimate.value is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"no interval: {quantity(estimate.clusters, 'speaker')}"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f} %"


def number(value: float | None, digits: int, unit: str = "") -> str:
    """Returns ``value`` with ``digits`` decimals and its unit.

    >>> number(12345.6, 0), number(17.25, 1, "dB"), number(None, 1, "dB")
    ('12,346', '17.2 dB', 'n/a')
    """
    if value is None:
        return NONE
    return f"{value:,.{digits}f} {unit}".rstrip().replace("-", "\N{MINUS SIGN}")


def seconds(value: float | None) -> str:
    """Returns a duration; below 100 s with two significant digits.

    >>> seconds(0.01234), seconds(1.92), seconds(754.0)
    ('0.012 s', '1.9 s', '12 min 34 s')
    """
    if value is None:
        return NONE
    if value < 100:
        return f"{float(f'{value:.2g}'):.10g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def quantity(count: int, noun: str) -> str:
    """Returns a count and its noun, in the plural where needed.

    >>> quantity(1, "clip"), quantity(1200, "clip")
    ('1 clip', '1,200 clips')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def join_words(items: Sequence[str]) -> str:
    """Returns items joined by commas, and by "and" before the last.

    >>> join_words(["a"]), join_words(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def first_items(items: Sequence[str], limit: int) -> str:
    """Returns at most ``limit`` items joined by commas, and the number of the others.

    >>> first_items(["a", "b", "c"], 2), first_items(["a", "b"], 2)
    ('a, b and 1 more', 'a, b')
    """
    more = f" and {len(items) - limit:,} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def level_text(level_db: float) -> str:
    """Returns a level relative to the speech in words.

    >>> level_text(-20), level_text(3), level_text(-math.inf)
    ('20 dB below the speech', '3 dB above the speech', 'silent')
    """
    if not math.isfinite(level_db):
        return "silent"
    side = "below" if level_db < 0 else "above"
    return f"{abs(level_db):.0f} dB {side} the speech"


def describe_budget(budget: Budget | None) -> str:
    """Returns the limits of a budget, in words and numbers.

    >>> describe_budget(Budget(epsilon="-20 dB"))
    'at most 20 dB below the speech on any sample'
    >>> describe_budget(Budget(epsilon=0.03, max_density=0.2))
    'at most 0.03 of full scale (983 of 32,768 steps) on at most 20 % of the samples'
    """
    if budget is None:
        return "an unrecorded amount"
    if (db := relative_db(budget.epsilon)) is not None:
        size = f"at most {level_text(db)}"
    else:
        steps = f"{budget.epsilon_lsb:,} of {audio.FULL_SCALE:,} steps"
        size = f"at most {epsilon_text(budget.epsilon)} of full scale ({steps})"
    limits = []
    if budget.max_density is not None:
        limits.append(f"at most {100 * budget.max_density:g} % of the samples")
    if budget.max_l0 is not None:
        limits.append(f"at most {quantity(budget.max_l0, 'sample')} a clip")
    level = f", at {budget.min_snr_db:g} dB SNR or more" if budget.min_snr_db is not None else ""
    return f"{size} on {join_words(limits) or 'any sample'}{level}"
