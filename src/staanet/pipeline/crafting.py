"""The stages that attack, evaluate and sweep."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import (
    perception,
    report,
    results,
    storage,
    sweeps,
)
from staanet.attacks import ATTACKS, Staa, craft_batch, load_uap
from staanet.config import (
    AttackRecipe,
    SweepRecipe,
)
from staanet.core import Attack, Budget, Clip, Progress, Victim, silent
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import CONTROLS, machine, spread, transfer_matrix
from staanet.generator import load_generator
from staanet.perception import Score
from staanet.pipeline.folders import Quarantine, begin, end, is_done, normal
from staanet.results import AdversarialSet, TransferMatrix


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
    begin(out, inputs)
    journal = storage.Journal(out / "journal.jsonl")
    rows = {str(row.get("id")): row for row in journal.records() if _still_holds(out, row)}
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
        "inputs": normal(inputs), "machine": machine(), "quarantined": quarantine.rows,
    }  # fmt: skip
    if plan.of is not None:
        card["chosen"] = f"{len(clips)} of {plan.of} clips, spread over labels and speakers"
    results.write_set(out, rows.values(), card)
    end(out)
    return AdversarialSet.load(out)


def _still_holds(out: Path, row: Mapping[str, Any]) -> bool:
    """Whether the files of a clip that was done before still are what was measured then."""
    try:
        found = results.read_clip(out, row).measurements()
    except InvalidInput:
        return False
    return all(row.get(key) == repr(value) for key, value in found.items())


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
        made = with_settings(name, recipe, budget, seed)
    if matched is not None:
        inputs["matched"] = storage.sha256(matched / "metadata.csv")
    title = recipe.title or key
    return Plan(key, title, made, source, label=label, matched=matched, inputs=inputs)


def with_settings(name: str, recipe: AttackRecipe, budget: Budget, seed: int) -> Attack:
    """An attack that needs neither generator nor vector; ``InvalidInput`` names a setting it has not."""
    kind = ATTACKS[name]
    known = {f.name for f in dataclasses.fields(kind)} - {"budget", "seed", "generator"}
    for setting in recipe.settings:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)
    for setting, value in recipe.settings.items():
        if not 0 <= value <= 10**9:  # also false for NaN
            raise InvalidInput(
                f"{setting} of {name} is {value}", remedy="Give a number from 0 to 1000000000"
            )
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
    inputs = normal(
        {
            "attacks": {p.name: dict(plan.attack(p).inputs) for p in wanted}, "keep": keep,
            "victims": dict(plan.sha256), "source": plan.source.name,
            "targets": [target.name for target in plan.targets], "clips": _fingerprint(chosen),
        }
    )  # fmt: skip
    if is_done(out, "sweep", inputs):
        return sweeps.load(out)
    storage.make_folder(out)
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
    storage.remove(out / "journal.jsonl")
    return found
