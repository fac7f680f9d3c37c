"""Lists what ``run`` would do with a recipe, stage by stage, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from staanet import corpora, storage
from staanet.config import Recipe
from staanet.core import Corpus, Utterance
from staanet.pipeline.context import Context
from staanet.pipeline.recipe_plan import (
    check_recipe,
    clip_limit,
    require_same_recipe,
    with_learning_rates,
)
from staanet.pipeline.run_folds import CrossValidation
from staanet.pipeline.run_recipe import Experiment
from staanet.pipeline.stage import NotReady, Stage, StageTimer, State
from staanet.pipeline.time_estimate import REPORT_S, estimate_seconds

SAMPLED_CLIPS = 50
"""Clips whose headers are read for the estimate of disk space."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """The state of a stage, and how much work it is."""

    name: str
    state: State
    work: str
    seconds: float | None = None
    """How long it took, once it is done."""
    estimate: float | None = None
    """About how long it takes from nothing, where it is not done; None: not known."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The stages of a recipe in order, and about how much disk its audio takes (``None``: unknown)."""

    stages: tuple[StageReport, ...]
    audio_mib: float | None

    @property
    def waiting(self) -> list[StageReport]:
        """The stages that are not done."""
        return [stage for stage in self.stages if stage.state != "done"]

    @property
    def seconds_left(self) -> float:
        """About how long the stages take that are not done and whose time is known."""
        return sum(stage.estimate or 0.0 for stage in self.waiting)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "stages": [asdict(stage) for stage in self.stages],
            "audio_mib": self.audio_mib,
            "seconds_left": round(self.seconds_left, 1),
            "without_estimate": [s.name for s in self.waiting if s.estimate is None],
        }


def dry_run(recipe: Recipe, out: Path, context: Context) -> DryRun:
    """Walks the stages of ``run(recipe, out)`` without working: nothing is written or rendered.

    The seed and protocol of the recipe take the place of the context's. Raises what ``run`` would raise:
    ``InvalidInput`` for a mistake in the recipe, or for a folder that was made from something else.
    """
    check_recipe(recipe, out)
    recipe = with_learning_rates(recipe)
    require_same_recipe(recipe, out)
    context = replace(context, seed=recipe.seed, protocol=recipe.protocol)
    if recipe.folds is None:
        experiment = Experiment(recipe, out, context, lambda: planned_corpus(recipe, out))
        plan = _dry_experiment(experiment)
        return _with_estimates(plan, _estimates(experiment, {}) if plan.waiting else {})
    validation = CrossValidation(recipe, out, context, lambda: planned_corpus(recipe, out))
    experiments = {number: validation.experiment(number) for number in validation.numbers}
    plans = {number: _dry_experiment(experiment) for number, experiment in experiments.items()}
    took: dict[str, float] = {}
    for plan in plans.values():
        took |= {stage.name: stage.seconds for stage in plan.stages if stage.seconds is not None}
    if any(plan.waiting for plan in plans.values()):
        took = _estimates(experiments[1], took)
    reports = [
        replace(stage, name=f"fold {number}: {stage.name}")
        for number, plan in plans.items()
        for stage in _with_estimates(plan, took).stages
    ]
    reports += [
        StageReport(stage.name, *_state(stage), estimate=REPORT_S) for stage in validation.pool()
    ]
    sizes = [plan.audio_mib for plan in plans.values() if plan.audio_mib is not None]
    return DryRun(tuple(reports), round(sum(sizes), 1) if sizes else None)


def _with_estimates(plan: DryRun, seconds: Mapping[str, float]) -> DryRun:
    """The plan with a time, by the name of the stage, for each stage that is not done."""
    stages = (
        stage if stage.state == "done" else replace(stage, estimate=seconds.get(stage.name))
        for stage in plan.stages
    )
    return replace(plan, stages=tuple(stages))


def _dry_experiment(experiment: Experiment) -> DryRun:
    seconds = StageTimer.of(experiment.out).seconds()
    reports = []
    corpus_state: State = "to do"
    for stage in _all_stages(experiment):
        if stage.name == "corpus":
            state, work = _corpus_state(experiment)
            corpus_state = state
        else:
            state, work = _state(stage, is_corpus_there=corpus_state == "done")
        took = seconds.get(stage.name) if state == "done" else None
        reports.append(StageReport(stage.name, state, work, took))
    return DryRun(tuple(reports), _audio_mib(experiment))


