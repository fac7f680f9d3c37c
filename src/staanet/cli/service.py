"""Commands around the work itself: doctor, and sets as tables of other tools: to-audformat."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from staanet.cli.progress import Bars
from staanet.cli.shell import CHECK_FAILED, Debug, Json, command, finish, show, table


@command("doctor", "staanet doctor --folder runs")
def doctor(
    folder: Annotated[
        Path, typer.Option(help="Where results are to be written: space, rights and locks.")
    ] = Path(),
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Is this installation sound? Tries what it has, and tells what is missing and how to add it.

    Exit code 1 when something does not work, else 0; an extra that is not installed is no fault.
    """
    from staanet.apps import doctor as checks
    from staanet.apps.doctor.packages import install_command

    found = []
    with Bars.shown() as progress:
        for number, finding in enumerate(checks.examine(folder), start=1):
            found.append(finding)
            progress("doctor", number, max(number, checks.TYPICAL_COUNT), finding.name)
    failures = checks.failures(found)
    if json_output:
        print(json.dumps(checks.as_json(found), allow_nan=False))
    else:
        show(
            table(
                ["verdict", "what", "name", "found"],
                [
                    [f.verdict, f.group, f.name, shorten(f.detail, 100, placeholder=" ...")]
                    for f in found
                ],
            )
        )
        for one in found:
            if one.remedy and one.verdict in ("fail", "warn"):
                show(f"\n{one.verdict}: {one.group} {one.name}: {one.remedy}")
        absent = [one.name for one in found if one.verdict == "absent"]
        if absent:  # one command is enough: they differ in the name alone
            show(
                f"\nAn absent extra is added by its name, such as {absent[0]}: {install_command(absent[0])}"
            )
        show(f"\n{len(found)} checks, {len(failures)} failed")
    if failures:
        raise typer.Exit(CHECK_FAILED)


@command("to-audformat", "staanet to-audformat runs/quick/adversarial/*")
def to_audformat(
    adversarial: Annotated[
        list[Path], typer.Argument(metavar="ADVERSARIAL...", help="Adversarial sets.")
    ],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Adversarial sets as databases of audformat: db.yaml and a table beside their audio."""
    from staanet import pipeline
    from staanet.apps.interop.audformat import write_table

    made = []
    with Bars.shown() as progress:
        for number, folder in enumerate(adversarial, start=1):
            made.append(str(write_table(folder)))
            progress("to-audformat", number, len(adversarial), folder.name)
    if not json_output:
        show("\n".join(made))
    finish({"databases": made}, pipeline.Quarantine(), json_output=json_output)
