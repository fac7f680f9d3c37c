"""The commands ``serve`` (local web page) and ``doctor`` (checks the installation)."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import VICTIM, Machine, Output
from staanet.cli.printing import CHECK_FAILED, say, show, show_json
from staanet.cli.progress import Bars


@command("serve", "staanet serve --run runs/quick")
def serve(
    machine: Machine,
    run: Annotated[
        list[Path],
        typer.Option(
            metavar="DIR",
            help="Run folder with models to offer. Repeat the option for several runs.",
        ),
    ] = [],  # noqa: B006
    victim: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL",
            help=f"Victim to offer: {VICTIM}. Repeat the option for several victims.",
            autocompletion=names.models,
        ),
    ] = [],  # noqa: B006
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the page. 0 takes any free port.")
    ] = 7860,
    host: Annotated[
        str, typer.Option(help="Address of the page. Only the default keeps other machines out.")
    ] = "127.0.0.1",
    max_seconds: Annotated[
        float, typer.Option(min=0.1, max=600, help="Longest clip in seconds.")
    ] = 15.0,
    max_mib: Annotated[int, typer.Option(min=1, max=512, help="Largest upload in MiB.")] = 16,
) -> None:
    """Open a local page to record a clip and fool models.

    Shows and plays the changes. Offers the models in the package, the models of --run, and each
    --victim. Nothing leaves this machine. Press Ctrl-C to stop the server.
    """
    from staanet.apps import web

    library = web.read_library([*run, *web.shipped_folders()], victim)

    def ready(url: str) -> None:
        if machine.json:
            models = {"victims": list(library.victims), "generators": list(library.generators)}
            show_json({"url": url, **models})
        say(f"staanet: open {url} (Ctrl-C ends it)")

    if host not in web.LOOPBACK:
        say(
            f"staanet: warning: on {host} everyone who reaches this machine and learns the address can use "
            "the page; nothing is encrypted"
        )
    for name, reason in library.left_out.items():
        say(f"staanet: without {name}: {reason}")
    say("staanet: getting the page ready")
    limits = web.Limits(seconds=max_seconds, bytes=max_mib * 2**20)
    try:
        web.serve(library, host=host, port=port, device=machine.device, limits=limits, ready=ready)
    except KeyboardInterrupt:
        say("staanet: the page is closed, its files are deleted")


@command("doctor", "staanet doctor --folder runs")
def doctor(
    output: Output,
    folder: Annotated[
        Path,
        typer.Option(
            help="Folder for results. The command checks its free space, access rights and locks."
        ),
    ] = Path(),
) -> None:
    """Check this installation.

    Tests the installed parts. Prints what is missing and how to install it. The exit code is 1 if
    something does not work and 0 otherwise. A missing extra is not an error.
    """
    from staanet.apps import doctor as checks
    from staanet.apps.doctor.packages import install_command
    from staanet.cli.tables import table

    findings = []
    with Bars.shown() as progress:
        for number, finding in enumerate(checks.examine(folder), start=1):
            findings.append(finding)
            progress("doctor", number, max(number, checks.TYPICAL_COUNT), finding.name)
    failures = checks.failures(findings)
    if output.json:
        show_json(checks.as_json(findings))
    else:
        rows = [
            [f.verdict, f.group, f.name, shorten(f.detail, 100, placeholder=" ...")]
            for f in findings
        ]
        show(table(["verdict", "what", "name", "found"], rows))
        for finding in findings:
            if finding.remedy and finding.verdict in ("fail", "warn"):
                show(f"\n{finding.verdict}: {finding.group} {finding.name}: {finding.remedy}")
        absent = [finding.name for finding in findings if finding.verdict == "absent"]
        if absent:  # one command is enough: they differ in the name alone
            show(
                f"\nAn absent extra is added by its name, such as {absent[0]}: "
                f"{install_command(absent[0])}"
            )
        show(f"\n{len(findings)} checks, {len(failures)} failed")
    if failures:
        raise typer.Exit(CHECK_FAILED)
