"""Commands that defend: defend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.progress import Bars
from staanet.cli.shell import (
    Debug,
    Device,
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
    "defend",
    "staanet defend --victim runs/emodb/victims/emo18 --with median:3 --with lowpass:4000 "
    "--corpus emodb:data/emodb --out defended",
)
def defend(
    victim: Annotated[str, typer.Option(help="Victim folder, hf:NAME-OR-FOLDER or onnx:FILE.")],
    with_: Annotated[
        list[str],
        typer.Option(
            "--with",
            metavar="NAME[:SETTING]",
            help="quantise:8, average:3, median:3, lowpass:4000, bandpass:300-3400, resample:8000, "
            "noise:20, random_gain:6, mp3:64, opus:24, gsm, mulaw or repair:8; repeat for a chain, in its order.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Victim folder to write.")],
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="KIND:PATH", help="Also tell recall before and after, on dev and test."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Its name [default: VICTIM+DEFENCE+...].")
    ] = None,
    seed: Seed = 0,
    protocol: Protocol = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A victim behind input transformations: a victim folder that attack, evaluate and all others take."""
    from staanet import corpora, pipeline, storage, victims
    from staanet.transforms import parse_transform

    for text in with_:
        parse_transform(text)
    loaded = on_device(victims.load_victim(victim), device)
    data = None if corpus is None else corpora.load_corpus(corpus, out=out)
    quarantine = pipeline.Quarantine(strict)
    with storage.FolderLock(out), Bars.shown() as progress:
        made = pipeline.defend(
            loaded,
            with_,
            out,
            name=name,
            corpus=data,
            context=pipeline.Context(
                seed=seed,
                protocol=protocol,
                device=device,
                quarantine=quarantine,
                progress=progress,
            ),
        )
        quarantine.save(out)
    card = storage.read_card(out, "victim")
    if not json_output:
        if data is not None:
            rows = [
                [name, *(f"{card[f'{prefix}{part}_uar']:.3f}" for part in ("dev", "test"))]
                for name, prefix in ((loaded.name, "undefended_"), (made.name, ""))
            ]
            show(table(["victim", "UAR on dev", "on test"], rows))
        show(f"{made.name}: {' + '.join(map(str, made.chain))} before {loaded.name} -> {out}")
    finish(card, quarantine, json_output=json_output)
