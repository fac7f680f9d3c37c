"""One function per command, and ``run``: a recipe from corpus to report, stage by stage.

A stage writes one folder and closes it with ``card.json``, which names everything that went in. A
folder whose card names the same inputs is done and is skipped; one made from other inputs stops the
run. So a killed run goes on where it stopped, and no stage quietly reuses another experiment's work.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os.path
import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from staanet import config, corpora, metrics, report, results, selfcheck, storage, training
from staanet.attacks import ATTACKS, Staa, craft_batch
from staanet.config import AttackRecipe, GeneratorRecipe, Recipe, SyntheticRecipe, VictimRecipe
from staanet.core import Attack, Budget, Clip, Corpus, Progress, Utterance, Victim, silent
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import machine, transfer_matrix
from staanet.generator import build_generator, load_generator, save_generator
from staanet.objectives import Objective
from staanet.results import AdversarialSet, TransferMatrix
from staanet.victims import build_victim, fingerprint, learning_rate, load_victim

T = TypeVar("T")


@dataclass
class Quarantine:
    """Clips put aside, each with its reason; the run goes on without them."""

    strict: bool = False
    rows: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, utterance: Utterance, problem: UnusableClip) -> None:
        if self.strict:
            raise InvalidInput(problem.what, where=problem.where, remedy=problem.remedy)
        self.add(utterance.id, problem)

    def add(self, clip_id: str, problem: UnusableClip) -> None:
        row = {"id": clip_id, "file": problem.where or clip_id, "reason": problem.what}
        if row not in self.rows:
            self.rows.append(row)

    def save(self, folder: Path) -> None:
        """Write ``quarantine.jsonl`` where anything was put aside."""
        if self.rows:
            journal = storage.Journal(folder / "quarantine.jsonl")
            known = journal.records()
            for row in self.rows:
                if row not in known:
                    journal.append(row)


def load_clips(
    corpus: Corpus, victim: Victim, quarantine: Quarantine, progress: Progress = silent
) -> list[Clip]:
    """The usable clips of a corpus at the victim's rate; the rest goes to ``quarantine``."""
    clips = []
    for number, utterance in enumerate(corpus.utterances, start=1):
        try:
            clip = corpus.load(utterance, victim.sample_rate)
            if len(clip.samples) < victim.minimum_samples:
                raise UnusableClip(
                    f"{1000 * len(clip.samples) / victim.sample_rate:.1f} ms is shorter than the "
                    f"{1000 * victim.minimum_samples / victim.sample_rate:.1f} ms that "
                    f"{victim.name} needs",
                    where=utterance.path,
                    remedy="Drop it or give a longer clip",
                )
            clips.append(clip)
        except UnusableClip as problem:
            quarantine(utterance, problem)
        progress(f"read {corpus.name} {corpus.part}", number, len(corpus), "")
    return clips


# ---------------------------------------------------------------- stages


