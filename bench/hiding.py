"""``python -m bench hiding``: does an attack that hides where people do not hear still fool?

PGD and the random control on a few test clips of a finished run, with and without ``hide`` and
``burst``, beside PGD at smaller epsilons, which is the plain way to be heard less. Every figure is
computed from the files read back. A stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import sections
from staanet import load_corpus, load_victim, pipeline, storage
from staanet.config import AttackRecipe
from staanet.core import stratified_subset
from staanet.evaluation import perceptual, transfer_matrix
from staanet.pipeline.run_card import commit
from staanet.results.adversarial_set import AdversarialSet
from staanet.storage import describe_machine

EPSILON, DENSITY = 0.03, 0.2
JUDGES = ("masked_excess", "masked_excess_db", "zimtohrli_mos")
ATTACKS: Mapping[str, tuple[str, float, Mapping[str, int | float | bool]]] = {
    "pgd": ("pgd", EPSILON, {}),
    "pgd, hide 0.5": ("pgd", EPSILON, {"masking_power": 0.5}),
    "pgd, hide 1": ("pgd", EPSILON, {"masking_power": 1.0}),
    "pgd, bursts of 16": ("pgd", EPSILON, {"run_length": 16}),
    "pgd, bursts of 16, hide 1": ("pgd", EPSILON, {"run_length": 16, "masking_power": 1.0}),
    "random": ("random", EPSILON, {}),
    "random, hide 1": ("random", EPSILON, {"masking_power": 1.0}),
    "pgd, a third of epsilon": ("pgd", EPSILON / 3, {}),
    "pgd, hide 1, three times epsilon": ("pgd", 3 * EPSILON, {"masking_power": 1.0}),
    "pgd, bursts of 16, hide 1, three times epsilon": (
        "pgd",
        3 * EPSILON,
        {"run_length": 16, "masking_power": 1.0},
    ),
    "pgd, bursts of 128, hide 1, three times epsilon": (
        "pgd",
        3 * EPSILON,
        {"run_length": 128, "masking_power": 1.0},
    ),
}


def main(arguments: list[str]) -> None:
    """Attack, measure and write the section."""
    parser = argparse.ArgumentParser(
        prog="python -m bench hiding",
        description=__doc__,
        epilog="example: python -m bench hiding emodb:PATH --victim runs/emodb/victims/emo18",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", help="KIND:PATH")
    parser.add_argument("--victim", required=True, help="a victim folder, crafted on and attacked")
    parser.add_argument("--clips", type=int, default=12, help="test clips (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/hiding"), help="folder of the audio")
    chosen = parser.parse_args(arguments)
    victim = load_victim(chosen.victim)
    _, _, test = load_corpus(chosen.corpus).split(seed=chosen.seed)
    clips = stratified_subset(pipeline.load_clips(test, victim, pipeline.Context()), chosen.clips)
    rows = []
    for title, (attack, epsilon, settings) in ATTACKS.items():
        recipe = AttackRecipe(
            attack=attack,
            title=title,
            epsilon=epsilon,
            max_density=DENSITY,
            settings=dict(settings),
        )
        folder = chosen.out / title.replace(", ", "__").replace(" ", "_")
        plan = pipeline.plan_attack(title, recipe, victim, context=pipeline.Context())
        pipeline.attack(
            plan,
            clips,
            folder,
            context=pipeline.Context(quarantine=pipeline.Quarantine(), progress=told),
        )
        made = AdversarialSet.load(folder)
        fooled = transfer_matrix([made], [victim]).summary["cells"][0]["fooling_rate"]["value"]
        rows.append(row(title, epsilon, float(fooled), made))
        print(rows[-1], flush=True)
    card = storage.read_card(Path(chosen.victim), "victim")
    made_by = (
        f"The command `python -m bench hiding {chosen.corpus.partition(':')[0]}:PATH --victim victims/{victim.name} "
        f"--clips {chosen.clips} --seed {chosen.seed}` ran at commit `{commit()}` with {describe_machine()}. The victim is "
        f"`{victim.name}` (test UAR {card['test_uar']:.3f}, weights `{card['sha256'][:12]}`)"
    )
    sections.write("hiding", section(rows, made_by, len(clips)))


def row(title: str, epsilon: float, fooled: float, made: AdversarialSet) -> str:
    """A line of the table: means over the clips."""
    measured = [one.measurements() for one in made]
    heard = [
        perceptual.panel(one.clean.pcm16, one.adversarial, one.clean.sample_rate, JUDGES)
        for one in made
    ]
    share, excess_db, zimtohrli = (
        mean(value for scores in heard if (value := scores[judge].value) is not None)
        for judge in JUDGES
    )
    return (
        f"| {title} | {epsilon:g} | {100 * fooled:.0f} % | {mean(m['density'] for m in measured):.3f} "
        f"| {mean(m['snr_db'] for m in measured):.1f} | {share:.3f} | {excess_db:.1f} "
        f"| {zimtohrli:.2f} |"
    )


def mean(values: Iterable[float]) -> float:
    """Over the clips that have a value: an untouched one has no SNR; NaN where none has."""
    found = [value for value in values if math.isfinite(value)]
    return statistics.fmean(found) if found else math.nan


def section(rows: list[str], made_by: str, count: int) -> str:
    """The section, with what made it."""
    return "\n".join(
        [
            "## Attacks below the masking threshold",
            "",
            f"{made_by}. The attacks are white box on {count} test clips, with at most "
            f"{100 * DENSITY:.0f} % of the samples. PGD has 20 steps. The cells are means over the clips. A "
            "time-frequency bin is audible if the change is above the masking threshold of the clean clip. "
            "Zimtohrli (1 to 5, 5 is inaudible) is another model of hearing. No attack optimises it.",
            "",
            "| attack | epsilon | fooled | density | SNR dB | share of audible bins | dB above the threshold in audible bins | Zimtohrli |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def told(what: str, done: int, total: int, figures: str = "") -> None:
    """Progress on the error stream."""
    print(
        f"\r{what}: {done} of {total} {figures}", end="" if done < total else "\n", file=sys.stderr
    )
