"""Commands that attack and judge: attack, evaluate, sweep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from staanet.cli import names
from staanet.cli.progress import Bars
from staanet.cli.shell import (
    Classes,
    Debug,
    Device,
    Json,
    Precision,
    Protocol,
    Seed,
    ShardOf,
    Strict,
    checked_device,
    command,
    decibels,
    findings,
    finish,
    inputs_of,
    numbers,
    of_card,
    on_device,
    percent,
    say,
    settings,
    show,
    table,
    twice,
    warned,
)
from staanet.errors import InvalidInput, unknown_name
from staanet.storage.shards import Shard

ENGINES = ("local", "ray")


QUIET_ENOUGH_DB = 12.0
"""Least dB of speech above the change, where nothing is said of the budget."""


@command("attack", "staanet attack speech.wav --out fooled")
def attack(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Files, folders, or KIND:PATH.", autocompletion=names.inputs
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adversarial set.")],
    attack: Annotated[
        str, typer.Option(help="staa, pgd, uap, random or another.", autocompletion=names.attacks)
    ] = "staa",
    generator: Annotated[Path | None, typer.Option(help="Generator folder (for staa).")] = None,
    vector: Annotated[Path | None, typer.Option(help="Folder of a vector (for uap).")] = None,
    source: Annotated[
        list[str],
        typer.Option(
            help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE; repeat for an ensemble "
            "[default: the generator's]."
        ),
    ] = [],  # noqa: B006
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Largest change of a sample, of full scale 1 [default: the generator's]."
        ),
    ] = None,
    max_density: Annotated[
        float | None,
        typer.Option(help="Largest share of samples changed [default: the generator's]."),
    ] = None,
    max_l0: Annotated[
        int | None, typer.Option(min=1, help="Largest number of samples changed.")
    ] = None,
    min_snr_db: Annotated[
        float | None, typer.Option(help="Least dB of speech above the change.")
    ] = None,
    match: Annotated[
        Path | None, typer.Option(help="Change as many samples as this set did.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Aim at this class instead of any other; each: at another for each clip, "
            "all as often."
        ),
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of the attack, such as steps=50 or refine=5.",
        ),
    ] = [],  # noqa: B006
    pictures: Annotated[
        int, typer.Option(min=0, help="Draw so many of the clips (none of a --shard).")
    ] = 3,
    eot: Annotated[
        int | None,
        typer.Option(min=1, help="Draws to average where the victim is randomised [default: 8]."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Of a corpus: train, dev, test or all.", autocompletion=names.parts)
    ] = "test",
    window: Annotated[
        float,
        typer.Option(
            min=0,
            max=10**6,
            help="Attack longer files in windows of so many seconds, and join them; 0: never.",
        ),
    ] = 30.0,
    max_seconds: Annotated[
        float, typer.Option(min=0, help="Files beyond this are put aside.")
    ] = 600.0,
    max_bytes: Annotated[int, typer.Option(min=0, help="Files beyond this are put aside.")] = 512
    * 2**20,
    shard: ShardOf = None,
    batch_size: Annotated[
        int,
        typer.Option(min=1, help="Clips in one pass, padded: quicker on a GPU (--device cuda)."),
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="local, or ray: shards on the cores here or on RAY_ADDRESS.")
    ] = "local",
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    precision: Precision = "auto",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Adversarial audio from files, folders or a corpus split, as 16-bit WAV with its metrics.

    Without --source, --generator or --vector the models that come with the package are used.
    """
    from staanet import pipeline, report, storage, victims
    from staanet.config import AttackRecipe, checked
    from staanet.storage import pretrained

    one = Shard.parse(shard) if shard else None
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if one is not None and engine != "local":
        raise InvalidInput("--shard is for --engine local", remedy="Leave one of them out")
    witnesses: list[str] = []
    if not source and generator is None and vector is None:  # the models that come with the package
        generator = pretrained.folder("generators", pretrained.names("generators")[0])
        witnesses = _present(f"{pretrained.SCHEME}:{name}" for name in pretrained.names("victims"))
        if min_snr_db is None and epsilon is None:
            min_snr_db = QUIET_ENOUGH_DB  # recordings are as quiet as they are
    kind, learned = ("generator", generator) if generator else ("vector", vector)
    trained = storage.read_card(learned, kind) if learned else {}
    if epsilon is None:
        epsilon = of_card(trained, "epsilon", learned) or 0.03
    if max_density is None and max_l0 is None and attack in ("staa", "uap"):
        max_density = of_card(trained, "max_density", learned)
    recipe = checked(
        AttackRecipe,
        {
            "attack": attack,
            "epsilon": epsilon,
            "max_density": max_density,
            "max_l0": max_l0,
            "min_snr_db": min_snr_db,
            "eot": eot,
            "precision": precision,
            "batch_size": batch_size,
            "settings": settings(set_),
        },
        where="attack",
    )
    corpus = inputs_of(inputs, part, seed, out, protocol, classes)
    limits = replace(corpus.limits, max_seconds=max_seconds, max_bytes=max_bytes)
    job = pipeline.AttackJob(
        corpus=replace(corpus, limits=limits),
        sources=tuple(source),
        generator=generator,
        vector=vector,
        recipe=recipe,
        matched=match,
        label=label,
        window_s=window,
    )
    victim, quarantine = job.load_source(checked_device(device)), pipeline.Quarantine(strict)
    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(
            seed=seed, device=device, quarantine=quarantine, progress=progress
        )
        made = (
            job.run_on_ray(victim, out, context=context)
            if engine == "ray"
            else job.run(victim, out, context=context, shard=one)
        )
        others = [victims.load_victim(spec) for spec in witnesses] or victims.members_of(victim)
        rows = pipeline.predictions(made, others, context)
        shown = made.clips[: 0 if shard else pictures]
        drawn = report.draw_clips(
            out, ((c.clean.id, c.clean.pcm16, c.adversarial, c.clean.sample_rate) for c in shown)
        )
    if not json_output and not rows:
        show("No clip was attacked: none is usable.")
    elif not json_output:
        names = [other.name for other in others]
        show(
            table(
                ["clip", *names, "changed", "of samples", "SNR dB"],
                [
                    [
                        r["id"],
                        *(_turned(*r["answers"][name]) for name in names),
                        r["l0"],
                        f"{100 * r['density']:.2f} %",
                        decibels(r["snr_db"]),
                    ]
                    for r in rows[:40]
                ],
            )
        )
        for name in names:
            fooled = sum(r["answers"][name][0] != r["answers"][name][1] for r in rows)
            show(
                f"{'' if name != names[0] else chr(10)}{name}: {fooled} of {len(rows)} answers changed"
            )
        show(f"-> {out}{f' and pictures in {drawn[0].parent}' if drawn else ''}")
        for row in pipeline.read_recordings(out):
            show(f"{row['id']}: {row['windows']} windows joined -> {out / row['file_name']}")
    flags = warned(pipeline.split_warnings([*source, *filter(None, (generator, vector))], corpus))
    finish({"out": str(out), "clips": rows, **flags}, quarantine, json_output=json_output)


