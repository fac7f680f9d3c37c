"""The command ``attack``: crafts adversarial audio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import Field

from staanet import config
from staanet.cli.app import command
from staanet.cli.options import PART, SHARD, VICTIM, InputsArgument, Job, Without
from staanet.cli.printing import decibels, finish, say, warn
from staanet.cli.session import (
    checked_device,
    epsilon_of_card,
    job_session,
    label_owners,
    load_inputs,
    number_of_card,
)
from staanet.config import EPSILON, AttackRecipe, Help, SplitRecipe
from staanet.config.fields import EPSILON_HELP, Epsilon, NotNegative
from staanet.errors import InvalidInput
from staanet.storage.shards import Shard

if TYPE_CHECKING:
    from staanet.pipeline import AttackJob

USUAL_ATTACK = "staa"
MAX_ROWS = 40
"""How many clips the table shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackOptions:
    """What only the command ``attack`` has: models by path, limits of files, and how it works."""

    source: Annotated[
        tuple[str, ...],
        Help(
            f"Victim to attack: {VICTIM}. Repeat the option for an ensemble.",
            absent="the source of the generator",
            complete="models",
        ),
    ] = ()
    generator: Annotated[
        Path | None, Help("Generator folder (for staa).", complete="generator_folders")
    ] = None
    vector: Annotated[Path | None, Help("Folder of a universal vector (for uap).")] = None
    epsilon: Annotated[Epsilon | None, Help(EPSILON_HELP, absent="the value of the generator")] = (
        None
    )
    max_density: Annotated[
        float | None,
        Help("Largest share of the samples that may change.", absent="the value of the generator"),
    ] = None
    match: Annotated[
        Path | None, Help("Change as many samples of each clip as this adversarial set.")
    ] = None
    part: Annotated[str, PART] = "test"
    shard: Annotated[str | None, SHARD] = None
    pictures: Annotated[
        int,
        Field(ge=0),
        Help("Number of clips to draw as pictures. With --shard no clip is drawn."),
    ] = 3
    window: Annotated[
        float,
        Field(ge=0, le=10**6),
        Help(
            "Attack longer files in windows of this many seconds and join the windows. 0 turns "
            "windows off."
        ),
    ] = 30.0
    max_seconds: Annotated[NotNegative, Help("Skip files longer than this many seconds.")] = 600.0
    max_bytes: Annotated[int, Field(ge=0), Help("Skip files larger than this many bytes.")] = (
        512 * 2**20
    )
    engine: Annotated[
        Literal["local", "ray"],
        Help("With ray, shards run on the cores of this machine or on the cluster at RAY_ADDRESS."),
    ] = "local"


@command("attack", "staanet attack speech.wav --out fooled")
def attack(
    inputs: InputsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the adversarial set.")],
    recipe: Annotated[AttackRecipe, Without({"epsilon", "max_density", "match"})],
    options: AttackOptions,
    split: SplitRecipe,
    job: Job,
) -> None:
    """Craft adversarial audio from files, folders or a corpus.

    Writes each clip as 16-bit WAV, with its metrics. Without --source, --generator or --vector, the
    command uses the models in the package.
    """
    from staanet import pipeline, report, victims

    shard = Shard.parse(options.shard) if options.shard else None
    if shard is not None and options.engine != "local":
        raise InvalidInput("--shard is for --engine local", remedy="Leave one of them out")
    attack_job, judges = _attack_job(inputs, recipe, options, split, out)
    victim = attack_job.load_source(checked_device(job.device))
    with job_session(out, split, job) as context:
        adversarial = (
            attack_job.run_on_ray(victim, out, context=context)
            if options.engine == "ray"
            else attack_job.run(victim, out, context=context, shard=shard)
        )
        others = [victims.load_victim(spec) for spec in judges] or victims.members_of(victim)
        pipeline.match_corpus_labels(others, attack_job.corpus, context)
        rows = pipeline.predictions(adversarial, others, context)
        control = pipeline.control_rates(adversarial, victim, others, context) if rows else {}
        clips = adversarial.clips[: 0 if shard else options.pictures]
        pictures = report.draw_clips(
            out, ((c.clean.id, c.clean.pcm16, c.adversarial, c.clean.sample_rate) for c in clips)
        )
    lines = _describe(rows, control)
    lines.append(f"-> {out}{f' and pictures in {pictures[0].parent}' if pictures else ''}")
    for row in pipeline.read_recordings(out):
        lines.append(f"{row['id']}: {row['windows']} windows joined -> {out / row['file_name']}")
    models: list[Path | str] = [*options.source]
    models += filter(None, (attack_job.generator, attack_job.vector))
    flags = warn(pipeline.split_warnings(models, attack_job.corpus))
    finish(
        job,
        {"out": str(out), "clips": rows, "control": control, **flags},
        lines,
        context.quarantine,
    )


