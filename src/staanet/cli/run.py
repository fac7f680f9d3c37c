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
from staanet.cli.options import FieldOf, Job, Machine, Output, RunJob, TensorBoard
from staanet.cli.printing import CHECK_FAILED, finish, show, show_json
from staanet.cli.progress import Bars, log_progress
from staanet.cli.session import checked_device
from staanet.config import SplitRecipe
from staanet.storage.shards import Shard

if TYPE_CHECKING:
    from staanet.pipeline import DryRun, Quarantine
    from staanet.results.transfer_matrix import TransferMatrix


RecipeArgument = Annotated[
    str,
    typer.Argument(
        help="Name of a shipped recipe, such as quick or emodb, or a TOML file.",
        autocompletion=names.recipes,
    ),
]


@command("run", "staanet run emodb --set corpus=emodb:data/emodb --out runs/emodb")
def run(
    recipe: RecipeArgument,
    job: RunJob,
    out: Annotated[Path | None, typer.Option(help="Run folder. [default: runs/RECIPE]")] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a value of the recipe. Can be repeated."
        ),
    ] = [],  # noqa: B006
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the stages and their size, but run none.")
    ] = False,
    tensorboard: TensorBoard = False,
    seed: Annotated[int | None, typer.Option(help="Replace the seed of the recipe.", min=0)] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Run only part I of N parts of the folds of the recipe."),
    ] = None,
) -> None:
    """Run a whole experiment, from corpus to report.

    Trains victims and generators, attacks and evaluates. Run the command again to continue a
    stopped run. With --set folds=5, each clip is tested once, by models that were not trained on
    its speaker.
    """
    from staanet import pipeline
    from staanet.pipeline.workers import default_workers

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
            device=device,
            quarantine=pipeline.Quarantine(job.strict),
            progress=progress,
            workers=job.workers or default_workers(device),
        )
        matrix = pipeline.run(
            experiment,
            folder,
            command=shlex.join([*words, "--out", str(folder)]),
            shard=Shard.parse(shard) if shard else None,
            context=context,
        )
    _finish_run(matrix, folder, job, context.quarantine)


def _finish_run(
    matrix: TransferMatrix | None, folder: Path, job: Job, quarantine: Quarantine
) -> None:
    from staanet import report as report_pages
    from staanet.cli.tables import matrix_text

    if matrix is None:
        text = "Other folds are missing: run them too, then once without --shard to pool all."
        finish(job, {"run": str(folder), "summary": None}, [text], quarantine)
        return
    page = folder / "report" / "index.html"
    doubts = report_pages.read_doubts(folder)
    result = {"run": str(folder), "summary": dict(matrix.summary), "doubts": doubts}
    lines = [matrix_text(matrix.summary), *(f"\n{doubt}" for doubt in doubts), f"\nReport: {page}"]
    finish(job, result, lines, quarantine)


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
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run.")],
    output: Output,
    cite: Annotated[
        bool,
        typer.Option(
            "--cite", help="Print the main results as text to quote, with BibTeX. Write no files."
        ),
    ] = False,
) -> None:
    """Write tables, figures and a page with sound.

    The command first checks every number against the files.
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
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    seed: Annotated[int, FieldOf(SplitRecipe)],
    machine: Machine,
    clips: Annotated[
        int, typer.Option(min=1, help="Number of test clips for the checks of victims.")
    ] = config.SELFCHECK_CLIPS,
    corpus: Annotated[
        str | None,
        typer.Option(metavar="KIND:PATH", help="Corpus of the run, if its folder was moved."),
    ] = None,
) -> None:
    """Check whether the results of a finished run are valid.

    Tests the victims of the run. Computes its files, split and figures again. Writes
    RUN/selfcheck.json, which staanet report shows. The exit code is 1 if a check fails and 0
    otherwise. Warnings and skipped checks are not failures.
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
