"""The level of a perturbation relative to the speech of a clip, and how audible it is."""

from __future__ import annotations

LOWEST_DB, HIGHEST_DB, DEFAULT_DB = -60, 10, -20
"""Range and start of the page's slider."""
MARKS = {-50: "nobody hears it", -30: "heard in a quiet room", 5: "louder than the speech"}
"""Words at marks of the slider; they hold for a change of up to a fifth of the samples."""
