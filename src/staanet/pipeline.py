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
from torch import Tensor

from staanet import (
    audio,
    config,
    corpora,
    metrics,
    perception,
    report,
    results,
    selfcheck,
    storage,
    sweeps,
    training,
)
from staanet.attacks import ATTACKS, Staa, craft, craft_batch, fit_uap, load_uap, save_uap
from staanet.channels import parse_channel
from staanet.config import (
    AttackRecipe,
    GeneratorRecipe,
    Recipe,
    SweepRecipe,
    SyntheticRecipe,
    VectorRecipe,
    VictimRecipe,
)
from staanet.core import Attack, Budget, Clip, Corpus, Progress, Utterance, Victim, silent
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import CONTROLS, machine, spread, transfer_matrix
from staanet.generator import build_generator, load_generator, save_generator
from staanet.objectives import Objective
from staanet.perception import Score
from staanet.results import AdversarialSet, TransferMatrix
from staanet.victims import build_victim, fingerprint, learning_rate, load_victim
from staanet.warm_start import mirror_of, network_of

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
    protocol: str | None = None, device: str = "cpu", quarantine: Quarantine | None = None,
    progress: Progress = silent,
) -> Victim:  # fmt: skip
    """Train a victim on the corpus's train part; its card tells UAR on dev and test."""
    recipe = _settled(name, recipe)
    network = recipe.network or name
    train, dev, test = corpus.split(seed, protocol)
    settings = asdict(replace(recipe, network=network))
    for key, usual in {"pretrained": None, "config": None, "noise_db": 25.0}.items():
        if settings[key] == usual:  # most victims have neither, and their cards say nothing of it
            del settings[key]
    inputs = {"corpus": corpus.name, "split": train.split_hash, "seed": seed, "recipe": settings,
              **_named(protocol)}  # fmt: skip
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


def _named(protocol: str | None) -> dict[str, str]:
    """Only where one was asked for: cards say nothing of the default."""
    return {} if protocol is None else {"protocol": protocol}


def _settled(name: str, recipe: VictimRecipe) -> VictimRecipe:
    """With the learning rate that the recipe leaves to the network."""
    rate = recipe.learning_rate or learning_rate(recipe.network or name, config=recipe.config)
    return replace(recipe, learning_rate=rate)


def _settled_generator(recipe: GeneratorRecipe, source: Victim) -> GeneratorRecipe:
    """With the network and learning rate that fit its source."""
    network = recipe.network
    if network == "mirror" and network_of(source) is None:
        network = "compact"
    usual = (
        3e-4 if network == "mirror" else 2e-3
    )  # a mirror begins as its source, others from nothing
    return replace(recipe, network=network, learning_rate=recipe.learning_rate or usual)


def _schedule(recipe: VictimRecipe | GeneratorRecipe, seed: int) -> training.Schedule:
    assert recipe.learning_rate is not None, "settled before"
    return training.Schedule(
        steps=recipe.steps, batch_size=recipe.batch_size, seconds=recipe.seconds,
        learning_rate=recipe.learning_rate,
        final_learning_rate=min(1e-4, recipe.learning_rate / 10),  # never above where it starts
        evaluate_every=recipe.evaluate_every,
        patience=recipe.patience, seed=seed, speed=recipe.speed,
        noise_db=recipe.noise_db if isinstance(recipe, VictimRecipe) else 25.0,
    )  # fmt: skip


def _quality(victim: Victim, clips: Sequence[Clip]) -> dict[str, float]:
    answers = [victim.labels[i] for i in training.predict(victim, clips).argmax(axis=1)]
    truth = [clip.label or "" for clip in clips]
    same = [a == b for a, b in zip(truth, answers, strict=True)]
    return {"uar": metrics.uar(truth, answers), "accuracy": float(np.mean(same))}


