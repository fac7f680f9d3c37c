"""What ``run`` would do with a recipe, stage by stage, without doing or writing any of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from staanet import corpora, storage
from staanet.config import Recipe
from staanet.core import Corpus, Utterance
from staanet.errors import InvalidInput
from staanet.evaluation import sweeps
from staanet.pipeline.run_recipe import (
    clip_limit,
    defended,
    is_staa,
    recorded_seconds,
    require_same_recipe,
    require_sound,
    sources_of,
    with_rates,
)

State = Literal["done", "begun", "to do"]
SAMPLE = 50
"""Clips whose headers are read for the estimate of disk space."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage, whether it is done, how much work it is, and, once done, how long it took."""

    name: str
    state: State
    work: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """The stages of a recipe in order, and about how much disk its audio takes (None: unknown)."""

    stages: tuple[Stage, ...]
    audio_mib: float | None

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"stages": [asdict(stage) for stage in self.stages], "audio_mib": self.audio_mib}


def dry_run(recipe: Recipe, out: Path) -> DryRun:
    """The stages of ``run(recipe, out)``; nothing is written, rendered or fetched.

    Raises what ``run`` would raise before its first stage: an attack, setting, channel or protocol
    that is not there, or a folder that holds another recipe's run.
    """
    require_sound(recipe, out)
    recipe = with_rates(recipe)
    require_same_recipe(recipe, out)
    corpus = _corpus(recipe, out)
    took = recorded_seconds(out)
    stages = [
        Stage(name, state, work, took.get(name) if state == "done" else None)
        for name, state, work in _stages(recipe, out, corpus)
    ]
    return DryRun(tuple(stages), _audio_mib(recipe, corpus))


Row = tuple[str, State, str]


def _stages(recipe: Recipe, out: Path, corpus: Corpus | None) -> Iterator[Row]:
    parts = None if corpus is None else corpus.split(recipe.seed, recipe.protocol)
    train, dev, test = ("?", "?", "?") if parts is None else (str(len(one)) for one in parts)
    yield "corpus", *_corpus_stage(recipe, out, corpus, f"{train} train, {dev} dev, {test} test")
    for name, victim in recipe.victims.items():
        work = f"{victim.steps} steps of {victim.batch_size} x {victim.seconds:g} s"
        yield f"train-victim {name}", *_trained(out / "victims" / name, "victim", work, parts)
    for name, (_, defence) in defended(recipe).items():
        work = ", ".join(defence.chain)
        yield f"defend {name}", *_trained(out / "victims" / name, "victim", work, parts)
    count = None if parts is None else len(parts[2])
    made = 0
    for source, keys in sources_of(recipe).items():
        network = recipe.generator
        work = f"{network.network}, {network.steps} steps of {network.batch_size} x {network.seconds:g} s"
        folder = out / "generators" / source
        if source in network.sources or any(is_staa(recipe, key) for key in keys):
            yield f"train-generator {source}", *_trained(folder, "generator", work, parts)
        for key in keys:
            one = recipe.attacks[key]
            if (one.attack or key) == "uap" and "," in source:
                continue
            if (one.attack or key) == "uap":
                folder = out / "vectors" / f"{key}__{source}"
                yield f"train-uap {key} on {source}", *_trained(folder, "vector", "", parts)
            limit = clip_limit(key, recipe.attacks)
            most = limit if count is None else min(count, limit or count)
            set_folder = out / "adversarial" / f"{key}__{source}"
            made += 1
            yield f"attack {key} from {source}", *_attacked(set_folder, "adversarial", most, 1)
        if recipe.sweep is not None and source in (recipe.sweep.sources or network.sources):
            sweep = recipe.sweep
            names = {key: recipe.attacks[key].attack or key for key in sweep.attacks}
            points = sweeps.sweep_points(names, sweep.epsilons, sweep.densities, grid=sweep.grid)
            most = sweep.clips if count is None else min(count, sweep.clips)
            yield (
                f"sweep from {source}",
                *_attacked(out / "sweeps" / source, "sweep", most, len(points)),
            )
    heard = ", and by ear" if recipe.perceptual else ""
    judges = len(recipe.victims) + len(defended(recipe))
    work = f"{made} sets x {judges} victims x {1 + len(recipe.channels)} channels{heard}"
    finished: State = "done" if (out / "results" / "summary.json").is_file() else "to do"
    yield "evaluate", finished, f"{work}; always done anew"
    if recipe.selfcheck:
        checked: State = "done" if (out / "selfcheck.json").is_file() else "to do"
        yield "selfcheck", checked, "victims, files, split and figures"
    reported: State = "done" if (out / "report" / "index.html").is_file() else "to do"
    yield "report", reported, "tables, figures and one page; always done anew"


