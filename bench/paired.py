"""``python -m bench paired``: does the paired test keep its level, and its power?

Attacks of equal strength are simulated on test sets of the size of real corpora, with speakers that
differ and with speakers that favour one of the attacks. Then one attack is made stronger by the least
difference that the test states. No audio, no model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bench import sections
from staanet.core.groups import group_rates
from staanet.core.paired import POWER, paired_difference
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine

DESIGNS: dict[str, Sequence[int]] = {
    "EMO-DB, one split": [60, 57],
    "EMO-DB, folds": [49, 58, 43, 38, 55, 35, 61, 69, 56, 71],
    "ASED, folds": [68] * 12,
    "RAVDESS, one split": [60] * 5,
    "RAVDESS, folds": [60] * 24,
    "few and uneven": [5, 20, 60, 5, 20, 60],
}
"""Clips of each test speaker."""
SETTLING = 60
"""Draws in which the least difference is estimated, three times over."""


def main(arguments: list[str]) -> None:
    """Simulate and write the section."""
    parser = argparse.ArgumentParser(
        prog="python -m bench paired",
        description=__doc__,
        epilog="example: python -m bench paired --trials 2000",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=2000, help="of each row (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    chosen = parser.parse_args(arguments)
    rows = []
    for name, sizes in DESIGNS.items():
        rng = np.random.default_rng(chosen.seed)
        alarms, biased = (
            share_shown(lambda: draw(rng, sizes, effect=effect), chosen.trials)  # noqa: B023
            for effect in (0.0, 0.15)
        )
        groups = share_of_group_alarms(rng, sizes, chosen.trials // 4)
        least = settled_least(rng, sizes)
        power = share_shown(lambda: draw(rng, sizes, difference=least), chosen.trials)  # noqa: B023
        rows.append(
            f"| {name} | {len(sizes)} | {sum(sizes)} | {100 * alarms:.1f} % | {100 * biased:.1f} % | "
            f"{100 * least:.0f} | {100 * power:.1f} % | {100 * groups:.1f} % |"
        )
        print(rows[-1], flush=True)
    head = (
        f"## Paired comparison\n\nThe command `python -m bench paired --trials {chosen.trials} --seed {chosen.seed}` "
        f"ran at commit `{commit()}` with {describe_machine()}. The command simulates attacks on the same clips and "
        "compares the attacks at a significance level of 5 %. A false alarm is a significant difference between equal "
        "attacks. The aim is at most 6 %. The least difference is the smallest difference that the test expects to "
        f"find with a power of {100 * POWER:.0f} %. The next column shows the power in the simulation. A least difference of "
        "100 points means that the test finds no difference reliably. The last column shows false alarms for single "
        "groups: a class, sex or speaker was called worse although all groups were equal.\n\n"
        "| test set | speakers | clips | false alarms | false alarms with random speaker effects | least "
        "difference, points | power | false alarms for groups |\n|---|---:|---:|---:|---:|---:|---:|---:|"
    )
    sections.write("paired", "\n".join([head, *rows]))


Outcomes = tuple[NDArray[np.bool_], NDArray[np.bool_], list[str]]


def draw(
    rng: np.random.Generator, sizes: Sequence[int], effect: float = 0.0, difference: float = 0.0
) -> Outcomes:
    """Outcomes of two attacks and the speaker of each clip.

    Every speaker has a rate of its own, and one that differs between the attacks by a draw of standard
    deviation ``effect``. The first attack also fools a share ``difference`` of all clips more.
    """
    speaker = np.repeat(np.arange(len(sizes)), sizes)
    rate = rng.beta(2, 2, len(sizes)) * (1 - difference)
    lean = rng.normal(0, effect, len(sizes)) if effect else np.zeros(len(sizes))
    first, second = (
        rng.random(len(speaker)) < np.clip(rate + side * lean, 0, 1)[speaker] for side in (1, -1)
    )
    more = rng.random(len(speaker)) < difference / max((~first).mean(), 1e-9)
    return first | more, second, [str(index) for index in speaker]


def share_shown(draw_outcomes: Callable[[], Outcomes], trials: int) -> float:
    """How often a difference is shown."""
    return sum(paired_difference(*draw_outcomes()).is_shown for _ in range(trials)) / trials


def settled_least(rng: np.random.Generator, sizes: Sequence[int]) -> float:
    """The least difference that test sets in which it holds do state, by the median."""
    least = 0.0
    for _ in range(3):  # outcomes that differ vary a little less than equal ones
        found = [
            paired_difference(*draw(rng, sizes, difference=least)).least for _ in range(SETTLING)
        ]
        least = float(np.median([value for value in found if value is not None]))
    return least


def share_of_group_alarms(rng: np.random.Generator, sizes: Sequence[int], trials: int) -> float:
    """How often any group is called worse where all clips are fooled alike."""
    speakers = [str(index) for index in np.repeat(np.arange(len(sizes)), sizes)]
    sexes = ["fm"[int(name) % 2] for name in speakers]
    alarms = 0
    for _ in range(trials):
        labels = [str(label) for label in rng.integers(0, 7, len(speakers))]
        hits = rng.random(len(speakers)) < 0.4
        kinds = {"class": labels, "sex": sexes, "speaker": speakers}
        alarms += any(group.is_worse for group in group_rates(hits, kinds, speakers))
    return alarms / trials
