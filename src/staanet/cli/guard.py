"""Commands that guard a victim: harden, detect, certify, audit."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.progress import Bars
from staanet.cli.shell import (
    CHECK_FAILED,
    UNDECIDED,
    CorpusName,
    Debug,
    Device,
    Json,
    Protocol,
    Seed,
    Strict,
    command,
    finish,
    inputs_of,
    numbers,
    on_device,
    show,
    table,
    warned,
)
from staanet.errors import InvalidInput, unknown_name


@command(
    "harden",
    "staanet harden emodb:data/emodb --victim runs/emodb/victims/emo18 --method sparse_pgd "
    "--out runs/emodb/victims/emo18-hard",
)
def harden(
    corpus: CorpusName,
    victim: Annotated[Path, typer.Option(help="Folder of the trained victim to begin from.")],
    out: Annotated[Path, typer.Option(help="Victim folder to write.")],
    method: Annotated[
        str,
        typer.Option(
            help="pgd (every sample), sparse_pgd, sparse_trades, staa (a generator learns beside it), trades; or "
            "gaussian, ablation, which make it fit for staanet certify."
        ),
    ] = "sparse_pgd",
    epsilon: Annotated[
        float, typer.Option(help="Largest change to withstand, of full scale 1.")
    ] = 0.03,
    max_density: Annotated[
        float | None,
        typer.Option(help="Largest share of samples changed [default: 0.2 of the sparse methods]."),
    ] = None,
    inner_steps: Annotated[int, typer.Option(min=1, help="Steps of PGD for each step.")] = 4,
    weight: Annotated[
        float | None,
        typer.Option(
            help="Adversarial share of the loss [default: 0.5; beta of trades and sparse_trades: 6]."
        ),
    ] = None,
    ramp: Annotated[float, typer.Option(help="Epsilon grows over this share of the steps.")] = 0.3,
    average: Annotated[
        float, typer.Option(help="Decay of the running mean of weights that is kept; 0: none.")
    ] = 0.99,
    sigma: Annotated[float, typer.Option(help="Of gaussian: the deviation of its noise.")] = 0.02,
    keep: Annotated[float, typer.Option(help="Of ablation: the share of samples seen.")] = 0.3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 600,
    batch_size: Annotated[int, typer.Option(min=2)] = 16,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 1.5,
    learning_rate: Annotated[float, typer.Option(min=1e-9)] = 5e-4,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Judgements without progress.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Its name [default: VICTIM+METHOD].")] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Adversarial training: train a victim on against attacks; resumable, its card tells the cost."""
    from staanet import config, corpora, pipeline, storage, victims
    from staanet.training import AdversarialTraining

    recipe = config.checked(
        config.HardenRecipe,
        {
            "method": method,
            "epsilon": epsilon,
            "max_density": max_density,
            "inner_steps": inner_steps,
            "weight": weight,
            "ramp": ramp,
            "average": average,
            "sigma": sigma,
            "keep": keep,
            "steps": steps,
            "batch_size": batch_size,
            "seconds": seconds,
            "learning_rate": learning_rate,
            "patience": patience,
        },
        where="harden",
    )
    AdversarialTraining(recipe)  # what cannot be is told before a folder is made
    loaded, quarantine = corpora.load_corpus(corpus, out=out), pipeline.Quarantine(strict)
    beginning = on_device(victims.load_victim(victim), device)
    if os.path.realpath(out) == os.path.realpath(victim):
        raise InvalidInput("is the victim itself", where=out, remedy="Choose another --out")
    with storage.FolderLock(out), Bars.shown() as progress:
        pipeline.harden(
            loaded,
            beginning,
            out,
            recipe=recipe,
            name=name,
            context=pipeline.Context(
                seed=seed, protocol=protocol, quarantine=quarantine, progress=progress
            ),
        )
        quarantine.save(out)
    card = storage.read_card(out, "victim")
    told = card["hardened"]
    if not json_output:
        show(
            f"{card['name']}: UAR {card['test_uar']:.3f} on test, {told['test_uar_before']:.3f} before; "
            f"on dev {told['history']['dev_adversarial_uar']:.3f} under PGD at the last judgement; "
            f"a step takes {told['cost']['times']:.1f} x a plain one -> {out}"
        )
    flags = warned(pipeline.split_warnings([victim], loaded.split(seed, protocol)[2]))
    finish({**card, **flags}, quarantine, json_output=json_output)


