"""The commands ``evaluate``, ``sweep``, ``budget`` and ``merge``, which measure attacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import (
    PART,
    SHARD,
    VICTIM,
    CorpusArgument,
    FieldOf,
    InputsArgument,
    Job,
    Machine,
    ModelOption,
    Output,
    SetsArgument,
    Without,
)
from staanet.cli.printing import decibels, finish, warn
from staanet.cli.progress import Bars
from staanet.cli.session import (
    check_label_map,
    job_session,
    load_corpus,
    load_inputs,
    load_victims,
    open_session,
)
from staanet.config import (
    AttackRecipe,
    BudgetRecipe,
    Help,
    Recipe,
    SplitRecipe,
    SweepRecipe,
    epsilon_text,
)
from staanet.config.fields import Count
from staanet.errors import InvalidInput
from staanet.storage.shards import Shard

if TYPE_CHECKING:
    from staanet.evaluation.quiet_budget import QuietBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What only the command ``evaluate`` has."""

    static_only: Annotated[
        bool,
        Help("Do not attack defended targets adaptively. The result is then called non-adaptive."),
    ] = False
    adaptive_clips: Annotated[
        Count, Help("Number of clips on which a defended target is attacked adaptively.")
    ] = 40
    shard: Annotated[str | None, SHARD] = None
    label_map: Annotated[
        dict[str, str] | None,
        Help(
            "Labels of a target and the matching labels of the clips, such as ang=anger. Give "
            "pairs or a TOML file of pairs. Repeat the option for more pairs.",
            absent="well-known words are matched",
            metavar="MODEL=CLIPS,...",
        ),
    ] = None


