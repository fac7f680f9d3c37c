"""The facts of an audit, written by hand."""

from __future__ import annotations

from typing import Any


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