def train_generator(
    corpus: Corpus, source: Victim, source_spec: Path | str, out: Path, *, recipe: GeneratorRecipe,
    seed: int = 0, protocol: str | None = None, device: str = "cpu",
    quarantine: Quarantine | None = None, progress: Progress = silent,
) -> None:  # fmt: skip
    """Train STAA-Net against ``source`` on the corpus's train part, judged on its dev part.

    ``source_spec`` is what ``load_victim`` made it from.
    """
    train, dev, _ = corpus.split(seed, protocol)
    source_sha256 = fingerprint(source, source_spec)
    recipe = _settled_generator(recipe, source)
    settings = asdict(replace(recipe, sources=()))
    inputs = {"corpus": corpus.name, "split": train.split_hash, "seed": seed,
              "source": source_sha256, "recipe": settings, **_named(protocol)}  # fmt: skip
    if is_done(out, "generator", inputs):
        return
    put_aside = quarantine if quarantine is not None else Quarantine()
    training.seeded(seed)
    generator = (
        mirror_of(source, recipe.max_density, recipe.epsilon, recipe.looks)
        if recipe.network == "mirror"
        else build_generator(recipe.network, recipe.max_density)
    ).to(device)
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


def train_uap(
    corpus: Corpus, source: Victim, source_spec: Path | str, out: Path, *, recipe: VectorRecipe,
    label: str | None = None, seed: int = 0, protocol: str | None = None,
    quarantine: Quarantine | None = None, progress: Progress = silent,
) -> None:  # fmt: skip
    """Learn one universal vector for ``source`` on the corpus's train part; dev clips judge it.

    ``source_spec`` is what ``load_victim`` made it from; with ``label`` it aims at that class.
    """
    if label is not None and label not in source.labels:
        raise unknown_name("class", label, source.labels)
    train, dev, _ = corpus.split(seed, protocol)
    source_sha256 = fingerprint(source, source_spec)
    inputs = {"corpus": corpus.name, "split": train.split_hash, "seed": seed, "label": label,
              "source": source_sha256, "recipe": asdict(recipe)}  # fmt: skip
    if is_done(out, "vector", inputs):
        return
    put_aside = quarantine if quarantine is not None else Quarantine()
    clips = [load_clips(part, source, put_aside, progress) for part in (train, dev)]
    schedule = training.Schedule(
        steps=recipe.steps, batch_size=recipe.batch_size, seconds=recipe.seconds, seed=seed
    )
    crops = training.Crops(clips[0], schedule)

    def batches() -> Iterable[tuple[Tensor, None]]:
        for step in range(recipe.steps):
            yield crops.draw(step)[0].to(source.device), None
            progress(f"universal vector on {source.name}", step + 1, recipe.steps, "")

    uap = fit_uap(
        source, batches(), Budget(epsilon=recipe.epsilon, max_density=recipe.max_density),
        length=round(recipe.seconds * source.sample_rate), relative_step=recipe.relative_step,
        decay=recipe.decay, target=None if label is None else source.labels.index(label),
    )  # fmt: skip
    made = craft(uap, source, clips[1], label=label, progress=progress)
    judged = transfer_matrix([made], [source], progress=progress).cells[0]
    save_uap(
        uap, out, inputs=_normal(inputs), source=source.name, label=label,
        source_folder=_relative(source_spec, out), source_sha256=source_sha256,
        max_density=recipe.max_density, dev_fooling_rate=judged["fooling_rate"]["value"],
        machine=machine(),
    )  # fmt: skip


def vector_recipe(key: str, attacks: Mapping[str, AttackRecipe]) -> VectorRecipe:
    """How the vector of a recipe's attack ``key`` is learned: at the density that it will have."""
    own = attacks[key]
    matched = attacks[own.match].max_density if own.match else None
    known = {f.name for f in dataclasses.fields(VectorRecipe)} - {"epsilon", "max_density"}
    for setting in own.settings:
        if setting not in known:
            raise unknown_name("setting of uap", setting, known)
    settings = {
        "epsilon": own.epsilon, "max_density": own.max_density or matched, **own.settings
    }  # fmt: skip
    return config.checked(VectorRecipe, settings, where=f"[attacks.{key}]")


def source_of(generator_folder: Path, kind: str = "generator") -> Victim:
    """The victim that a generator or a vector was trained against, found through its card."""
    card = storage.read_card(generator_folder, kind)
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
            remedy=f"Train the {kind} again, or pass --source VICTIM",
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
    of: int | None = None
    """How many clips the attacked ones were chosen from, where not all were."""
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
    if plan.of is not None:
        card["chosen"] = f"{len(clips)} of {plan.of} clips, spread over labels and speakers"
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
    own = made.budget.max_l0
    most = limits[clip.id] if own is None else min(own, limits[clip.id])
    changed: Attack = replace(made, budget=replace(made.budget, max_l0=most))  # type: ignore[type-var]
    return changed


