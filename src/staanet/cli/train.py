"""The commands ``train-victim``, ``train-generator``, ``train-uap`` and ``tune``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import CorpusArgument, Job, TensorBoard, Without
from staanet.cli.printing import finish, say
from staanet.cli.session import (
    job_session,
    label_owners,
    load_corpus,
    load_victims,
    training_session,
)
from staanet.config import (
    GeneratorRecipe,
    SplitRecipe,
    SurrogateRecipe,
    TuneRecipe,
    VectorRecipe,
    VictimRecipe,
)
from staanet.errors import InvalidInput

if TYPE_CHECKING:
    from staanet.core import Corpus
    from staanet.pipeline import Context

DISTILL = "distill:"
GeneratorOut = Annotated[Path, typer.Option(help="Generator folder to write.")]


@command(
    "train-victim", "staanet train-victim emodb:data/emodb emo18 --out runs/emodb/victims/emo18"
)
def train_victim(
    corpus: CorpusArgument,
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the victim. Without --network, the name also selects the network: "
            "emo18, zhao19, logmel_cnn, wav2vec2, wavlm, hubert or egemaps. The network "
            "egemaps is a linear classifier on features and needs the extra opensmile.",
            autocompletion=names.victims,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Victim folder to write.")],
    recipe: VictimRecipe,
    split: SplitRecipe,
    job: Job,
    tensorboard: TensorBoard = False,
) -> None:
    """Train a victim on the train part of a corpus.

    The speakers of the parts differ. Prints UAR on dev and test. Prints CCC for regression.
    """
    from staanet import pipeline, storage
    from staanet.nn import distributed

    data = load_corpus(corpus, split, out)
    with training_session(out, split, job, tensorboard=tensorboard) as context:
        pipeline.train_victim(data, name, out, recipe=recipe, context=context)
        if not distributed.is_first():
            return
    card = storage.read_card(out, "victim")
    figure, key = ("CCC", "ccc") if data.task == "regression" else ("UAR", "uar")
    dev, test = card[f"dev_{key}"], card[f"test_{key}"]
    lines = [f"{name}: {figure} {dev:.3f} on dev, {test:.3f} on test -> {out}"]
    for label, tolerance in zip(card["labels"], card.get("tolerance", ()), strict=False):
        lines.append(
            f"{label}: CCC {card[f'test_ccc_{label}']:.3f}, MAE {card[f'test_mae_{label}']:.3g} on test, "
            f"tolerance {tolerance:.3g}"
        )
    finish(job, card, lines, context.quarantine)


@command(
    "train-generator",
    "staanet train-generator emodb:data/emodb --source runs/emodb/victims/emo18 --out gen",
)
def train_generator(
    corpus: CorpusArgument,
    source: Annotated[
        list[str],
        typer.Option(
            help="Victim to train against: a folder, hf:NAME-OR-FOLDER or distill:VICTIM. "
            "distill:VICTIM trains a surrogate on the answers of a victim, such as the black "
            "box onnx:FILE. Repeat the option for several victims.",
            autocompletion=names.models,
        ),
    ],
    out: GeneratorOut,
    recipe: Annotated[GeneratorRecipe, Without({"sources"})],
    surrogate: SurrogateRecipe,
    split: SplitRecipe,
    job: Job,
    tensorboard: TensorBoard = False,
) -> None:
    """Train a STAA-Net generator against a victim, without labels."""
    from staanet import pipeline, storage, victims
    from staanet.nn import distributed
    from staanet.pipeline.unlabelled import describe_unlabelled

    models = [spec.removeprefix(DISTILL) for spec in source]
    data = load_corpus(corpus, split, out, label_owners(models, split))
    with training_session(out, split, job, tensorboard=tensorboard) as context:
        specs = list(_with_surrogates(source, out, data, surrogate, context))
        victim = victims.load_victims(specs).to(context.device)
        pipeline.train_generator(data, victim, out, recipe=recipe, context=context)
        if not distributed.is_first():
            return
    card = storage.read_card(out, "generator")
    rate = "fooling" if recipe.goal == "untargeted" else "targeted success"
    lines = [
        f"{rate} rate on dev {card['dev_fooling_rate']:.3f} at density <= {recipe.max_density}, "
        f"epsilon {recipe.epsilon} -> {out}",
        describe_unlabelled(card),
    ]
    for flag in card["flags"] if not job.json else ():
        say(f"staanet: warning: {flag}")
    finish(job, card, filter(None, lines), context.quarantine)


def _with_surrogates(
    specs: list[str], out: Path, corpus: Corpus, recipe: SurrogateRecipe, context: Context
) -> Iterator[str]:
    """Yields each source; in the place of ``distill:VICTIM`` stands the folder of its surrogate."""
    from staanet import pipeline, victims
    from staanet.nn import distributed

    for number, spec in enumerate(specs, start=1):
        target = spec.removeprefix(DISTILL)
        if target == spec:
            yield spec
            continue
        if distributed.world_size() > 1:
            raise InvalidInput(
                f"{distributed.world_size()} processes cannot train a surrogate together",
                where=spec,
                remedy="Train without torchrun, or give the folder of a surrogate as --source",
            )
        folder = out / "surrogates" / str(number)
        pipeline.distil(
            corpus,
            victims.load_victim(target).to(context.device),
            folder,
            recipe=VictimRecipe(steps=recipe.steps, seconds=recipe.seconds),
            context=context,
        )
        yield str(folder)


@command(
    "train-uap", "staanet train-uap emodb:data/emodb --source runs/emodb/victims/emo18 --out vector"
)
def train_uap(
    corpus: CorpusArgument,
    source: Annotated[
        str,
        typer.Option(
            help="Victim to train against: a folder or hf:NAME-OR-FOLDER.",
            autocompletion=names.models,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the vector.")],
    recipe: VectorRecipe,
    split: SplitRecipe,
    job: Job,
    label: Annotated[str | None, typer.Option(help="Target class of the vector.")] = None,
) -> None:
    """Train one universal vector against a victim.

    The vector is a control: it attacks every clip in the same way.
    """
    from staanet import pipeline, storage

    (victim,) = load_victims([source], job.device)
    data = load_corpus(corpus, split, out, [victim])
    with job_session(out, split, job) as context:
        pipeline.train_uap(data, victim, out, recipe=recipe, label=label, context=context)
    card = storage.read_card(out, "vector")
    text = f"fooling rate on dev {card['dev_fooling_rate']:.3f}, epsilon {recipe.epsilon} -> {out}"
    finish(job, card, [text], context.quarantine)


@command(
    "tune",
    "staanet tune emodb:data/emodb --source runs/emodb/victims/emo18 --trials 30 --out search",
)
def tune(
    corpus: CorpusArgument,
    source: Annotated[
        str,
        typer.Option(
            help="Victim to train against: a folder or hf:NAME-OR-FOLDER.",
            autocompletion=names.models,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder of the search. Give the same folder again to continue.")
    ],
    recipe: TuneRecipe,
    split: SplitRecipe,
    job: Job,
) -> None:
    """Search the weights of the loss (extra tune).

    The best generators fool most clips at the lowest density. Run the command again to continue a
    stopped search.
    """
    from staanet.cli.tables import table
    from staanet.pipeline import tune

    settings = dataclasses.asdict(recipe)
    trials_in_all = settings.pop("trials")
    generator = tune.published_recipe({**settings, "evaluate_every": max(1, recipe.steps // 3)})
    (victim,) = load_victims([source], job.device)
    data = load_corpus(corpus, split, out, [victim])
    with job_session(out, split, job) as context:
        trials = tune.tune(
            data, victim, out, recipe=generator, trials=trials_in_all, context=context
        )
    front = sorted((trial for trial in trials if trial.best), key=lambda trial: trial.density)
    weights = list(front[0].settings)
    rows = [
        [
            trial.number,
            f"{100 * trial.fooling_rate:.1f} %",
            f"{trial.density:.4f}",
            *(f"{trial.settings[weight]:.3g}" for weight in weights),
        ]
        for trial in front
    ]
    lines = [
        table(["trial", "fools on dev", "density", *weights], rows),
        f"\n{len(front)} of {len(trials)} are beaten by none -> {out / tune.FRONT}",
    ]
    result = {"out": str(out), "trials": [trial.row() for trial in trials]}
    finish(job, result, lines, context.quarantine)
