"""Performs the stages of a run, in this process or in several, and writes its card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from staanet import config, storage
from staanet.config import Recipe
from staanet.core import Corpus
from staanet.corpora.cache import DecodedCache, discard_cache, with_cache
from staanet.pipeline import workers
from staanet.pipeline.context import Context
from staanet.pipeline.recipe_plan import require_same_recipe
from staanet.pipeline.run_card import corpus_flags, write_run_card
from staanet.pipeline.run_recipe import CLOSING, Experiment
from staanet.pipeline.stage import Inputs, Stage, StageTimer, walk
from staanet.results.transfer_matrix import TransferMatrix


def run_experiment(
    experiment: Experiment, command: str, inputs: Inputs | None = None
) -> TransferMatrix:
    """Performs every stage of a run that is not done, and writes its card.

    Args:
        experiment: Of a recipe that was checked.
        command: What was typed, for the card.
        inputs: What the run is made from, for the card, where it is itself a stage.

    Returns:
        The transfer matrix.

    Raises:
        InvalidInput: If the folder holds a run of another recipe.
        FolderLocked: If another process works in it.
    """
    recipe, out, context = experiment.recipe, experiment.out, experiment.context
    with storage.FolderLock(out):
        require_same_recipe(recipe, out)
        storage.write_text(out / "recipe.toml", config.to_toml(recipe))
        timer = StageTimer.of(out)
        if context.workers > 1:
            perform_together(experiment, timer)
        matrix = walk(experiment.stages(), timer)["evaluate"]
        assert isinstance(matrix, TransferMatrix), "evaluate is done anew"
        parts = {part.part: part for part in context.split(experiment.corpus)}
        for flag in corpus_flags(experiment.corpus, parts.values()):
            context.quarantine.warn(flag)
        context.quarantine.save(out)
        seconds = {stage: s for stage, s in timer.seconds().items() if stage not in CLOSING}
        write_run_card(recipe, experiment.corpus, parts, out, command, seconds, inputs)
        return matrix


def close_run(experiment: Experiment) -> None:
    """Checks a finished run if its recipe says so, and writes its report."""
    with storage.FolderLock(experiment.out):
        walk(experiment.closing_stages(), StageTimer.of(experiment.out))
        discard_cache(experiment.out / "decoded")


def perform_together(experiment: Experiment, timer: StageTimer) -> None:
    """Reads the corpus, and performs the stages up to the evaluation in worker processes.

    A walk through all stages then skips them.
    """
    walk([next(experiment.stages())], timer)
    recipe, corpus = experiment.recipe, experiment.corpus
    if isinstance(corpus.decoded, DecodedCache):  # decoded once, and not in each worker
        for rate in {victim.sample_rate for victim in recipe.victims.values()}:
            corpus.decoded.samples(corpus.utterances[0], rate)
    make_stages = partial(stages_in_worker, recipe, experiment.out, replace(corpus, decoded=None))
    workers.perform_together(make_stages, experiment.context, timer)


def stages_in_worker(
    recipe: Recipe, out: Path, corpus: Corpus, context: Context
) -> Iterator[Stage]:
    """The stages of a run in another process, which reads the clips that the first one decoded."""
    experiment = Experiment(recipe, out, context, lambda: with_cache(corpus, out / "decoded"))
    return experiment.stages()
