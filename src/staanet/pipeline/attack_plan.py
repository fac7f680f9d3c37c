"""What an attack of a recipe or of the command line is made with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.attacks import ATTACKS, Staa, load_uap
from staanet.config import AttackRecipe
from staanet.core import Attack, Budget, Clip, Corpus, Victim
from staanet.defences import Defended
from staanet.errors import InvalidInput, unknown_name
from staanet.evaluation import CONTROLS
from staanet.generators.registry import load_generator
from staanet.nn import precision
from staanet.pipeline.context import Context
from staanet.storage import lazy_rows
from staanet.storage.shards import Shard

EOT = 8
"""Draws of a randomised victim that an attack on it follows the mean of."""
UNSAID = {
    "clips": None,
    "max_l0": None,
    "min_snr_db": None,
    "label": "",
    "eot": None,
    "batch_size": 1,
}
"""What most attacks have, and their cards say nothing of."""


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """One attack, ready to be made: what the card will say, and the attack for each clip."""

    key: str
    title: str
    attack: Attack
    source: Victim
    label: str | None = None
    """The class to aim at; ``EACH``: see ``aim``."""
    matched: Path | None = None
    """An adversarial set whose number of changed samples is the limit, clip by clip."""
    batch_size: int = 1
    """Clips in one pass."""
    of: int | None = None
    """How many clips the attacked ones were chosen from, where not all were."""
    drawn: Mapping[str, str] = field(default_factory=dict)
    """Which part of which split the clips are; see ``drawn_from``."""
    inputs: Mapping[str, Any] = field(default_factory=dict)


EACH = "each"
"""Instead of a class to aim at: for each clip one of those that it is not, all classes as often."""


def aim(label: str | None, clip: Clip, labels: Sequence[str]) -> str | None:
    """The class that an attack on ``clip`` aims at, from its id alone where ``label`` is ``EACH``.

    >>> import numpy as np
    >>> aim("each", Clip("a", np.zeros(1, np.int16), 8000, "joy"), ["fear", "joy"])
    'fear'
    """
    if label != EACH or EACH in labels:
        return label
    others = [one for one in labels if one != clip.label]
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
    """An attack of a recipe (or of the command line) with everything it needs."""
    name = recipe.attack or key
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    budget = Budget(
        epsilon=recipe.epsilon,
        max_density=recipe.max_density,
        max_l0=recipe.max_l0,
        min_snr_db=recipe.min_snr_db,
    )
    told = {key: value for key, value in asdict(recipe).items() if value != UNSAID.get(key, ...)}
    del told["precision"]
    inputs: dict[str, Any] = {"recipe": told, "source": source.name, "seed": context.seed}
    if name == "staa":
        if generator is None:
            raise InvalidInput("the attack staa needs a generator", remedy="Pass --generator DIR")
        inputs["generator"] = storage.read_card(generator, "generator")["sha256"]
        runs_in = precision.resolve_precision(recipe.precision, context.device)
        if runs_in != "float32":
            inputs["precision"] = runs_in
        made: Attack = Staa(
            generator=load_generator(generator).to(context.device),
            budget=budget,
            precision=runs_in,
            **settings_of("staa", recipe),
        )
    elif name == "uap":
        if vector is None:
            raise InvalidInput(
                "the attack uap needs a universal vector",
                remedy="Pass --vector DIR, learned by staanet train-uap",
            )
        inputs["vector"] = storage.read_card(vector, "vector")["sha256"]
        made = load_uap(vector, budget)
    else:
        made = with_settings(name, recipe, budget, context.seed)
    if matched is not None:
        inputs["matched"] = storage.sha256(matched / "metadata.csv")
    title, label = recipe.title or key, label or recipe.label or None
    if label not in (None, EACH, *source.labels):
        raise unknown_name("class", str(label), [*source.labels, EACH])
    if isinstance(source, Defended) and source.randomised and name not in ("staa", *CONTROLS):
        draws = recipe.eot or EOT
        source, inputs = source.with_eot(draws, seed=context.seed + 1), {**inputs, "eot": draws}
    return AttackPlan(
        key,
        title,
        made,
        source,
        label=label,
        matched=matched,
        batch_size=recipe.batch_size,
        inputs=inputs,
    )


def with_settings(name: str, recipe: AttackRecipe, budget: Budget, seed: int) -> Attack:
    """An attack that needs neither generator nor vector; ``InvalidInput`` names a setting it has not."""
    made: Attack = ATTACKS[name](budget=budget, seed=seed, **settings_of(name, recipe))
    return made


def settings_of(name: str, recipe: AttackRecipe) -> dict[str, Any]:
    """The recipe's settings of an attack, each a field of its dataclass and of its field's kind; what is
    counted from one there, such as steps, is never none."""
    usual: dict[str, Any] = {
        f.name: f.default
        for f in dataclasses.fields(ATTACKS[name])
        if f.name not in ("budget", "seed", "generator", "precision", "graphs")
    }
    for setting, value in recipe.settings.items():
        if setting not in usual:
            raise unknown_name(f"setting of {name}", setting, usual)
        kind = type(usual[setting])
        least, most = min(1, usual[setting]) if kind is int else 0, 10**9
        right = isinstance(value, (int, float) if kind is float else kind)
        if isinstance(value, bool) != (kind is bool) or not right or not least <= value <= most:
            what = {bool: "true or false", int: f"a whole number from {least} to {most}"}
            raise InvalidInput(
                f"{setting} of {name} is {value}",
                remedy=f"Give {what.get(kind, f'a number from {least} to {most}')}",
            )
    return dict(recipe.settings)


def part_of(plan: AttackPlan, shard: Shard, corpus: Corpus, window_s: float = 0.0) -> AttackPlan:
    """The plan of a shard: its card says which part of which list of clips it is, cut how."""
    ids = lazy_rows.field(corpus.utterances, "id")
    part = {**shard.card(ids), "window_s": window_s}
    return replace(plan, inputs={**plan.inputs, "shard": part})
