"""Plans a recipe: the attacks of each source, their order, and whether the recipe can run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from staanet import config, corpora
from staanet.attacks import ATTACKS
from staanet.config import AttackRecipe, DefenceRecipe, Recipe
from staanet.core.cross_validation import fold_protocol
from staanet.errors import InvalidInput, unknown_name
from staanet.generators.registry import GENERATORS
from staanet.pipeline.attack_plan import build_attack, checked_settings
from staanet.pipeline.stage import require_same_inputs
from staanet.pipeline.train_uap import vector_recipe
from staanet.pipeline.train_victim import resolve_learning_rate
from staanet.transforms import parse_augmentation, parse_transform
from staanet.victims import VICTIMS

AFTER_THE_ATTACK = ("channels", "everyday", "perceptual", "seeds", "selfcheck")
"""Recipe keys that change nothing of what was trained and attacked. They add stages, or are read by
the stages after the attacks, which always run again."""


def check_recipe(recipe: Recipe, out: Path | None = None) -> None:
    """Raises ``InvalidInput`` for a mistake that would otherwise be found after hours.

    A corpus that would have to be rendered or fetched is not looked at.
    """
    for key in order_attacks(recipe.attacks):
        check_attack(key, recipe.attacks)
    for name, victim in recipe.victims.items():
        if (victim.network or name) not in VICTIMS:
            raise unknown_name(f"network of [victims.{name}]", victim.network or name, VICTIMS)
        parse_augmentation(victim.augment)
    if recipe.generator.network not in GENERATORS:
        raise unknown_name("network of [generator]", recipe.generator.network, GENERATORS)
    if recipe.corpus.partition(":")[0] not in ("synthetic", "audb"):
        corpus = corpora.load_corpus(recipe.corpus, out=out, **recipe.corpus_options())
        corpus.split(
            recipe.seed, fold_protocol(1, recipe.folds) if recipe.folds else recipe.protocol
        )
    chains = [defence.chain for defence in recipe.defences.values()]
    for text in itertools.chain(recipe.channels, recipe.generator.augment, *chains):
        parse_transform(text)


def check_attack(key: str, attacks: Mapping[str, AttackRecipe]) -> None:
    """Raises ``InvalidInput`` if an attack does not exist, or has a setting that it should not have."""
    name = attacks[key].attack or key
    if name not in ATTACKS:
        raise unknown_name(f"attack in [attacks.{key}]", name, ATTACKS)
    if name == "uap":
        vector_recipe(key, attacks)
    elif name == "staa":
        checked_settings(name, attacks[key])
    else:
        build_attack(name, attacks[key], 0)


def with_learning_rates(recipe: Recipe) -> Recipe:
    """The recipe with the learning rates that it leaves to the networks."""
    victims = {name: resolve_learning_rate(name, victim) for name, victim in recipe.victims.items()}
    return replace(recipe, victims=victims)


def defended_victims(recipe: Recipe) -> dict[str, tuple[str, DefenceRecipe]]:
    """The defended victims of a recipe by name: the victim inside, and the defence before it."""
    return {
        f"{victim}+{key}": (victim, defence)
        for key, defence in recipe.defences.items()
        for victim in defence.victims or [s for s in recipe.generator.sources if "," not in s]
    }


def attacks_by_source(recipe: Recipe) -> dict[str, list[str]]:
    """The keys of the attacks on each source, in the order in which they are crafted.

    The sources of the generator meet all. A defended victim meets the adaptive attacks of its recipe,
    and what those are matched to. A universal vector is learned against one victim, so that no ensemble
    meets it.
    """
    keys = order_attacks(recipe.attacks)
    by_source = dict.fromkeys(recipe.generator.sources, keys)
    for name, (_, defence) in defended_victims(recipe).items():
        adaptive = set(keys if defence.adaptive is None else defence.adaptive)
        for key in reversed(keys):  # what is matched stands before what matches it
            if key in adaptive and recipe.attacks[key].match:
                adaptive.add(recipe.attacks[key].match)
        if adaptive:
            by_source[name] = [key for key in keys if key in adaptive]
    return {
        source: [key for key in keys if "," not in source or not is_attack(recipe, key, "uap")]
        for source, keys in by_source.items()
    }


def is_attack(recipe: Recipe, key: str, name: str) -> bool:
    """Whether an attack of the recipe is the one of that name in the registry."""
    return (recipe.attacks[key].attack or key) == name


def needs_generator(recipe: Recipe, source: str, keys: list[str]) -> bool:
    """Whether a generator is trained against a source."""
    return source in recipe.generator.sources or any(is_attack(recipe, k, "staa") for k in keys)


def is_swept(recipe: Recipe, source: str) -> bool:
    """Whether budgets are swept on a source."""
    return recipe.sweep is not None and source in (recipe.sweep.sources or recipe.generator.sources)


def clip_limit(key: str, attacks: Mapping[str, AttackRecipe]) -> int | None:
    """The largest number of clips of an attack: its limit, or that of the attack it matches if less."""
    limit, match = attacks[key].clips, attacks[key].match
    limits = [limit, clip_limit(match, attacks) if match else None]
    return min((limit for limit in limits if limit is not None), default=None)


def order_attacks(attacks: Mapping[str, AttackRecipe]) -> list[str]:
    """The order of the recipe, but an attack that others match comes before them.

    Raises ``InvalidInput`` if attacks match each other in a circle.
    """
    order: list[str] = []

    def insert(key: str, waiting: tuple[str, ...]) -> None:
        if key in waiting:
            raise InvalidInput(f"the attacks {', '.join(waiting)} match each other in a circle")
        match = attacks[key].match
        if match:
            insert(match, (*waiting, key))
        if key not in order:
            order.append(key)

    for key in attacks:
        insert(key, ())
    return order


def require_same_recipe(recipe: Recipe, out: Path) -> None:
    """Raises ``InvalidInput`` if ``out`` holds a run of another recipe."""
    path = out / "recipe.toml"
    if path.exists():
        before = dict(_flat_settings(config.to_tree(config.load_recipe(str(path)))))
        now = dict(_flat_settings(config.to_tree(recipe)))
        absent = dict.fromkeys(before.keys() - now.keys())
        require_same_inputs(before, {**now, **absent}, out)


def _flat_settings(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat_settings(value, f"{prefix}{key}.")
        elif prefix or key not in AFTER_THE_ATTACK:
            yield f"{prefix}{key}", value
