"""Trains a victim on the train part of a corpus, into a victim folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from staanet import training
from staanet.attacks import logits_of
from staanet.config import GeneratorRecipe, HardenRecipe, VictimRecipe
from staanet.core import Clip, Corpus, Progress, Victim, metrics, require_classes, silent
from staanet.core.dimensions import dimension_values
from staanet.evaluation.everyday import unchanged_shares
from staanet.nn import distributed
from staanet.nn.precision import resolve_precision
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.recording_notes import RecordingNotes
from staanet.pipeline.stage import Inputs, Stage
from staanet.storage import describe_machine
from staanet.victims import Egemaps, build_victim, learning_rate, load_victim

CHANCE = 0.05
"""A victim is called better than chance if its p value is below this."""


@dataclass(frozen=True)
class VictimTraining:
    """The training of one victim on the train part of a corpus, as a stage."""

    corpus: Callable[[], Corpus]
    name: str
    out: Path
    recipe: VictimRecipe
    context: Context

    def stage(self) -> Stage:
        recipe = self.recipe
        return Stage(
            name=f"train-victim {self.name}",
            folder=self.out,
            kind="victim",
            inputs=self.inputs,
            work=self.work,
            size=lambda: f"{recipe.steps} steps of {recipe.batch_size} x {recipe.seconds:g} s",
        )

    @cached_property
    def resolved(self) -> VictimRecipe:
        """The recipe, with learning rate, network and precision filled in."""
        recipe = resolve_learning_rate(self.name, self.recipe)
        precision = resolve_precision(recipe.precision, self.context.device)
        return replace(recipe, network=recipe.network or self.name, precision=precision)

    def inputs(self) -> Inputs:
        return {**self.context.split_inputs(self.corpus()), "recipe": asdict(self.resolved)}

    def work(self, inputs: Inputs) -> Victim:
        corpus, recipe, context = self.corpus(), self.resolved, self.context
        training.seed_weights(context.seed)
        victim = build_victim(
            recipe.network,
            corpus.labels,
            pretrained=recipe.pretrained,
            config=recipe.config,
            sample_rate=recipe.sample_rate,
        )
        victim.name = self.name
        if corpus.task == "regression":
            victim.tolerance = (1.0,) * len(
                victim.labels
            )  # while it trains on standardised numbers
        train, dev, test = (load_clips(part, victim, context) for part in context.split(corpus))
        history = self._train(victim.to(context.device), train, dev)
        if corpus.task == "regression":
            victim.tolerance = tolerance_of(train, victim.labels, recipe.tolerance)
        if distributed.is_first():
            quality = measure_parts(victim, {"dev": dev, "test": test}, context.progress)
            flags = [*history.flags, *chance_flags(self.name, quality, len(test))]
            victim.save_pretrained(
                self.out,
                inputs=inputs,
                best_step=history.best_step,
                epochs=len(history.rows),
                machine=describe_machine(),
                test_unchanged=unchanged_shares(victim, test),
                **quality,
                **context.quarantine.warn_of(flags),
                **RecordingNotes.of([*train, *dev, *test]).entry(),
            )
        victim.origin = str(self.out)
        return victim

    def _train(
        self, victim: Victim, train: Sequence[Clip], dev: Sequence[Clip]
    ) -> training.History:
        progress = self.context.progress
        if isinstance(victim, Egemaps):
            require_classes([victim], "a logistic regression")
            return training.fit_linear(victim, train, dev, self.out, progress=progress)
        is_regression = victim.task == "regression"
        train_network = training.train_regression if is_regression else training.train_victim
        return train_network(
            victim,
            train,
            dev,
            make_schedule(self.resolved, self.context.seed),
            self.out,
            precision=self.resolved.precision,
            progress=progress,
        )


def train_victim(
    corpus: Corpus, name: str, out: Path, *, recipe: VictimRecipe, context: Context
) -> Victim:
    """Trains a victim on the corpus's train part; its card holds UAR and accuracy on dev and test.

    Raises ``InvalidInput`` if ``out`` holds a victim that was made from something else.
    """
    training_of_victim = VictimTraining(lambda: corpus, name, out, recipe, context)
    victim = training_of_victim.stage().perform()
    return victim if isinstance(victim, Victim) else load_victim(out).to(context.device)


def resolve_learning_rate(name: str, recipe: VictimRecipe) -> VictimRecipe:
    """Returns the recipe with a learning rate: its own, or the usual one of its network."""
    rate = recipe.learning_rate or learning_rate(recipe.network or name, config=recipe.config)
    return replace(recipe, learning_rate=rate)


def make_schedule(
    recipe: VictimRecipe | GeneratorRecipe | HardenRecipe, seed: int
) -> training.Schedule:
    """Returns the schedule of a training; the recipe's learning rate must be resolved before."""
    assert recipe.learning_rate is not None, "call resolve_learning_rate before"
    noise = {} if isinstance(recipe, GeneratorRecipe) else {"noise_db": recipe.noise_db}
    augment = recipe.augment if isinstance(recipe, VictimRecipe) else ()
    return training.Schedule(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        seconds=recipe.seconds,
        learning_rate=recipe.learning_rate,
        final_learning_rate=min(1e-4, recipe.learning_rate / 10),  # never above where it starts
        evaluate_every=recipe.evaluate_every,
        patience=recipe.patience,
        seed=seed,
        speed=recipe.speed,
        augment=tuple(augment),
        **noise,
    )


