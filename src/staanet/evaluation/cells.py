"""Computes the figures of one cell of a transfer matrix from its rows.

A cell is one attack, crafted on one source, against one target after one channel. A row is one clip.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet.core import metrics
from staanet.core.dimensions import dimension_values
from staanet.core.metrics import Estimate
from staanet.results.adversarial_set import TARGET_CLASS

DISTANCES = ("l0", "density", "linf", "snr_db", "peak_ratio_db")
Row = Mapping[str, Any]


def cell_figures(rows: Sequence[Row], answers: Sequence[str]) -> dict[str, Any]:
    """Returns counts, rates with 95 % intervals, and mean distances of one cell.

    ``answers`` are the labels that the target can give. A clip with another label counts for the
    fooling rate and not for accuracy, UAR or attack success. Of a regression target they are its
    dimensions: the fooling rate is the share of clips that moved by more than its tolerance.
    """
    before = np.array([row["clean_prediction"] for row in rows])
    after = np.array([row["adversarial_prediction"] for row in rows])
    speakers = [row["speaker"] for row in rows]
    is_fooled = metrics.changed(before, after)
    return {
        "count": len(rows),
        "speakers": len(set(speakers)),
        "fooling_rate": asdict(metrics.rate(is_fooled, speakers)),
        **_abstention_rates(rows, is_fooled, speakers),
        **_labelled_figures([row for row in rows if row["label"] in answers]),
        **_targeted_success(rows),
        **_dimension_figures(rows, answers),
        "mean": _mean_distances(rows),
        "mean_fooled": _mean_distances([r for r, hit in zip(rows, is_fooled, strict=True) if hit]),
        "untouched": sum(row["l0"] == 0 for row in rows),
        "seconds_median": float(np.median([row["seconds"] for row in rows])) if rows else None,
        "queries_mean": float(np.mean([row["queries"] for row in rows])) if rows else None,
    }


def _abstention_rates(
    rows: Sequence[Row], is_fooled: NDArray[np.float64], speakers: Sequence[str]
) -> dict[str, Any]:
    """How often a target with a detector abstains, and how often it is fooled and answers."""
    if not rows or "adversarial_abstained" not in rows[0]:
        return {}
    before, after = (
        np.array([row[f"{side}_abstained"] for row in rows]) for side in ("clean", "adversarial")
    )
    outcomes = {
        "clean": before,
        "adversarial": after,
        "fooling_rate_answered": is_fooled.astype(bool) & ~after,
    }
    return {
        "abstention": {
            name: asdict(metrics.rate(hits, speakers)) for name, hits in outcomes.items()
        }
    }


def _labelled_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """Attack success, UAR and accuracy, of clips whose label the target knows."""
    truth, before, after = (
        np.array([row[key] for row in rows], dtype=str)
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    speakers = np.array([row["speaker"] for row in rows], dtype=str)
    is_right = truth == before

    def recall(answers: NDArray[np.str_]) -> Estimate:
        return metrics.jackknife(lambda i: metrics.uar(truth[i], answers[i]), list(speakers))

    success = metrics.rate(after[is_right] != truth[is_right], list(speakers[is_right]))
    return {
        "attack_success_rate": asdict(success),
        "uar_before": asdict(recall(before)),
        "uar_after": asdict(recall(after)),
        "accuracy_before": asdict(metrics.rate(is_right, list(speakers))),
        "accuracy_after": asdict(metrics.rate(truth == after, list(speakers))),
    }


def _targeted_success(rows: Sequence[Row]) -> dict[str, Any]:
    """How often a targeted attack reached its class, over the clips that were not there before."""
    if not any(row.get(TARGET_CLASS) for row in rows):
        return {}
    others = [row for row in rows if row["clean_prediction"] != row[TARGET_CLASS]]
    hits = [row["adversarial_prediction"] == row[TARGET_CLASS] for row in others]
    speakers = [row["speaker"] for row in others]
    return {"targeted_success_rate": asdict(metrics.rate(hits, speakers))}


def _dimension_figures(rows: Sequence[Row], dimensions: Sequence[str]) -> dict[str, Any]:
    """What happens to each number of a regression target: shifts, and how far it is from the truth."""
    rows = [row for row in rows if row.get("clean_values") is not None]
    if not rows:
        return {}
    before, after = (
        np.array([row[f"{side}_values"] for row in rows]) for side in ("clean", "adversarial")
    )
    truth = dimension_values([row["label"] for row in rows], dimensions)
    speakers = np.array([row["speaker"] for row in rows], dtype=str)
    figures = {}
    for index, name in enumerate(dimensions):
        x, y, z = truth[:, index], before[:, index], after[:, index]
        has_label = np.isfinite(x)
        measured = {"mean_absolute_shift": _mean_of(np.abs(z - y), speakers)}
        for side, answers in (("before", y), ("after", z)):
            error = np.abs(answers - x)[has_label]
            measured[f"mae_{side}"] = _mean_of(error, speakers[has_label])
            measured[f"ccc_{side}"] = _ccc(x[has_label], answers[has_label], speakers[has_label])
        figures[name] = {key: asdict(estimate) for key, estimate in measured.items()}
    return {"dimensions": figures}


def _mean_of(values: NDArray[np.float64], speakers: NDArray[np.str_]) -> Estimate:
    return metrics.jackknife(
        lambda i: float(values[i].mean()), list(speakers), bounds=(0.0, math.inf)
    )


def _ccc(
    truth: NDArray[np.float64], answers: NDArray[np.float64], speakers: NDArray[np.str_]
) -> Estimate:
    return metrics.jackknife(
        lambda i: metrics.ccc(truth[i], answers[i]), list(speakers), bounds=(-1.0, 1.0)
    )


def _mean_distances(rows: Sequence[Row]) -> dict[str, float | None]:
    """Mean of each distance over clips; a ratio counts only the clips that were touched."""
    means: dict[str, float | None] = {}
    for name in DISTANCES:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        means[name] = float(np.mean(values)) if values else None
    return means
