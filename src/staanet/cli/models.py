"""Commands on data and models: corpus, train-victim, train-generator, train-uap, export."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staanet.cli import names
from staanet.cli.progress import Bars, speaking
from staanet.cli.shell import (
    QUARANTINED,
    Classes,
    CorpusName,
    Debug,
    Device,
    Epsilon,
    Json,
    Precision,
    Protocol,
    Seed,
    Strict,
    TensorBoard,
    checked_device,
    command,
    finish,
    on_device,
    say,
    show,
)
from staanet.errors import InvalidInput, printable

if TYPE_CHECKING:
    from staanet.core import Corpus


@command("corpus", "staanet corpus emodb:data/emodb --out manifest.csv")
def corpus(
    name: CorpusName,
    out: Annotated[Path | None, typer.Option(help="Also write a manifest as CSV.")] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    label_map: Annotated[
        list[str] | None,
        typer.Option("--label-map", metavar="LABEL=CLASS", help="Name classes: 1=neutral,2=anger."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=NAME", help="Column of a manifest: file=wav,label=emo."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder that a manifest names its files from.")
    ] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """What a corpus holds: clips, classes, speakers, lengths, split, problems."""
    from staanet import corpora, storage
    from staanet.results import row_files

    loaded = corpora.load_corpus(
        name,
        classes=classes,
        label_map=_pairs("--label-map", label_map),
        columns=_pairs("--column", column),
        root=root,
    )
    with Bars.shown() as progress:
        described = corpora.describe(loaded, seed, progress=progress, protocol=protocol)
    if out is not None:
        columns, rows = _manifest(loaded, out.parent, seed, protocol)
        if out.exists() and not storage.read_bytes(out).startswith(b"file,id,label,speaker,sex"):
            raise InvalidInput(
                "exists and is no manifest of staanet", where=out, remedy="Choose another --out"
            )
        storage.write_text(out, row_files.csv_text(columns, rows))
    if json_output:
        print(json.dumps(described, allow_nan=False, default=str))
    else:
        show(_with_red_warnings(corpora.description_text(described)))
    if described["problems"]:
        raise typer.Exit(QUARANTINED)


def _pairs(option: str, words: Sequence[str] | None) -> dict[str, str]:
    """Return ``KEY=VALUE,KEY=VALUE`` of an option as a dictionary.

    >>> _pairs("--column", ["file=wav,label=emo", "speaker=spk"])
    {'file': 'wav', 'label': 'emo', 'speaker': 'spk'}
    """
    pairs: dict[str, str] = {}
    for word in (part for text in words or () for part in text.split(",")):
        key, sign, value = word.partition("=")
        if not (key and sign):
            raise InvalidInput(
                f"{option} '{printable(word)}' is not KEY=VALUE", remedy=f"Write {option} KEY=VALUE"
            )
        pairs[key.strip()] = value.strip()
    return pairs


def _with_red_warnings(text: str) -> str:
    """Colour the lines of warnings where a terminal shows them."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return "\n".join(
        typer.style(line, fg="red") if line.startswith("warning ") else line
        for line in text.split("\n")
    )


