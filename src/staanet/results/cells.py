"""Typed cells of a transfer matrix, and the clips behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from staanet.core import NO_CHANNEL, Budget
from staanet.core.metrics import Estimate
from staanet.core.paired import Difference

Key = tuple[str, str]
"""The attack and the source that name an adversarial set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """How far adversarial audio is from clean audio; None where a distance is not defined."""

    l0: float | None
    density: float | None
    linf: float | None
    snr_db: float | None
    peak_ratio_db: float | None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Distances:
        """Reads the distances of a row or a cell; missing ones are None."""
        return cls(**{name: finite_number(row.get(name)) for name in DISTANCES})


DISTANCES = tuple(item.name for item in fields(Distances))


@dataclass(frozen=True, slots=True, kw_only=True)
class AboveControl:
    """How much more often an attack fools than noise of its size, paired by clip."""

    control: str
    """The name of the noise."""
    difference: Difference

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> AboveControl:
        """Reads the entry of a cell of ``summary.json``."""
        value, low, high, p, least = (
            finite_number(raw.get(name)) for name in ("value", "low", "high", "p", "least")
        )
        count, clusters = int(raw["count"]), int(raw["clusters"])
        difference = Difference(value, low, high, p, least, count, clusters)
        return cls(control=str(raw["control"]), difference=difference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One attack, crafted on ``source``, against one ``target``: rates over its clips."""

    attack: str
    title: str
    source: str
    target: str
    white_box: bool
    control: bool
    budget: Budget | None
    count: int
    fooling_rate: Estimate
    attack_success_rate: Estimate
    uar_before: Estimate
    uar_after: Estimate
    accuracy_before: Estimate
    accuracy_after: Estimate
    mean: Distances
    mean_fooled: Distances
    untouched: int
    seconds: float | None
    """Median time to make one clip."""
    queries: float | None = None
    """Mean number of the source's answers that one clip took."""
    channel: str = NO_CHANNEL
    """What both clips passed through on their way to the target."""
    defence: str = ""
    """The attack's knowledge of the target's defence: ``static`` (nothing) or ``adaptive``."""
    matched: str | None = None
    """The set whose number of samples this attack changed, clip by clip."""
    above_control: AboveControl | None = None
    """None for a control, and where no noise of comparable size was evaluated."""
    trainings: tuple[float, ...] = ()
    """The fooling rate of each training of its generator, where there were several."""

    dimensions: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    """Of a regression target: the figures of each of its numbers, by name."""

    @property
    def key(self) -> Key:
        """Attack and source."""
        return self.attack, self.source

    @property
    def mark(self) -> str:
        """The remark beside the attack in a table: ``control`` or nothing."""
        return "control" if self.control else ""

    @property
    def access(self) -> str:
        """The remark beside the rate in a table: ``white box`` where the attack knew the target."""
        return "white box" if self.white_box and not self.control else ""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Cell:
        """Reads a cell of ``summary.json``.

        Raises ``KeyError``, ``TypeError`` or ``ValueError`` where it is not what staanet writes.
        """
        return cls(
            attack=str(raw["attack"]),
            title=str(raw["title"]),
            source=str(raw["source"]),
            target=str(raw["target"]),
            white_box=bool(raw["white_box"]),
            control=bool(raw["control"]),
            budget=read_budget(raw["budget"]),
            count=int(raw["count"]),
            fooling_rate=read_estimate(raw["fooling_rate"]),
            attack_success_rate=read_estimate(raw["attack_success_rate"]),
            uar_before=read_estimate(raw["uar_before"]),
            uar_after=read_estimate(raw["uar_after"]),
            accuracy_before=read_estimate(raw["accuracy_before"]),
            accuracy_after=read_estimate(raw["accuracy_after"]),
            mean=Distances.from_row(raw["mean"]),
            mean_fooled=Distances.from_row(raw.get("mean_fooled") or {}),
            untouched=int(raw["untouched"]),
            seconds=finite_number(raw.get("seconds_median")),
            queries=finite_number(raw.get("queries_mean")),
            channel=str(raw.get("channel", NO_CHANNEL)),
            defence=str(raw.get("defence", "")),
            matched=None if raw.get("matched") is None else str(raw["matched"]),
            trainings=tuple(float(rate) for rate in raw.get("trainings") or () if rate is not None),
            above_control=AboveControl.from_dict(raw["above_control"])
            if raw.get("above_control")
            else None,
            dimensions={
                str(name): {str(key): read_estimate(value) for key, value in figures.items()}
                for name, figures in (raw.get("dimensions") or {}).items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipResult:
    """One clip of one cell."""

    attack: str
    source: str
    target: str
    id: str
    label: str
    speaker: str
    clean_prediction: str
    adversarial_prediction: str
    distances: Distances
    channel: str = NO_CHANNEL
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Perceptual scores, where they were measured."""

    @property
    def key(self) -> Key:
        """Attack and source."""
        return self.attack, self.source

    @property
    def fooled(self) -> bool:
        """Whether the answer changed, whatever the label."""
        return self.clean_prediction != self.adversarial_prediction


def finite_number(value: object) -> float | None:
    """Returns a finite number; None for absent, undefined or unbounded values (an untouched clip).

    >>> finite_number("1.5"), finite_number(""), finite_number(float("inf"))
    (1.5, None, None)
    """
    if value is None or value == "":
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def read_estimate(raw: Mapping[str, Any]) -> Estimate:
    """Reads a rate with its interval, as ``summary.json`` holds it."""
    value, low, high = (finite_number(raw.get(part)) for part in ("value", "low", "high"))
    return Estimate(value, low, high, int(raw["count"]), int(raw["clusters"]))


def read_budget(raw: Mapping[str, Any] | None) -> Budget | None:
    """Reads the budget of a card; keys that this version does not know are left out."""
    if not raw:
        return None
    names = {item.name for item in fields(Budget)}
    return Budget(**{key: value for key, value in raw.items() if key in names})
