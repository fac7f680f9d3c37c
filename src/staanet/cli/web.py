"""The command that serves the local page: serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.shell import Debug, Device, Json, command, say


@command("serve", "staanet serve --run runs/quick")
def serve(
    run: Annotated[
        list[Path],
        typer.Option(metavar="DIR", help="A run folder whose models to offer; may be repeated."),
    ] = [],  # noqa: B006
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any free one.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Another than the loopback lets other machines in.")
    ] = "127.0.0.1",
    max_seconds: Annotated[float, typer.Option(min=0.1, max=600, help="Of a clip.")] = 15.0,
    max_mib: Annotated[int, typer.Option(min=1, max=512, help="Of an upload.")] = 16,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A local page: record or upload a clip, fool the models on it, see and hear what changed.

    Offers the models shipped with staanet and those of --run. Nothing leaves this machine. Ctrl-C ends it.
    """
    from staanet.apps import web

    library = web.read_library([*run, *web.shipped_folders()])

    def ready(url: str) -> None:
        if json_output:
            told = {
                "url": url,
                "victims": list(library.victims),
                "generators": list(library.generators),
            }
            print(json.dumps(told), flush=True)
        say(f"staanet: open {url} (Ctrl-C ends it)")

    if host not in web.LOOPBACK:
        say(
            f"staanet: warning: on {host} everyone who reaches this machine and learns the address can use "
            "the page; nothing is encrypted"
        )
    for name, why in library.left_out.items():
        say(f"staanet: without {name}: {why}")
    say("staanet: getting the page ready")
    limits = web.Limits(seconds=max_seconds, bytes=max_mib * 2**20)
    try:
        web.serve(library, host=host, port=port, device=device, limits=limits, ready=ready)
    except KeyboardInterrupt:
        say("staanet: the page is closed, its files are deleted")
