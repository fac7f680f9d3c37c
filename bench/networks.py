"""``python -m bench networks RUN CORPUS``: how strong the networks are that a generator can be.

``paper``, ``compact``, ``narrow`` and ``mirror`` are trained against emo18 of a finished run for as many steps on as
many crops, at the same epsilon and largest density, by three seeds each, and judged on test clips: by
emo18 (white box) and by zhao19 (transfer). Trainings and figures are kept in ``--out``, so that a
stopped command goes on where it was. Scaled down: the published network takes a second a step here.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from bench import sections
from bench.attacking import DENSITY, EPSILON, Bench, Outcome, made_folder, parser
from staanet import metrics, storage
from staanet.attacks import PGD, Random, Staa
from staanet.core import Budget
from staanet.evaluation import machine
from staanet.metrics import Estimate
from staanet.pipeline.recipe import commit
from staanet.warm_start import mirror_of

NETWORKS = ("paper", "compact", "narrow", "mirror")
SOURCE, TARGETS = "emo18", ("emo18", "zhao19")
BUDGET = Budget(epsilon=EPSILON, max_density=DENSITY)


def main(arguments: list[str]) -> None:
    """Train what is missing, judge, and write the section."""
    asks = parser("networks", __doc__, clips=56)
    asks.add_argument("--steps", type=int, default=120, help="of each training (default: 120)")
    asks.add_argument("--batch-size", type=int, default=4, help="crops of 1 s (default: 4)")
    asks.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    chosen = asks.parse_args(arguments)
    with storage.FolderLock(made_folder(chosen.out)):
        bench = Bench.of(chosen.run, chosen.corpus, chosen.out, chosen.clips, chosen.steps, TARGETS)
        outcomes = judged(bench, range(chosen.seeds), chosen.batch_size)
        speakers = {clip.id: clip.speaker for clip in bench.clips}
    about = (
        f"`python -m bench networks RUN {chosen.corpus.partition(':')[0]}:PATH --clips {chosen.clips} "
        f"--steps {chosen.steps} --batch-size {chosen.batch_size} --seeds {chosen.seeds}`, commit "
        f"`{commit()}`, {machine()}. Scaled down: {chosen.steps} steps of {chosen.batch_size} crops of "
        f"1 s; more steps would raise each of them. Trained on {SOURCE}, at most {100 * DENSITY:g} % of "
        f"samples moved by at most {EPSILON}; {len(speakers)} test clips of "
        f"{len(set(speakers.values()))} speakers; the share of clips whose answer changed, over all seeds "
        "with its 95 % interval (clustered by speaker), and by seed."
    )
    body = "\n\n".join(["## Networks", about, table(outcomes, speakers)])
    sections.write("networks", body)


def judged(bench: Bench, seeds: Sequence[int], batch: int) -> dict[str, list[Outcome]]:
    """What each network did to the clips, by seed; beside them what needs no training."""
    source = bench.victims[SOURCE]
    outcomes: dict[str, list[Outcome]] = {}
    for seed in seeds:
        seeded = dataclasses.replace(bench, seed=seed)
        for network in NETWORKS:
            generator = seeded.generator(
                f"{network}_{seed}", [SOURCE], network=network, steps=bench.steps, batch_size=batch,
                evaluate_every=max(1, bench.steps // 2),
            )  # fmt: skip
            attack = Staa(generator=generator, budget=BUDGET)
            found = bench.measure(f"{network}_{seed}", lambda a=attack: a, source)  # type: ignore[misc]
            outcomes.setdefault(network, []).append(found)
    untrained = mirror_of(source, DENSITY).requires_grad_(False).eval()
    attacks = {
        "mirror, untrained": Staa(generator=untrained, budget=BUDGET),
        "PGD, 20 steps": PGD(budget=BUDGET), "random": Random(budget=BUDGET),
    }  # fmt: skip
    for number, (title, attack) in enumerate(attacks.items()):
        found = bench.measure(f"beside_{number}", lambda a=attack: a, source)  # type: ignore[misc]
        outcomes[title] = [found]
    return outcomes


def table(outcomes: Mapping[str, Sequence[Outcome]], speakers: Mapping[str, str]) -> str:
    """A row for each network, Markdown."""
    head = ["attack", *(f"fools {name}" for name in TARGETS), *(f"{name}, by seed" for name in TARGETS),
            "density", "s a clip"]  # fmt: skip
    rows = [head, ["---"] * len(head)]
    for title, seeds in outcomes.items():
        rows.append([
            title, *(str(rate(seeds, target, speakers)) for target in TARGETS),
            *(", ".join(f"{one.fooled(target):.3f}" for one in seeds) for target in TARGETS),
            f"{statistics.fmean(one.mean('density') for one in seeds):.3f}",
            f"{statistics.median(one.seconds for one in seeds):.3f}",
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def rate(seeds: Sequence[Outcome], target: str, speakers: Mapping[str, str]) -> Estimate:
    """Share of clips, over all seeds, that ``target`` answers differently.

    >>> rows = [{"id": i, "before": {"a": 0}, "after": {"a": int(i > "1")}} for i in "1234"]
    >>> rate([Outcome(rows)], "a", dict(zip("1234", "wxyz"))).value
    0.75
    """
    rows = [row for one in seeds for row in one.rows]
    changed = [row["before"][target] != row["after"][target] for row in rows]
    return metrics.rate(changed, [speakers[row["id"]] for row in rows])
