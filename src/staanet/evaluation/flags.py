"""Warnings of a transfer matrix: empty masks, strong controls, defences without adaptive attacks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from staanet.attacks import ATTACKS
from staanet.attacks.crafting import DENSE
from staanet.core import NO_CHANNEL
from staanet.evaluation.controls import changes_far_more

Cell = Mapping[str, Any]


def matrix_flags(cells: Sequence[Cell]) -> list[str]:
    """Returns every warning about ``cells``, each as one sentence."""
    plain = [cell for cell in cells if cell["channel"] == NO_CHANNEL]
    return [
        *_empty_masks(plain),
        *_dense_attacks(plain),
        *_strong_controls(plain),
        *_non_adaptive_defences(cells),
        *_unknown_detectors(cells),
    ]


def _empty_masks(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        if cell["count"] and cell["untouched"] == cell["count"]:
            yield f"{cell['title']} from {cell['source']}: mask empty in every clip: SNR undefined"


def _dense_attacks(cells: Sequence[Cell]) -> Iterator[str]:
    """Sets of attacks that look for few samples and changed most of them."""
    sparse = {
        kind.__name__.lower()
        for kind in ATTACKS.values()
        if getattr(kind, "minimises_samples", False)
    }
    dense = {
        (cell["title"], cell["source"]): cell["mean"]["density"]
        for cell in cells
        if cell.get("algorithm") in sparse and (cell["mean"].get("density") or 0) > DENSE
    }
    for (title, source), density in dense.items():
        yield (
            f"{title} from {source}: dense: it looks for few samples and changed {density:.0%} of them "
            "on average"
        )


def _strong_controls(cells: Sequence[Cell]) -> Iterator[str]:
    """Attacks that fool no more often than a control with the same source and target."""
    controls = [cell for cell in cells if cell["control"]]
    targets: dict[tuple[str, str, str], list[str]] = {}
    for cell, control in itertools.product(cells, controls):
        is_pair = (control["source"], control["target"]) == (cell["source"], cell["target"])
        rate, noise = cell["fooling_rate"]["value"], control["fooling_rate"]["value"]
        if is_pair and not cell["control"] and None not in (rate, noise) and rate <= noise:
            name = "universal vector" if control["algorithm"] == "uap" else "random control"
            if not changes_far_more(control, cell):
                key = (cell["title"], cell["source"], f"the {name}")
                targets.setdefault(key, []).append(cell["target"])
    for (title, source, name), beaten in targets.items():
        yield f"{title} from {source} fools {' and '.join(beaten)} no more often than {name}"


def _non_adaptive_defences(cells: Sequence[Cell]) -> Iterator[str]:
    """Defended targets without an adaptive attack: their figures do not show robustness."""
    for name in dict.fromkeys(cell["target"] for cell in cells if cell["defence"]):
        adaptive = [c for c in cells if c["target"] == name and c["defence"] == "adaptive"]
        if all(cell["control"] for cell in adaptive):
            yield (
                f"{name}: non-adaptive: no attack here knew the defence, so that this says nothing of "
                "an attacker who does"
            )


def _unknown_detectors(cells: Sequence[Cell]) -> Iterator[str]:
    """Targets with a detector: a source's answers do not show an attacker when it abstains."""
    for name in dict.fromkeys(cell["target"] for cell in cells if "abstention" in cell):
        yield (
            f"{name}: non-adaptive: no attack here knew its detector; staanet detect --adaptive-clips makes one "
            "that does"
        )
