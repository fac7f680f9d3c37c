"""The commands ``audit`` and ``certify``, which judge a model."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from staanet.cli import names
from staanet.cli.app import command
from staanet.cli.options import InputsArgument, Job, ModelOption, PartOption
from staanet.cli.printing import CHECK_FAILED, UNDECIDED, finish, warn
from staanet.cli.session import job_session, load_corpus, load_inputs, load_victims
from staanet.config import AuditLimits, AuditRecipe, CertifyRecipe, SplitRecipe


@command(
    "audit",
    "staanet audit --victim onnx:model.onnx --corpus emodb:data/emodb --out audit --fail-above 0.3",
)
def audit(
    victim: ModelOption,
    corpus: Annotated[
        str,
        typer.Option(
            metavar="KIND:PATH",
            help="Corpus with labels to test the model on.",
            autocompletion=names.corpora,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for audit.json, audit.html and the evidence.")],
    recipe: AuditRecipe,
    limits: AuditLimits,
    split: SplitRecipe,
    job: Job,
    source: Annotated[
        list[str],
        typer.Option(
            help="Trained model that serves as the attacker's surrogate. Repeat the option for "
            "several models. [default: surrogates are trained]",
            autocompletion=names.models,
        ),
    ] = [],  # noqa: B006
) -> None:
    """Measure how robust a model is and which defences help.

    Writes a verdict as text and JSON. The verdict covers clean accuracy, everyday changes,
    attackers and defences. Run the command again to continue a stopped audit. The exit code is 1 if
    a limit is broken. It is 7 if the clips do not decide this.
    """
    from staanet import pipeline

    (model,) = load_victims([victim], job.device)
    data = load_corpus(corpus, split, out, [model])
    with job_session(out, split, job) as context:
        result = pipeline.audit(
            model,
            data,
            out,
            recipe=recipe,
            sources=source,
            limits=limits,
            command=shlex.join(["staanet", *sys.argv[1:]]),
            context=context,
        )
    lines = [*result["verdict"], f"\n-> {out / 'audit.html'}"]
    has_limit = limits != AuditLimits()
    code_of_outcome = {"passed": 0, "failed": CHECK_FAILED}
    exit_code = code_of_outcome.get(result["outcome"], UNDECIDED) if has_limit else 0
    finish(job, result, lines, context.quarantine, exit_code=exit_code)


@command(
    "certify",
    "staanet certify emodb:data/emodb --victim runs/emodb/victims/emo18-gaussian "
    "--method smoothing --sigma 0.02 --out certificates",
)
def certify(
    inputs: InputsArgument,
    victim: ModelOption,
    out: Annotated[
        Path, typer.Option(help="Folder for the certificates, the curve and the JSON file.")
    ],
    recipe: CertifyRecipe,
    split: SplitRecipe,
    job: Job,
    part: PartOption = "test",
) -> None:
    """Certify accuracy against every attack within a radius.

    The model votes on noisy copies of each clip. The votes certify the answer within a radius. Run
    the command again to continue a stopped run.
    """
    from staanet import pipeline
    from staanet.evaluation.certificates import Votes
    from staanet.transforms.noise import Ablation, Gaussian, SmoothingNoise

    noise: SmoothingNoise = Gaussian(sigma=recipe.sigma)
    if recipe.method == "ablation":
        noise = Ablation(keep=recipe.keep)
    votes = Votes(
        guesses=recipe.guesses,
        votes=recipe.votes,
        alpha=recipe.alpha,
        batch_size=recipe.batch_size,
        seed=split.seed,
    )
    (model,) = load_victims([victim], job.device)
    corpus = load_inputs(inputs, part, split, out, [model])
    with job_session(out, split, job) as context:
        result = pipeline.certify(
            model,
            pipeline.load_clips(corpus, model, context),
            out,
            noise=noise,
            votes=votes,
            attack_steps=recipe.attack_steps,
            limit=recipe.clips,
            context=context,
        )
    text = (
        f"\n{result['abstained']} of {result['clips']} clips got no answer; attacks inside the "
        f"radius: {result['broken']} of {result['attacked']} succeeded -> {out}"
    )
    flags = warn(pipeline.split_warnings([victim], corpus))
    finish(job, {**result, **flags}, [_curve_table(result), text], context.quarantine)


def _curve_table(result: dict[str, Any]) -> str:
    from staanet.cli.tables import table

    points = result["curve"][:: max(1, len(result["curve"]) // 8)]
    rows = [
        [
            f"{point['radius']:.4g}",
            f"{100 * point['certified_accuracy']:.1f} % of {point['count']}",
            None
            if point["low"] is None
            else f"{100 * point['low']:.0f} to {100 * point['high']:.0f} %",
        ]
        for point in points
    ]
    return table([f"radius ({result['unit']})", "certified accuracy", "95 % interval"], rows)