def plan_attack(
    key: str, recipe: AttackRecipe, source: Victim, *, generator: Path | None = None,
    vector: Path | None = None, matched: Path | None = None, label: str | None = None, seed: int = 0, device: str = "cpu",
) -> Plan:  # fmt: skip
    """An attack of a recipe (or of the command line) with everything it needs."""
    name = recipe.attack or key
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    budget = Budget(epsilon=recipe.epsilon, max_density=recipe.max_density, max_l0=recipe.max_l0)
    told = asdict(recipe)
    for setting in ("clips", "max_l0"):
        if told[setting] is None:  # most attacks have neither, and their cards say nothing of it
            del told[setting]
    inputs: dict[str, Any] = {"recipe": told, "source": source.name, "seed": seed}
    if name == "staa":
        if generator is None:
            raise InvalidInput("the attack staa needs a generator", remedy="Pass --generator DIR")
        inputs["generator"] = storage.read_card(generator, "generator")["sha256"]
        made: Attack = Staa(generator=load_generator(generator).to(device), budget=budget)
    elif name == "uap":
        if vector is None:
            raise InvalidInput(
                "the attack uap needs a universal vector",
                remedy="Pass --vector DIR, learned by staanet train-uap",
            )
        inputs["vector"] = storage.read_card(vector, "vector")["sha256"]
        made = load_uap(vector, budget)
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
    sets: Sequence[Path], targets: Sequence[Victim], out: Path, *, channels: Sequence[str] = (),
    perceptual: bool = False, progress: Progress = silent,
) -> TransferMatrix:  # fmt: skip
    """The transfer matrix from adversarial sets on disk, written to ``out``; see ``transfer_matrix``.

    ``perceptual`` also listens to each clip, and remembers it in ``out/perception.jsonl``.
    """
    matrix = transfer_matrix(
        [AdversarialSet.load(one) for one in sets], targets, channels=channels,
        listen=_Listener(storage.Journal(out / "perception.jsonl")) if perceptual else None,
        progress=progress,
    )  # fmt: skip
    matrix.save(out)
    return matrix