def _attack_job(
    inputs: Sequence[str],
    recipe: AttackRecipe,
    options: AttackOptions,
    split: SplitRecipe,
    out: Path,
) -> tuple[AttackJob, list[str]]:
    """The attack that the options describe, and shipped victims that judge it beside its source."""
    from staanet import pipeline
    from staanet.core import stratified_subset
    from staanet.storage import pretrained

    generator, judges, epsilon = options.generator, [], options.epsilon
    if not options.source and generator is None and options.vector is None:
        generator = pretrained.folder("generators", pretrained.names("generators")[0])
        names = (f"{pretrained.SCHEME}:{name}" for name in pretrained.names("victims"))
        judges = _loadable(names)
        epsilon = epsilon or EPSILON  # recordings differ in level
    pipeline.require_trained(recipe.attack or USUAL_ATTACK, generator, options.vector)
    owners = label_owners([*options.source, *judges], split)
    made_with = ("generator", generator) if generator else ("vector", options.vector)
    if split.label_map and made_with[1] and not options.source:
        owners.append(pipeline.source_of(made_with[1], made_with[0]))
    corpus = load_inputs(inputs, options.part, split, out, owners)
    if recipe.clips is not None:
        chosen = stratified_subset(corpus.utterances, recipe.clips)
        corpus = replace(corpus, utterances=chosen)
    limits = replace(
        corpus.limits,
        max_seconds=options.max_seconds,
        max_bytes=options.max_bytes,
        seconds_option="--max-seconds",
        bytes_option="--max-bytes",
    )
    attack_job = pipeline.AttackJob(
        corpus=replace(corpus, limits=limits),
        sources=options.source,
        generator=generator,
        vector=options.vector,
        recipe=_with_budget(recipe, replace(options, epsilon=epsilon), generator),
        matched=options.match,
        label=recipe.label or None,
        window_s=options.window,
    )
    return attack_job, judges


def _with_budget(
    recipe: AttackRecipe, options: AttackOptions, generator: Path | None
) -> AttackRecipe:
    """The recipe with the name of its attack, and with the budget of its generator or vector."""
    from staanet import storage

    kind, folder = ("generator", generator) if generator else ("vector", options.vector)
    card = storage.read_card(folder, kind) if folder else {}
    attack = recipe.attack or USUAL_ATTACK
    epsilon, max_density = options.epsilon, options.max_density
    if epsilon is None:
        epsilon = epsilon_of_card(card, folder) or EPSILON
    if max_density is None and recipe.max_l0 is None and attack in ("staa", "uap"):
        max_density = number_of_card(card, "max_density", folder)
    return config.replace(
        recipe, where="attack", attack=attack, epsilon=epsilon, max_density=max_density, label=""
    )


def _loadable(specs: Iterable[str]) -> list[str]:
    """The victims that can be loaded with the installed extras; prints what the others lack."""
    from staanet import victims

    missing = {spec: victims.missing_extra(spec) for spec in specs}
    for spec, extra in missing.items():
        if extra is not None:
            say(f"staanet: without {spec}: {extra}")
    return [spec for spec, extra in missing.items() if extra is None]


def _describe(
    rows: Sequence[dict[str, Any]], control: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """A table of the first clips, and how many answers of each victim changed, beside random signs."""
    from staanet.cli.tables import table

    if not rows:
        return ["No clip was attacked: none is usable."]
    names = list(control)
    body = [
        [
            row["id"],
            *(_transition(*row["answers"][name]) for name in names),
            row["l0"],
            f"{100 * row['density']:.2f} %",
            decibels(row["snr_db"]),
        ]
        for row in rows[:MAX_ROWS]
    ]
    lines = [table(["clip", *names, "changed", "of samples", "SNR dB"], body) + "\n"]
    for name in names:
        fooled = sum(row["answers"][name][0] != row["answers"][name][1] for row in rows)
        reached = sum(row["target_class"] == row["answers"][name][1] for row in rows)
        is_targeted = any(row["target_class"] for row in rows)
        lines.append(
            f"{name}: {fooled} of {len(rows)} answers changed"
            + (f", {reached} reached the class that was aimed at" if is_targeted else "")
            + f"; random signs of the same size: {_control_text(control[name])}"
        )
    return lines


def _control_text(rates: Mapping[str, int]) -> str:
    """How often random signs changed the answer too."""
    share = rates["hits"] / max(1, rates["clips"] * rates["draws"])
    return f"{100 * share:.0f} % of {rates['draws']} draws on {rates['clips']} clips"


def _transition(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
