"""Runs a recipe: on one split of its corpus, or on each fold of a cross-validation and on their pool.

A fold is a run of the same recipe by the protocol ``fold:I/N``, in a folder of its own below
``folds/``. So it can be made on another machine, and looked at alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from staanet import config, corpora, report, storage
from staanet.config import Recipe
from staanet.core import Corpus
from staanet.core.cross_validation import fold_protocol
from staanet.corpora.cache import with_cache
from staanet.errors import InvalidInput
from staanet.pipeline.context import Context
from staanet.pipeline.pool import pool_folds
from staanet.pipeline.quarantine import Quarantine
from staanet.pipeline.recipe_plan import (
    AFTER_THE_ATTACK,
    check_recipe,
    require_same_recipe,
    with_learning_rates,
)
from staanet.pipeline.run_card import write_run_card
from staanet.pipeline.run_experiment import close_run, run_experiment
from staanet.pipeline.run_recipe import Experiment
from staanet.pipeline.stage import Inputs, Stage, walk
from staanet.results.stored import FOLDS
from staanet.results.transfer_matrix import TransferMatrix
from staanet.storage.shards import Shard


def run(
    recipe: Recipe, out: Path, *, command: str = "", shard: Shard | None = None, context: Context
) -> TransferMatrix | None:
    """Runs every stage of a recipe that is not done.

    Args:
        recipe: Its seed and protocol take the place of the context's.
        out: Folder of the run.
        command: What was typed, for the card.
        shard: Of a recipe with folds: only this part of them.
        context: Of the command.

    Returns:
        The transfer matrix, of all folds if there are folds. None while other folds are missing.

    Raises:
        InvalidInput: If the recipe has a mistake, or ``out`` holds a run of another one.
        FolderLocked: If another process works in the same folder.
    """
    check_recipe(recipe, out)
    recipe = with_learning_rates(recipe)
    context = replace(context, seed=recipe.seed, protocol=recipe.protocol)
    if recipe.folds is not None:
        return _run_folds(recipe, out, command, shard, context)
    if shard is not None:
        raise InvalidInput(
            "--shard is for a recipe with folds, and this one has none",
            remedy="Add --set folds=5, or drop --shard",
        )

    def read_corpus() -> Corpus:
        return with_cache(read_or_render_corpus(recipe, out, context), out / "decoded")

    experiment = Experiment(recipe, out, context, read_corpus)
    matrix = run_experiment(experiment, command)
    close_run(experiment)
    return matrix


@dataclass(frozen=True)
class CrossValidation:
    """The folds of a recipe, each with its folder and its stages."""

    recipe: Recipe
    out: Path
    context: Context
    read_corpus: Callable[[], Corpus]
    """Raises ``NotReady`` if the corpus is not there and may not be made."""
    command: str = ""

    @property
    def numbers(self) -> range:
        """The folds, counted from 1."""
        assert self.recipe.folds is not None, "a recipe with folds"
        return range(1, self.recipe.folds + 1)

    @cached_property
    def corpus(self) -> Corpus:
        return self.read_corpus()

    def folder(self, number: int) -> Path:
        return self.out / FOLDS / str(number)

    def experiment(self, number: int) -> Experiment:
        """A fold as a run. It collects the clips that it cannot use for itself."""
        folder, corpus = self.folder(number), self.recipe.corpus
        if corpus == "synthetic:":  # rendered once, for all folds
            corpus = f"synthetic:{self.out / 'corpus'}"
        protocol = fold_protocol(number, len(self.numbers))
        recipe = replace(self.recipe, corpus=corpus, folds=None, protocol=protocol)
        quarantine = Quarantine(self.context.strict)
        context = replace(self.context, protocol=protocol, quarantine=quarantine)
        return Experiment(
            recipe, folder, context, lambda: with_cache(self.corpus, folder / "decoded")
        )

    def stages(self, numbers: range | tuple[int, ...]) -> Iterator[Stage]:
        """The folds of these numbers, each with its report."""
        for number in numbers:
            name = f"fold {number}/{len(self.numbers)}"
            yield Stage(
                name=name,
                folder=self.folder(number),
                kind="run",
                inputs=lambda number=number: self._inputs(number),  # type: ignore[misc]
                work=lambda inputs, number=number: self._run_fold(number, inputs),  # type: ignore[misc]
                is_run=True,
            )
            yield Stage(
                name=f"report of {name}",
                folder=self.folder(number),
                kind="run",
                inputs=None,
                work=lambda _, number=number: self._close_fold(number),  # type: ignore[misc]
            )

    def _inputs(self, number: int) -> Inputs:
        experiment = self.experiment(number)
        tree = config.to_tree(experiment.recipe)
        settings = {key: value for key, value in tree.items() if key not in AFTER_THE_ATTACK}
        return {"recipe": settings, **experiment.context.split_inputs(self.corpus)}

    def _run_fold(self, number: int, inputs: Inputs) -> None:
        command = self.command and f"{self.command} --shard {number}/{len(self.numbers)}"
        run_experiment(self.experiment(number), command, inputs)

    def _close_fold(self, number: int) -> None:
        if not (self.folder(number) / "report" / "index.html").is_file():
            close_run(self.experiment(number))

    def reopen(self, number: int) -> None:
        """Takes the card of a finished fold whose evaluation should now be another, as with channels.

        The fold then skips what is trained and attacked, and evaluates anew.
        """
        folder, experiment = self.folder(number), self.experiment(number)
        if not (folder / storage.CARD).is_file():
            return
        before = config.to_tree(config.load_recipe(str(folder / "recipe.toml")))
        now = config.to_tree(experiment.recipe)
        if any(before.get(key) != now.get(key) for key in AFTER_THE_ATTACK):
            storage.remove(folder / storage.CARD)
            storage.remove(folder / "report" / "index.html")

    def missing(self) -> list[int]:
        """The folds that are not finished."""
        return [n for n in self.numbers if not (self.folder(n) / storage.CARD).is_file()]

    def pool(self) -> list[Stage]:
        """The stages after the folds: their pooled results, and the report of these."""
        count = len(self.numbers)
        return [
            Stage(
                name="pool",
                folder=self.out / "results",
                kind="evaluation",
                inputs=None,
                work=lambda _: self._pool(),
                marker="summary.json",
                size=lambda: f"{count} folds, every clip once; always done anew",
            ),
            Stage(
                name="report",
                folder=self.out,
                kind="run",
                inputs=None,
                work=lambda _: report.build(self.out, progress=self.context.progress),
                marker="report/index.html",
                size=lambda: "tables, figures and one page; always done anew",
            ),
        ]

    def _pool(self) -> TransferMatrix:
        folders = {number: self.folder(number) for number in self.numbers}
        matrix = pool_folds(folders, self.out, self.context)
        cards = {n: storage.read_card(folder, "run") for n, folder in folders.items()}
        parts = {
            f"test of fold {n}": self.experiment(n).context.split(self.corpus)[2] for n in folders
        }
        seconds = {f"fold {n}": sum(_seconds(card)) for n, card in cards.items()}
        write_run_card(self.recipe, self.corpus, parts, self.out, self.command, seconds)
        return matrix


def _seconds(card: Mapping[str, Any]) -> list[float]:
    return [float(value) for value in card.get("seconds", {}).values()]


def _run_folds(
    recipe: Recipe, out: Path, command: str, shard: Shard | None, context: Context
) -> TransferMatrix | None:
    with storage.FolderLock(out):
        require_same_recipe(recipe, out)
        storage.write_text(out / "recipe.toml", config.to_toml(recipe))
        corpus = read_or_render_corpus(recipe, out, context)
    validation = CrossValidation(recipe, out, context, lambda: corpus, command)
    numbers = tuple(validation.numbers)
    chosen = tuple(shard.part(numbers)) if shard else numbers
    for number in chosen:
        validation.reopen(number)
    walk(validation.stages(chosen))
    if validation.missing():
        return None
    with storage.FolderLock(out):
        matrix = walk(validation.pool())["pool"]
        assert isinstance(matrix, TransferMatrix), "pooled anew"
        return matrix


def read_or_render_corpus(recipe: Recipe, out: Path, context: Context) -> Corpus:
    """The corpus of a recipe; synthetic speech is rendered into ``out/corpus`` if it is not there."""
    if recipe.corpus != "synthetic:":
        return corpora.load_corpus(recipe.corpus, **recipe.corpus_options())
    rendered = corpora.render_synthetic(
        out / "corpus",
        voices=recipe.synthetic.voices,
        sentences=recipe.synthetic.sentences,
        seed=recipe.seed,
        progress=context.progress,
    )
    return corpora.choose_labels(rendered, recipe.classes, recipe.task, out / "corpus")
