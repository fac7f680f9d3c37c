"""Trains a generator against one or several victims, into a generator folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from staanet import training
from staanet.config import GeneratorRecipe
from staanet.core import Budget, Corpus, Victim, require_classes
from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.iterative import IterativeGenerator
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator, save_generator
from staanet.generators.warm_start import find_conv_recurrent, has_warm_start, warm_start_generator
from staanet.nn import distributed
from staanet.nn.precision import resolve_precision
from staanet.pipeline import unlabelled
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.sources import relative_origin
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.train_victim import make_schedule
from staanet.pipeline.victim_check import check_victims
from staanet.storage import describe_machine
from staanet.transforms import Transform, parse_transform
from staanet.victims import members_of


@dataclass(frozen=True)
class GeneratorTraining:
    """A generator that is trained against a source model, as a stage."""

    corpus: Callable[[], Corpus]
    source: Callable[[], Victim]
    source_name: str
    out: Path
    recipe: GeneratorRecipe
    context: Context
    draw: int = 0
    """Added to the seed of weights and crops, not to that of the split: another training."""

    def stage(self) -> Stage:
        recipe = self.recipe
        return Stage(
            name=f"train-generator {self.source_name}{describe_draw(self.draw)}",
            folder=self.out,
            kind="generator",
            inputs=self.inputs,
            work=self.work,
            size=lambda: (
                f"{recipe.network}, {recipe.steps} steps of {recipe.batch_size} x "
                f"{recipe.seconds:g} s"
            ),
        )

    @cached_property
    def resolved(self) -> GeneratorRecipe:
        """The recipe with the values that it leaves to its sources and the device."""
        recipe = resolve_network(self.recipe, members_of(self.source()))
        precision = resolve_precision(recipe.precision, self.context.device)
        return replace(recipe, precision=precision)

    @cached_property
    def extra(self) -> unlabelled.ExtraAudio:
        """The audio without labels that the recipe adds to the corpus."""
        parts = self.context.split(self.corpus())
        return unlabelled.gather(
            self.recipe.unlabelled, parts, self.source(), self.out, context=self.context
        )

    def parse_augment(self) -> list[Transform]:
        """The channels between clips and sources, tried once at the sources' rate.

        Raises ``InvalidInput`` if a transform does not exist, or does not fit that rate.
        """
        transforms = [parse_transform(text) for text in self.recipe.augment]
        rate = self.source().sample_rate
        for transform in transforms:
            transform(torch.zeros(1, rate), None, torch.Generator(), sample_rate=rate)
        return transforms

    def inputs(self) -> Inputs:
        self.parse_augment()  # a mistake is told before any work
        if self.recipe.goal == "targeted":
            require_classes(members_of(self.source()), "a targeted generator")
        require_one_task(members_of(self.source()))
        settings = asdict(self.resolved)
        for name in ("sources", "unlabelled"):  # their content counts, not how they are named
            del settings[name]
        return {
            **self.context.split_inputs(self.corpus()),
            "unlabelled": self.extra.summary,
            "source": self.source().identity,
            "recipe": settings,
            **({"draw": self.draw} if self.draw else {}),
        }

    def work(self, inputs: Inputs) -> None:
        corpus, source, recipe, context = self.corpus(), self.source(), self.resolved, self.context
        self.extra.save(self.out)
        seed = context.seed + self.draw
        training.seed_weights(seed)
        generator = make_generator(recipe, source).to(context.device)
        train, dev = (load_clips(part, source, context) for part in context.split(corpus)[:2])
        check_victims([source], dev, context)
        settings = training.GeneratorSettings(
            budget=Budget(
                epsilon=recipe.epsilon, max_density=recipe.max_density, min_snr_db=recipe.min_snr_db
            ),
            objective=make_objective(recipe),
            any_budget=learns_any_budget(recipe, generator),
            targeted=recipe.goal == "targeted",
            augment=self.parse_augment(),
            precision=recipe.precision,
        )
        history = training.train_generator(
            generator,
            source,
            [*train, *self.extra.clips],
            dev,
            make_schedule(recipe, seed),
            self.out,
            settings=settings,
            progress=context.progress,
        )
        if distributed.is_first():
            self._save(generator, history, inputs)

    def _save(self, generator: Generator, history: training.History, inputs: Inputs) -> None:
        source, recipe = self.source(), self.resolved
        sources = members_of(source)
        save_generator(
            generator,
            self.out,
            inputs=inputs,
            network=recipe.network,
            source=source.name,
            sources=[member.name for member in sources],
            source_sha256=source.sha256,
            source_folders=[relative_origin(member, self.out) for member in sources],
            goal=recipe.goal,
            any_budget=learns_any_budget(recipe, generator),
            epsilon=recipe.epsilon,
            max_density=recipe.max_density,
            best_step=history.best_step,
            dev_fooling_rate=history.best_score,
            parameters=sum(weight.numel() for weight in generator.parameters()),
            flags=[*training.collapse_flags(history.rows[-1]), *self.extra.flags, *history.flags],
            machine=describe_machine(),
            **self.extra.card,
        )


def describe_draw(draw: int) -> str:
    """What the name of a stage says of another training.

    >>> describe_draw(0), describe_draw(1)
    ('', ', training 2')
    """
    return f", training {draw + 1}" if draw else ""


def train_generator(
    corpus: Corpus, source: Victim, out: Path, *, recipe: GeneratorRecipe, context: Context
) -> None:
    """Trains STAA-Net against ``source`` on the corpus's train part, judged on its dev part.

    ``source`` comes from ``load_victim`` or ``load_victims``: the card refers to its folders. Raises
    ``InvalidInput`` if ``out`` holds a generator that was made from something else.
    """
    stage = GeneratorTraining(
        lambda: corpus, lambda: source, source.name, out, recipe, context
    ).stage()
    stage.perform()


def resolve_network(recipe: GeneratorRecipe, sources: Sequence[Victim]) -> GeneratorRecipe:
    """The recipe with the network and the learning rate that fit its sources."""
    network = recipe.network
    if network == "backward_net" and not any(map(has_warm_start, sources)):
        network = "compact"
    usual = 2e-3
    if network == "backward_net":  # begins as its source, others from nothing
        usual = 3e-4 if any(map(find_conv_recurrent, sources)) else 1e-5
    return replace(recipe, network=network, learning_rate=recipe.learning_rate or usual)


def make_generator(recipe: GeneratorRecipe, source: Victim) -> Generator:
    """An untrained generator: initialised from its source where the network allows it, else at random."""
    density = recipe.max_density if recipe.objective == "constrained" else None
    warm = warm_start_generator(members_of(source), density, recipe.epsilon, recipe.iterations)
    if recipe.network == "backward_net" and warm is not None:
        return warm
    return build_generator(recipe.network, density, source.class_labels)


def require_one_task(sources: Sequence[Victim]) -> None:
    """Raises ``InvalidInput`` where some sources answer with numbers, and others with classes or other numbers."""
    first = sources[0]
    for source in sources[1:]:
        if source.task != first.task or (first.tolerance and source.labels != first.labels):
            raise InvalidInput(
                f"{first.name} answers {', '.join(first.labels)}, {source.name} "
                f"{', '.join(source.labels)}: one generator cannot follow both",
                remedy="Train a generator for each",
            )


def learns_any_budget(recipe: GeneratorRecipe, generator: Generator) -> bool:
    """Whether a generator knows its budget, and the recipe wants it to learn them all."""
    return recipe.any_budget and isinstance(generator, IterativeGenerator) and generator.has_ranking


def make_objective(recipe: GeneratorRecipe) -> Objective:
    """The loss of a recipe. The published one also mixes masks, as does any loss of its network."""
    published = recipe.objective == "paper"
    mixing = published or recipe.network == "paper"
    kappa = recipe.kappa if recipe.kappa is not None else (0.0 if published else math.inf)
    quantisation = (
        recipe.quantisation if recipe.quantisation is not None else (0.1 if mixing else 0.0)
    )
    return Objective(
        kappa=kappa,
        magnitude=recipe.magnitude,
        quantisation=quantisation,
        mixing=mixing,
        sparsity=recipe.sparsity if published else None,
    )