@command(
    "evaluate",
    "staanet evaluate runs/emodb/adversarial/* --target runs/emodb/victims/zhao19 --out check",
)
def evaluate(
    adversarial: SetsArgument,
    target: Annotated[
        list[str],
        typer.Option(
            help=f"Victim to evaluate: {VICTIM}. Repeat the option for several victims.",
            autocompletion=names.models,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.parquet and summary.json.")],
    channels: Annotated[tuple[str, ...], FieldOf(Recipe)],
    perceptual: Annotated[bool, FieldOf(Recipe)],
    seed: Annotated[int, FieldOf(Recipe)],
    options: EvaluateOptions,
    machine: Machine,
) -> None:
    """Compute the transfer matrix from the audio files on disk.

    A defended target without its own adversarial set is also attacked adaptively. PGD and
    sigma-zero then attack through the defence, at the budget of the first set. These sets are
    written to OUT/adversarial.
    """
    from staanet import evaluation, pipeline, storage
    from staanet.cli.tables import matrix_text
    from staanet.transforms import parse_transform

    for channel in channels:
        parse_transform(channel)
    shard = Shard.parse(options.shard) if options.shard else None
    targets = load_victims(target, machine.device)
    evaluation.check_names(targets)
    check_label_map(options.label_map, targets)
    with open_session(
        out, seed=seed, device=machine.device, label_map=options.label_map
    ) as context:
        if not options.static_only:
            adversarial += pipeline.adapt(
                adversarial,
                targets,
                out / "adversarial",
                clips=options.adaptive_clips,
                context=context,
            )
        matrix = pipeline.evaluate(
            adversarial,
            targets,
            out,
            channels=channels,
            perceptual=perceptual,
            shard=shard,
            context=context,
        )
    cards = [storage.read_card(folder, "adversarial") for folder in adversarial]
    parts = [card["drawn_from"] for card in cards if isinstance(card.get("drawn_from"), dict)]
    warnings = warn(pipeline.split_warnings(target, *parts)).get("flags", [])
    result = {**matrix.summary, "flags": [*matrix.summary["flags"], *warnings]}
    finish(machine, result, [matrix_text(matrix.summary), f"\n-> {out}"], context.quarantine)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What only the command ``sweep`` has."""

    generator: Annotated[
        Path | None, Help("Generator folder (for staa).", complete="generator_folders")
    ] = None
    vector: Annotated[Path | None, Help("Folder of a universal vector (for uap).")] = None
    keep: Annotated[bool, Help("Keep the audio of every point of the sweep.")] = False
    part: Annotated[str, PART] = "test"


@command(
    "sweep",
    "staanet sweep emodb:data/emodb --source runs/emodb/victims/emo18 --attack pgd --attack random "
    "--density 0.05,0.2,1 --out sweep",
)
def sweep(
    inputs: InputsArgument,
    source: Annotated[
        str, typer.Option(help=f"Victim to craft on: {VICTIM}.", autocompletion=names.models)
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables and the figure.")],
    recipe: Annotated[SweepRecipe, Without({"sources"})],
    options: SweepOptions,
    split: SplitRecipe,
    job: Job,
    target: Annotated[
        list[str],
        typer.Option(
            help="Another victim for transfer. Repeat the option for several victims.",
            autocompletion=names.models,
        ),
    ] = [],  # noqa: B006
) -> None:
    """Measure success against epsilon, density and SNR.

    One figure shows all attacks. Run the command again to continue a stopped sweep.
    """
    from staanet import pipeline

    specs = list(dict.fromkeys([source, *target]))
    victims = load_victims(specs, job.device)
    victim_names = [victim.name for victim in victims]
    if repeated := [name for name in victim_names if victim_names.count(name) > 1]:
        raise InvalidInput(
            f"two victims are called {repeated[0]}", remedy="Give each victim a name of its own"
        )
    corpus = load_inputs(inputs, options.part, split, out, victims)
    with job_session(out, split, job) as context:
        plan = pipeline.SweepPlan(
            recipe=recipe,
            attacks={name: AttackRecipe(attack=name) for name in recipe.attacks},
            source=victims[0],
            targets=victims,
            generator=options.generator,
            vectors={"uap": options.vector} if options.vector else {},
            context=context,
        )
        clips = pipeline.load_clips(corpus, victims[0], context)
        points = pipeline.sweep(plan, clips, out, keep=options.keep)
    models: list[Path | str] = [*specs]
    models += filter(None, (options.generator, options.vector))
    flags = warn(pipeline.split_warnings(models, corpus))
    result = {"out": str(out), "points": points, **flags}
    finish(job, result, [_points_table(points), f"\n-> {out / 'sweep.png'}"], context.quarantine)


@command("budget", "staanet budget emodb:data/emodb --victim runs/emodb/victims/emo18")
def budget(
    corpus: CorpusArgument, victim: ModelOption, recipe: BudgetRecipe, split: SplitRecipe, job: Job
) -> None:
    """Find the largest budget at which random changes fool few clips.

    Searches on dev clips for the largest epsilon relative to the speech. At this epsilon, random
    signs change fewer answers than --control-limit. Noise then does not explain the success of an
    attack.
    """
    from staanet import pipeline

    (model,) = load_victims([victim], job.device)
    data = load_corpus(corpus, split, victims=[model])
    with Bars.shown() as progress:
        context = pipeline.Context(
            seed=split.seed,
            protocol=split.protocol,
            device=job.device,
            quarantine=pipeline.Quarantine(job.strict),
            progress=progress,
        )
        budgets = pipeline.find_budgets(data, model, recipe, context)
    result = {
        "corpus": data.name,
        "victim": model.name,
        "limit": recipe.control_limit,
        "budgets": [dataclasses.asdict(quiet) for quiet in budgets],
    }
    finish(job, result, [_budgets_table(budgets, recipe)], context.quarantine)


def _budgets_table(budgets: Sequence[QuietBudget], recipe: BudgetRecipe) -> str:
    from staanet.cli.tables import table

    rows = [
        [
            _percent(quiet.max_density),
            quiet.epsilon or "none",
            None if quiet.full_scale is None else f"{quiet.full_scale:.2g}",
            decibels(quiet.snr_db),
            f"{_percent(quiet.control)} (at most {_percent(quiet.bound)})",
        ]
        for quiet in budgets
    ]
    columns = ["samples", "epsilon", "of full scale", "SNR dB", "control changes"]
    return table(columns, rows) + (
        f"\n\nLargest epsilon at which random signs change fewer than {_percent(recipe.control_limit)} of the "
        f"answers: {budgets[0].clips} dev clips, {recipe.control_draws} draws each."
    )


def _points_table(points: list[dict[str, Any]]) -> str:
    from staanet.cli.tables import table

    columns = ["attack", "target", "epsilon", "at most", "fools", "changed", "SNR dB"]
    rows = [
        [
            point["attack"],
            point["target"],
            epsilon_text(point["epsilon"]),
            _percent(point["max_density"]),
            f"{_percent(point['fooling_rate'])} of {point['count']}",
            _percent(point["density_mean"]),
            decibels(point["snr_db_mean"]),
            f"{point['seconds_median']:.3f}",
            f"{point['queries_mean']:.0f}",
        ]
        for point in points
    ]
    return table([*columns, "s/clip", "queries"], rows)


def _percent(value: float | None) -> str:
    """A share in per cent; None is any."""
    return "any" if value is None else f"{100 * value:.3g} %"


@command("merge", "staanet merge shards/* --out fooled")
def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(
            metavar="SHARD...", help="Folders that attack --shard or evaluate --shard wrote."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the merged result.")],
    output: Output,
) -> None:
    """Merge the shards of one attack or evaluation into one folder.

    The files equal those of a single run by sha256, except seconds.csv. The command refuses missing
    shards, overlaps and different settings.
    """
    from staanet import pipeline, storage
    from staanet.cli.tables import matrix_text
    from staanet.results.transfer_matrix import TransferMatrix

    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(progress=progress)
        whole = pipeline.merge(shards, out, context=context)
    if isinstance(whole, TransferMatrix):
        result, lines = dict(whole.summary), [matrix_text(whole.summary), f"\n-> {out}"]
    else:
        result = {"out": str(out), "clips": len(whole), "shards": len(shards)}
        lines = [f"{len(whole)} clips of {len(shards)} shards -> {out}"]
    finish(output, result, lines, context.quarantine)