@command(
    "detect",
    "staanet detect emodb:data/emodb --victim runs/emodb/victims/emo18 --detector residual "
    "--against runs/emodb/adversarial/staa__emo18 --aware 20 --out runs/emodb/victims/emo18-guarded",
)
def detect(
    corpus: CorpusName,
    victim: Annotated[
        str, typer.Option(help="Victim to guard: a folder, hf:NAME-OR-FOLDER or onnx:FILE.")
    ],
    out: Annotated[Path, typer.Option(help="Victim folder to write, with ROC as CSV and PNG.")],
    detector: Annotated[str, typer.Option(help="residual, disagreement or learned.")] = "residual",
    false_positive_rate: Annotated[
        float, typer.Option(min=0, max=1, help="Share of clean dev clips that may get no answer.")
    ] = 0.05,
    against: Annotated[
        list[Path], typer.Option(metavar="ADVERSARIAL", help="Adversarial set; repeat for several.")
    ] = [],  # noqa: B006
    aware: Annotated[
        int, typer.Option(min=0, help="Also attack so many test clips knowing the detector.")
    ] = 0,
    generator_steps: Annotated[
        int,
        typer.Option(
            min=0, max=10**9, help="Also train a STAA-Net through the detector, so many steps."
        ),
    ] = 0,
    epsilon: Annotated[
        float, typer.Option(help="Largest change of a sample, for learned and --aware.")
    ] = 0.03,
    max_density: Annotated[float, typer.Option(help="Largest share of samples changed.")] = 0.2,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of learned.")] = 200,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A victim that abstains from suspicious clips: threshold from dev, ROC and rates per attack."""
    from staanet import corpora, pipeline, storage, victims
    from staanet.config import DetectRecipe, checked

    recipe = checked(
        DetectRecipe,
        {
            "detector": detector,
            "false_positive_rate": false_positive_rate,
            "adaptive_clips": aware,
            "generator_steps": generator_steps,
            "epsilon": epsilon,
            "max_density": max_density,
            "steps": steps,
        },
        where="detect",
    )
    pipeline.check_detection(recipe, against)  # a mistake is found before a folder is made
    loaded, quarantine = corpora.load_corpus(corpus, out=out), pipeline.Quarantine(strict)
    inner = on_device(victims.load_victim(victim), device)
    with storage.FolderLock(out), Bars.shown() as progress:
        told = pipeline.detect(
            loaded,
            inner,
            out,
            recipe=recipe,
            sets=against,
            context=pipeline.Context(
                seed=seed, protocol=protocol, quarantine=quarantine, progress=progress
            ),
        )
        quarantine.save(out)
    if not json_output:
        if told["attacks"]:
            show(
                table(
                    [
                        "attack",
                        "AUROC",
                        "false alarms",
                        "detected",
                        "fooled",
                        "fooled and undetected",
                    ],
                    [
                        [
                            a["attack"],
                            f"{a['auroc']:.3f}",
                            *(
                                f"{100 * a[key]['value']:.1f} % of {a['count']}"
                                for key in (
                                    "false_positive_rates",
                                    "detected",
                                    "fooled",
                                    "fooled_undetected",
                                )
                            ),
                        ]
                        for a in told["attacks"]
                    ],
                )
            )
        if told["attacks"] and not told["adaptive"]:
            show("\nnon-adaptive: no attack here knew the detector; add --aware 20")
        show(f"\nabstains above {told['threshold']:.4g}, chosen on {told['chosen_on']} -> {out}")
    flags = warned(pipeline.split_warnings([victim], loaded.split(seed, protocol)[2]))
    finish({**told, **flags}, quarantine, json_output=json_output)


@command(
    "certify",
    "staanet certify emodb:data/emodb --victim runs/emodb/victims/emo18-gaussian "
    "--method smoothing --sigma 0.02 --out certificates",
)
def certify(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Files, folders, or KIND:PATH.")
    ],
    victim: Annotated[str, typer.Option(help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE.")],
    out: Annotated[Path, typer.Option(help="Folder for certificates, curve and JSON.")],
    method: Annotated[
        str, typer.Option(help="smoothing (L2) or ablation (number of samples).")
    ] = "smoothing",
    sigma: Annotated[float, typer.Option(help="Of smoothing: the deviation of its noise.")] = 0.02,
    keep: Annotated[float, typer.Option(help="Of ablation: the share of samples seen.")] = 0.3,
    votes: Annotated[int, typer.Option(min=1, max=10**7, help="Votes that prove an answer.")] = 500,
    guesses: Annotated[
        int, typer.Option(min=1, max=10**7, help="Votes that choose it before.")
    ] = 64,
    alpha: Annotated[
        float, typer.Option(help="How probably a certificate may be wrong, each.")
    ] = 0.001,
    clips: Annotated[int, typer.Option(min=1, help="At most so many, spread over labels.")] = 50,
    attack_steps: Annotated[
        int, typer.Option(min=0, help="Also attack inside each radius, with so many steps.")
    ] = 0,
    part: Annotated[str, typer.Option(help="Of a corpus: train, dev, test or all.")] = "test",
    batch_size: Annotated[int, typer.Option(min=1, max=2**16)] = 32,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """What no attack can do: certified accuracy against radius, by voting under noise; resumable."""
    from staanet import pipeline, storage, victims
    from staanet.evaluation import certificates
    from staanet.transforms.noise import Ablation, Gaussian, SmoothingNoise

    if method not in ("smoothing", "ablation"):
        raise unknown_name("method of certificates", method, ["smoothing", "ablation"])
    noise: SmoothingNoise = Gaussian(sigma=sigma)
    if method == "ablation":
        noise = Ablation(keep=keep)
    how = certificates.Votes(
        guesses=guesses, votes=votes, alpha=alpha, batch_size=batch_size, seed=seed
    )
    judged, quarantine = on_device(victims.load_victim(victim), device), pipeline.Quarantine(strict)
    corpus = inputs_of(inputs, part, seed, out, protocol)
    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(quarantine=quarantine, progress=progress)
        loaded = pipeline.load_clips(corpus, judged, context)
        told = pipeline.certify(
            judged,
            loaded,
            out,
            noise=noise,
            votes=how,
            attack_steps=attack_steps,
            limit=clips,
            context=context,
        )
        quarantine.save(out)
    if not json_output:
        shown = told["curve"][:: max(1, len(told["curve"]) // 8)]
        show(
            table(
                [f"radius ({told['unit']})", "certified accuracy", "95 % interval"],
                [
                    [
                        f"{p['radius']:.4g}",
                        f"{100 * p['certified_accuracy']:.1f} % of {p['count']}",
                        "n/a"
                        if p["low"] is None
                        else f"{100 * p['low']:.0f} to {100 * p['high']:.0f} %",
                    ]
                    for p in shown
                ],
            )
        )
        show(
            f"\n{told['abstained']} of {told['clips']} clips got no answer; attacks inside the radius: "
            f"{told['broken']} of {told['attacked']} succeeded -> {out}"
        )
    flags = warned(pipeline.split_warnings([victim], corpus))
    finish({**told, **flags}, quarantine, json_output=json_output)


@command(
    "audit",
    "staanet audit --victim onnx:model.onnx --corpus emodb:data/emodb --out audit --fail-above 0.3",
)
def audit(
    victim: Annotated[
        str, typer.Option(help="The model: a victim folder, hf:NAME-OR-FOLDER or onnx:FILE.")
    ],
    corpus: Annotated[str, typer.Option(metavar="KIND:PATH", help="Labelled speech to try it on.")],
    out: Annotated[Path, typer.Option(help="Folder for audit.json, audit.html and the evidence.")],
    fail_above: Annotated[
        float | None, typer.Option(help="Exit code 1 where the worst fooling rate is above this.")
    ] = None,
    source: Annotated[
        list[str],
        typer.Option(
            help="Trained model that stands for the attacker's own; repeat for several "
            "[default: emo18 and zhao19 are trained]."
        ),
    ] = [],  # noqa: B006
    surrogate: Annotated[
        list[str], typer.Option(help="Network to train as the attacker's own; repeat for several.")
    ] = ["emo18", "zhao19"],  # noqa: B006
    epsilon: Annotated[str, typer.Option(help="Comma-separated.")] = "0.01,0.03",
    density: Annotated[str, typer.Option(help="Comma-separated.")] = "0.05,0.2",
    clips: Annotated[int, typer.Option(min=1, help="Test clips, spread over labels.")] = 48,
    query_clips: Annotated[
        int, typer.Option(min=0, help="Of these, attacked by asking the model itself.")
    ] = 8,
    queries: Annotated[int, typer.Option(min=1, help="Questions per such clip.")] = 500,
    surrogate_steps: Annotated[int, typer.Option(min=1)] = 400,
    generator_steps: Annotated[int, typer.Option(min=1)] = 300,
    channel: Annotated[
        list[str], typer.Option(metavar="NAME[:SETTING]", help="Also after this channel.")
    ] = ["mp3:32", "mulaw", "resample:8000"],  # noqa: B006
    defence: Annotated[
        list[str], typer.Option(metavar="NAME[:SETTING]", help="Also behind this defence.")
    ] = ["median:3", "lowpass:3000", "quantise:8"],  # noqa: B006
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """How robust is this model, to whom, and what helps? Verdict in words and JSON; resumable.

    Exit code 1 where the worst fooling rate is above --fail-above.
    """
    from staanet import config, corpora, pipeline, storage, victims

    recipe = config.checked(
        config.AuditRecipe,
        {
            "epsilons": numbers("--epsilon", epsilon),
            "densities": numbers("--density", density),
            "clips": clips,
            "query_clips": query_clips,
            "queries": queries,
            "surrogates": surrogate,
            "surrogate_steps": surrogate_steps,
            "generator_steps": generator_steps,
            "channels": channel,
            "defences": defence,
        },
        where="audit",
    )
    judged, loaded = (
        on_device(victims.load_victim(victim), device),
        corpora.load_corpus(corpus, out=out),
    )
    quarantine = pipeline.Quarantine(strict)
    with storage.FolderLock(out), Bars.shown() as progress:
        told = pipeline.audit(
            judged,
            loaded,
            out,
            recipe=recipe,
            sources=source,
            fail_above=fail_above,
            command=shlex.join(["staanet", *sys.argv[1:]]),
            context=pipeline.Context(
                seed=seed,
                protocol=protocol,
                device=device,
                quarantine=quarantine,
                progress=progress,
            ),
        )
    if not json_output:
        for sentence in told["verdict"]:
            show(sentence)
        show(f"\n-> {out / 'audit.html'}")
    if told["outcome"] not in (None, "passed"):
        with contextlib.suppress(typer.Exit):  # its own code, whatever was put aside
            finish(told, quarantine, json_output=json_output)
        raise typer.Exit(CHECK_FAILED if told["outcome"] == "failed" else UNDECIDED)
    finish(told, quarantine, json_output=json_output)
