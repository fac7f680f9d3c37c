"""Profiles a corpus: level, bandwidth, clipping, rate and length, with outlier clips."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet.audio import levels
from staanet.errors import printable

MEASURES = ("level_db", "peak_db", "bandwidth_hz", "clipped", "sample_rate", "seconds")
EPSILONS = (0.03, 0.01)
"""Of full scale: changes that are related to the level of the speech."""
OUTLIER_MADS = 3.0
"""Scaled median absolute deviations (1.4826 x MAD is one standard deviation of a Gaussian) beyond
which a clip or speaker stands out."""
MIN_DEVIATION = {"level_db": 6.0, "bandwidth_hz": 0.32, "seconds": 1.0}
"""Deviation below which nothing stands out, however alike the others are: a factor of two of the
amplitude, 25 % of the bandwidth, a factor of two of the length (these two in octaves)."""
CLIPPED_SHARE = 0.001
"""Share of clipped samples above which a clip or speaker stands out."""
MIN_GROUP = 5
"""The fewest clips, or speakers, among which outliers are reported."""
NAMED = 5
"""Outliers of a measure that are named; others are counted."""
SPEAKERS_SHOWN = 30
"""Speakers that have a line in the text."""
TITLES = {"level_db": "active level", "bandwidth_hz": "bandwidth", "seconds": "length"}


@dataclass
class Profile:
    """Measurements of each clip, as columns of numbers: some 50 bytes a clip."""

    indices: array[int] = field(default_factory=lambda: array("q"))
    """Which utterance of the corpus each row of the columns is of."""
    speakers: list[str] = field(default_factory=list)
    columns: Mapping[str, array[float]] = field(
        default_factory=lambda: {name: array("d") for name in MEASURES}
    )
    _speaker_codes: dict[str, int] = field(default_factory=dict)
    speaker_of_row: array[int] = field(default_factory=lambda: array("q"))

    def add(
        self, index: int, speaker: str, samples: NDArray[np.floating], sample_rate: int
    ) -> None:
        """Measure a clip ``[T]`` in [-1, 1]; one without sound is left out."""
        level = levels.active_level_db(samples, sample_rate)
        if not math.isfinite(level):
            return
        measures = {
            "level_db": level,
            "peak_db": levels.peak_db(samples),
            "bandwidth_hz": levels.bandwidth_hz(samples, sample_rate),
            "clipped": levels.clipped_share(samples),
            "sample_rate": float(sample_rate),
            "seconds": len(samples) / sample_rate,
        }
        if speaker not in self._speaker_codes:
            self._speaker_codes[speaker] = len(self.speakers)
            self.speakers.append(speaker)
        self.indices.append(index)
        self.speaker_of_row.append(self._speaker_codes[speaker])
        for name, value in measures.items():
            self.columns[name].append(value)

    def column(self, name: str) -> NDArray[np.float64]:
        return np.frombuffer(self.columns[name], np.float64)

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the profile for JSON: of the corpus, of each speaker, and what stands out.

        ``names`` are the ids of the utterances by index.
        """
        if not len(self.indices):
            return {}
        level = float(np.median(self.column("level_db")))
        return {
            "corpus": {
                **{name: _spread(self.column(name)) for name in MEASURES if name != "sample_rate"},
                "sample_rate": _rates(self.column("sample_rate")),
                "clipped_clips": int(np.count_nonzero(self.column("clipped"))),
            },
            "speakers": self._by_speaker(),
            "epsilon_db": epsilons_db(level),
            "outliers": [*self._speaker_outliers(), *self._clip_outliers(names)],
        }

    def _by_speaker(self) -> dict[str, dict[str, float]]:
        """Return the median of each measure for each speaker; of clipping the mean."""
        codes = np.frombuffer(self.speaker_of_row, np.int64)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(self.speakers) + 1))
        rows = {}
        for speaker, start, end in zip(self.speakers, bounds[:-1], bounds[1:], strict=True):
            clips = order[start:end]
            rows[speaker] = {
                name: round(
                    float(
                        np.mean(self.column(name)[clips])
                        if name == "clipped"
                        else np.median(self.column(name)[clips])
                    ),
                    4,
                )
                for name in MEASURES
            }
        return dict(sorted(rows.items()))

    def _speaker_outliers(self) -> list[dict[str, Any]]:
        medians = self._by_speaker()
        values = {name: np.array([row[name] for row in medians.values()]) for name in MEASURES}
        return _outliers("speaker", list(medians), values)

    def _clip_outliers(self, names: Sequence[str]) -> list[dict[str, Any]]:
        values = {name: self.column(name) for name in MEASURES}
        return _outliers("clip", _Names(names, self.indices), values)


