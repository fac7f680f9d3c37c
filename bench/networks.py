"""``python -m bench networks RUN CORPUS``: how strong the networks are that a generator can be.

``paper`` (with our objective and with the published one), ``compact``, ``narrow`` and ``backward_net`` are trained
against emo18 of a finished run for as many steps on as many crops, at the same epsilon and largest
density, by three seeds each, and judged on test clips: by emo18 (white box) and by zhao19 (transfer).
Trainings and figures are kept in ``--out``, so that a stopped command goes on where it was. Scaled down
on a CPU, where the published network takes a second a step.

Several processes can share the work: each has one seed with ``--only SEED`` (and some networks with ``--titles``), or what needs no training with
``--only untrained``, and an ``--out`` of its own. Their ``generators`` and ``cells``, copied into one folder,
are what the command without ``--only`` reads.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench import sections
from bench.attacking import DENSITY, EPSILON, Bench, Outcome, made_folder, on, parser, word
from staanet import storage
from staanet.attacks import PGD, Random, Staa
from staanet.core import Budget, metrics
from staanet.core.metrics import Estimate
from staanet.generators.warm_start import backward_net_from
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine

NETWORKS: dict[str, dict[str, Any]] = {
    "paper": {"network": "paper"},
    "paper, published objective": {"network": "paper", "objective": "paper", "sparsity": 1.0},
    "compact": {"network": "compact"},
    "narrow": {"network": "narrow"},
    "backward_net": {"network": "backward_net"},
}
"""Title -> what is trained. The published objective has its defects mended and its own weight of sparsity."""
UNTRAINED = "untrained"
SOURCE, TARGETS = "emo18", ("emo18", "zhao19")
BUDGET = Budget(epsilon=EPSILON, max_density=DENSITY)


def main(arguments: list[str]) -> None:
    """Train what is missing, judge, and write the section."""
    asks = parser("networks", __doc__, clips=56)
    asks.add_argument("--steps", type=int, default=120, help="of each training (default: 120)")
    asks.add_argument("--batch-size", type=int, default=4, help="crops of a step (default: 4)")
    asks.add_argument("--seconds", type=float, default=1.0, help="of a crop (default: 1)")
    asks.add_argument("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    asks.add_argument(
        "--only",
        type=part,
        metavar="SEED",
        help=f"this seed, or {UNTRAINED}: print, write no section",
    )
    asks.add_argument(
        "--titles",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        metavar="TITLE",
        help=f"with --only, some of: {', '.join(NETWORKS)}",
    )
    chosen = asks.parse_args(arguments)
    crops = {"batch_size": chosen.batch_size, "seconds": chosen.seconds}
    with storage.FolderLock(made_folder(chosen.out)):
        bench = Bench.of(
            chosen.run,
            chosen.corpus,
            chosen.out,
            chosen.clips,
            chosen.steps,
            TARGETS,
            chosen.device,
        )
        outcomes: dict[str, list[Outcome]] = {}
        if chosen.only != UNTRAINED:
            seeds = range(chosen.seeds) if chosen.only is None else [chosen.only]
            titles = list(NETWORKS) if chosen.only is None else chosen.titles
            outcomes |= judged(bench, seeds, crops, titles)
        if chosen.only in (None, UNTRAINED):
            outcomes |= untrained(bench)
        speakers = {clip.id: clip.speaker for clip in bench.clips}
    if chosen.only is not None:
        print(table(outcomes, speakers))
        return
    sizes = f"{chosen.steps} steps of {chosen.batch_size} crops of {chosen.seconds:g} s"
    scaled = f"The training is short: {sizes}. More steps would raise each rate."
    about = (
        f"The command `python -m bench networks RUN {chosen.corpus.partition(':')[0]}:PATH --clips {chosen.clips} "
        f"--steps {chosen.steps} --batch-size {chosen.batch_size} --seconds {chosen.seconds:g} --seeds "
        f"{chosen.seeds}{on(chosen.device)}` ran at commit `{commit()}` with {describe_machine()}. "
        f"{scaled if chosen.device == 'cpu' else f'The training has {sizes}.'} The source is {SOURCE}. At most "
        f"{100 * DENSITY:g} % of the samples change by at most {EPSILON}. The test uses {len(speakers)} clips of "
        f"{len(set(speakers.values()))} speakers. The rates are fooling rates over all seeds, with a 95 % interval "
        "(clustered by speaker), and for each seed."
    )
    body = "\n\n".join(["## Networks", about, table(outcomes, speakers)])
    sections.write("networks", body)


def part(text: str) -> int | str:
    """A seed, or what needs none.

    >>> part("1"), part("untrained")
    (1, 'untrained')
    """
    return text if text == UNTRAINED else int(text)


def judged(
    bench: Bench,
    seeds: Sequence[int],
    crops: Mapping[str, Any],
    titles: Sequence[str] = tuple(NETWORKS),
) -> dict[str, list[Outcome]]:
    """What each network did to the clips, by seed."""
    outcomes: dict[str, list[Outcome]] = {title: [] for title in titles}
    for seed in seeds:
        seeded = dataclasses.replace(bench, seed=seed, protocol=split_of(bench))
        for title in titles:
            name, settings = f"{word(title)}_{seed}", NETWORKS[title]
            generator = seeded.generator(
                name,
                [SOURCE],
                steps=bench.steps,
                evaluate_every=max(1, bench.steps // 2),
                **crops,
                **settings,
            )
            attack = Staa(generator=generator, budget=BUDGET)
            found = bench.measure(name, lambda a=attack: a, bench.victims[SOURCE])  # type: ignore[misc]
            outcomes[title].append(found)
    return outcomes


def split_of(bench: Bench) -> str:
    """The run's own split by name: a seed draws weights and crops, not who is heard in training."""
    _, dev, test = bench.corpus.split(bench.seed, bench.protocol)
    lists = (",".join(sorted(set(one.units()))) for one in (test, dev))
    return f"{bench.corpus.disjoint_by}:{'/'.join(lists)}"


def untrained(bench: Bench) -> dict[str, list[Outcome]]:
    """What needs no training."""
    source = bench.victims[SOURCE]
    backward_net = backward_net_from(source, DENSITY).requires_grad_(False).eval()
    attacks = {
        "backward_net, untrained": Staa(generator=backward_net, budget=BUDGET),
        "PGD, 20 steps": PGD(budget=BUDGET),
        "random": Random(budget=BUDGET),
    }
    return {
        title: [bench.measure(f"beside_{number}", lambda a=attack: a, source)]  # type: ignore[misc]
        for number, (title, attack) in enumerate(attacks.items())
    }


def table(outcomes: Mapping[str, Sequence[Outcome]], speakers: Mapping[str, str]) -> str:
    """A row for each network, Markdown."""
    head = [
        "attack",
        *(f"fools {name}" for name in TARGETS),
        *(f"{name}, by seed" for name in TARGETS),
        "density",
        "seconds per clip",
    ]
    rows = [head, ["---"] * len(head)]
    for title, seeds in outcomes.items():
        rows.append(
            [
                title,
                *(str(rate(seeds, target, speakers)) for target in TARGETS),
                *(", ".join(f"{one.fooled(target):.3f}" for one in seeds) for target in TARGETS),
                f"{statistics.fmean(one.mean('density') for one in seeds):.3f}",
                f"{statistics.median(one.seconds for one in seeds):.3f}",
            ]
        )
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
