"""Commands that attack and judge: attack, evaluate, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from staanet.cli.shell import (
    Bars,
    Debug,
    Device,
    Json,
    Protocol,
    Seed,
    Strict,
    command,
    decibels,
    findings,
    finish,
    inputs_of,
    made_folder,
    numbers,
    of_card,
    on_device,
    percent,
    show,
    table,
    twice,
)
from staanet.errors import InvalidInput

if TYPE_CHECKING:
    pass


@command("attack", "staanet attack speech.wav --generator runs/quick/generators/emo18 --out fooled")
def attack(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or KIND:PATH.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the adversarial set.")],
    attack: Annotated[str, typer.Option(help="staa, pgd, uap, random or another.")] = "staa",
    generator: Annotated[Path | None, typer.Option(help="Generator folder (for staa).")] = None,
    vector: Annotated[Path | None, typer.Option(help="Folder of a vector (for uap).")] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE [default: the generator's]."
        ),
    ] = None,
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
    match: Annotated[
        Path | None, typer.Option(help="Change as many samples as this set did.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Aim at this class instead of any other.")
    ] = None,
    part: Annotated[str, typer.Option(help="Of a corpus: train, dev, test or all.")] = "test",
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Adversarial audio from files, folders or a corpus split, as 16-bit WAV with its metrics."""
    from staanet import pipeline, storage, victims
    from staanet.config import AttackRecipe

    kind, learned = ("generator", generator) if generator else ("vector", vector)
    if source is None and learned is None:
        raise InvalidInput(
            "no victim to attack", remedy="Pass --source VICTIM, --generator DIR or --vector DIR"
        )
    victim = victims.load_victim(source) if source else pipeline.source_of(learned or Path(), kind)
    victim = on_device(victim, device)
    trained = storage.read_card(learned, kind) if learned else {}
    if epsilon is None:
        epsilon = of_card(trained, "epsilon", learned) or 0.03
    if max_density is None and attack in ("staa", "uap"):
        max_density = of_card(trained, "max_density", learned)
    quarantine = pipeline.Quarantine(strict)
    corpus = inputs_of(inputs, part, seed, out, protocol)
    with storage.FolderLock(made_folder(out)), Bars.shown() as progress:
        clips = pipeline.load_clips(corpus, victim, quarantine, progress)
        plan = pipeline.plan_attack(
            attack, AttackRecipe(attack=attack, epsilon=epsilon, max_density=max_density), victim,
            generator=generator, vector=vector, matched=match, label=label, seed=seed, device=device,
        )  # fmt: skip
        made = pipeline.attack(plan, clips, out, quarantine=quarantine, progress=progress)
        quarantine.save(out)
        rows = pipeline.answers(made, victim)
    if not json_output:
        show(table(
            ["clip", f"{victim.name} before", "after", "changed", "of samples", "SNR dB"],
            [[r["id"], r["before"], r["after"], r["l0"], f"{100 * r['density']:.2f} %", decibels(r["snr_db"])]
             for r in rows[:40]],
        ))  # fmt: skip
        fooled = sum(r["before"] != r["after"] for r in rows)
        show(f"\n{fooled} of {len(rows)} answers changed -> {out}")
    finish({"out": str(out), "clips": rows}, quarantine, json_output=json_output)


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
        ),
    ] = [],  # noqa: B006
    perceptual: Annotated[
        bool,
        typer.Option(
            "--perceptual", help="Also how it sounds: PESQ, STOI, Zimtohrli, DNSMOS; slow."
        ),
    ] = False,
    seed: Seed = 0,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """The transfer matrix, computed from the audio files on disk."""
    from staanet import channels, pipeline, storage, victims

    for name in channel:
        channels.parse_channel(name)
    targets = [on_device(victims.load_victim(spec), device) for spec in target]
    with storage.FolderLock(made_folder(out)), Bars.shown() as progress:
        matrix = pipeline.evaluate(
            adversarial, targets, out, channels=channel, perceptual=perceptual, progress=progress
        )
    if not json_output:
        show(findings(matrix.summary))
        show(f"\n-> {out}")
    finish(dict(matrix.summary), pipeline.Quarantine(), json_output=json_output)


@command(
    "sweep",
    "staanet sweep emodb:data/emodb --source runs/emodb/victims/emo18 --attack pgd --attack random "
    "--epsilon 0.003,0.01,0.03 --density 0.05,0.2,1 --out sweep",
)
def sweep(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or KIND:PATH.")
    ],
    source: Annotated[str, typer.Option(help="Victim to craft on: folder, hf: or onnx:FILE.")],
    out: Annotated[Path, typer.Option(help="Folder for tables and the figure.")],
    attack: Annotated[list[str], typer.Option(help="Registry name; repeat for several.")],
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
    part: Annotated[str, typer.Option(help="Of a corpus: train, dev, test or all.")] = "test",
    seed: Seed = 0,
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
            "attacks": list(dict.fromkeys(attack)), "epsilons": numbers("--epsilon", epsilon),
            "densities": numbers("--density", density), "clips": clips, "grid": grid,
        },
        where="sweep",
    )  # fmt: skip
    specs = list(dict.fromkeys([source, *target]))
    loaded = [on_device(victims.load_victim(spec), device) for spec in specs]
    named = dict(zip((victim.name for victim in loaded), specs, strict=True))
    if len(named) < len(specs):
        raise InvalidInput(
            f"two victims are called {twice([victim.name for victim in loaded])}",
            remedy="Give each victim a name of its own",
        )
    plan = pipeline.SweepPlan(
        recipe=recipe, attacks={name: config.AttackRecipe(attack=name) for name in recipe.attacks},
        source=loaded[0], targets=loaded,
        sha256={v.name: victims.fingerprint(v, spec) for v, spec in zip(loaded, specs, strict=True)},
        generator=generator, vectors={"uap": vector} if vector else {}, seed=seed, device=device,
    )  # fmt: skip
    quarantine = pipeline.Quarantine(strict)
    corpus = inputs_of(inputs, part, seed, out)
    with storage.FolderLock(made_folder(out)), Bars.shown() as progress:
        usable = pipeline.load_clips(corpus, loaded[0], quarantine, progress)
        found = pipeline.sweep(
            plan, usable, out, keep=keep, quarantine=quarantine, progress=progress
        )
        quarantine.save(out)
    if not json_output:
        show(table(
            ["attack", "target", "epsilon", "at most", "fools", "changed", "SNR dB", "s/clip", "queries"],
            [[r["attack"], r["target"], f"{r['epsilon']:g}", percent(r["max_density"]),
              f"{percent(r['fooling_rate'])} of {r['count']}", percent(r["density_mean"]),
              decibels(r["snr_db_mean"]), f"{r['seconds_median']:.3f}", f"{r['queries_mean']:.0f}"]
             for r in found],
        ))  # fmt: skip
        show(f"\n-> {out / 'sweep.png'}")
    finish({"out": str(out), "points": found}, quarantine, json_output=json_output)
