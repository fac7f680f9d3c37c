"""About how long the stages of a run would take on this machine, from a few passes of its networks.

A few seconds of noise go through each untrained network, forwards and backwards; the recipe says how
often that happens. Where a network would have to be fetched, or an attack asks as often as it likes,
nothing is estimated. Times of stages that were done, as in another fold, are better and take precedence.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from staanet.config import Recipe, VictimRecipe
from staanet.core import Corpus, Victim
from staanet.pipeline.recipe_plan import attacks_by_source, clip_limit, needs_generator
from staanet.pipeline.train_generator import describe_draw
from staanet.victims import VICTIMS, build_victim
from staanet.victims.self_supervised import SelfSupervised

GRADIENTS = {"random": 0, "uap": 0, "staa": 1, "fgsm": 1, "pgd": 20, "mi_fgsm": 10}
"""Passes back and forth for one clip, by attack; those of ``steps`` or ``iterations`` if it has them."""
GENERATOR_FACTOR = 2.5
"""A training step of a generator over one of its source, for each iteration; measured on two cores."""
REPORT_S = 20.0


@dataclass(frozen=True)
class Passes:
    """Seconds of one pass of a network, measured when first asked for."""

    victim: Victim
    recipe: VictimRecipe
    clip_s: float

    @cached_property
    def forward_s(self) -> float:
        """Of one clip of mean length."""
        with torch.inference_mode():
            return fastest(lambda: self.victim(self._noise(1, self.clip_s)))

    @cached_property
    def gradient_s(self) -> float:
        """Of one clip of mean length, with its gradient."""
        x = self._noise(1, self.clip_s).requires_grad_()
        return fastest(lambda: self.victim(x).logsumexp(dim=1).sum().backward())

    def step_s(self, batch: int, seconds: float) -> float:
        """Of one training step."""
        x = self._noise(batch, seconds)
        return fastest(lambda: self.victim(x).logsumexp(dim=1).sum().backward())

    def _noise(self, batch: int, seconds: float) -> torch.Tensor:
        size = (batch, max(1, round(seconds * self.victim.sample_rate)))
        return 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(0))


def fastest(work: Callable[[], object], repeats: int = 2) -> float:
    """Seconds of the fastest of some calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def estimate_seconds(
    recipe: Recipe, parts: Sequence[Corpus], clip_s: float
) -> dict[str, float | None]:
    """About how long each stage of a run takes, by its name; None where that is not known.

    Args:
        recipe: Of one run, without folds.
        parts: Train, dev and test.
        clip_s: Mean length of a clip.
    """
    _, dev, test = parts
    passes = {
        name: Passes(untrained, victim, recipe.clip_seconds or clip_s)
        for name, victim in recipe.victims.items()
        if (untrained := _untrained(name, victim, parts[0])) is not None
    }
    seconds: dict[str, float | None] = {"report": REPORT_S}
    for name, victim in recipe.victims.items():
        network = passes.get(name)
        judged = len(dev) * (victim.steps // victim.evaluate_every + 2) + len(test)
        seconds[f"train-victim {name}"] = (
            None
            if network is None
            else victim.steps * network.step_s(victim.batch_size, victim.seconds)
            + judged * network.forward_s
        )
    sets = 0
    for source, keys in attacks_by_source(recipe).items():
        members = [passes.get(name) for name in source.split(",")]
        sources = [member for member in members if member is not None]
        for draw in range(recipe.seeds):
            whole = needs_generator(recipe, source, keys) and len(sources) == len(members)
            seconds[f"train-generator {source}{describe_draw(draw)}"] = (
                _generator_seconds(recipe, sources, len(dev)) if whole else None
            )
        for key, draw in itertools.product(keys, range(recipe.seeds)):
            limit = clip_limit(key, recipe.attacks)
            clips = len(test) if limit is None else min(limit, len(test))
            sets += clips
            count = _gradients(recipe, key)
            is_known = count is not None and len(sources) == len(members)
            seconds[f"attack {key} from {source}{describe_draw(draw)}"] = (
                clips * sum((count or 0) * m.gradient_s for m in sources) if is_known else None
            )
    targets = [network.forward_s for network in passes.values()]
    is_whole = len(targets) == len(recipe.victims)
    channels = 1 + len(recipe.channels)
    seconds["evaluate"] = 2 * sets * channels * sum(targets) if is_whole else None
    return seconds


def _generator_seconds(recipe: Recipe, sources: Sequence[Passes], dev: int) -> float:
    generator = recipe.generator
    iterations = GENERATOR_FACTOR * generator.iterations
    evaluations = generator.steps // generator.evaluate_every
    return sum(
        iterations * generator.steps * source.step_s(generator.batch_size, generator.seconds)
        + iterations * evaluations * dev * source.gradient_s
        for source in sources
    )


def _gradients(recipe: Recipe, key: str) -> int | None:
    attack = recipe.attacks[key]
    usual = GRADIENTS.get(attack.attack or key)
    if usual is None:
        return None
    settings: Mapping[str, object] = attack.settings
    count = settings.get("iterations", settings.get("steps", usual)) if usual else 0
    return int(count) if isinstance(count, int | float) else usual


def _untrained(name: str, recipe: VictimRecipe, corpus: Corpus) -> Victim | None:
    """The network of a victim; None if it starts from weights that would have to be read."""
    network = recipe.network or name
    if issubclass(VICTIMS[network], SelfSupervised) and recipe.config is None:
        return None
    return build_victim(
        network, corpus.labels, config=recipe.config, sample_rate=recipe.sample_rate
    )
