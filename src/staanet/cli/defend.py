"""The commands ``defend``, ``harden`` and ``detect``, which protect a victim."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import VICTIM, CorpusArgument, Job, ModelOption, Without
from staanet.cli.printing import finish, warn
from staanet.cli.session import job_session, load_corpus, load_victims
from staanet.config import DefenceRecipe, DetectRecipe, HardenRecipe, SplitRecipe
from staanet.errors import InvalidInput

VictimOut = Annotated[Path, typer.Option(help="Victim folder to write.")]


@command(
    "defend",
    "staanet defend --victim runs/emodb/victims/emo18 --with median:3 --with lowpass:4000 "
    "--corpus emodb:data/emodb --out defended",
)
def defend(
    victim: ModelOption,
    recipe: Annotated[DefenceRecipe, Without({"victims", "adaptive"})],
    out: VictimOut,
    split: SplitRecipe,
    job: Job,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:PATH",
            help="Corpus for the recall on dev and test, before and after the change.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the new victim. [default: VICTIM+DEFENCE+...]")
    ] = None,
) -> None:
    """Put input transformations in front of a victim.

    Writes a victim folder that attack, evaluate and the other commands accept.
    """
    from staanet import pipeline, storage
    from staanet.cli.tables import table
    from staanet.transforms import parse_transform

    for text in recipe.chain:
        parse_transform(text)
    (inner,) = load_victims([victim], job.device)
    data = None if corpus is None else load_corpus(corpus, split, out, [inner])
    with job_session(out, split, job) as context:
        defended = pipeline.defend(
            inner, recipe.chain, out, name=name, corpus=data, context=context
        )
    card, lines = storage.read_card(out, "victim"), []
    if data is not None:
        rows = [
            [label, *(f"{card[f'{prefix}{part}_uar']:.3f}" for part in ("dev", "test"))]
            for label, prefix in ((inner.name, "undefended_"), (defended.name, ""))
        ]
        lines.append(table(["victim", "UAR on dev", "on test"], rows))
    chain = " + ".join(map(str, defended.chain))
    lines.append(f"{defended.name}: {chain} before {inner.name} -> {out}")
    finish(job, card, lines, context.quarantine)


@command(
    "harden",
    "staanet harden emodb:data/emodb --victim runs/emodb/victims/emo18 --method sparse_pgd "
    "--out runs/emodb/victims/emo18-hard",
)
def harden(
    corpus: CorpusArgument,
    victim: Annotated[Path, typer.Option(help="Folder of the trained victim to start from.")],
    out: VictimOut,
    recipe: HardenRecipe,
    split: SplitRecipe,
    job: Job,
    name: Annotated[
        str | None, typer.Option(help="Name of the new victim. [default: VICTIM+METHOD]")
    ] = None,
) -> None:
    """Train a victim further on adversarial clips.

    Run the command again to continue a stopped training. The card records the time of a training
    step.
    """
    from staanet import pipeline, storage
    from staanet.training import AdversarialTraining

    AdversarialTraining(recipe)  # raises before a folder is written
    (source,) = load_victims([victim], job.device)
    data = load_corpus(corpus, split, out, [source])
    if os.path.realpath(out) == os.path.realpath(victim):
        raise InvalidInput("is the victim itself", where=out, remedy="Choose another --out")
    with job_session(out, split, job) as context:
        pipeline.harden(data, source, out, recipe=recipe, name=name, context=context)
    card = storage.read_card(out, "victim")
    hardened = card["hardened"]
    text = (
        f"{card['name']}: UAR {card['test_uar']:.3f} on test, "
        f"{hardened['test_uar_before']:.3f} before; "
        f"on dev {hardened['history']['dev_adversarial_uar']:.3f} under PGD at the last evaluation; "
        f"a step takes {hardened['cost']['times']:.1f} x a plain one -> {out}"
    )
    flags = warn(pipeline.split_warnings([victim], context.split(data)[2]))
    finish(job, {**card, **flags}, [text], context.quarantine)


@command(
    "detect",
    "staanet detect emodb:data/emodb --victim runs/emodb/victims/emo18 --detector residual "
    "--against runs/emodb/adversarial/staa__emo18 --adaptive-clips 20 "
    "--out runs/emodb/victims/emo18-detector",
)
def detect(
    corpus: CorpusArgument,
    victim: Annotated[
        str,
        typer.Option(
            help=f"Victim that the detector protects: {VICTIM}.", autocompletion=names.models
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Victim folder to write. The ROC curve is written as CSV and PNG.")
    ],
    recipe: DetectRecipe,
    split: SplitRecipe,
    job: Job,
    against: Annotated[
        list[Path],
        typer.Option(
            metavar="ADVERSARIAL",
            help="Adversarial set to detect. Repeat the option for several sets.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Add a detector, so that a victim abstains from suspicious clips.

    Chooses the threshold on dev clips. Writes a ROC curve and the rates of each attack.
    """
    from staanet import pipeline

    pipeline.check_detection(recipe, against)  # raises before a folder is written
    (inner,) = load_victims([victim], job.device)
    data = load_corpus(corpus, split, out, [inner])
    with job_session(out, split, job) as context:
        result = pipeline.detect(data, inner, out, recipe=recipe, sets=against, context=context)
    lines = [_rates_table(result["attacks"])] if result["attacks"] else []
    if result["attacks"] and not result["adaptive"]:
        lines.append("\nnon-adaptive: no attack here knew the detector; add --adaptive-clips 20")
    threshold = f"{result['threshold']:.4g}, chosen on {result['chosen_on']}"
    lines.append(f"\nabstains above {threshold} -> {out}")
    flags = warn(pipeline.split_warnings([victim], context.split(data)[2]))
    finish(job, {**result, **flags}, lines, context.quarantine)


def _rates_table(attacks: list[dict[str, Any]]) -> str:
    from staanet.cli.tables import table

    rates = {
        "false_positive_rates": "false positives",
        "detected": "detected",
        "fooled": "fooled",
        "fooled_undetected": "fooled and undetected",
    }
    rows = [
        [a["attack"], f"{a['auroc']:.3f}"]
        + [f"{100 * a[rate]['value']:.1f} % of {a['count']}" for rate in rates]
        for a in attacks
    ]
    return table(["attack", "AUROC", *rates.values()], rows)