def _corpus(recipe: Recipe, out: Path) -> Corpus | None:
    """The corpus, the one that would be rendered, or None where it would have to be fetched."""
    kind, _, path = recipe.corpus.partition(":")
    if kind == "audb":
        return None
    if kind != "synthetic":
        return corpora.load_corpus(recipe.corpus, classes=recipe.classes)
    folder = Path(path) if path else out / "corpus"
    if (folder / "manifest.json").exists():
        return corpora.load_corpus(f"synthetic:{folder}", classes=recipe.classes)
    size = recipe.synthetic
    planned = (
        corpora.plan_synthetic(folder)
        if path
        else corpora.plan_synthetic(folder, voices=size.voices, sentences=size.sentences)
    )
    return corpora.with_classes(planned, recipe.classes)


def _corpus_stage(
    recipe: Recipe, out: Path, corpus: Corpus | None, parts: str
) -> tuple[State, str]:
    if corpus is None:
        return "to do", f"{recipe.corpus}: to be fetched, not looked at"
    work = f"{len(corpus)} clips of {len(corpus.speakers)} speakers: {parts}"
    rendered = all(one.path.exists() for one in (corpus.utterances[0], corpus.utterances[-1]))
    if rendered:
        return "done", work
    begun = (out / "corpus" / "journal.jsonl").exists()
    return ("begun" if begun else "to do"), f"{work}; to be spoken"


def _trained(
    folder: Path, kind: str, work: str, parts: tuple[Corpus, Corpus, Corpus] | None
) -> tuple[State, str]:
    """Done where its card says so, of this very split; begun where there is a checkpoint."""
    if (folder / "card.json").exists():
        made = storage.read_card(folder, kind).get("inputs", {})
        if parts is not None and made.get("split") != parts[0].split_hash:
            raise InvalidInput(
                "was made from another split of the corpus",
                where=folder,
                remedy="Choose another --out, or delete that folder",
            )
        return "done", work
    steps = [one.stem for one in sorted((folder / "checkpoint").glob("step-*.safetensors"))]
    if steps:
        return "begun", f"{work}; goes on from step {int(steps[-1].removeprefix('step-'))}"
    return "to do", work


def _attacked(folder: Path, kind: str, clips: int | None, points: int) -> tuple[State, str]:
    times = f" x {points} budgets" if points > 1 else ""
    work = f"{'?' if clips is None else clips} clips{times}"
    if (folder / "card.json").exists():
        storage.read_card(folder, kind)
        return "done", work
    if (folder / "journal.jsonl").exists():
        rows = storage.Journal(folder / "journal.jsonl").records()
        return "begun", f"{work}; {len(rows)} rows are there"
    return "to do", work


def _audio_mib(recipe: Recipe, corpus: Corpus | None) -> float | None:
    """Clean and adversarial twins of the test clips, 16 bit at 16 kHz, of each attack and source."""
    if corpus is None:
        return None
    test = corpus.split(recipe.seed, recipe.protocol)[2].utterances
    length = recipe.clip_seconds or _mean_seconds(test)
    if length is None:
        return None
    limits: Mapping[str, int | None] = {k: clip_limit(k, recipe.attacks) for k in recipe.attacks}
    made = sum(
        min(len(test), limits[key] or len(test))
        for keys in sources_of(recipe).values()
        for key in keys
    )
    return round(made * length * 16_000 * 2 * 2 / 2**20, 1)


def _mean_seconds(utterances: Sequence[Utterance]) -> float | None:
    import soundfile

    some = utterances[:: max(1, len(utterances) // SAMPLE)]
    lengths = []
    for one in some:
        try:
            whole = soundfile.info(one.path).duration if one.end_s is None else one.end_s
            lengths.append(whole - one.start_s)
        except (OSError, RuntimeError):  # not there yet, or no audio: the run will say so
            continue
    return sum(lengths) / len(lengths) if lengths else None
