"""The stages that attack, evaluate and sweep."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import (
    audio,
    columns,
    perception,
    precision,
    recordings,
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
from staanet.core import Attack, Budget, Clip, Corpus, Progress, Samples, Victim, silent
from staanet.defences import Defended, chain_of
from staanet.errors import InvalidInput, UnusableClip, unknown_name
from staanet.evaluation import CONTROLS, machine, spread, transfer_matrix
from staanet.generator import load_generator
from staanet.perception import Score
from staanet.pipeline.folders import ClipSource, Quarantine, begin, end, is_done, normal
from staanet.recordings import Recording
from staanet.results import AdversarialClip, AdversarialSet, TransferMatrix
from staanet.shards import Shard
from staanet.victims import members_of

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
RECORDINGS = "recordings.csv"
_CRAFTED = (*results.COLUMNS, "seconds", results.WANTED, "sha256")


@dataclass(frozen=True, slots=True)
class Plan:
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


def attack(
    plan: Plan, clips: ClipSource, out: Path, *, quarantine: Quarantine,
    progress: Progress = silent,
) -> AdversarialSet:  # fmt: skip
    """Craft every clip, write it, read it back and measure it; a killed run goes on where it was."""
    if is_finished(plan, clips, out):
        return AdversarialSet.load(out)
    limits = _matched_counts(plan.matched)
    begin(out, plan.inputs)
    crafted, done = _Crafted.of(out), 0
    alone = limits is not None or plan.label == EACH
    for some in _in_groups(clips, 1 if alone else plan.batch_size):
        digests = {clip.id: _sha256(clip) for clip in some}
        missing = [clip for clip in some if not crafted.has(clip, digests[clip.id])]
        for made in _crafted(plan, limits, missing, quarantine):
            digest = digests[made.clean.id]
            crafted.add(made.clean, digest, results.write_clip(out, made))
        for clip in missing:
            if clip.id not in crafted.rows:  # put aside
                crafted.read(digests[clip.id])
        done += len(some)
        progress(f"attack with {plan.key} from {plan.source.name}", done, len(clips), "")
    card = {
        "attack": plan.key, "title": plan.title, "source": plan.source.name,
        "sources": [one.name for one in members_of(plan.source)],
        "algorithm": type(plan.attack).__name__.lower(),
        "goal": f"targeted: {plan.label}" if plan.label else "untargeted",
        "budget": asdict(plan.attack.budget), "matched": plan.matched.name if plan.matched else None,
        "inputs": normal({**plan.inputs, "clips": crafted.fingerprint()}), "machine": machine(),
        "quarantined": quarantine.in_order(),
    }  # fmt: skip
    if isinstance(plan.source, Defended):  # its name says which kinds, not with which settings
        card["source_defences"] = chain_of(plan.source)
    if plan.drawn:
        card["drawn_from"] = dict(plan.drawn)
    if plan.of is not None:
        card["chosen"] = f"{len(clips)} of {plan.of} clips, spread over labels and speakers"
    results.write_set(out, crafted.in_order(), card)
    end(out)
    return AdversarialSet.load(out)


def _in_groups(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    waiting = iter(clips)
    while some := list(itertools.islice(waiting, size)):
        yield some


def _crafted(
    plan: Plan, limits: Mapping[str, int] | None, clips: Sequence[Clip], quarantine: Quarantine
) -> list[AdversarialClip]:
    """Clips attacked at once; one by one where one of them cannot be, which is put aside."""
    if not clips:
        return []
    try:
        made = _within(plan.attack, limits, clips[0])
        wanted = aim(plan.label, clips[0], plan.source.labels)
        return craft_batch(made, plan.source, clips, label=wanted)
    except UnusableClip as problem:
        if len(clips) == 1:
            quarantine.add(clips[0].id, problem)
            return []
    return [made for clip in clips for made in _crafted(plan, limits, [clip], quarantine)]


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


def join_recordings(
    found: Iterable[Recording], made: AdversarialSet, out: Path, *, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Write each recording that was attacked in windows as a whole, and ``recordings.csv`` about them.

    Returns its rows. What is there already is not written again.
    """
    ordered = sorted(found, key=lambda one: one.utterance.id)
    path = out / RECORDINGS
    if not ordered:
        return []
    if path.exists():
        return [dict(row) for row in results.read_table(path, recordings.COLUMNS)]
    places = {row["id"]: row for row in results.read_rows(out)}

    def adversarial(window: str) -> Samples | None:
        row = places.get(window)
        return None if row is None else audio.read_int16(out / row["file_name"])[0]

    rows = []
    for number, one in enumerate(ordered, start=1):
        rows.append(one.join(adversarial, out))
        progress("join recordings", number, len(ordered), "")
    storage.write_text(path, results.table(recordings.COLUMNS, rows))
    return rows


