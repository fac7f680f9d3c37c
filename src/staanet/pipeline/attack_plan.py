"""Plans an attack of a recipe or of the command line: its method, its source, and its inputs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.attacks import ATTACKS, Staa, load_uap
from staanet.config import AttackRecipe, default_of
from staanet.core import Attack, Budget, Clip, Corpus, Victim, possible_answers
from staanet.defences import Defended
from staanet.errors import InvalidInput, unknown_name
from staanet.evaluation import CONTROLS
from staanet.generators.registry import load_generator
from staanet.nn.precision import resolve_precision
from staanet.pipeline.context import Context
from staanet.storage import lazy_rows
from staanet.storage.shards import Shard
from staanet.victims import members_of

EOT = 8
"""An attack on a randomised victim follows the mean of so many draws."""
EACH = "each"
"""As the class to aim at: for each clip one of those that it does not have, all classes as often."""


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """One attack, ready to be crafted, and the content of its set's card."""

    key: str
    """Its name in a recipe or a run."""
    title: str
    attack: Attack
    source: Victim
    label: str | None = None
    """The class to aim at, or ``EACH``."""
    matched: Path | None = None
    """An adversarial set whose number of changed samples is the limit, clip by clip."""
    batch_size: int = default_of(AttackRecipe, "batch_size")
    """Clips in one pass."""
    of: int | None = None
    """How many clips the attacked ones were chosen from; ``None`` if all are attacked."""
    drawn_from: Mapping[str, str] = field(default_factory=dict)
    """Which part of which split the clips are; see ``clips.split_part``."""
    inputs: Mapping[str, Any] = field(default_factory=dict)


def target_class(label: str | None, clip: Clip, labels: Sequence[str]) -> str | None:
    """The class that an attack on ``clip`` aims at; for ``EACH`` it is drawn from the id alone.

    >>> import numpy as np
    >>> target_class("each", Clip("a", np.zeros(1, np.int16), 8000, "joy"), ["fear", "joy"])
    'fear'
    """
    if label != EACH or EACH in labels:
        return label
    others = [other for other in labels if other != clip.label]
    return others[int(hashlib.sha256(clip.id.encode()).hexdigest(), 16) % len(others)]


def plan_attack(
    key: str,
    recipe: AttackRecipe,
    source: Victim,
    *,
    generator: Path | None = None,
    vector: Path | None = None,
    matched: Path | None = None,
    label: str | None = None,
    context: Context,
) -> AttackPlan:
    """Reads all that an attack needs.

    Args:
        key: Name of the attack in the run, and in the registry if the recipe does not name it.
        recipe: Its budget and settings.
        source: The model that is attacked.
        generator: Folder of a generator, for ``staa``.
        vector: Folder of a universal vector, for ``uap``.
        matched: An adversarial set whose number of changed samples is the limit of each clip.
        label: The class to aim at, or ``EACH``; by default that of the recipe.
        context: The shared settings of the command.

    Returns:
        The plan.

    Raises:
        InvalidInput: If there is no such attack, setting or class, or a folder is missing.
    """
    name = recipe.attack or key
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    settings = asdict(recipe)
    del settings["precision"]  # of the generator alone, where it is resolved
    inputs: dict[str, Any] = {"recipe": settings, "source": source.name, "seed": context.seed}
    inputs["sources"] = source_hashes(source)
    if matched is not None:
        inputs["matched"] = storage.sha256(matched / "metadata.csv")
    label = label or recipe.label or None
    if label not in (None, EACH, *possible_answers(source)):
        raise unknown_name("class", str(label), [*possible_answers(source), EACH])
    if name == "staa":
        method, more = _staa(recipe, generator, context)
    elif name == "uap":
        method, more = _uap(recipe, vector)
    else:
        method, more = build_attack(name, recipe, context.seed), {}
    if isinstance(source, Defended) and source.randomised and name not in ("staa", *CONTROLS):
        more["eot"] = recipe.eot or EOT
        source = source.with_eot(more["eot"], seed=context.seed + 1)
    return AttackPlan(
        key,
        recipe.title or key,
        method,
        source,
        label=label,
        matched=matched,
        batch_size=recipe.batch_size,
        inputs={**inputs, **more},
    )


