"""Labels that are numbers, such as arousal and valence, as the text that a clip carries."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = "dimensions"
"""``Corpus.classes`` of a corpus whose labels are numbers."""
_PART = re.compile(r"(?P<name>[^\s=]+)=(?P<value>[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)")


def dimension_label(values: Mapping[str, float]) -> str:
    """The label of a clip with these values, by name in order.

    >>> dimension_label({"valence": 2.5, "arousal": 3.0})
    'arousal=3 valence=2.5'
    """
    return " ".join(f"{name}={values[name]:.6g}" for name in sorted(values))


def read_dimensions(label: str | None) -> dict[str, float]:
    """The values that a label names; empty for a label of another form.

    >>> read_dimensions("arousal=3 valence=2.5"), read_dimensions("joy")
    ({'arousal': 3.0, 'valence': 2.5}, {})
    """
    parts = [_PART.fullmatch(part) for part in (label or "").split()]
    if not parts or not all(parts):
        return {}
    return {part["name"]: float(part["value"]) for part in parts if part}


def dimension_values(
    labels: Sequence[str | None], dimensions: Sequence[str]
) -> NDArray[np.float64]:
    """The values of each label, ``[N, K]`` in the order of ``dimensions``; NaN where it has none.

    >>> dimension_values(["arousal=3 valence=2.5", "joy"], ["valence", "arousal"])
    array([[2.5, 3. ],
           [nan, nan]])
    """
    rows = [read_dimensions(label) for label in labels]
    values = [[row.get(name, math.nan) for name in dimensions] for row in rows]
    return np.array(values, dtype=np.float64).reshape(len(rows), len(dimensions))
