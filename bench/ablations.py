"""``python -m bench ablations RUN CORPUS``: what each ingredient of the generator is worth.

One source, ``emo18`` of the run; each ingredient is taken away, or exchanged, alone; three seeds. With
``--unseen KIND:PATH`` the same generators also attack clips of a corpus that nothing here has heard. What is trained
and measured is kept in ``--out``, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from unittest import mock

from torch import Tensor

from bench import sections
from bench.attacking import (
    DENSITY,
    EPSILON,
    Bench,
    made_folder,
    on,
    parser,
    percent,
    titled,
    told,
    word,
)
from staanet import audio, storage, training
from staanet.attacks import Random, Staa
from staanet.core import Budget, Clip
from staanet.defences import Defended
from staanet.generators.base import Generator
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator, load_generator, save_generator
from staanet.generators.warm_start import backward_net_from
from staanet.nn.precision import resolve_precision
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine
from staanet.transforms import parse_transform

SOURCE, TARGET, SEEDS, STEPS = "emo18", "zhao19", (0, 1, 2), 100
BUDGET = Budget(epsilon=EPSILON, max_density=DENSITY)
LEAST_DB = 20.0


@dataclass(frozen=True)
class Variant:
    """What is different from the default."""

    title: str
    network: str = "backward_net"
    warm: bool = True
    iterations: int = 1
    trained: bool = True
    learning_rate: float = 3e-4
    objective: Mapping[str, Any] = field(default_factory=dict)
    ears: bool = False
    """Whether the encoder is trained too."""
    augment: bool = True
    through: tuple[str, ...] = ()
    """What clips meet on their way to the source in training."""
    straight_through: bool = False


def straight_through(_: Objective, position: Tensor, binary: Tensor, uniform: Tensor) -> Tensor:
    """Bengio et al. 2013, arXiv 1308.3432: the binary mask, with the gradient of the soft one."""
    return position + (binary.to(position.dtype) - position).detach()


MILD = ("mp3:64", "opus:24", "mulaw", "resample:8000", "noise:30", "random_gain:6")
"""What speech meets between a mouth and a classifier, and is not hurt by."""
HARSH = ("gsm", "mp3:16", "opus:8", "noise:15")
"""What leaves speech intelligible, and little else."""
PLAIN = "settings by default"
VARIANTS = (
    Variant("settings by default"),
    Variant("untrained (one step along the gradient of the source)", trained=False),
    Variant("trainable encoder", ears=True),
    Variant("backward net with random initial weights", warm=False, learning_rate=2e-3),
    Variant(
        "Wave-U-Net (compact) with random initial weights", network="compact", learning_rate=2e-3
    ),
    Variant("margin clipped at 0, as published", objective={"kappa": 0.0}),
    Variant("with the quantisation term of the paper", objective={"quantisation": 0.1}),
    Variant("with the mask mixture of the paper", objective={"mixing": True}),
    Variant("crops without augmentation (gain, colour, speed, noise)", augment=False),
    Variant("straight-through mask", straight_through=True),
    Variant("two iterations", iterations=2),
    Variant(
        "Wave-U-Net with quantisation and mixture",
        network="compact",
        learning_rate=2e-3,
        objective={"quantisation": 0.1, "mixing": True},
    ),
    Variant(
        "Wave-U-Net, crops without augmentation",
        network="compact",
        learning_rate=2e-3,
        augment=False,
    ),
    Variant("trained through mild codecs, noise and levels", through=MILD),
    Variant("trained through a telephone, poor codecs and loud noise", through=HARSH),
)


def main(arguments: list[str]) -> None:
    """Train what is missing, measure, and write the section."""
    asks = parser("ablations", __doc__, clips=60)
    asks.add_argument(
        "--steps",
        type=int,
        default=STEPS,
        help=f"of training (default: {STEPS}); others get a section apart",
    )
    asks.add_argument("--first", type=int, help="so many of the variants (default: all)")
    asks.add_argument("--only", action="append", help="variants with this in their titles; repeat")
    asks.add_argument(
        "--unseen", help="KIND:PATH of other speakers, attacked by the same generators"
    )
    chosen = asks.parse_args(arguments)
    with storage.FolderLock(made_folder(chosen.out)):
        bench = Bench.of(
            chosen.run,
            chosen.corpus,
            chosen.out,
            chosen.clips,
            chosen.steps,
            (SOURCE, TARGET),
            chosen.device,
        )
        tests = {"": bench.clips} | ({} if chosen.unseen is None else bench.unseen(chosen.unseen))
        variants = [
            one
            for one in VARIANTS[: chosen.first]
            if not chosen.only or any(part in one.title for part in chosen.only)
        ]
        parts = [table(bench, variants, corpus, clips) for corpus, clips in tests.items()]
        parts.append(outlived(bench, variants))
    only = "".join(f' --only "{part}"' for part in chosen.only or ())
    unseen = f" --unseen {chosen.unseen.partition(':')[0]}:PATH" if chosen.unseen else ""
    about = (
        f"The command `python -m bench ablations RUN {chosen.corpus.partition(':')[0]}:PATH --clips {chosen.clips} "
        f"--steps {chosen.steps}{unseen}{only}{f' --first {chosen.first}' if chosen.first else ''}{on(chosen.device)}` ran at commit `{commit()}` with {describe_machine()}. "
        f"The source is {SOURCE}. Epsilon is {EPSILON} at {100 * DENSITY:g} % of the samples. Each training has "
        f"{chosen.steps} steps of 8 crops of 1 s. The test uses {chosen.clips} clips and the seeds "
        f"{', '.join(map(str, SEEDS))}. The victims are {bench.about_victims()}."
    )
    disjoint_by = [f"{chosen.steps} steps"] if chosen.steps != STEPS else []
    disjoint_by += chosen.only or []
    title = f"## Ablations: {', '.join(disjoint_by)}" if disjoint_by else "## Ablations"
    sections.write(
        "-".join(["ablations", *map(word, disjoint_by)]), "\n\n".join([title, about, *parts])
    )


def rates(
    bench: Bench, variant: Variant, seed: int, corpus: str, clips: Sequence[Clip]
) -> dict[str, float]:
    """Share of the clips on which each victim changed its answer."""
    found = bench.measure(
        f"{word(variant.title)}_{seed}{corpus}",
        partial(attack, bench, variant, seed, budget_on(corpus)),
        bench.victims[SOURCE],
        clips=clips,
    )
    return {target: found.fooled(target) for target in bench.victims}


def budget_on(corpus: str) -> Budget:
    """Elsewhere, where clips may be quieter than any that it was trained on, also a least SNR."""
    return replace(BUDGET, min_snr_db=LEAST_DB) if corpus else BUDGET


def attack(bench: Bench, variant: Variant, seed: int, budget: Budget = BUDGET) -> Staa:
    """By the generator of a variant and seed."""
    return Staa(generator=trained(bench, variant, seed), budget=budget)


def trained(bench: Bench, variant: Variant, seed: int) -> Generator:
    """The generator of a variant and seed, trained where it is not there yet."""
    name = f"{word(variant.title)}_{seed}"
    folder = bench.out / "generators" / name
    if (folder / storage.CARD).exists():
        return load_generator(folder).to(bench.device)
    source = bench.victims[SOURCE]
    training.seed_weights(seed)
    generator = untrained(bench, variant).to(bench.device)
    steps = bench.steps
    if variant.trained:
        train, dev = bench.training
        schedule = training.Schedule(
            steps=steps,
            batch_size=8,
            seconds=1.0,
            learning_rate=variant.learning_rate,
            final_learning_rate=3e-5,
            evaluate_every=max(1, steps // 2),
            seed=seed,
            speed=0.1,
        )
        with ExitStack() as stack:
            if variant.ears:
                stack.enter_context(
                    mock.patch.object(type(generator), "freeze_encoder", lambda _: None)
                )
            if variant.straight_through:
                stack.enter_context(mock.patch.object(Objective, "mask", straight_through))
            if not variant.augment:
                stack.enter_context(mock.patch.object(training.Crops, "_crop", as_it_is))
            training.train_generator(
                generator,
                source,
                train,
                dev,
                schedule,
                folder,
                settings=training.GeneratorSettings(
                    budget=BUDGET,
                    objective=replace(Objective(kappa=math.inf), **variant.objective),
                    augment=[parse_transform(text) for text in variant.through],
                    precision=resolve_precision("auto", bench.device),
                ),
                progress=told,
            )
    save_generator(generator, folder, title=variant.title, seed=seed)
    return load_generator(folder).to(bench.device)


def untrained(bench: Bench, variant: Variant) -> Generator:
    """The network of a variant as training begins."""
    source = bench.victims[SOURCE]
    if variant.network != "backward_net":
        return build_generator(variant.network, DENSITY, source.labels)
    backward_net = backward_net_from(source, DENSITY, EPSILON, variant.iterations)
    if variant.warm:
        return backward_net
    return type(backward_net)(**backward_net.settings)


def as_it_is(self: training.Crops, samples: Any, length: int, rng: Any) -> Any:
    """A crop without augmentation, at a place that chance names."""
    start = int(rng.integers(0, max(1, len(samples) - length + 1)))
    return audio.to_float(audio.fit_length(samples, length, start))


def table(bench: Bench, variants: Sequence[Variant], corpus: str, clips: Sequence[Clip]) -> str:
    """A row per variant; the control behind them."""
    rows = []
    for variant in variants:
        seeds = [rates(bench, variant, seed, corpus, clips) for seed in SEEDS]
        rows.append(
            [
                variant.title,
                *(cell for t in (SOURCE, TARGET) for cell in cells([s[t] for s in seeds])),
            ]
        )
    control = bench.measure(
        f"random{corpus}",
        lambda: Random(budget=budget_on(corpus)),
        bench.victims[SOURCE],
        clips=clips,
    )
    rows.append(
        ["random", *(x for t in (SOURCE, TARGET) for x in (percent(control.fooled(t)), ""))]
    )
    head = ["generator", "fools emo18 (white box)", "95 %", "fools zhao19 (transfer)", "95 %"]
    note = (
        "The rates are means over the seeds. The column *95 %* is half the width of the Student interval of the "
        "mean, in points. This interval describes other seeds, but not other speakers."
    )
    if corpus:
        note = (
            f"The same generators attack {len(clips)} clips of {corpus}. No training used this corpus. The "
            f"smallest SNR is {LEAST_DB:g} dB."
        )
        return titled("Unseen corpus", head, rows, note)
    return titled("One ingredient at a time", head, rows, note)


def outlived(bench: Bench, variants: Sequence[Variant]) -> str:
    """What each channel leaves of the fooling, with and without the channels in training."""
    source = bench.victims[SOURCE]
    ways = {way: Defended(source, [parse_transform(way)]) for way in MILD + HARSH}
    heard = replace(bench, victims={SOURCE: source, **ways})
    rows = []
    for variant in variants:
        if not variant.through and variant.title != PLAIN:
            continue
        found = [
            heard.measure(
                f"{word(variant.title)}_{seed}_through",
                partial(attack, bench, variant, seed),
                source,
            )
            for seed in SEEDS
        ]
        means = [statistics.fmean(one.fooled(target) for one in found) for target in heard.victims]
        rows.append([variant.title, *map(percent, means)])
    note = (
        f"Both the clean and the adversarial clip passed through the channel. The cells show the share of clips with a "
        f"changed prediction of {SOURCE}, as means over the seeds."
    )
    return titled(
        "Fooling rates behind a channel", ["generator", "no channel", *MILD, *HARSH], rows, note
    )


def cells(values: Sequence[float]) -> tuple[str, str]:
    """The mean and its half interval from a few seeds.

    >>> cells([0.8, 0.8, 0.8])
    ('80 %', '0.0')
    """
    from scipy import stats

    width = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return percent(statistics.fmean(values)), f"{100 * width:.1f}"
