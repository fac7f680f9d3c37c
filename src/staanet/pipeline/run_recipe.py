"""``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from staanet import audio, config, corpora, report, storage
from staanet.attacks import ATTACKS
from staanet.config import AttackRecipe, DefenceRecipe, Recipe, SyntheticRecipe
from staanet.core import Budget, Clip, Corpus, stratified_subset
from staanet.corpora import cache
from staanet.errors import InvalidInput, unknown_name
from staanet.generators.registry import GENERATORS
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import plan_attack, settings_of, with_settings
from staanet.pipeline.clips import drawn_from, load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.defend import defend
from staanet.pipeline.evaluate import evaluate
from staanet.pipeline.sweep import SweepPlan, sweep
from staanet.pipeline.train import settled, train_generator, train_uap, train_victim, vector_recipe
from staanet.results.transfer_matrix import TransferMatrix
from staanet.sanity import selfcheck
from staanet.storage import describe_machine
from staanet.transforms import parse_transform
from staanet.victims import VICTIMS, Ensemble, members_of

T = TypeVar("T")
LAST = ("selfcheck", "report")
"""Stages after the card, which tells nothing of them: else it were another one when a run is given again."""


def run(recipe: Recipe, out: Path, *, command: str = "", context: Context) -> TransferMatrix:
    """Every stage of a recipe into ``out``, skipping what is done; returns the matrix.

    The recipe's seed and protocol take the place of the context's.

    Raises ``InvalidInput`` where ``out`` holds another recipe's run, ``FolderLocked`` where another
    process works in it.
    """
    require_sound(recipe, out)
    recipe = with_rates(recipe)
    with storage.FolderLock(out):
        _claim(recipe, out)
        journal = Timed(storage.Journal(out / "journal.jsonl"))
        context = replace(context, seed=recipe.seed, protocol=recipe.protocol)
        corpus = journal("corpus", lambda: _corpus(recipe, out, context))
        corpus = cache.with_cache(corpus, out / "decoded")
        victims = {
            name: journal(
                f"train-victim {name}",
                partial(
                    train_victim, corpus, name, out / "victims" / name, recipe=one, context=context
                ),
            )
            for name, one in recipe.victims.items()
        }
        for name, (inner, defence) in defended(recipe).items():
            victims[name] = journal(
                f"defend {name}",
                partial(
                    defend,
                    victims[inner],
                    defence.chain,
                    out / "victims" / name,
                    name=name,
                    corpus=corpus,
                    context=context,
                ),
            )
        sets: list[Path] = []
        for source, keys in sources_of(recipe).items():
            members = source.split(",")
            attacked = (
                victims[source] if len(members) == 1 else Ensemble([victims[m] for m in members])
            )
            folder = out / "generators" / source
            if source in recipe.generator.sources or any(is_staa(recipe, key) for key in keys):
                journal(
                    f"train-generator {source}",
                    partial(
                        train_generator,
                        corpus,
                        attacked,
                        folder,
                        recipe=recipe.generator,
                        context=context,
                    ),
                )
            held_out = context.split(corpus)[2]
            test = load_clips(held_out, attacked, context)
            test = _of_length(test, recipe.clip_seconds)
            for key in keys:
                one = recipe.attacks[key]
                vector = out / "vectors" / f"{key}__{source}"
                if (one.attack or key) == "uap" and len(members) > 1:
                    continue  # a universal vector is learned against one victim
                if (one.attack or key) == "uap":
                    journal(
                        f"train-uap {key} on {source}",
                        partial(
                            train_uap,
                            corpus,
                            victims[source],
                            vector,
                            recipe=vector_recipe(key, recipe.attacks),
                            context=context,
                        ),
                    )
                target = out / "adversarial" / f"{key}__{source}"
                matched = out / "adversarial" / f"{one.match}__{source}" if one.match else None
                plan = plan_attack(
                    key,
                    one,
                    attacked,
                    generator=folder,
                    vector=vector,
                    matched=matched,
                    context=context,
                )
                limit = clip_limit(key, recipe.attacks)
                plan = replace(plan, drawn=drawn_from(held_out))
                clips = test if limit is None else stratified_subset(test, limit)
                if len(clips) < len(test):
                    plan = replace(plan, of=len(test))
                journal(
                    f"attack {key} from {source}",
                    partial(attack, plan, clips, target, context=context),
                )
                sets.append(target)
            if recipe.sweep is not None and source in (
                recipe.sweep.sources or recipe.generator.sources
            ):
                others = [one for name, one in victims.items() if name not in members]
                swept = SweepPlan(
                    recipe=recipe.sweep,
                    attacks=recipe.attacks,
                    source=attacked,
                    targets=[*members_of(attacked), *others],
                    generator=folder,
                    vectors={k: out / "vectors" / f"{k}__{source}" for k in recipe.attacks},
                    context=context,
                )
                journal(
                    f"sweep from {source}", partial(sweep, swept, test, out / "sweeps" / source)
                )
        matrix = journal(
            "evaluate",
            lambda: evaluate(
                sets,
                list(victims.values()),
                out / "results",
                channels=recipe.channels,
                perceptual=recipe.perceptual,
                context=context,
            ),
        )
        context.quarantine.save(out)
        made = {stage: took for stage, took in journal.seconds().items() if stage not in LAST}
        _write_run_card(recipe, corpus, out, command, made)
        if recipe.selfcheck and not selfcheck.is_current(out, recipe.seed):
            journal(
                "selfcheck",
                lambda: selfcheck.selfcheck(
                    out, seed=recipe.seed, device=context.device, progress=context.progress
                ),
            )
        journal("report", lambda: report.build(out, progress=context.progress))
        cache.discard_cache(out / "decoded")
        return matrix


def require_sound(recipe: Recipe, out: Path | None = None) -> None:
    """``InvalidInput`` for a mistake that would else be told after hours.

    A corpus that would have to be rendered or fetched is not looked at.
    """
    for key in in_order(recipe.attacks):
        _check_attack(key, recipe.attacks)
    for name, victim in recipe.victims.items():
        if (victim.network or name) not in VICTIMS:
            raise unknown_name(f"network of [victims.{name}]", victim.network or name, VICTIMS)
    if recipe.generator.network not in GENERATORS:
        raise unknown_name("network of [generator]", recipe.generator.network, GENERATORS)
    if recipe.corpus.partition(":")[0] not in ("synthetic", "audb"):
        corpora.load_corpus(recipe.corpus, classes=recipe.classes, out=out).split(
            recipe.seed, recipe.protocol
        )
    for name in recipe.channels:
        parse_transform(name)
    chains = [defence.chain for defence in recipe.defences.values()]
    for text in itertools.chain(recipe.generator.augment, *chains):
        parse_transform(text)


def with_rates(recipe: Recipe) -> Recipe:
    """With the learning rates that it leaves to the networks."""
    return replace(recipe, victims={n: settled(n, one) for n, one in recipe.victims.items()})


def defended(recipe: Recipe) -> dict[str, tuple[str, DefenceRecipe]]:
    """The defended victims of a recipe by name: the victim inside, and what stands before it."""
    return {
        f"{victim}+{key}": (victim, one)
        for key, one in recipe.defences.items()
        for victim in one.victims or [s for s in recipe.generator.sources if "," not in s]
    }


def sources_of(recipe: Recipe) -> dict[str, list[str]]:
    """Which victims are attacked with what: the generator's sources with all, a defended one with what
    its recipe says of attackers who know it, and what those attacks match."""
    everything = in_order(recipe.attacks)
    found = dict.fromkeys(recipe.generator.sources, everything)
    for name, (_, one) in defended(recipe).items():
        wanted = set(everything if one.adaptive is None else one.adaptive)
        for key in reversed(everything):  # what is matched stands before what matches it
            if key in wanted and recipe.attacks[key].match:
                wanted.add(recipe.attacks[key].match)
        if wanted:
            found[name] = [key for key in everything if key in wanted]
    return found


def is_staa(recipe: Recipe, key: str) -> bool:
    """Whether an attack of the recipe is STAA-Net, which needs a generator."""
    return (recipe.attacks[key].attack or key) == "staa"


def _check_attack(key: str, attacks: Mapping[str, AttackRecipe]) -> None:
    """Before hours of training: an attack that does not exist, or a setting that it does not have."""
    name = attacks[key].attack or key
    if name not in ATTACKS:
        raise unknown_name(f"attack in [attacks.{key}]", name, ATTACKS)
    if name == "uap":
        vector_recipe(key, attacks)
    elif name == "staa":
        settings_of(name, attacks[key])
    else:
        with_settings(name, attacks[key], Budget(epsilon=attacks[key].epsilon), 0)


def _of_length(clips: list[Clip], seconds: float | None) -> list[Clip]:
    """Every clip tiled or cut to ``seconds``; as they are where it is None."""
    if seconds is None:
        return clips
    return [
        replace(c, pcm16=audio.fit_length(c.pcm16, round(seconds * c.sample_rate))) for c in clips
    ]


def clip_limit(key: str, attacks: Mapping[str, AttackRecipe]) -> int | None:
    """How many clips an attack is given: its own limit, or that of the attack it matches if less."""
    own, match = attacks[key].clips, attacks[key].match
    limits = [own, clip_limit(match, attacks) if match else None]
    return min((limit for limit in limits if limit is not None), default=None)


AFTER_THE_ATTACK = {"channels", "perceptual", "selfcheck"}
"""Keys of a recipe that only what follows the attacks reads, which is done anew each time."""


def _claim(recipe: Recipe, out: Path) -> None:
    require_same_recipe(recipe, out)
    storage.write_text(out / "recipe.toml", config.to_toml(recipe))


def require_same_recipe(recipe: Recipe, out: Path) -> None:
    """``InvalidInput`` where ``out`` holds a run of another recipe."""
    path = out / "recipe.toml"
    if path.exists():
        before = config.to_tree(config.load_recipe(str(path)))
        now = config.to_tree(recipe)
        differing = sorted({*_differences(before, now)} - AFTER_THE_ATTACK)
        if differing:
            raise InvalidInput(
                f"holds a run of another recipe (it differs in {', '.join(differing[:3])})",
                where=out,
                remedy="Choose another --out, or delete that folder",
            )


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> Iterable[str]:
    for key in {*a, *b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, f"{path}{key}.")
        elif left != right:
            yield f"{path}{key}"


@dataclass(frozen=True)
class Timed:
    """Runs a stage and notes in the run's journal how long it worked."""

    journal: storage.Journal

    def __call__(self, stage: str, work: Callable[[], T]) -> T:
        begun = time.perf_counter()
        done = work()
        seconds = round(time.perf_counter() - begun, 3)
        self.journal.append({"stage": stage, "seconds": seconds})
        return done

    def seconds(self) -> dict[str, float]:
        """The longest that each stage took: when it was done rather than skipped."""
        longest: dict[str, float] = {}
        for row in self.journal.records():
            name = str(row["stage"])
            longest[name] = max(longest.get(name, 0.0), float(row["seconds"]))
        return longest


