"""Learns one universal vector against a victim, into a vector folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from staanet import config, training
from staanet.attacks import craft, fit_uap, save_uap
from staanet.config import AttackRecipe, VectorRecipe
from staanet.core import Corpus, Victim, require_classes
from staanet.errors import unknown_name
from staanet.evaluation import transfer_matrix
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.sources import relative_origin
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.victim_check import check_victims, match_corpus_labels
from staanet.storage import describe_machine


@dataclass(frozen=True)
class VectorTraining:
    """A universal vector that is learned against a source model, as a stage."""

    corpus: Callable[[], Corpus]
    source: Callable[[], Victim]
    name: str
    out: Path
    recipe: VectorRecipe
    context: Context
    label: str | None = None
    """The class to aim at."""

    def stage(self) -> Stage:
        return Stage(
            name=self.name,
            folder=self.out,
            kind="vector",
            inputs=self.inputs,
            work=self.work,
            size=lambda: f"{self.recipe.steps} steps",
        )

    def inputs(self) -> Inputs:
        return {
            **self.context.split_inputs(self.corpus()),
            "label": self.label,
            "source": self.source().identity,
            "recipe": asdict(self.recipe),
        }

    def work(self, inputs: Inputs) -> None:
        source, recipe, context = self.source(), self.recipe, self.context
        parts = context.split(self.corpus())[:2]
        train, dev = (load_clips(part, source, context) for part in parts)
        check_victims([source], dev, context)
        schedule = training.Schedule(
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            seconds=recipe.seconds,
            seed=context.seed,
        )
        crops = training.Crops(train, schedule)

        def batches() -> Iterator[tuple[Tensor, None]]:
            for step in range(recipe.steps):
                yield crops.draw(step)[0].to(source.device), None
                context.progress(f"universal vector on {source.name}", step + 1, recipe.steps, "")

        uap = fit_uap(
            source,
            batches(),
            recipe,
            seed=context.seed,
            target=None if self.label is None else source.labels.index(self.label),
        )
        adversarial = craft(uap, source, dev, label=self.label, progress=context.progress)
        cell = transfer_matrix([adversarial], [source], progress=context.progress).cells[0]
        save_uap(
            uap,
            self.out,
            inputs=inputs,
            source=source.name,
            label=self.label,
            source_folder=relative_origin(source, self.out),
            source_sha256=source.sha256,
            max_density=recipe.max_density,
            dev_fooling_rate=cell["fooling_rate"]["value"],
            machine=describe_machine(),
        )


def train_uap(
    corpus: Corpus,
    source: Victim,
    out: Path,
    *,
    recipe: VectorRecipe,
    label: str | None = None,
    context: Context,
) -> None:
    """Learns one universal vector for ``source`` on the corpus's train part; dev clips judge it.

    With ``label`` it aims at that class. Raises ``InvalidInput`` if there is no such class, or if
    ``out`` holds a vector that was made from something else.
    """
    require_classes([source], "a universal vector")
    match_corpus_labels([source], corpus, context)
    if label is not None and label not in source.labels:
        raise unknown_name("class", label, source.labels)
    name = f"train-uap on {source.name}"
    VectorTraining(
        lambda: corpus, lambda: source, name, out, recipe, context, label
    ).stage().perform()


def vector_recipe(key: str, attacks: Mapping[str, AttackRecipe]) -> VectorRecipe:
    """How the vector of a recipe's attack ``key`` is learned: at the density that it will have."""
    attack = attacks[key]
    matched = attacks[attack.match].max_density if attack.match else None
    names = {f.name for f in dataclasses.fields(VectorRecipe)} - {"epsilon", "max_density"}
    for name in attack.settings:
        if name not in names:
            raise unknown_name("setting of uap", name, names)
    limits = {"epsilon": attack.epsilon, "max_density": attack.max_density or matched}
    return config.validate_settings(
        VectorRecipe, {**limits, **attack.settings}, where=f"[attacks.{key}]"
    )
