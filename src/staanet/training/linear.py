"""Fits the linear layer of a victim on features, by scikit-learn (extra ``opensmile``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from staanet.core import Clip, Progress, metrics, silent
from staanet.errors import needs_extra
from staanet.training.fit import History
from staanet.victims import Egemaps
from staanet.victims.egemaps import standardise_features

STRENGTHS = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""C of the logistic regressions that are tried: how little they are regularised."""
FOLDS = 10
"""At most so many folds choose among them."""


def fit_linear(
    victim: Egemaps,
    train: Sequence[Clip],
    dev: Sequence[Clip],
    folder: Path,
    *,
    progress: Progress = silent,
) -> History:
    """Fits ``victim`` in place: a logistic regression, as regularised as other speakers like it best.

    Features are standardised by the train clips and clipped at 5 deviations; classes weigh alike. The
    regularisation is that of the best UAR in a cross-validation over the train speakers, where each
    class has two of these, else on dev.

    Args:
        victim: Its layer and standardisation are replaced.
        train: Labelled clips.
        dev: Labelled clips of other speakers.
        folder: Where ``training.csv`` goes, a row for each regularisation.
        progress: Receives a call per clip.

    Returns:
        The rows, and the best of them as its step.
    """
    features = _features(victim, train, progress, "train")
    dev_features = _features(victim, dev, progress, "dev")
    labels = np.array([clip.label for clip in train])
    dev_labels = np.array([clip.label for clip in dev])
    folds = _speaker_folds(labels, np.array([clip.speaker for clip in train]))
    history = History()
    for step, strength in enumerate(STRENGTHS, start=1):
        scaled = _Scaled.fit(features, labels, strength)
        row = {"dev_uar": metrics.uar(dev_labels, scaled.predict(dev_features))}
        if folds:
            guesses = np.empty_like(labels)
            for inside in folds:
                fold = _Scaled.fit(features[inside], labels[inside], strength)
                guesses[~inside] = fold.predict(features[~inside])
            row["cross_uar"] = metrics.uar(labels, guesses)
        score = row.get("cross_uar", row["dev_uar"])
        history.rows.append({"epoch": step, "step": step, "c": strength, **row})
        if score > history.best_score:
            history.best_score, history.best_step = score, step
            scaled.copy_to(victim)
    history.save(folder / "training.csv")
    return history


def _speaker_folds(labels: NDArray[np.str_], speakers: NDArray[np.str_]) -> list[NDArray[np.bool_]]:
    """Which clips each fold learns from: not those of its speakers. None if a class has one speaker."""
    counts = [len(set(speakers[labels == label])) for label in np.unique(labels)]
    if min(counts) < 2:
        return []
    names = np.unique(speakers)
    order = np.searchsorted(names, speakers)
    number = min(FOLDS, len(names))
    return [order % number != fold for fold in range(number)]


def _features(
    victim: Egemaps, clips: Sequence[Clip], progress: Progress, part: str
) -> NDArray[np.float64]:
    rows = []
    for number, clip in enumerate(clips, start=1):
        rows.append(victim.functionals(clip.samples[None])[0])
        progress(f"features of {part}", number, len(clips), "")
    return np.stack(rows)


@dataclass(frozen=True)
class _Scaled:
    """A logistic regression behind a standardisation."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    model: Any

    @classmethod
    def fit(
        cls, features: NDArray[np.float64], labels: NDArray[np.str_], strength: float
    ) -> _Scaled:
        with needs_extra("scikit-learn", "opensmile"):
            from sklearn.linear_model import LogisticRegression
        mean, std = features.mean(axis=0), features.std(axis=0).clip(1e-9)
        model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
        return cls(mean, std, model.fit(standardise_features(features, mean, std), labels))

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.str_]:
        answers: NDArray[np.str_] = self.model.predict(
            standardise_features(features, self.mean, self.std)
        )
        return answers

    def copy_to(self, victim: Egemaps) -> None:
        """The victim's layer answers with the model's scores, in the order of its own labels."""
        weight, bias = self.model.coef_, self.model.intercept_
        if len(weight) == 1:  # of two classes there is one score, that of the second
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        order = [list(self.model.classes_).index(label) for label in victim.labels]
        tensors = (victim.layer.weight, victim.layer.bias, victim.mean, victim.std)
        with torch.no_grad():
            for tensor, values in zip(
                tensors, (weight[order], bias[order], self.mean, self.std), strict=True
            ):
                tensor.copy_(torch.from_numpy(values).to(tensor.device))
