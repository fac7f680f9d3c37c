"""``run``: a recipe from corpus to report, stage by stage."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from staanet import (
    audio,
    config,
    corpora,
    report,
    selfcheck,
    storage,
)
from staanet.attacks import ATTACKS
from staanet.channels import parse_channel
from staanet.config import (
    AttackRecipe,
    Recipe,
    SyntheticRecipe,
)
from staanet.core import Budget, Clip, Corpus, Progress, silent
from staanet.errors import InvalidInput, unknown_name
from staanet.evaluation import machine, spread
from staanet.pipeline.crafting import SweepPlan, attack, evaluate, plan_attack, sweep, with_settings
from staanet.pipeline.folders import Quarantine, load_clips
from staanet.pipeline.models import (
    named,
    settled,
    train_generator,
    train_uap,
    train_victim,
    vector_recipe,
)
from staanet.results import TransferMatrix
from staanet.victims import fingerprint

T = TypeVar("T")


def run(
    recipe: Recipe, out: Path, *, command: str = "", device: str = "cpu", strict: bool = False,
    progress: Progress = silent,
) -> tuple[TransferMatrix, Quarantine]:  # fmt: skip
    """Every stage of a recipe into ``out``, skipping what is done; returns the matrix.

    Raises ``InvalidInput`` where ``out`` holds another recipe's run, ``FolderLocked`` where another
    process works in it.
    """
    for key in _in_order(recipe.attacks):
        _check_attack(key, recipe.attacks)
    if recipe.corpus != "synthetic:":  # wrong: nothing is written
        corpora.load_corpus(recipe.corpus).split(recipe.seed, recipe.protocol)
    for name in recipe.channels:  # a mistake is told now, not after hours
        parse_channel(name)
    storage.make_folder(out)
    recipe = replace(recipe, victims={n: settled(n, one) for n, one in recipe.victims.items()})
    with storage.FolderLock(out):
        _claim(recipe, out)
        journal = _Timed(storage.Journal(out / "journal.jsonl"))
        quarantine = Quarantine(strict)
        corpus = journal("corpus", lambda: _corpus(recipe, out, progress))
        victims = {
            name: journal(
                f"train-victim {name}",
                partial(
                    train_victim,
                    corpus, name, out / "victims" / name, recipe=one, seed=recipe.seed,
                    protocol=recipe.protocol, device=device, quarantine=quarantine, progress=progress,
                ),
            )
            for name, one in recipe.victims.items()
        }  # fmt: skip
        sets: list[Path] = []
        sha256 = {n: fingerprint(one, out / "victims" / n) for n, one in victims.items()}
        for source in recipe.generator.sources:
            folder = out / "generators" / source
            journal(
                f"train-generator {source}",
                partial(
                    train_generator,
                    corpus, victims[source], out / "victims" / source, folder,
                    recipe=recipe.generator, seed=recipe.seed, protocol=recipe.protocol,
                    device=device, quarantine=quarantine, progress=progress,
                ),
            )  # fmt: skip
            held_out = corpus.split(recipe.seed, recipe.protocol)[2]
            test = load_clips(held_out, victims[source], quarantine, progress)
            test = _of_length(test, recipe.clip_seconds)
            for key in _in_order(recipe.attacks):
                one = recipe.attacks[key]
                vector = out / "vectors" / f"{key}__{source}"
                if (one.attack or key) == "uap":
                    journal(
                        f"train-uap {key} on {source}",
                        partial(
                            train_uap,
                            corpus, victims[source], out / "victims" / source, vector,
                            recipe=vector_recipe(key, recipe.attacks), seed=recipe.seed,
                            protocol=recipe.protocol, quarantine=quarantine, progress=progress,
                        ),
                    )  # fmt: skip
                target = out / "adversarial" / f"{key}__{source}"
                matched = out / "adversarial" / f"{one.match}__{source}" if one.match else None
                plan = plan_attack(
                    key, one, victims[source], generator=folder, vector=vector, matched=matched,
                    seed=recipe.seed, device=device,
                )  # fmt: skip
                limit = _clip_limit(key, recipe.attacks)
                clips = test if limit is None else spread(test, limit)
                if len(clips) < len(test):
                    plan = replace(plan, of=len(test))
                journal(
                    f"attack {key} from {source}",
                    partial(attack, plan, clips, target, quarantine=quarantine, progress=progress),
                )
                sets.append(target)
            if recipe.sweep is not None and source in (recipe.sweep.sources or [source]):
                others = [one for name, one in victims.items() if name != source]
                swept = SweepPlan(
                    recipe=recipe.sweep, attacks=recipe.attacks, source=victims[source],
                    targets=[victims[source], *others], sha256=sha256, generator=folder,
                    vectors={k: out / "vectors" / f"{k}__{source}" for k in recipe.attacks},
                    seed=recipe.seed, device=device,
                )  # fmt: skip
                journal(
                    f"sweep from {source}",
                    partial(
                        sweep, swept, test, out / "sweeps" / source, quarantine=quarantine,
                        progress=progress,
                    ),
                )  # fmt: skip
        matrix = journal(
            "evaluate",
            lambda: evaluate(
                sets,
                list(victims.values()),
                out / "results",
                channels=recipe.channels,
                perceptual=recipe.perceptual,
                progress=progress,
            ),
        )
        quarantine.save(out)
        _write_run_card(recipe, corpus, out, command, journal.seconds())
        if recipe.selfcheck and not selfcheck.is_current(out, recipe.seed):
            journal(
                "selfcheck",
                lambda: selfcheck.selfcheck(
                    out, seed=recipe.seed, device=device, progress=progress
                ),
            )
        journal("report", lambda: report.build(out, progress=progress))
        return matrix, quarantine


def _check_attack(key: str, attacks: Mapping[str, AttackRecipe]) -> None:
    """Before hours of training: an attack that does not exist, or a setting that it does not have."""
    name = attacks[key].attack or key
    if name not in ATTACKS:
        raise unknown_name(f"attack in [attacks.{key}]", name, ATTACKS)
    if name == "uap":
        vector_recipe(key, attacks)
    elif name != "staa":
        with_settings(name, attacks[key], Budget(epsilon=attacks[key].epsilon), 0)


def _of_length(clips: list[Clip], seconds: float | None) -> list[Clip]:
    """Every clip tiled or cut to ``seconds``; as they are where it is None."""
    if seconds is None:
        return clips
    return [
        replace(c, samples=audio.fit_length(c.samples, round(seconds * c.sample_rate)))
        for c in clips
    ]


def _clip_limit(key: str, attacks: Mapping[str, AttackRecipe]) -> int | None:
    """How many clips an attack is given: its own limit, or that of the attack it matches if less."""
    own, match = attacks[key].clips, attacks[key].match
    limits = [own, _clip_limit(match, attacks) if match else None]
    return min((limit for limit in limits if limit is not None), default=None)


AFTER_THE_ATTACK = {"channels", "perceptual", "selfcheck"}
"""Keys of a recipe that only what follows the attacks reads, which is done anew each time."""


def _claim(recipe: Recipe, out: Path) -> None:
    text = config.to_toml(recipe)
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
    storage.write_text(path, text)


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> Iterable[str]:
    for key in {*a, *b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            yield from _differences(left, right, f"{path}{key}.")
        elif left != right:
            yield f"{path}{key}"


@dataclass(frozen=True)
class _Timed:
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


def _corpus(recipe: Recipe, out: Path, progress: Progress) -> Corpus:
    if recipe.corpus == "synthetic:":
        size: SyntheticRecipe = recipe.synthetic
        return corpora.render_synthetic(
            out / "corpus", voices=size.voices, sentences=size.sentences, seed=recipe.seed,
            progress=progress,
        )  # fmt: skip
    return corpora.load_corpus(recipe.corpus)


def _in_order(attacks: Mapping[str, AttackRecipe]) -> list[str]:
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
            "machine": machine(),
            "seconds": dict(seconds),
            "corpus": {
                "name": corpus.name,
                "clips": len(corpus),
                "speakers": len(corpus.speakers),
                "labels": list(corpus.labels),
                "split": {
                    part.part: {"clips": len(part), "speakers": list(part.speakers)}
                    for part in parts
                },
                "split_hash": parts[0].split_hash,
                **named(recipe.protocol),
                "notes": list(corpus.notes),
            },
        },
    )


def commit() -> str | None:
    """The commit of the checkout that this code runs from, ``-dirty`` if changed; None elsewhere."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None
