"""The command everyday: what everyday change does to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staanet.cli.app import command
from staanet.cli.options import FieldOf, Job, ModelOption, PartOption
from staanet.cli.printing import CHECK_FAILED, finish, warn
from staanet.cli.session import job_session, load_inputs, load_victims
from staanet.config import AuditLimits, SplitRecipe, validate_settings


@command("everyday", "staanet everyday --victim shipped:zhao19 --corpus emodb:data/emodb")
def everyday(
    victim: ModelOption,
    corpus: Annotated[str, typer.Option(metavar="KIND:PATH", help="Corpus to test the model on.")],
    split: SplitRecipe,
    job: Job,
    fail_below_everyday: Annotated[float | None, FieldOf(AuditLimits)] = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder for everyday.json and all answers. A later call continues with its files."
        ),
    ] = Path("everyday"),
    clips: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many clips, spread over labels.")
    ] = None,
    part: PartOption = "test",
) -> None:
    """Measure the effect of everyday changes on a model.

    The changes are level, silence, noise, voices, music, filters, codecs, rooms and phones. Prints
    how many answers stay and how much UAR is lost. Each condition passes or fails.
    """
    from staanet import pipeline
    from staanet.core import stratified_subset
    from staanet.report.everyday_tables import everyday_sentences, everyday_table

    limits = validate_settings(
        AuditLimits, {"fail_below_everyday": fail_below_everyday}, where="everyday"
    )
    (model,) = load_victims([victim], job.device)
    data = load_inputs([corpus], part, split, out, [model])
    with job_session(out, split, job) as context:
        usable = pipeline.load_clips(data, model, context)
        chosen = usable if clips is None else stratified_subset(usable, clips)
        result = pipeline.everyday(model, chosen, out, context)
    flags = warn(pipeline.split_warnings([victim], data))
    lines = [everyday_table(result).to_terminal(), "", *everyday_sentences(result), f"-> {out}"]
    least = limits.fail_below_everyday or 0.0
    exit_code = CHECK_FAILED if result["passed"] < least * result["of"] else 0
    finish(job, {**result, **flags}, lines, context.quarantine, exit_code=exit_code)