@dataclass(frozen=True)
class _Names(Sequence[str]):
    """The ids of the profiled clips."""

    names: Sequence[str]
    indices: array[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: Any) -> Any:
        return self.names[self.indices[row]]


def outlier_rows(values: NDArray[np.float64], least: float) -> tuple[NDArray[np.intp], float]:
    """Return the rows beyond 3 scaled MADs of the median and beyond ``least``, and that bound.

    The farthest comes first. Fewer than five values have no outliers.

    >>> outlier_rows(np.array([0.0, 0.1, -0.1, 0.2, -0.2, 9.0]), least=1.0)[0].tolist()
    [5]
    """
    distance = np.abs(values - np.median(values))
    bound = max(OUTLIER_MADS * 1.4826 * float(np.median(distance)), least)
    rows = np.flatnonzero(distance > bound) if len(values) >= MIN_GROUP else np.zeros(0, np.intp)
    return rows[np.argsort(-distance[rows], kind="stable")], bound


def _outliers(
    kind: str, names: Sequence[str], values: Mapping[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Return what stands out by each measure: how many, and the first by name."""
    entries = []
    for measure, least in MIN_DEVIATION.items():
        column = values[measure]
        scale = column if measure == "level_db" else np.log2(np.maximum(column, 1e-3))
        rows, _ = outlier_rows(scale, least)
        median = float(np.median(column))
        entries.append(_entry(kind, measure, names, column, rows, median))
    clipped = values["clipped"]
    rows = np.flatnonzero(clipped > CLIPPED_SHARE)
    rows = rows[np.argsort(-clipped[rows], kind="stable")]
    entries.append(_entry(kind, "clipped", names, clipped, rows, float(np.median(clipped))))
    rates = values["sample_rate"]
    usual = float(Counter(rates.tolist()).most_common(1)[0][0])
    rows = np.flatnonzero(rates != usual)
    entries.append(_entry(kind, "sample_rate", names, rates, rows, usual))
    return [entry for entry in entries if entry["count"]]


def _entry(
    kind: str,
    measure: str,
    names: Sequence[str],
    column: NDArray[np.float64],
    rows: NDArray[np.intp],
    usual: float,
) -> dict[str, Any]:
    named = {names[int(row)]: round(float(column[row]), 4) for row in rows[:NAMED]}
    return {
        "of": kind,
        "measure": measure,
        "count": len(rows),
        "usual": round(usual, 4),
        "named": named,
    }


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    low, middle, high = np.percentile(values, (5, 50, 95)).tolist()
    figures = {"min": values.min(), "p5": low, "median": middle, "p95": high, "max": values.max()}
    return {name: round(float(value), 4) for name, value in figures.items()}


def _rates(values: NDArray[np.float64]) -> dict[str, int]:
    counts = Counter(int(value) for value in values.tolist())
    return {str(rate): count for rate, count in counts.most_common()}


def loud_epsilon_warning(profile: Mapping[str, Any]) -> list[str]:
    """Return a warning if a usual epsilon is large for the level of this corpus.

    >>> loud_epsilon_warning({"epsilon_db": {"0.03": 6.1, "0.01": -3.4}})
    ["epsilon 0.03 of full scale is louder than the speech itself: give one such as '-20 dB'"]
    """
    loud = [epsilon for epsilon, db in profile.get("epsilon_db", {}).items() if db > 0]
    text = "of full scale is louder than the speech itself: give one such as '-20 dB'"
    return [f"epsilon {min(loud, key=float)} {text}"] if loud else []


# ---------------------------------------------------------------- as text


def profile_lines(profile: Mapping[str, Any]) -> list[str]:
    """Return the lines of ``Profile.to_dict`` for a terminal."""
    if not profile:
        return []
    corpus = profile["corpus"]
    level, peak, band = corpus["level_db"], corpus["peak_db"], corpus["bandwidth_hz"]
    lines = [
        f"level     {level['median']:.1f} dB active, {level['p5']:.1f} to {level['p95']:.1f} for 90 % "
        f"of the clips; peak {peak['median']:.1f} dB, at most {peak['max']:.1f}",
        f"epsilon   {_epsilon_text(profile['epsilon_db'])} the active level",
        f"bandwidth {band['median']:.0f} Hz, {band['p5']:.0f} to {band['p95']:.0f} for 90 % of the clips",
        f"clipping  in {corpus['clipped_clips']} clips, at most {100 * corpus['clipped']['max']:.2f} % "
        "of the samples",
    ]
    lines += _speaker_lines(profile["speakers"])
    return lines + [f"outlier   {_outlier_text(entry)}" for entry in profile["outliers"]]


def _speaker_lines(speakers: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a line for each of the first speakers: medians of level and peak, and epsilon there."""
    lines = [
        f"speaker   {printable(name)}: level {figures['level_db']:.1f} dB, peak "
        f"{figures['peak_db']:.1f} dB; epsilon {_epsilon_text(epsilons_db(figures['level_db']))}"
        for name, figures in sorted(speakers.items())[:SPEAKERS_SHOWN]
    ]
    more = len(speakers) - len(lines)
    return lines + [f"speaker   and {more} more (--json has all)"] * bool(more)


def epsilons_db(level_db: float) -> dict[str, float]:
    """Return usual epsilons of full scale in dB relative to a level.

    >>> epsilons_db(-26.0)
    {'0.03': -4.5, '0.01': -14.0}
    """
    return {str(epsilon): round(20 * math.log10(epsilon) - level_db, 1) for epsilon in EPSILONS}


def _epsilon_text(epsilons: Mapping[str, float]) -> str:
    """Return usual epsilons of full scale relative to a level.

    >>> _epsilon_text({"0.03": -4.5, "0.1": 6.0})
    '0.03 is 4.5 dB below, 0.1 is 6.0 dB above'
    """
    return ", ".join(
        f"{epsilon} is {abs(db):.1f} dB {'below' if db < 0 else 'above'}"
        for epsilon, db in epsilons.items()
    )


def _outlier_text(entry: Mapping[str, Any]) -> str:
    """Return an entry of the outliers as a sentence.

    >>> _outlier_text({"of": "speaker", "measure": "level_db", "count": 1, "usual": -27.0, "named": {"12": -41.0}})
    'active level of 1 speaker: 12 -41.0 dB; usual is -27.0 dB'
    """
    measure, count = entry["measure"], entry["count"]
    named = ", ".join(
        f"{printable(name)} {_figure(measure, value)}" for name, value in entry["named"].items()
    )
    more = f" and {count - len(entry['named'])} more" if count > len(entry["named"]) else ""
    of = f"{count} {entry['of']}{'s' * (count > 1)}"
    title = TITLES.get(measure, measure.replace("_", " "))
    return f"{title} of {of}: {named}{more}; usual is {_figure(measure, entry['usual'])}"


def _figure(measure: str, value: float) -> str:
    if measure == "clipped":
        return f"{100 * value:.2f} %"
    form, unit = {"level_db": (".1f", "dB"), "seconds": (".2f", "s")}.get(measure, (".0f", "Hz"))
    return f"{value:{form}} {unit}"