def require_trained(attack: str, generator: Path | None, vector: Path | None) -> None:
    """Raises ``InvalidInput`` if an attack needs a trained generator or vector and none is given."""
    if attack == "staa" and generator is None:
        raise InvalidInput(
            "the attack staa needs a generator",
            remedy="Pass --generator DIR, trained by staanet train-generator, or another --attack such as pgd",
        )
    if attack == "uap" and vector is None:
        raise InvalidInput(
            "the attack uap needs a universal vector",
            remedy="Pass --vector DIR, learned by staanet train-uap",
        )


def source_hashes(source: Victim) -> dict[str, str]:
    """The hash of each source by its name: under another name it is the same model."""
    return {member.name: member.identity for member in members_of(source)}


def _staa(
    recipe: AttackRecipe, generator: Path | None, context: Context
) -> tuple[Attack, dict[str, Any]]:
    require_trained("staa", generator, None)
    assert generator is not None
    precision = resolve_precision(recipe.precision, context.device)
    method = Staa(
        generator=load_generator(generator).to(context.device),
        budget=budget_of(recipe),
        precision=precision,
        **checked_settings("staa", recipe),
    )
    digest = storage.read_card(generator, "generator")["sha256"]
    return method, {"generator": digest, "precision": precision}


def _uap(recipe: AttackRecipe, vector: Path | None) -> tuple[Attack, dict[str, Any]]:
    require_trained("uap", None, vector)
    assert vector is not None
    digest = storage.read_card(vector, "vector")["sha256"]
    return load_uap(vector, budget_of(recipe)), {"vector": digest}


def budget_of(recipe: AttackRecipe) -> Budget:
    """The limits of a recipe."""
    return Budget(
        epsilon=recipe.epsilon,
        max_density=recipe.max_density,
        max_l0=recipe.max_l0,
        min_snr_db=recipe.min_snr_db,
    )


def build_attack(name: str, recipe: AttackRecipe, seed: int) -> Attack:
    """An attack that needs neither generator nor vector.

    Raises ``InvalidInput`` that names a setting which the attack does not have.
    """
    settings = checked_settings(name, recipe)
    method: Attack = ATTACKS[name](budget=budget_of(recipe), seed=seed, **settings)
    return method


def checked_settings(name: str, recipe: AttackRecipe) -> dict[str, Any]:
    """The recipe's settings of an attack, each a field of the attack's dataclass and of its kind.

    Raises ``InvalidInput`` for any other. What is counted from one, such as steps, cannot be 0.
    """
    defaults: dict[str, Any] = {
        f.name: f.default
        for f in dataclasses.fields(ATTACKS[name])
        if f.name not in ("budget", "seed", "generator", "precision", "graphs")
    }
    for setting, value in recipe.settings.items():
        if setting not in defaults:
            raise unknown_name(f"setting of {name}", setting, defaults)
        kind = type(defaults[setting])
        least, most = min(1, defaults[setting]) if kind is int else 0, 10**9
        fits = isinstance(value, (int, float) if kind is float else kind)
        in_range = isinstance(value, str) or least <= value <= most
        if isinstance(value, bool) != (kind is bool) or not fits or not in_range:
            what = {
                bool: "true or false",
                str: "a word",
                int: f"a whole number from {least} to {most}",
            }
            raise InvalidInput(
                f"{setting} of {name} is {value}",
                remedy=f"Give {what.get(kind, f'a number from {least} to {most}')}",
            )
    return dict(recipe.settings)


def shard_plan(plan: AttackPlan, shard: Shard, corpus: Corpus, window_s: float = 0.0) -> AttackPlan:
    """The plan of a shard: its card says which part of which list of clips it is, and the windows."""
    ids = lazy_rows.attribute_values(corpus.utterances, "id")
    part = {**shard.card(ids), "window_s": window_s}
    return replace(plan, inputs={**plan.inputs, "shard": part})