def recorded_seconds(out: Path) -> dict[str, float]:
    """How long each stage took, by the journal of the run in ``out``."""
    return Timed(storage.Journal(out / "journal.jsonl")).seconds()


def _corpus(recipe: Recipe, out: Path, context: Context) -> Corpus:
    if recipe.corpus == "synthetic:":
        size: SyntheticRecipe = recipe.synthetic
        rendered = corpora.render_synthetic(
            out / "corpus",
            voices=size.voices,
            sentences=size.sentences,
            seed=recipe.seed,
            progress=context.progress,
        )
        return corpora.with_classes(rendered, recipe.classes)
    return corpora.load_corpus(recipe.corpus, classes=recipe.classes)


def in_order(attacks: Mapping[str, AttackRecipe]) -> list[str]:
    """Attacks that others are matched to come first; otherwise the recipe's order."""
    order: list[str] = []

    def place(key: str, waiting: tuple[str, ...]) -> None:
        if key in waiting:
            raise InvalidInput(f"the attacks {', '.join(waiting)} match each other in a circle")
        match = attacks[key].match
        if match:
            place(match, (*waiting, key))
        if key not in order:
            order.append(key)

    for key in attacks:
        place(key, ())
    return order


def _write_run_card(
    recipe: Recipe, corpus: Corpus, out: Path, command: str, seconds: Mapping[str, float]
) -> None:
    parts = corpus.split(recipe.seed, recipe.protocol)
    storage.write_card(
        out,
        {
            "kind": "run",
            "recipe": recipe.name,
            "command": command or shlex.join(["staanet", "run", recipe.name, "--out", out.name]),
            "commit": commit(),
            "machine": describe_machine(),
            "seconds": dict(seconds),
            "corpus": {
                "name": corpus.name,
                "clips": len(corpus),
                "speakers": len(corpus.speakers),
                "labels": list(corpus.labels),
                "split": {
                    part.part: {
                        "clips": len(part),
                        "speakers": list(part.speakers),
                        **corpora.contents_entry(part),
                    }
                    for part in parts
                },
                "split_hash": parts[0].split_hash,
                **({} if recipe.protocol is None else {"protocol": recipe.protocol}),
                **({} if corpus.classes == "label" else {"classes": corpus.classes}),
                "notes": list(corpus.notes),
            },
        },
    )


def commit() -> str | None:
    """The commit of the checkout that this code runs from, ``-dirty`` if changed; None elsewhere."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            [
                "git",
                "-C",
                str(here),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
