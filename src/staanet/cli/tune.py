"""The command that searches the weights of the published objective: tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.progress import Bars
from staanet.cli.shell import (
    Classes,
    CorpusName,
    Debug,
    Device,
    Epsilon,
    Json,
    Protocol,
    Seed,
    Strict,
    command,
    finish,
    on_device,
    show,
    table,
)


@command(
    "tune",
    "staanet tune emodb:data/emodb --source runs/emodb/victims/emo18 --trials 30 --out search",
)
def tune(
    corpus: CorpusName,
    source: Annotated[
        str, typer.Option(help="The victim to train against: a folder, or hf:NAME-OR-FOLDER.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the search; given again, it goes on.")],
    trials: Annotated[
        int, typer.Option(min=1, max=10_000, help="Generators to train, all in all.")
    ] = 20,
    network: Annotated[
        str, typer.Option(help="compact, narrow, small, paper or mirror.")
    ] = "compact",
    epsilon: Epsilon = 0.03,
    max_density: Annotated[
        float, typer.Option(help="Largest share of samples that may be changed.")
    ] = 0.2,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each.")] = 300,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seconds: Annotated[float, typer.Option(min=0.05, help="Length of a training crop.")] = 1.5,
    seed: Seed = 0,
    protocol: Protocol = None,
    classes: Classes = "label",
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Search the weights of the loss: the most fooling at the least density (extra tune; resumable)."""
    from staanet import corpora, pipeline, storage, victims
    from staanet.pipeline import tune

    recipe = tune.published_recipe(
        {
            "network": network,
            "epsilon": epsilon,
            "max_density": max_density,
            "steps": steps,
            "batch_size": batch_size,
            "seconds": seconds,
            "evaluate_every": max(1, steps // 3),
        }
    )
    loaded = corpora.load_corpus(corpus, classes=classes, out=out)
    quarantine = pipeline.Quarantine(strict)
    victim = on_device(victims.load_victim(source), device)
    with storage.FolderLock(out), Bars.shown() as progress:
        found = tune.tune(
            loaded,
            victim,
            out,
            recipe=recipe,
            trials=trials,
            context=pipeline.Context(
                seed=seed,
                protocol=protocol,
                device=device,
                quarantine=quarantine,
                progress=progress,
            ),
        )
        quarantine.save(out)
    front = sorted((one for one in found if one.best), key=lambda one: one.density)
    if not json_output:
        names = list(front[0].settings)
        show(
            table(
                ["trial", "fools on dev", "density", *names],
                [
                    [
                        one.number,
                        f"{100 * one.fooling_rate:.1f} %",
                        f"{one.density:.4f}",
                        *(f"{one.settings[name]:.3g}" for name in names),
                    ]
                    for one in front
                ],
            )
        )
        show(f"\n{len(front)} of {len(found)} are beaten by none -> {out / tune.FRONT}")
    finish(
        {"out": str(out), "trials": [one.row() for one in found]},
        quarantine,
        json_output=json_output,
    )
