"""Commands for many clips and many machines: merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.progress import Bars
from staanet.cli.shell import Debug, Json, command, findings, finish, show


@command("merge", "staanet merge shards/* --out fooled")
def merge(
    shards: Annotated[
        list[Path],
        typer.Argument(
            metavar="SHARD...", help="Folders of attack --shard, or of evaluate --shard."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the whole.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """All shards of one attack or evaluation as one folder, equal to that of a single run.

    Equal file by file, by sha256, but for seconds.csv. Refuses gaps, overlaps and different settings.
    """
    from staanet import pipeline, storage
    from staanet.results.transfer_matrix import TransferMatrix

    quarantine = pipeline.Quarantine()
    with storage.FolderLock(out), Bars.shown() as progress:
        context = pipeline.Context(quarantine=quarantine, progress=progress)
        whole = pipeline.merge(shards, out, context=context)
    if isinstance(whole, TransferMatrix):
        if not json_output:
            show(f"{findings(whole.summary)}\n\n-> {out}")
        finish(dict(whole.summary), quarantine, json_output=json_output)
        return
    if not json_output:
        show(f"{len(whole)} clips of {len(shards)} shards -> {out}")
    finish(
        {"out": str(out), "clips": len(whole), "shards": len(shards)},
        quarantine,
        json_output=json_output,
    )