def tolerance_of(
    clips: Sequence[Clip], names: Sequence[str], deviations: float
) -> tuple[float, ...]:
    """Returns the tolerance of each number: so many of its standard deviations over the clips."""
    spread = dimension_values([clip.label for clip in clips], names).std(axis=0)
    return tuple(float(f"{deviations * x:.6g}") for x in spread)


def measure_parts(
    victim: Victim, parts: Mapping[str, Sequence[Clip]], progress: Progress = silent
) -> dict[str, float]:
    """The figures of ``measure_quality`` on each part, as ``dev_uar``, ``dev_accuracy`` and so on."""
    return {
        f"{part}_{name}": value
        for part, clips in parts.items()
        for name, value in measure_quality(victim, clips, progress).items()
    }


def chance_flags(name: str, quality: Mapping[str, float], count: int) -> list[str]:
    """Returns a flag if a victim is no better than chance on its ``count`` test clips, else nothing."""
    p = quality["test_chance_p"]
    if p < CHANCE:
        return []
    figure = (
        f"UAR {100 * quality['test_uar']:.0f} %"
        if "test_uar" in quality
        else f"CCC {quality['test_ccc']:.2f}"
    )
    return [
        f"{name}: no better than chance on {count} test clips, p = {p:.2g} ({figure}): check the "
        "alignment of labels and files, or train longer"
    ]


def measure_quality(
    victim: Victim, clips: Sequence[Clip], progress: Progress = silent
) -> dict[str, float]:
    """Measures a victim on labelled clips: UAR, accuracy, and the p value of chance (``chance_p``).

    For a regression victim: CCC and mean absolute error of each number, the mean CCC, and the largest
    p value of a number.
    """
    outputs = []
    for number, clip in enumerate(clips, start=1):
        outputs.append(logits_of(victim, [clip])[0])
        progress(f"judge {victim.name}", number, len(clips), "")
    if victim.task == "regression":
        return _quality_of_numbers(victim.labels, np.array(outputs), clips)
    answers = [victim.labels[int(row.argmax())] for row in outputs]
    truth = [clip.label or "" for clip in clips]
    correct = [label == answer for label, answer in zip(truth, answers, strict=True)]
    return {
        "uar": metrics.uar(truth, answers),
        "accuracy": float(np.mean(correct)),
        "chance_p": metrics.chance_p(truth, answers),
    }


def _quality_of_numbers(
    names: Sequence[str], answers: NDArray[np.float64], clips: Sequence[Clip]
) -> dict[str, float]:
    truth = dimension_values([clip.label for clip in clips], names)
    figures, chances = {}, []
    for k, name in enumerate(names):
        figures[f"ccc_{name}"] = metrics.ccc(truth[:, k], answers[:, k])
        figures[f"mae_{name}"] = float(np.abs(truth[:, k] - answers[:, k]).mean())
        chances.append(metrics.rank_chance_p(truth[:, k], answers[:, k]))
    mean = float(np.mean([figures[f"ccc_{name}"] for name in names]))
    return {"ccc": mean, **figures, "chance_p": max(chances)}