def _present(specs: Iterable[str]) -> list[str]:
    """The victims that can be read with what is installed; of the others it is said what they lack."""
    from staanet import victims

    lacks = {spec: victims.missing_extra(spec) for spec in specs}
    for spec, why in lacks.items():
        if why is not None:
            say(f"staanet: without {spec}: {why}")
    return [spec for spec, why in lacks.items() if why is None]


def _turned(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


@command(
    "evaluate",
    "staanet evaluate runs/emodb/adversarial/* --target runs/emodb/victims/zhao19 --out check",
)
def evaluate(
    adversarial: Annotated[
        list[Path], typer.Argument(metavar="ADVERSARIAL...", help="Adversarial sets.")
    ],
    target: Annotated[
        list[str],
        typer.Option(help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE; repeat for several."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for results.parquet and summary.json.")],
    channel: Annotated[
        list[str],
        typer.Option(
            metavar="NAME[:SETTING]",
            help="Also after this channel, such as mp3, opus:24, gsm, mulaw, vorbis, resample:8000, "
            "gain:-6, rir:0.5, noise:20; repeat for several.",
            autocompletion=names.channels,
        ),
    ] = [],  # noqa: B006
    perceptual: Annotated[
        bool,
        typer.Option(
            "--perceptual",
            help="Also how it sounds: masking threshold, PESQ, STOI, Zimtohrli, DNSMOS; slow.",
        ),
    ] = False,
    static_only: Annotated[
        bool,
        typer.Option(
            "--static-only",
            help="Do not attack defended targets anew: the result is called non-adaptive.",
        ),
    ] = False,
    adaptive_clips: Annotated[
        int, typer.Option(min=1, help="Clips on which a defended target is attacked anew.")
    ] = 40,
    shard: ShardOf = None,
    seed: Seed = 0,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """The transfer matrix, computed from the audio files on disk.

    A defended target that no set was crafted on is also attacked by one who knows the defence: PGD
    and sigma-zero through it, at the budget of the first set, into OUT/adversarial.
    """
    from staanet import evaluation, pipeline, storage, victims
    from staanet.transforms import parse_transform

    for name in channel:
        parse_transform(name)
    one = Shard.parse(shard) if shard else None
    targets = [on_device(victims.load_victim(spec), device) for spec in target]
    evaluation.check_names(targets)
    quarantine = pipeline.Quarantine()
    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(
            seed=seed, device=device, quarantine=quarantine, progress=progress
        )
        if not static_only:
            adversarial += pipeline.adapt(
                adversarial, targets, out / "adversarial", clips=adaptive_clips, context=context
            )
        matrix = pipeline.evaluate(
            adversarial,
            targets,
            out,
            channels=channel,
            perceptual=perceptual,
            shard=one,
            context=context,
        )
    if not json_output:
        show(findings(matrix.summary))
        show(f"\n-> {out}")
    cards = [storage.read_card(folder, "adversarial") for folder in adversarial]
    drawn = [card["drawn_from"] for card in cards if isinstance(card.get("drawn_from"), dict)]
    flags = [
        *matrix.summary["flags"],
        *warned(pipeline.split_warnings(target, *drawn)).get("flags", []),
    ]
    finish({**matrix.summary, "flags": flags}, quarantine, json_output=json_output)


@command(
    "sweep",
    "staanet sweep emodb:data/emodb --source runs/emodb/victims/emo18 --attack pgd --attack random "
    "--epsilon 0.003,0.01,0.03 --density 0.05,0.2,1 --out sweep",
)
def sweep(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Files, folders, or KIND:PATH.", autocompletion=names.inputs
        ),
    ],
    source: Annotated[str, typer.Option(help="Victim to craft on: folder, hf: or onnx:FILE.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and the figure.")],
    attack: Annotated[
        list[str],
        typer.Option(help="Registry name; repeat for several.", autocompletion=names.attacks),
    ],
    target: Annotated[
        list[str], typer.Option(help="Another victim to transfer to; repeat for several.")
    ] = [],  # noqa: B006
    generator: Annotated[Path | None, typer.Option(help="Generator folder (for staa).")] = None,
    vector: Annotated[Path | None, typer.Option(help="Folder of a vector (for uap).")] = None,
    epsilon: Annotated[str, typer.Option(help="Comma-separated.")] = "0.003,0.01,0.03",
    density: Annotated[str, typer.Option(help="Comma-separated.")] = "0.01,0.05,0.2,1",
    grid: Annotated[bool, typer.Option("--grid", help="Every epsilon with every density.")] = False,
    clips: Annotated[int, typer.Option(min=1, help="At most so many, spread over labels.")] = 50,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the audio of every point.")] = False,
    part: Annotated[
        str, typer.Option(help="Of a corpus: train, dev, test or all.", autocompletion=names.parts)
    ] = "test",
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Success against epsilon, density and SNR for several attacks, in one figure; resumable."""
    from staanet import config, pipeline, storage, victims

    recipe = config.checked(
        config.SweepRecipe,
        {
            "attacks": list(dict.fromkeys(attack)),
            "epsilons": numbers("--epsilon", epsilon),
            "densities": numbers("--density", density),
            "clips": clips,
            "grid": grid,
        },
        where="sweep",
    )
    specs = list(dict.fromkeys([source, *target]))
    loaded = [on_device(victims.load_victim(spec), device) for spec in specs]
    names_of_victims = [victim.name for victim in loaded]
    if len(set(names_of_victims)) < len(specs):
        raise InvalidInput(
            f"two victims are called {twice(names_of_victims)}",
            remedy="Give each victim a name of its own",
        )
    quarantine = pipeline.Quarantine(strict)
    corpus = inputs_of(inputs, part, seed, out, protocol, classes)
    with storage.FolderLock(out), Bars.shown() as progress:
        plan = pipeline.SweepPlan(
            recipe=recipe,
            attacks={name: config.AttackRecipe(attack=name) for name in recipe.attacks},
            source=loaded[0],
            targets=loaded,
            generator=generator,
            vectors={"uap": vector} if vector else {},
            context=pipeline.Context(
                seed=seed, device=device, quarantine=quarantine, progress=progress
            ),
        )
        usable = pipeline.load_clips(corpus, loaded[0], plan.context)
        found = pipeline.sweep(plan, usable, out, keep=keep)
        quarantine.save(out)
    if not json_output:
        show(
            table(
                [
                    "attack",
                    "target",
                    "epsilon",
                    "at most",
                    "fools",
                    "changed",
                    "SNR dB",
                    "s/clip",
                    "queries",
                ],
                [
                    [
                        r["attack"],
                        r["target"],
                        f"{r['epsilon']:g}",
                        percent(r["max_density"]),
                        f"{percent(r['fooling_rate'])} of {r['count']}",
                        percent(r["density_mean"]),
                        decibels(r["snr_db_mean"]),
                        f"{r['seconds_median']:.3f}",
                        f"{r['queries_mean']:.0f}",
                    ]
                    for r in found
                ],
            )
        )
        show(f"\n-> {out / 'sweep.png'}")
    flags = warned(pipeline.split_warnings([*specs, *filter(None, (generator, vector))], corpus))
    finish({"out": str(out), "points": found, **flags}, quarantine, json_output=json_output)