def is_done(folder: Path, kind: str, inputs: Mapping[str, Any]) -> bool:
    """Whether a stage's folder is finished and was made from these very inputs.

    Raises ``InvalidInput`` where it is finished but was made from others.
    """
    if not (folder / "card.json").exists():
        return False
    made_from = storage.read_card(folder, kind).get("inputs", {})
    wanted = _normal(inputs)
    differing = [key for key in wanted if made_from.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise InvalidInput(
            f"was made with {key} = {made_from.get(key)!r}, now it is {wanted[key]!r}",
            where=folder,
            remedy="Choose another --out, or delete that folder",
        )
    return True


def _normal(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as JSON reads them back, for comparison."""
    normal: dict[str, Any] = json.loads(json.dumps(inputs))
    return normal


def train_victim(
    corpus: Corpus, name: str, out: Path, *, recipe: VictimRecipe, seed: int = 0,
    device: str = "cpu", quarantine: Quarantine | None = None, progress: Progress = silent,
) -> Victim:  # fmt: skip
    """Train a victim on the corpus's train part; its card tells UAR on dev and test."""
    recipe = _settled(name, recipe)
    network = recipe.network or name
    train, dev, test = corpus.split(seed)
    settings = asdict(replace(recipe, network=network))
    for key in ("pretrained", "config"):
        if settings[key] is None:  # most networks have neither, and their cards say nothing of it
            del settings[key]
    inputs = {"corpus": corpus.name, "split": train.split_hash, "seed": seed, "recipe": settings}
    if is_done(out, "victim", inputs):
        return load_victim(out).to(device)
    put_aside = quarantine if quarantine is not None else Quarantine()
    training.seeded(seed)
    victim = build_victim(
        network, corpus.labels, pretrained=recipe.pretrained, config=recipe.config
    )
    victim.name = name
    parts = [load_clips(part, victim, put_aside, progress) for part in (train, dev, test)]
    schedule = _schedule(recipe, seed)
    history = training.train_victim(
        victim.to(device), parts[0], parts[1], schedule, out, progress=progress
    )
    quality = {f"{p}_{k}": v for p, clips in (("dev", parts[1]), ("test", parts[2]))
               for k, v in _quality(victim, clips).items()}  # fmt: skip
    victim.save_pretrained(
        out, inputs=_normal(inputs), best_step=history.best_step, epochs=len(history.rows),
        machine=machine(), **quality,
    )  # fmt: skip
    storage.discard_checkpoints(out / "checkpoint")
    return victim


def _settled(name: str, recipe: VictimRecipe) -> VictimRecipe:
    """With the learning rate that the recipe leaves to the network."""
    rate = recipe.learning_rate or learning_rate(recipe.network or name, config=recipe.config)
    return replace(recipe, learning_rate=rate)


def _schedule(recipe: VictimRecipe | GeneratorRecipe, seed: int) -> training.Schedule:
    assert recipe.learning_rate is not None, "settled before"
    return training.Schedule(
        steps=recipe.steps, batch_size=recipe.batch_size, seconds=recipe.seconds,
        learning_rate=recipe.learning_rate,
        final_learning_rate=min(1e-4, recipe.learning_rate / 10),  # never above where it starts
        evaluate_every=recipe.evaluate_every,
        patience=recipe.patience, seed=seed, speed=recipe.speed,
    )  # fmt: skip


def _quality(victim: Victim, clips: Sequence[Clip]) -> dict[str, float]:
    answers = [victim.labels[i] for i in training.predict(victim, clips).argmax(axis=1)]
    truth = [clip.label or "" for clip in clips]
    same = [a == b for a, b in zip(truth, answers, strict=True)]
    return {"uar": metrics.uar(truth, answers), "accuracy": float(np.mean(same))}


def train_generator(
    corpus: Corpus, source: Victim, source_spec: Path | str, out: Path, *, recipe: GeneratorRecipe,
    seed: int = 0, device: str = "cpu", quarantine: Quarantine | None = None,
    progress: Progress = silent,
) -> None:  # fmt: skip
    """Train STAA-Net against ``source`` on the corpus's train part, judged on its dev part.

    ``source_spec`` is what ``load_victim`` made it from.
    """
    train, dev, _ = corpus.split(seed)
    source_sha256 = fingerprint(source, source_spec)
    settings = asdict(replace(recipe, sources=()))
    inputs = {"corpus": corpus.name, "split": train.split_hash, "seed": seed,
              "source": source_sha256, "recipe": settings}  # fmt: skip
    if is_done(out, "generator", inputs):
        return
    put_aside = quarantine if quarantine is not None else Quarantine()
    training.seeded(seed)
    generator = build_generator(recipe.network, recipe.max_density).to(device)
    clips = [load_clips(part, source, put_aside, progress) for part in (train, dev)]
    schedule = _schedule(recipe, seed)
    budget = Budget(epsilon=recipe.epsilon, max_density=recipe.max_density)
    objective = Objective(
        kappa=math.inf if recipe.kappa is None else recipe.kappa,
        magnitude=recipe.magnitude, quantisation=recipe.quantisation,
    )  # fmt: skip
    history = training.train_generator(
        generator, source, clips[0], clips[1], schedule, out, budget=budget, objective=objective,
        progress=progress,
    )  # fmt: skip
    last = history.rows[-1]
    save_generator(
        generator, out, inputs=_normal(inputs), network=recipe.network, source=source.name,
        source_folder=_relative(source_spec, out), source_sha256=source_sha256,
        epsilon=recipe.epsilon, max_density=recipe.max_density, best_step=history.best_step,
        dev_fooling_rate=history.best_score, parameters=sum(w.numel() for w in generator.parameters()),
        flags=training.collapse_flags(last), machine=machine(),
    )  # fmt: skip
    storage.discard_checkpoints(out / "checkpoint")


def _relative(spec: Path | str, start: Path) -> str:
    if str(spec).startswith("hf:"):
        return str(spec)
    return Path(os.path.relpath(Path(spec).resolve(), start.resolve())).as_posix()


def source_of(generator_folder: Path) -> Victim:
    """The victim that a generator was trained against, found through the generator's card."""
    card = storage.read_card(generator_folder, "generator")
    spec = str(card.get("source_folder", ""))
    place = spec if spec.startswith("hf:") else generator_folder / spec
    if isinstance(place, Path) and not (place / "card.json").exists():
        raise InvalidInput(
            f"its source '{card.get('source')}' is not at {card.get('source_folder')}",
            where=generator_folder,
            remedy="Pass --source VICTIM",
        )
    victim = load_victim(place)
    if fingerprint(victim, place) != card.get("source_sha256"):
        raise InvalidInput(
            f"its source at {card.get('source_folder')} was trained again since",
            where=generator_folder,
            remedy="Train the generator again, or pass --source VICTIM",
        )
    return victim


@dataclass(frozen=True, slots=True)
class Plan:
    """One attack, ready to be made: what the card will say, and the attack for each clip."""

    key: str
    title: str
    attack: Attack
    source: Victim
    label: str | None = None
    matched: Path | None = None
    """An adversarial set whose number of changed samples is the limit, clip by clip."""
    inputs: Mapping[str, Any] = field(default_factory=dict)


def attack(
    plan: Plan, clips: Sequence[Clip], out: Path, *, quarantine: Quarantine,
    progress: Progress = silent,
) -> AdversarialSet:  # fmt: skip
    """Craft every clip, write it, read it back and measure it; a killed run goes on where it was."""
    inputs = {**plan.inputs, "clips": _fingerprint(clips)}
    if is_done(out, "adversarial", inputs):
        return AdversarialSet.load(out)
    limits = _matched_counts(plan.matched)
    out.mkdir(parents=True, exist_ok=True)
    journal = storage.Journal(out / "journal.jsonl")
    rows = {str(row["id"]): row for row in journal.records()}
    for number, clip in enumerate(clips, start=1):
        if clip.id not in rows:
            try:
                crafted = craft_batch(
                    _within(plan.attack, limits, clip), plan.source, [clip], label=plan.label
                )[0]
                rows[clip.id] = results.write_clip(out, crafted)
                journal.append(rows[clip.id])
            except UnusableClip as problem:
                quarantine.add(clip.id, problem)
        progress(f"attack with {plan.key} from {plan.source.name}", number, len(clips), "")
    card = {
        "attack": plan.key, "title": plan.title, "source": plan.source.name,
        "algorithm": type(plan.attack).__name__.lower(),
        "goal": f"targeted: {plan.label}" if plan.label else "untargeted",
        "budget": asdict(plan.attack.budget), "matched": plan.matched.name if plan.matched else None,
        "inputs": _normal(inputs), "machine": machine(), "quarantined": quarantine.rows,
    }  # fmt: skip
    results.write_set(out, rows.values(), card)
    (out / "journal.jsonl").unlink(missing_ok=True)
    return AdversarialSet.load(out)


def _fingerprint(clips: Iterable[Clip]) -> str:
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(clip.id.encode() + b"\0" + clip.samples.tobytes())
    return digest.hexdigest()


def _matched_counts(folder: Path | None) -> dict[str, int] | None:
    if folder is None:
        return None
    return {row["id"]: int(row["l0"]) for row in results.read_rows(folder)}


def _within(made: Attack, limits: Mapping[str, int] | None, clip: Clip) -> Attack:
    if limits is None:
        return made
    if clip.id not in limits:
        raise UnusableClip("is not in the matched set", where=clip.id, remedy="Attack it there too")
    changed: Attack = replace(made, budget=replace(made.budget, max_l0=limits[clip.id]))  # type: ignore[type-var]
    return changed


def plan_attack(
    key: str, recipe: AttackRecipe, source: Victim, *, generator: Path | None = None,
    matched: Path | None = None, label: str | None = None, seed: int = 0, device: str = "cpu",
) -> Plan:  # fmt: skip
    """An attack of a recipe (or of the command line) with everything it needs."""
    name = recipe.attack or key
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    budget = Budget(epsilon=recipe.epsilon, max_density=recipe.max_density)
    inputs: dict[str, Any] = {"recipe": asdict(recipe), "source": source.name, "seed": seed}
    if name == "staa":
        if generator is None:
            raise InvalidInput("the attack staa needs a generator", remedy="Pass --generator DIR")
        inputs["generator"] = storage.read_card(generator, "generator")["sha256"]
        made: Attack = Staa(generator=load_generator(generator).to(device), budget=budget)
    else:
        made = _with_settings(name, recipe, budget, seed)
    if matched is not None:
        inputs["matched"] = storage.sha256(matched / "metadata.csv")
    title = recipe.title or key
    return Plan(key, title, made, source, label=label, matched=matched, inputs=inputs)


def _with_settings(name: str, recipe: AttackRecipe, budget: Budget, seed: int) -> Attack:
    kind = ATTACKS[name]
    known = {f.name for f in dataclasses.fields(kind)} - {"budget", "seed", "generator"}
    for setting in recipe.settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    made: Attack = kind(budget=budget, seed=seed, **recipe.settings)
    return made


def answers(made: AdversarialSet, victim: Victim) -> list[dict[str, Any]]:
    """What ``victim`` says of each clip before and after, beside what was changed."""
    matrix = transfer_matrix([made], [victim])
    return [
        {
            "id": row["id"], "before": row["clean_prediction"], "after": row["adversarial_prediction"],
            "l0": row["l0"], "density": row["density"],
            "snr_db": row["snr_db"] if math.isfinite(row["snr_db"]) else None,
        }
        for row in matrix.rows
    ]  # fmt: skip


def evaluate(
    sets: Sequence[Path], targets: Sequence[Victim], out: Path, *, progress: Progress = silent
) -> TransferMatrix:
    """The transfer matrix from adversarial sets on disk, written to ``out``."""
    matrix = transfer_matrix([AdversarialSet.load(one) for one in sets], targets, progress=progress)
    matrix.save(out)
    return matrix


# ---------------------------------------------------------------- a whole recipe


def run(
    recipe: Recipe, out: Path, *, command: str = "", device: str = "cpu", strict: bool = False,
    progress: Progress = silent,
) -> tuple[TransferMatrix, Quarantine]:  # fmt: skip
    """Every stage of a recipe into ``out``, skipping what is done; returns the matrix.

    Raises ``InvalidInput`` where ``out`` holds another recipe's run, ``FolderLocked`` where another
    process works in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, victims={n: _settled(n, one) for n, one in recipe.victims.items()})
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
                    device=device, quarantine=quarantine, progress=progress,
                ),
            )
            for name, one in recipe.victims.items()
        }  # fmt: skip
        sets: list[Path] = []
        for source in recipe.generator.sources:
            folder = out / "generators" / source
            journal(
                f"train-generator {source}",
                partial(
                    train_generator,
                    corpus, victims[source], out / "victims" / source, folder,
                    recipe=recipe.generator, seed=recipe.seed, device=device, quarantine=quarantine,
                    progress=progress,
                ),
            )  # fmt: skip
            test = load_clips(corpus.split(recipe.seed)[2], victims[source], quarantine, progress)
            for key in _in_order(recipe.attacks):
                one = recipe.attacks[key]
                target = out / "adversarial" / f"{key}__{source}"
                matched = out / "adversarial" / f"{one.match}__{source}" if one.match else None
                plan = plan_attack(
                    key, one, victims[source], generator=folder, matched=matched, seed=recipe.seed,
                    device=device,
                )  # fmt: skip
                journal(
                    f"attack {key} from {source}",
                    partial(attack, plan, test, target, quarantine=quarantine, progress=progress),
                )
                sets.append(target)
        matrix = journal(
            "evaluate",
            lambda: evaluate(sets, list(victims.values()), out / "results", progress=progress),
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


def _claim(recipe: Recipe, out: Path) -> None:
    text = config.to_toml(recipe)
    path = out / "recipe.toml"
    if path.exists():
        before = config.to_tree(config.load_recipe(str(path)))
        now = config.to_tree(recipe)
        differing = sorted(_differences(before, now))
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
    parts = corpus.split(recipe.seed)
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