@command(
    "train-victim", "staanet train-victim emodb:data/emodb emo18 --out runs/emodb/victims/emo18"
)
def train_victim(
    corpus: CorpusName,
    name: Annotated[
        str,
        typer.Argument(
            help="emo18, zhao19, wav2vec2, wavlm or hubert.", autocompletion=names.victims
        ),
    ],
    out: Annotated[Path, typer.Option(help="Victim folder to write.")],
    pretrained: Annotated[
        str | None,
        typer.Option(
            help="Hub name or folder to fine-tune wav2vec2, wavlm or hubert from "
            "[default: the published model]."
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Small configuration of those, from scratch: tiny.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1500,
    batch_size: Annotated[int, typer.Option(min=2)] = 16,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 2.0,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, help="[default: 1e-3, for fine-tuning 3e-5]")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Judgements without progress.")
    ] = None,
    tensorboard: TensorBoard = False,
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    precision: Precision = "auto",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train a victim on the speaker-disjoint train part; prints UAR on dev and test."""
    from staanet import corpora, pipeline, storage
    from staanet.config import VictimRecipe, checked
    from staanet.nn import distributed

    recipe = checked(
        VictimRecipe,
        {
            "pretrained": pretrained,
            "config": config,
            "steps": steps,
            "batch_size": batch_size,
            "seconds": seconds,
            "learning_rate": learning_rate,
            "patience": patience,
            "precision": precision,
        },
        where="train-victim",
    )
    loaded, quarantine = (
        corpora.load_corpus(corpus, classes=classes, out=out),
        pipeline.Quarantine(strict),
    )
    with (
        distributed.process_group(checked_device(device)) as own,
        speaking(out, tensorboard=tensorboard) as progress,
    ):
        pipeline.train_victim(
            loaded,
            name,
            out,
            recipe=recipe,
            context=pipeline.Context(
                seed=seed, protocol=protocol, device=own, quarantine=quarantine, progress=progress
            ),
        )
        if not distributed.is_first():
            return
        quarantine.save(out)
    card = storage.read_card(out, "victim")
    if not json_output:
        show(f"{name}: UAR {card['dev_uar']:.3f} on dev, {card['test_uar']:.3f} on test -> {out}")
    finish(card, quarantine, json_output=json_output)


@command(
    "train-generator",
    "staanet train-generator emodb:data/emodb --source runs/emodb/victims/emo18 --out gen",
)
def train_generator(
    corpus: CorpusName,
    source: Annotated[
        list[str],
        typer.Option(
            help="The victim to train against: a folder, hf:NAME-OR-FOLDER, or distill:VICTIM, a surrogate "
            "taught by that victim's answers (also a black box such as onnx:FILE); repeat for several."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Generator folder to write.")],
    network: Annotated[
        str,
        typer.Option(
            help="mirror, compact, narrow, small or paper.", autocompletion=names.generators
        ),
    ] = "backward_net",
    epsilon: Epsilon = 0.03,
    max_density: Annotated[float, typer.Option(help="Largest share of samples changed.")] = 0.2,
    min_snr_db: Annotated[
        float | None, typer.Option(help="Least dB of speech above the change [default: any].")
    ] = None,
    goal: Annotated[
        str, typer.Option(help="untargeted, or targeted: towards any class, named when attacking.")
    ] = "untargeted",
    objective: Annotated[
        str, typer.Option(help="constrained: keeps the limits; paper: fixed weights, as published.")
    ] = "constrained",
    sparsity: Annotated[
        float, typer.Option(help="Weight of the share of samples (objective paper).")
    ] = 1.0,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many judgements without progress.")
    ] = None,
    surrogate_steps: Annotated[
        int,
        typer.Option(
            min=1, help="Training steps of a surrogate (distill:VICTIM); 16 queries each."
        ),
    ] = 600,
    steps: Annotated[int, typer.Option(min=1)] = 1000,
    iterations: Annotated[
        int, typer.Option(min=1, help="Stages of a mirror: more are stronger, and slower.")
    ] = 1,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 1.5,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Adam's [default: 3e-4 for a mirror of its source, 1e-5 for a reflection, 2e-3 otherwise]."
        ),
    ] = None,
    unlabelled: Annotated[
        list[str],
        typer.Option(
            metavar="DIR",
            help="Any audio below this folder trains it too, but no dev or test clip; or KIND:PATH, or "
            "synthetic:; repeat for several.",
        ),
    ] = [],  # noqa: B006
    augment: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:SETTING]",
            help="What clips meet on their way to the source while it trains, each as often as nothing: "
            "mp3:64, opus:24, mulaw, noise:30, random_gain:6, resample:8000, ... as defend --with has them; repeat "
            "for several.",
        ),
    ] = [],  # noqa: B006
    tensorboard: TensorBoard = False,
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    precision: Precision = "auto",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Train STAA-Net against a victim, on the corpus's train part; no labels are used."""
    from staanet import corpora, pipeline, storage, victims
    from staanet.config import GeneratorRecipe, checked
    from staanet.nn import distributed
    from staanet.pipeline.unlabelled import describe_unlabelled

    recipe = checked(
        GeneratorRecipe,
        {
            "network": network,
            "epsilon": epsilon,
            "max_density": max_density,
            "steps": steps,
            "min_snr_db": min_snr_db,
            "goal": goal,
            "objective": objective,
            "sparsity": sparsity,
            "iterations": iterations,
            "batch_size": batch_size,
            "seconds": seconds,
            "patience": patience,
            "learning_rate": learning_rate,
            "unlabelled": unlabelled,
            "augment": augment,
            "precision": precision,
        },
        where="train-generator",
    )
    loaded, quarantine = (
        corpora.load_corpus(corpus, classes=classes, out=out),
        pipeline.Quarantine(strict),
    )
    with (
        distributed.process_group(checked_device(device)) as own,
        speaking(out, tensorboard=tensorboard) as progress,
    ):
        taught = partial(
            pipeline.distil,
            loaded,
            context=pipeline.Context(
                seed=seed, protocol=protocol, device=own, quarantine=quarantine, progress=progress
            ),
        )
        source = _taught(source, out, taught, surrogate_steps, own)
        victim = on_device(victims.load_victims(source), own)
        pipeline.train_generator(
            loaded,
            victim,
            out,
            recipe=recipe,
            context=pipeline.Context(
                seed=seed, protocol=protocol, device=own, quarantine=quarantine, progress=progress
            ),
        )
        if not distributed.is_first():
            return
        quarantine.save(out)
    card = storage.read_card(out, "generator")
    if not json_output:
        rate = "fooling" if goal == "untargeted" else "targeted success"
        show(
            f"{rate} rate on dev {card['dev_fooling_rate']:.3f} at density <= {max_density}, "
            f"epsilon {epsilon} -> {out}"
        )
        if said := describe_unlabelled(card):
            show(said)
        for flag in card["flags"]:
            say(f"staanet: warning: {flag}")
    finish(card, quarantine, json_output=json_output)


def _taught(
    sources: Sequence[str], out: Path, teach: Callable[..., object], steps: int, device: str
) -> list[str]:
    """Sources with, in the place of each ``distill:VICTIM``, the folder of its surrogate."""
    from staanet.config import VictimRecipe
    from staanet.nn import distributed
    from staanet.victims import load_victim

    places = []
    for number, spec in enumerate(sources, start=1):
        scheme, _, target = spec.partition(":")
        if scheme == "distill":
            if distributed.world_size() > 1:
                raise InvalidInput(
                    f"{distributed.world_size()} processes cannot teach a surrogate together",
                    where=spec,
                    remedy="Train without torchrun, or give the folder of a surrogate as --source",
                )
            folder = out / "surrogates" / str(number)
            teach(
                load_victim(target).to(device),
                folder,
                recipe=VictimRecipe(steps=steps, seconds=1.5),
            )
            spec = str(folder)
        places.append(spec)
    return places


@command(
    "train-uap", "staanet train-uap emodb:data/emodb --source runs/emodb/victims/emo18 --out vector"
)
def train_uap(
    corpus: CorpusName,
    source: Annotated[
        str, typer.Option(help="The victim to learn against: a folder, or hf:NAME-OR-FOLDER.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the vector.")],
    epsilon: Epsilon = 0.03,
    max_density: Annotated[
        float | None, typer.Option(help="Largest share of samples changed [default: all].")
    ] = None,
    steps: Annotated[int, typer.Option(min=1)] = 200,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of the vector.")] = 1.0,
    label: Annotated[str | None, typer.Option(help="Aim at this class.")] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Learn one universal vector against a victim: the control that needs no look at a clip."""
    from staanet import config, corpora, pipeline, storage, victims

    recipe = config.checked(
        config.VectorRecipe,
        {
            "epsilon": epsilon,
            "max_density": max_density,
            "steps": steps,
            "batch_size": batch_size,
            "seconds": seconds,
        },
        where="train-uap",
    )
    loaded, quarantine = (
        corpora.load_corpus(corpus, classes=classes, out=out),
        pipeline.Quarantine(strict),
    )
    victim = on_device(victims.load_victim(source), device)
    with storage.FolderLock(out), Bars.shown() as progress:
        pipeline.train_uap(
            loaded,
            victim,
            out,
            recipe=recipe,
            label=label,
            context=pipeline.Context(
                seed=seed, protocol=protocol, quarantine=quarantine, progress=progress
            ),
        )
        quarantine.save(out)
    card = storage.read_card(out, "vector")
    if not json_output:
        show(f"fooling rate on dev {card['dev_fooling_rate']:.3f}, epsilon {epsilon} -> {out}")
    finish(card, quarantine, json_output=json_output)


@command("export", "staanet export runs/quick/generators/emo18 --out emo18.onnx")
def export(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Folder of a generator, an emo18 or a zhao19.")
    ],
    out: Annotated[Path, typer.Option(help="ONNX file to write; a victim's card is FILE.toml.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A model as an ONNX file for clips of any length, compared with torch before it is written.

    A victim is then named onnx:FILE elsewhere; a generator runs by staanet.generators.runtime, without torch.
    """
    from staanet import pipeline, storage, victims
    from staanet.victims.export import export_onnx

    told: dict[str, Any]
    with Bars.shown() as progress:
        progress("export", 0, 1, "")
        if storage.holds(model, "generator"):
            told = pipeline.export_generator(model, out)
            said = f"{told['differing']} of {told['changed']} changed samples differ from torch's"
        else:
            told = {"difference": export_onnx(victims.load_victim(model), out)}
            said = f"logits differ by at most {told['difference']:.1e}"
        progress("export", 1, 1, "")
    if not json_output:
        show(f"{said} -> {out}")
    finish({"out": str(out), **told}, pipeline.Quarantine(), json_output=json_output)


def _manifest(
    corpus: Corpus, folder: Path, seed: int, protocol: str | None
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a corpus's manifest in ``folder``, from where its files are named; times
    where it has parts of files, and the split that was asked for, or else its own."""
    top = folder.absolute()
    split = {u.id: u.part for u in corpus.utterances if u.part}
    if protocol is not None:
        split = {u.id: p.part for p in corpus.split(seed, protocol) for u in p.utterances}
    rows = [
        {
            "file": str(path.relative_to(top) if path.is_relative_to(top) else path),
            "id": u.id,
            "label": u.label or "",
            "speaker": u.speaker,
            "sex": u.sex or "",
            "content": u.content or "",
            "start": u.start_s,
            "end": "" if u.end_s is None else u.end_s,
            "split": split.get(u.id, ""),
        }
        for u in corpus.utterances
        for path in [u.path.absolute()]
    ]
    times = ["start", "end"] if any(u.is_segment for u in corpus.utterances) else []
    said = ["content"] if any(u.content for u in corpus.utterances) else []
    part = ["split"] if split else []
    return ["file", "id", "label", "speaker", "sex", *said, *times, *part], rows
