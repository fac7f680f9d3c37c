"""The commands ``run``, ``report`` and ``selfcheck``, which work on whole runs."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from staanet import config
from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import FieldOf, Job, Machine, Output, TensorBoard
from staanet.cli.printing import CHECK_FAILED, finish, show, show_json
from staanet.cli.progress import Bars, log_progress
from staanet.cli.session import checked_device
from staanet.config import SplitRecipe
from staanet.storage.shards import Shard

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
    job: Job,
    out: Annotated[Path | None, typer.Option(help="Run folder [default: runs/RECIPE].")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Replace a value.")
    ] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell the stages, their size and what is done.")
    ] = False,
    tensorboard: TensorBoard = False,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.", min=0)] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Of a recipe with folds: only this part of the folds."),
    ] = None,
) -> None:
    """A whole experiment, from corpus to report.

    Trains victims and generators, attacks, evaluates. Run the command again to continue a stopped run.
    With --set folds=5 every clip is tested once, by models that were not trained on its speaker.
    """
    from staanet import pipeline
    from staanet import report as report_pages
    from staanet.cli.tables import matrix_text

    overrides = [*set_, *([f"seed={seed}"] if seed is not None else [])]
    experiment = config.load_recipe(recipe, overrides)
    folder = out or Path("runs") / experiment.name
    device = checked_device(job.device)
    if dry_run:
        stages = pipeline.dry_run(experiment, folder, pipeline.Context(device=device))
        _show_stages(stages, folder, job)
        return
    words = ["staanet", "run", recipe, *(w for o in overrides for w in ("--set", o))]
    with log_progress(folder / "tensorboard" if tensorboard else None) as progress:
        context = pipeline.Context(
            device=device, quarantine=pipeline.Quarantine(job.strict), progress=progress
        )
        matrix = pipeline.run(
            experiment,
            folder,
            command=shlex.join([*words, "--out", str(folder)]),
            shard=Shard.parse(shard) if shard else None,
            context=context,
        )
    if matrix is None:
        text = "Other folds are missing: run them too, then once without --shard to pool all."
        finish(job, {"run": str(folder), "summary": None}, [text], context.quarantine)
        return
    page = folder / "report" / "index.html"
    doubts = report_pages.read_doubts(folder)
    result = {"run": str(folder), "summary": dict(matrix.summary), "doubts": doubts}
    lines = [matrix_text(matrix.summary), *(f"\n{doubt}" for doubt in doubts), f"\nReport: {page}"]
    finish(job, result, lines, context.quarantine)


def _show_stages(plan: DryRun, folder: Path, output: Output) -> None:
    from staanet.cli.tables import table
    from staanet.results.formatting import seconds

    if output.json:
        show_json({"run": str(folder), **plan.to_dict()})
        return
    rows = [
        [
            s.name,
            s.state,
            s.work,
            "" if s.seconds is None else f"{s.seconds:.1f}",
            "" if s.estimate is None else f"{s.estimate:.0f}",
        ]
        for s in plan.stages
    ]
    show(table(["stage", "state", "work", "took s", "about s"], rows))
    count, unknown = len(plan.waiting), sum(s.estimate is None for s in plan.waiting)
    remaining = f"about {seconds(plan.seconds_left)} on this machine"
    remaining += f", without the {unknown} whose time is not known" if unknown else ""
    size = "" if plan.audio_mib is None else f"; its audio takes about {plan.audio_mib:g} MiB"
    show(
        f"\n{count} of {len(plan.stages)} stages to do in {folder}: {remaining}{size}. Nothing was written."
    )


@command("report", "staanet report runs/quick")
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run folder.")],
    output: Output,
    cite: Annotated[
        bool,
        typer.Option(
            "--cite", help="Only print what was measured, ready to be quoted, and BibTeX."
        ),
    ] = False,
) -> None:
    """Tables, figures and one page with sound.

    Every figure is checked against the files first.
    """
    from staanet import report as pages

    with Bars.shown() as progress:
        if cite:
            quoted = pages.cite(folder, progress)
            lines = [quoted.text, *(f"Before you quote this: {w}." for w in quoted.warnings)]
            finish(output, dataclasses.asdict(quoted), [*lines, "", quoted.bibtex])
            return
        page = pages.build(folder, progress=progress)
    finish(output, {"report": str(page)}, [f"Report: {page}"])


@command("selfcheck", "staanet selfcheck runs/quick")
def selfcheck(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    seed: Annotated[int, FieldOf(SplitRecipe)],
    machine: Machine,
    clips: Annotated[
        int, typer.Option(min=1, help="Test clips on which victims are tried.")
    ] = config.SELFCHECK_CLIPS,
    corpus: Annotated[
        str | None, typer.Option(metavar="KIND:PATH", help="Where the corpus is now.")
    ] = None,
) -> None:
    """Is this evaluation honest? Checks a finished run.

    Tries its victims, and computes its files, split and figures again. Writes RUN/selfcheck.json, which
    staanet report shows. Exit code 1 when a check fails, else 0; warnings and skipped checks do not
    count as failures.
    """
    from staanet import storage
    from staanet.cli.tables import table
    from staanet.results.run_folder import SELFCHECK
    from staanet.sanity import selfcheck as checks
    from staanet.sanity.loaded_run import require_finished

    require_finished(folder)
    with storage.FolderLock(folder), Bars.shown() as progress:
        results = checks.selfcheck(
            folder, clips=clips, seed=seed, corpus=corpus, device=machine.device, progress=progress
        )
    failures = checks.failed_checks(results)
    checked = storage.read_json(folder / SELFCHECK)["checked"]
    if machine.json:
        show_json({**checks.as_json(results), "checked": checked})
    else:
        rows = [[c.verdict, c.name, c.subject or "run", c.explanation] for c in results]
        show(table(["verdict", "check", "about", "found"], rows))
        for check in results:
            if check.remedy and check.verdict in ("fail", "warn"):
                show(f"\n{check.verdict}: {check.name} {check.subject}: {check.remedy}")
        show(f"\nlooked at: {checked}")
        show(f"{len(failures)} of {len(results)} checks failed -> {folder / SELFCHECK}")
    if failures:
        raise typer.Exit(CHECK_FAILED)
