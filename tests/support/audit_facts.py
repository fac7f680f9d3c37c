"""The facts of an audit, written by hand."""

from __future__ import annotations

from typing import Any

from staanet.config import AuditRecipe
from staanet.results.run_folder import RunFolder

SMALL_AUDIT = AuditRecipe(
    epsilons=(0.02,),
    densities=(1.0,),
    clips=2,
    query_clips=1,
    queries=2,
    surrogates=("logmel_cnn",),
    surrogate_steps=1,
    generator_steps=1,
    batch_size=2,
    seconds=0.2,
    channels=(),
    defences=("median:3",),
    defended_clips=2,
    everyday=False,
)
"""The least that an audit can be: one attack budget, two clips, trainings of one step."""


def row(rate: float, **more: Any) -> dict[str, Any]:
    """One cell of an audit."""
    return {
        "attack": "a",
        "title": "t|<b>",
        "source": "s",
        "channel": "pcm16",
        "control": False,
        "white_box": False,
        "epsilon": 0.01,
        "max_density": 0.1,
        "fooling_rate": rate,
        "low": None,
        "high": None,
        "count": 9,
        "supported": rate,
        "snr_db": None,
        "queries": 0.0,
        **more,
    }


def audit_facts(worst: float, noise: float, adaptive: float, limit: float | None) -> dict[str, Any]:
    """An audit with one attack, its control, one channel and one defence."""
    return {
        "worst": row(worst),
        "fail_above": limit,
        "uar": {"value": 0.7},
        "victim": {"name": "<img onerror=x>"},
        "corpus": {"name": "c", "clips": 9, "of": 20, "speakers": 2},
        "attackers": {"noise": row(noise, control=True), "transfer": row(worst)},
        "budgets": [
            {"epsilon": 0.01, "max_density": 0.1, "noise": row(noise), "worst": row(worst)}
        ],
        "channels": [row(0.1, channel="mp3")],
        "cells": [row(worst)],
        "flags": [],
        "machine": "m",
        "commands": ["staanet audit"],
        "defences": [
            {
                "defence": "median:3",
                "static": row(0.05),
                "adaptive": row(adaptive),
                "uar": 0.6,
                "crafted_on": "s",
                "exact_gradient": True,
            }
        ],
    }


def sure(facts: dict[str, Any], width: float = 0.05) -> dict[str, Any]:
    """Every rate gets an interval of this width to each side."""
    rows = [*facts["attackers"].values(), facts["worst"], *facts["cells"]]
    for row in rows:
        row["low"], row["high"] = row["fooling_rate"] - width, row["fooling_rate"] + width
    return facts


def facts_of_run(run: RunFolder, target: str = "emo18") -> dict[str, Any]:
    """The audit that the attacks of a run amount to, all of them crafted on ``target`` itself."""
    rows = []
    for cell in run.cells:
        if cell.target == target and cell.source == target:
            rate, budget = cell.fooling_rate, cell.budget
            assert rate.value is not None and budget is not None
            rows.append(
                row(
                    rate.value,
                    attack=cell.attack,
                    title=cell.title,
                    source=cell.source,
                    control=cell.control,
                    white_box=cell.white_box,
                    attacker="noise" if cell.control else "white_box",
                    epsilon=budget.epsilon,
                    max_density=budget.max_density or 1.0,
                    low=rate.low,
                    high=rate.high,
                    count=rate.count,
                    snr_db=cell.mean.snr_db,
                )
            )
    attacks = [r for r in rows if not r["control"] and r["max_density"] < 1]
    worst = max(attacks, key=lambda r: float(r["fooling_rate"]))
    noise = next(r for r in rows if r["control"])
    facts = audit_facts(0.5, 0.1, 0.4, None)
    budget_row = {
        "epsilon": worst["epsilon"],
        "max_density": worst["max_density"],
        "noise": noise,
        "worst": worst,
    }
    return facts | {
        "victim": {"name": target},
        "worst": worst,
        "attackers": {"noise": noise, "white_box": worst},
        "budgets": [budget_row],
        "cells": rows,
    }