def is_finished(plan: Plan, clips: ClipSource, out: Path) -> bool:
    """Whether ``out`` holds the set that ``plan`` makes of these very clips; see ``is_done``."""
    if not (out / storage.CARD).exists():
        return False
    told = storage.read_card(out, "adversarial").get("inputs", {}).get("clips", "")
    summed = str(told).startswith("sum:")  # sets of earlier versions hashed all clips in a row
    found = sum_of(map(_sha256, clips)) if summed else fingerprint_of(clips)
    return is_done(out, "adversarial", {**plan.inputs, "clips": found})


@dataclass
class _Crafted:
    """What is done of a set: in its journal a row for each clip, with the sha256 of the clip."""

    out: Path
    journal: storage.Journal
    table: columns.Table = field(default_factory=lambda: columns.Table(_CRAFTED))
    kept: dict[str, int] = field(default_factory=dict)
    """The rows of what an earlier run left, by id."""
    rows: dict[str, int] = field(default_factory=dict)
    """Of the clips that were read: one that is gone since an earlier run is not in the set."""
    total: int = 0

    @classmethod
    def of(cls, out: Path) -> _Crafted:
        """What an earlier run left."""
        made = cls(out, storage.Journal(out / "journal.jsonl"))
        for record in made.journal:
            row = {key: str(value) for key, value in record.items()}
            if {"id", "sha256"} <= row.keys():
                made.kept[row["id"]] = made.table.append(row)
        return made

    def has(self, clip: Clip, digest: str) -> bool:
        """Whether this very clip is done, and its files are what was measured; it counts as read then."""
        number = self.kept.get(clip.id)
        row = {} if number is None else self.table.make(number)
        done = row.get("sha256") == digest and _still_holds(self.out, row)
        if done and number is not None:
            self.rows[clip.id] = number
            self.read(digest)
        return done

    def add(self, clip: Clip, digest: str, row: dict[str, str]) -> None:
        self.journal.append({**row, "sha256": digest})
        self.rows[clip.id] = self.table.append(row)
        self.read(digest)

    def read(self, digest: str) -> None:
        self.total = (self.total + int(digest, 16)) % 2**256

    def in_order(self) -> Sequence[Mapping[str, str]]:
        """The rows of the set in the order of their ids."""
        return self.table.rows([self.rows[name] for name in sorted(self.rows)])

    def fingerprint(self) -> str:
        return f"sum:{self.total:064x}"


def _still_holds(out: Path, row: Mapping[str, Any]) -> bool:
    """Whether the files of a clip that was done before still are what was measured then."""
    try:
        found = results.read_clip(out, row).measurements()
    except InvalidInput:
        return False
    return all(row.get(key) == repr(value) for key, value in found.items())


def _sha256(clip: Clip) -> str:
    return hashlib.sha256(clip.id.encode() + b"\0" + clip.samples.tobytes()).hexdigest()


def sum_of(digests: Iterable[str]) -> str:
    """A fingerprint of clips that is the same in any order, and the sum of those of its parts.

    >>> sum_of(["01", "ff"])[-4:] == sum_of(["ff", "01"])[-4:] == "0100"
    True
    """
    return f"sum:{sum(int(digest, 16) for digest in digests) % 2**256:064x}"


def fingerprint_of(clips: Iterable[Clip]) -> str:
    """What tells these clips, by name and sample, from any others."""
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
    budget = Budget(
        epsilon=recipe.epsilon, max_density=recipe.max_density, max_l0=recipe.max_l0,
        min_snr_db=recipe.min_snr_db,
    )  # fmt: skip
    told = {key: value for key, value in asdict(recipe).items() if value != UNSAID.get(key, ...)}
    del told["precision"]
    inputs: dict[str, Any] = {"recipe": told, "source": source.name, "seed": seed}
    if name == "staa":
        if generator is None:
            raise InvalidInput("the attack staa needs a generator", remedy="Pass --generator DIR")
        inputs["generator"] = storage.read_card(generator, "generator")["sha256"]
        runs_in = precision.settled(recipe.precision, device)
        if runs_in != "float32":
            inputs["precision"] = runs_in
        made: Attack = Staa(
            generator=load_generator(generator).to(device), budget=budget, precision=runs_in,
            **settings_of("staa", recipe),
        )  # fmt: skip
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
    title, label = recipe.title or key, label or recipe.label or None
    if label not in (None, EACH, *source.labels):
        raise unknown_name("class", str(label), [*source.labels, EACH])
    if isinstance(source, Defended) and source.randomised and name not in ("staa", *CONTROLS):
        draws = recipe.eot or EOT
        source, inputs = source.expected(draws, seed=seed + 1), {**inputs, "eot": draws}
    return Plan(
        key, title, made, source, label=label, matched=matched, batch_size=recipe.batch_size,
        inputs=inputs,
    )  # fmt: skip


