"""What a finished run left behind, read from its folder: results, adversarial sets, victims, corpus."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from staanet import config, corpora, storage
from staanet.core import NO_CHANNEL, Corpus, Victim
from staanet.errors import InvalidInput, StaaNetError
from staanet.results import adversarial_set
from staanet.results.adversarial_set import AdversarialClip
from staanet.victims import load_victim

Key = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Made:
    """An adversarial set on disk: its card and the rows of its table by clip."""

    folder: Path
    card: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, str]]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def key(self) -> Key:
        return str(self.card["attack"]), str(self.card["source"])

    @property
    def algorithm(self) -> str:
        return str(self.card.get("algorithm") or self.card["attack"])

    @property
    def epsilon(self) -> float:
        return float((self.card.get("budget") or {}).get("epsilon") or 0.03)

    def pair(self, clip_id: str) -> AdversarialClip:
        return adversarial_set.read_clip(self.folder, self.rows[clip_id])


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run left behind; of its results, those of the files as they are."""

    folder: Path
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    sets: Mapping[Key, Made]
    victims: Mapping[str, Victim]
    corpus: Corpus | None
    seed: int
    protocol: str | None = None
    clip_seconds: float | None = None
    problem: str = ""
    """Why there is no corpus."""

    @property
    def cells(self) -> list[Mapping[str, Any]]:
        return [c for c in self.summary["cells"] if c.get("channel", NO_CHANNEL) == NO_CHANNEL]

    def of(self, attack: str, source: str, target: str) -> list[Mapping[str, Any]]:
        """The rows behind a cell."""
        wanted = (attack, source, target)
        return [r for r in self.rows if (r["attack"], r["source"], r["target"]) == wanted]


def read(
    folder: Path,
    *,
    corpus: str | None = None,
    victims: Mapping[str, Victim] | None = None,
    device: str = "cpu",
) -> Finished:
    """The run in ``folder``; ``InvalidInput`` where it is not a finished one."""
    import pandas

    require_finished(folder)
    summary = storage.read_json(folder / "results" / "summary.json")
    try:
        frame = pandas.read_parquet(folder / "results" / "results.parquet")
    except (OSError, ValueError) as problem:
        raise InvalidInput(
            f"not a table of results ({problem})",
            where=folder / "results" / "results.parquet",
            remedy="Run staanet evaluate again",
        ) from problem
    rows: list[Mapping[str, Any]] = [
        {str(key): value for key, value in row.items()}
        for row in frame.to_dict("records")
        if row.get("channel", NO_CHANNEL) == NO_CHANNEL  # codecs and rooms are not checked here
    ]
    places = [p for p in sorted((folder / "victims").glob("*")) if (p / storage.CARD).is_file()]
    loaded_victims = [load_victim(place).to(device) for place in places]
    found = {victim.name: victim for victim in loaded_victims}
    recipe = folder / "recipe.toml"
    loaded = config.load_recipe(str(recipe)) if recipe.is_file() else None
    whole, problem_text = _corpus(
        folder, corpus or (loaded.corpus if loaded else ""), loaded.classes if loaded else "label"
    )
    return Finished(
        folder=folder,
        summary=summary,
        rows=rows,
        corpus=whole,
        problem=problem_text,
        seed=loaded.seed if loaded else 0,
        protocol=loaded.protocol if loaded else None,
        clip_seconds=loaded.clip_seconds if loaded else None,
        sets={one.key: one for one in _sets(folder)},
        victims={**found, **(victims or {})},
    )


def require_finished(folder: Path) -> None:
    """``InvalidInput`` where ``folder`` lacks what every check needs."""
    for needed in ("results/summary.json", "results/results.parquet", "adversarial"):
        if not (folder / needed).exists():
            raise InvalidInput(
                f"is no finished run ({needed} is missing)",
                where=folder,
                remedy="Give the folder of staanet run, and let the run end first",
            )
    summary = storage.read_json(folder / "results" / "summary.json")
    parts = ("cells", list), ("targets", dict)
    if not all(isinstance(summary, dict) and isinstance(summary.get(k), t) for k, t in parts):
        raise InvalidInput(
            "not as staanet writes it",
            where=folder / "results" / "summary.json",
            remedy="Run staanet evaluate again",
        )


def _sets(folder: Path) -> Iterator[Made]:
    for place in sorted((folder / "adversarial").iterdir()):
        if (place / storage.CARD).is_file():
            rows = {row["id"]: row for row in adversarial_set.read_rows(place)}
            yield Made(folder=place, card=storage.read_card(place, "adversarial"), rows=rows)


def _corpus(folder: Path, spec: str, classes: str) -> tuple[Corpus | None, str]:
    if not spec:
        return None, "the run has no recipe that names it"
    if spec == "synthetic:":
        spec = f"synthetic:{folder / 'corpus'}"
        if not (folder / "corpus" / "manifest.json").is_file():
            return None, f"{folder / 'corpus'} holds no rendered speech"
    try:
        return corpora.load_corpus(spec, classes=classes), ""
    except StaaNetError as error:
        return None, str(error)


def learned(run: Finished, *kinds: str) -> Iterator[tuple[str, Path]]:
    """Kind and folder of what the run trained."""
    for kind in kinds:
        for place in sorted((run.folder / f"{kind}s").glob("*")):
            if (place / storage.CARD).is_file():
                yield kind, place


def sampled(one: Made, count: int, seed: int) -> list[str]:
    """Ids of up to ``count`` clips of a set, classes in turn; an attack may be given few of them."""
    if not one.rows:
        raise InvalidInput(
            "holds no clip", where=one.folder, remedy="Attack at least one usable clip"
        )
    rng = np.random.default_rng(seed)
    by_class: dict[str, list[str]] = defaultdict(list)
    for clip_id in sorted(one.rows):
        by_class[one.rows[clip_id]["label"]].append(clip_id)
    ranked = [
        (place, label, clip_id)
        for label, ids in sorted(by_class.items())
        for place, clip_id in enumerate(rng.permutation(np.array(ids)).tolist())
    ]
    return [clip_id for _, _, clip_id in sorted(ranked)[:count]]