class _Listener:
    """The perceptual panel of a clip, from the journal where the same audio was heard before."""

    def __init__(self, journal: storage.Journal) -> None:
        self.journal, self.judges = journal, json.dumps(perception.versions(), sort_keys=True)
        self.known = {str(row["audio"]): row["scores"] for row in journal.records()}

    def __call__(self, clip: results.AdversarialClip) -> dict[str, Score]:
        clean, rate = clip.clean.samples, clip.clean.sample_rate
        digest = hashlib.sha256(f"{self.judges} {rate} {len(clean)} ".encode())
        digest.update(clean.tobytes() + clip.adversarial.tobytes())
        key = digest.hexdigest()
        if key not in self.known:
            scores = perception.panel(clean, clip.adversarial, rate)
            self.known[key] = {name: asdict(score) for name, score in scores.items()}
            self.journal.append({"audio": key, "id": clip.clean.id, "scores": self.known[key]})
        return {name: Score(**score) for name, score in self.known[key].items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep is made of; ``sha256`` names each victim's weights, ``vectors`` each uap's."""

    recipe: SweepRecipe
    attacks: Mapping[str, AttackRecipe]
    source: Victim
    targets: Sequence[Victim]
    sha256: Mapping[str, str]
    generator: Path | None = None
    vectors: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 0
    device: str = "cpu"

    def attack(self, point: sweeps.Point) -> Plan:
        """The attack of a point, its own limits replaced by the point's."""
        own = replace(
            self.attacks[point.attack], epsilon=point.epsilon, max_density=point.max_density,
            max_l0=None, clips=None, match="",
        )  # fmt: skip
        return plan_attack(
            point.attack, own, self.source, generator=self.generator,
            vector=self.vectors.get(point.attack), seed=self.seed, device=self.device,
        )  # fmt: skip

    def about(self) -> dict[str, sweeps.About]:
        """Titles without what a recipe says of samples behind the first comma."""
        return {
            key: sweeps.About(
                title=(self.attacks[key].title or key).split(",")[0],
                control=name in CONTROLS, minimising=name in sweeps.MINIMISING,
            )
            for key, name in self.names().items()
        }  # fmt: skip

    def names(self) -> dict[str, str]:
        """The registry name of each attack."""
        return {key: self.attacks[key].attack or key for key in self.recipe.attacks}


def sweep(
    plan: SweepPlan, clips: Sequence[Clip], out: Path, *, keep: bool = False,
    quarantine: Quarantine, progress: Progress = silent,
) -> list[dict[str, Any]]:  # fmt: skip
    """Success against budget into ``out``: tables, the figure, and with ``keep`` the audio.

    Returns a row per point and target. A killed sweep goes on with the next clip.
    """
    shortest = max(victim.minimum_samples for victim in plan.targets)
    for clip in clips:
        if len(clip.samples) < shortest:
            quarantine.add(clip.id, UnusableClip(
                f"{len(clip.samples)} samples; a victim of this sweep needs {shortest}",
                where=clip.id, remedy="Drop it or give a longer clip",
            ))  # fmt: skip
    usable = [clip for clip in clips if len(clip.samples) >= shortest]
    chosen = spread(usable, plan.recipe.clips)
    if not chosen:
        raise InvalidInput("no clip to attack", where=out, remedy="Give at least one usable clip")
    wanted = sweeps.points(
        plan.names(), plan.recipe.epsilons, plan.recipe.densities, grid=plan.recipe.grid
    )
    inputs = _normal(
        {
            "attacks": {p.name: dict(plan.attack(p).inputs) for p in wanted}, "keep": keep,
            "victims": dict(plan.sha256), "source": plan.source.name,
            "targets": [target.name for target in plan.targets], "clips": _fingerprint(chosen),
        }
    )  # fmt: skip
    if is_done(out, "sweep", inputs):
        return sweeps.load(out)
    out.mkdir(parents=True, exist_ok=True)
    journal = storage.Journal(out / "journal.jsonl")
    before = journal.records()
    if before and before[0].get("inputs") != inputs:
        raise InvalidInput(
            "holds an unfinished sweep of something else", where=out,
            remedy="Choose another --out, or delete that folder",
        )  # fmt: skip
    if not before:
        journal.append({"inputs": inputs})
    rows = sweeps.sweep(
        wanted, lambda point: plan.attack(point).attack, plan.about(), plan.source, plan.targets,
        chosen, journal=journal, keep=out / "audio" if keep else None, progress=progress,
    )  # fmt: skip
    found = sweeps.save(rows, out)
    report.draw_sweep(out, plan.source.name)
    storage.write_card(
        out,
        {
            "kind": "sweep", "source": plan.source.name, "inputs": inputs, "machine": machine(),
            "chosen": f"{len(chosen)} of {len(clips)} clips, spread over labels and speakers",
            "quarantined": quarantine.rows,
        },
    )  # fmt: skip
    (out / "journal.jsonl").unlink(missing_ok=True)
    return found


# ---------------------------------------------------------------- a whole recipe


def run(
    recipe: Recipe, out: Path, *, command: str = "", device: str = "cpu", strict: bool = False,
    progress: Progress = silent,
) -> tuple[TransferMatrix, Quarantine]:  # fmt: skip
    """Every stage of a recipe into ``out``, skipping what is done; returns the matrix.

    Raises ``InvalidInput`` where ``out`` holds another recipe's run, ``FolderLocked`` where another
    process works in it.
    """
    for key in recipe.attacks:
        _check_attack(key, recipe.attacks)
    if recipe.protocol is not None and recipe.corpus != "synthetic:":  # wrong: nothing is written
        corpora.load_corpus(recipe.corpus).split(recipe.seed, recipe.protocol)
    for name in recipe.channels:  # a mistake is told now, not after hours
        parse_channel(name)
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
        _with_settings(name, attacks[key], Budget(epsilon=attacks[key].epsilon), 0)


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
                **_named(recipe.protocol),
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