def _estimates(experiment: Experiment, took: Mapping[str, float]) -> dict[str, float]:
    """About how long each stage takes: as it took in another fold, or else by a few passes."""
    try:
        parts = experiment.context.split(experiment.corpus)
    except NotReady:
        return dict(took)
    clip_s = _mean_seconds(parts[2].utterances)
    if clip_s is None:
        return dict(took)
    guesses = estimate_seconds(experiment.recipe, parts, clip_s)
    return {name: s for name, s in guesses.items() if s is not None} | dict(took)


def _all_stages(experiment: Experiment) -> Iterator[Stage]:
    yield from experiment.stages()
    yield from experiment.closing_stages()


def planned_corpus(recipe: Recipe, out: Path) -> Corpus:
    """The corpus of a recipe, or the one that would be rendered.

    Raises ``NotReady`` if it would have to be fetched.
    """
    kind, _, path = recipe.corpus.partition(":")
    if kind == "audb":
        raise NotReady(recipe.corpus)
    if kind != "synthetic":
        return corpora.load_corpus(recipe.corpus, **recipe.corpus_options())
    folder = Path(path) if path else out / "corpus"
    if (folder / "manifest.json").exists():
        return corpora.load_corpus(f"synthetic:{folder}", classes=recipe.classes, task=recipe.task)
    size = recipe.synthetic
    planned = (
        corpora.plan_synthetic(folder)
        if path
        else corpora.plan_synthetic(folder, voices=size.voices, sentences=size.sentences)
    )
    return corpora.choose_labels(planned, recipe.classes, recipe.task, folder)


def _state(stage: Stage, *, is_corpus_there: bool = True) -> tuple[State, str]:
    """The state of a stage in words, with its progress if it was begun."""
    work = stage.size()
    is_checked = is_corpus_there or stage.inputs is None or not stage.has_work()
    state: State = stage.state() if is_checked else "to check"
    if state == "to check":
        return state, f"{work}; what is there counts if the stages before come out the same"
    if state != "begun":
        return state, work
    steps = sorted((stage.folder / "checkpoint").glob("step-*.safetensors"))
    if steps:
        return state, f"{work}; goes on from step {int(steps[-1].stem.removeprefix('step-'))}"
    rows = storage.Journal(stage.folder / "journal.jsonl").records()
    return state, f"{work}; {len(rows)} rows are there"


def _corpus_state(experiment: Experiment) -> tuple[State, str]:
    try:
        corpus = experiment.corpus
    except NotReady as problem:
        return "to do", f"{problem}: to be fetched, not looked at"
    sizes = [f"{len(part)} {part.part}" for part in experiment.context.split(corpus)]
    work = f"{len(corpus)} clips of {len(corpus.speakers)} speakers: {', '.join(sizes)}"
    if all(clip.path.exists() for clip in (corpus.utterances[0], corpus.utterances[-1])):
        return "done", work
    is_begun = (experiment.out / "corpus" / "journal.jsonl").exists()
    return ("begun" if is_begun else "to do"), f"{work}; to be spoken"


def _audio_mib(experiment: Experiment) -> float | None:
    """The clean and adversarial test clips of each attack and source, 16 bit at 16 kHz."""
    try:
        test = experiment.held_out.utterances
    except NotReady:
        return None
    recipe = experiment.recipe
    seconds = recipe.clip_seconds or _mean_seconds(test)
    if seconds is None:
        return None
    limits = {key: clip_limit(key, recipe.attacks) for key in recipe.attacks}
    clips = sum(
        min(len(test), limits[key] or len(test))
        for keys in experiment.sources.values()
        for key in keys
    )
    return round(clips * seconds * 16_000 * 2 * 2 / 2**20, 1)


def _mean_seconds(utterances: Sequence[Utterance]) -> float | None:
    import soundfile

    lengths = []
    for clip in utterances[:: max(1, len(utterances) // SAMPLED_CLIPS)]:
        try:
            end_s = soundfile.info(clip.path).duration if clip.end_s is None else clip.end_s
            lengths.append(end_s - clip.start_s)
        except (OSError, RuntimeError):  # not there yet, or no audio: the run will say so
            continue
    return sum(lengths) / len(lengths) if lengths else None
