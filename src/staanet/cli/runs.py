"""Commands on whole runs: run, report, selfcheck."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from staanet.cli import names
from staanet.cli.progress import Bars, logging
from staanet.cli.shell import (
    CHECK_FAILED,
    Debug,
    Device,
    Json,
    Seed,
    Strict,
    TensorBoard,
    checked_device,
    command,
    findings,
    finish,
    number,
    show,
    table,
)

if TYPE_CHECKING:
    from staanet.pipeline import DryRun


@command("run", "staanet run emodb --set corpus=emodb:data/emodb --out runs/emodb")
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A shipped name (quick, emodb) or a TOML file.", autocompletion=names.recipes
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/RECIPE].")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replace a value.")
    ] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell the stages, their size and what is done.")
    ] = False,
    tensorboard: TensorBoard = False,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.", min=0)] = None,
    device: Device = "cpu",
    strict: Strict = False,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """A whole experiment: corpus, victims, generator, attacks, evaluation, report; resumable."""
    from staanet import config, pipeline

    overrides = [*set_, *([f"seed={seed}"] if seed is not None else [])]
    loaded = config.load_recipe(recipe, overrides)
    folder = out or Path("runs") / loaded.name
    if dry_run:
        context = pipeline.Context(device=checked_device(device))
        _foretell(pipeline.dry_run(loaded, folder, context), folder, json_output=json_output)
        return
    checked_device(device)
    words = ["staanet", "run", recipe, *(w for o in overrides for w in ("--set", o))]
    with logging(tensorboard, folder / "tensorboard") as progress:
        context = pipeline.Context(
            device=device, quarantine=pipeline.Quarantine(strict), progress=progress
        )
        matrix = pipeline.run(
            loaded, folder, command=shlex.join([*words, "--out", str(folder)]), context=context
        )
    if not json_output:
        show(findings(matrix.summary))
        show(f"\nReport: {folder / 'report' / 'index.html'}")
    finish(
        {"run": str(folder), "summary": dict(matrix.summary)},
        context.quarantine,
        json_output=json_output,
    )


def _foretell(seen: DryRun, folder: Path, *, json_output: bool) -> None:
    if json_output:
        print(json.dumps({"run": str(folder), **seen.to_dict()}, allow_nan=False))
        return
    show(
        table(
            ["stage", "state", "work", "took s"],
            [
                [s.name, s.state, s.work, number(s.seconds, ".1f") if s.seconds is not None else ""]
                for s in seen.stages
            ],
        )
    )
    todo = sum(stage.state != "done" for stage in seen.stages)
    size = "" if seen.audio_mib is None else f"; its audio takes about {seen.audio_mib:g} MiB"
    show(f"\n{todo} of {len(seen.stages)} stages to do in {folder}{size}. Nothing was written.")


@command("report", "staanet report runs/quick")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Tables, figures and one page with sound, from a run's files."""
    from staanet import pipeline
    from staanet import report as pages

    with Bars.shown() as progress:
        page = pages.build(folder, progress=progress)
    if not json_output:
        show(f"Report: {page}")
    finish({"report": str(page)}, pipeline.Quarantine(), json_output=json_output)


@command("selfcheck", "staanet selfcheck runs/quick")
def selfcheck(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    clips: Annotated[int, typer.Option(min=1, help="Test clips on which victims are tried.")] = 24,
    corpus: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="Where the corpus is now.")
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Is this evaluation honest? Tries its victims, recomputes its files, split and figures.

    Writes RUN/selfcheck.json, which staanet report shows. Exit code 1 when a check fails, else 0;
    warnings and skipped checks do not count as failures.
    """
    from staanet import storage
    from staanet.results.run_folder import SELFCHECK
    from staanet.sanity import selfcheck as checks
    from staanet.sanity.loaded_run import require_finished

    require_finished(folder)
    with storage.FolderLock(folder), Bars.shown() as progress:
        found = checks.selfcheck(
            folder, clips=clips, seed=seed, corpus=corpus, device=device, progress=progress
        )
    failures = checks.failed_checks(found)
    checked = storage.read_json(folder / SELFCHECK)["checked"]
    if json_output:
        print(json.dumps({**checks.as_json(found), "checked": checked}, allow_nan=False))
    else:
        show(
            table(
                ["verdict", "check", "about", "found"],
                [[c.verdict, c.name, c.subject or "run", c.explanation] for c in found],
            )
        )
        for check in found:
            if check.remedy and check.verdict in ("fail", "warn"):
                show(f"\n{check.verdict}: {check.name} {check.subject}: {check.remedy}")
        show(f"\nlooked at: {checked}")
        show(f"{len(failures)} of {len(found)} checks failed -> {folder / SELFCHECK}")
    if failures:
        raise typer.Exit(CHECK_FAILED)