def with_settings(name: str, recipe: AttackRecipe, budget: Budget, seed: int) -> Attack:
    """An attack that needs neither generator nor vector; ``InvalidInput`` names a setting it has not."""
    made: Attack = ATTACKS[name](budget=budget, seed=seed, **settings_of(name, recipe))
    return made


def settings_of(name: str, recipe: AttackRecipe) -> dict[str, Any]:
    """The recipe's settings of an attack, each a field of its dataclass and of its field's kind; what is
    counted from one there, such as steps, is never none."""
    usual: dict[str, Any] = {
        f.name: f.default for f in dataclasses.fields(ATTACKS[name])
        if f.name not in ("budget", "seed", "generator", "precision", "replays")
    }  # fmt: skip
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


def part_of(plan: Plan, shard: Shard, corpus: Corpus, window_s: float = 0.0) -> Plan:
    """The plan of a shard: its card says which part of which list of clips it is, cut how."""
    ids = columns.field(corpus.utterances, "id")
    part = {**shard.card(ids), "window_s": window_s}
    return replace(plan, inputs={**plan.inputs, "shard": part})


def answers(
    made: AdversarialSet, victims: Sequence[Victim], progress: Progress = silent
) -> list[dict[str, Any]]:
    """What victims say of each clip before and after, beside what was changed; ``before`` and
    ``after`` are the first one's words."""
    clips: dict[str, dict[str, Any]] = {}
    for row in transfer_matrix([made], victims, progress=progress).rows:
        before, after = row["clean_prediction"], row["adversarial_prediction"]
        clip = clips.setdefault(
            row["id"],
            {
                "id": row["id"], "before": before, "after": after, "l0": row["l0"],
                "density": row["density"],
                "snr_db": row["snr_db"] if math.isfinite(row["snr_db"]) else None, "answers": {},
            },
        )  # fmt: skip
        clip["answers"][row["target"]] = [before, after]
    return list(clips.values())


def evaluate(
    sets: Sequence[Path], targets: Sequence[Victim], out: Path, *, channels: Sequence[str] = (),
    perceptual: bool = False, shard: Shard | None = None, sha256: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> TransferMatrix:  # fmt: skip
    """The transfer matrix from adversarial sets on disk, written to ``out``; see ``transfer_matrix``.

    ``perceptual`` also listens to each clip, and remembers it in ``out/perception.jsonl``. With a
    ``shard`` it is of that part of each set's clips, and says so, with the ``sha256`` of each target's
    weights, for ``merge``.
    """
    loaded = [_whole(folder) for folder in sets]
    if shard is not None:
        loaded = [replace(one, clips=shard.part(one.clips)) for one in loaded]
    matrix = transfer_matrix(
        loaded, targets, channels=channels,
        listen=_Listener(storage.Journal(out / "perception.jsonl")) if perceptual else None,
        progress=progress,
    )  # fmt: skip
    if shard is not None:
        tables = [storage.sha256(folder / "metadata.csv") for folder in sets]
        part = {**shard.card(tables), "channels": list(channels), "sha256": dict(sha256 or {})}
        matrix = replace(matrix, summary={**matrix.summary, "shard": part})
    matrix.save(out)
    return matrix


def _whole(folder: Path) -> AdversarialSet:
    one = AdversarialSet.load(folder)
    part = one.card.get("inputs", {}).get("shard")
    if part is not None:
        raise InvalidInput(
            f"is shard {part['number']}/{part['of']} of a set", where=folder,
            remedy="Merge the shards first: staanet merge SHARD... --out DIR",
        )  # fmt: skip
    return one


class _Listener:
    """The perceptual panel of a clip, from the journal where the same audio was heard before."""

    def __init__(self, journal: storage.Journal) -> None:
        judges = {**perception.versions(), "metrics": sorted(perception.METRICS)}
        self.journal, self.judges = journal, json.dumps(judges, sort_keys=True)
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
            "targets": [target.name for target in plan.targets], "clips": fingerprint_of(chosen),
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
