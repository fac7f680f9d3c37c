"""Reads a run folder into frozen dataclasses; nothing is judged, drawn or worded here.

``results/`` is needed; ``adversarial/``, ``victims/``, ``generators/``, ``card.json`` and
``recipe.toml`` are read where they are, so that the folder of a single evaluation is a run too.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.core import NO_CHANNEL, Budget
from staanet.core.metrics import Estimate
from staanet.errors import InvalidInput
from staanet.results import tables

SUMMARY, ROWS, SELFCHECK = "summary.json", "results.parquet", "selfcheck.json"
_AGAIN = "Run staanet evaluate again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """How far adversarial audio is from clean audio; None where it is not defined."""

    l0: float | None
    density: float | None
    linf: float | None
    snr_db: float | None
    peak_ratio_db: float | None


DISTANCES = tuple(one.name for one in fields(Distances))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One attack, crafted on ``source``, against one ``target``: rates over its clips."""

    attack: str
    title: str
    source: str
    target: str
    white_box: bool
    control: bool
    budget: Budget | None
    count: int
    fooling_rate: Estimate
    attack_success_rate: Estimate
    uar_before: Estimate
    uar_after: Estimate
    accuracy_before: Estimate
    accuracy_after: Estimate
    mean: Distances
    mean_fooled: Distances
    untouched: int
    seconds: float | None
    """Median time to make one clip."""
    queries: float | None = None
    """Mean number of the source's answers that one clip took."""
    channel: str = NO_CHANNEL
    """What both clips passed through on their way to the target."""
    defence: str = ""
    """What the attack knew of the target's defence: ``static`` (nothing) or ``adaptive``."""

    @property
    def key(self) -> tuple[str, str]:
        return self.attack, self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip of one cell."""

    attack: str
    source: str
    target: str
    id: str
    label: str
    speaker: str
    clean_prediction: str
    adversarial_prediction: str
    distances: Distances
    channel: str = NO_CHANNEL
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """How it sounds, where that was asked for."""

    @property
    def fooled(self) -> bool:
        return self.clean_prediction != self.adversarial_prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClip:
    """Two audio files of an adversarial set, and what its table says about them."""

    id: str
    adversarial: Path
    original: Path
    distances: Distances


@dataclass(frozen=True, slots=True, kw_only=True)
class Crafted:
    """An adversarial set on disk."""

    attack: str
    source: str
    algorithm: str
    matched: str | None
    budget: Budget | None
    card: Mapping[str, Any]
    clips: Mapping[str, StoredClip]

    @property
    def name(self) -> str:
        return f"{self.attack}__{self.source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """The mean of one perceptual metric over the ``count`` of ``of`` clips that have it."""

    value: float | None
    count: int
    of: int
    missing: Mapping[str, int]
    """How many clips have no score, by reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A victim's or generator's card and its training curve, one list per column."""

    name: str
    card: Mapping[str, Any]
    curve: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One check of ``staanet selfcheck``; ``subject`` is the victim or set that it is about."""

    name: str
    subject: str
    verdict: str
    explanation: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfCheck:
    """What ``selfcheck.json`` says; ``stale`` where the results have changed since."""

    checks: Sequence[Judgement]
    clips: int
    stale: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A target with a defence: the victim inside it, and what stands before that."""

    inner: str
    chain: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that the page shows."""

    folder: Path
    cells: Sequence[Cell]
    """Of the files as they are; what a channel leaves of them stands apart."""
    rows: Sequence[Row]
    labels: Mapping[str, Sequence[str]]
    """The classes of each target, in the order of its probabilities."""
    crafted: Mapping[tuple[str, str], Crafted]
    victims: Sequence[Model]
    generators: Sequence[Model]
    card: Mapping[str, Any]
    recipe: str
    machine: str
    quarantined: Sequence[tuple[str, str]]
    flags: Sequence[str]
    latex: str
    """The matrix of fooling rates for a paper."""
    channel_cells: Sequence[Cell] = ()
    channel_rows: Sequence[Row] = ()
    sounds: Mapping[tuple[str, str], Mapping[str, Sound]] = field(default_factory=dict)
    selfcheck: SelfCheck | None = None
    defended: Mapping[str, Guarded] = field(default_factory=dict)
    """Targets with a defence, by name."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(cell.target for cell in self.cells))

    @property
    def sets(self) -> list[tuple[str, str]]:
        """The (attack, source) pairs, in the order of the summary."""
        return list(dict.fromkeys(cell.key for cell in self.cells))

    def cell(self, attack: str, source: str, target: str) -> Cell | None:
        return next((c for c in self.cells if (*c.key, c.target) == (attack, source, target)), None)


def read(folder: Path) -> Run:
    """The facts of a run folder.

    Raises ``InvalidInput`` where it holds no results, or a file is not what staanet writes.
    """
    summary_path = folder / "results" / SUMMARY
    if not summary_path.is_file():
        raise InvalidInput(
            f"no results in it (results/{SUMMARY} is missing)",
            where=folder,
            remedy="Run staanet evaluate --out with this folder first",
        )
    summary = storage.read_json(summary_path)
    with _expecting(summary_path):
        if summary["schema"] != 1:
            raise ValueError(f"schema {summary['schema']}, this staanet knows 1")
        told = tuple(_cell(raw) for raw in summary["cells"])
        cells = tuple(cell for cell in told if cell.channel == NO_CHANNEL)
        latex = tables.latex(
            [raw for raw in summary["cells"] if raw.get("channel", NO_CHANNEL) == NO_CHANNEL]
        )
        sounds = {
            (str(one["attack"]), str(one["source"])): {
                str(name): _sound(raw) for name, raw in one["perceptual"].items()
            }
            for one in summary.get("sets", ())
        }
        labels = {name: [str(x) for x in t["labels"]] for name, t in summary["targets"].items()}
        defended = {
            str(name): Guarded(
                inner=str(told["defended"]["inner"]),
                chain=[str(x) for x in told["defended"]["chain"]],
            )
            for name, told in summary["targets"].items()
            if "defended" in told
        }
        if not cells:
            raise ValueError("it has no cells")
        for cell in told:
            _ = labels[cell.target]  # every target is listed with its classes
        quarantined = {(str(q["id"]), str(q["reason"])) for q in summary.get("quarantined", [])}
        flags = tuple(dict.fromkeys(str(flag) for flag in summary.get("flags", [])))
    rows = _rows(
        folder / "results" / ROWS, list(dict.fromkeys(n for s in sounds.values() for n in s))
    )
    sets = [_crafted(place) for place in _folders(folder / "adversarial", "metadata.csv")]
    return Run(
        folder=folder,
        cells=cells,
        rows=[row for row in rows if row.channel == NO_CHANNEL],
        labels=labels,
        crafted={(one.attack, one.source): one for one in sets},
        victims=[_model(place, "victim") for place in _folders(folder / "victims")],
        generators=[_model(place, "generator") for place in _folders(folder / "generators")],
        card=storage.read_card(folder, "run") if (folder / storage.CARD).exists() else {},
        recipe=_text(folder / "recipe.toml") if (folder / "recipe.toml").exists() else "",
        machine=str(summary.get("machine") or ""),
        quarantined=sorted(quarantined),
        flags=flags,
        latex=latex,
        channel_cells=[cell for cell in told if cell.channel != NO_CHANNEL],
        channel_rows=[row for row in rows if row.channel != NO_CHANNEL],
        sounds=sounds,
        selfcheck=_selfcheck(folder),
        defended=defended,
    )


def probabilities(
    folder: Path, cell: tuple[str, str], ids: Iterable[str]
) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Each target's answer before and after, by ``(id, target)``, for a few clips of one set."""
    import pandas

    attack, source = cell
    path = folder / "results" / ROWS
    plain = [("channel", "==", NO_CHANNEL)] if "channel" in _columns(path) else []
    frame = pandas.read_parquet(
        path,
        columns=["id", "target", "clean_probabilities", "adversarial_probabilities"],
        filters=[
            ("attack", "==", attack),
            ("source", "==", source),
            ("id", "in", list(ids)),
            *plain,
        ],
    )
    before, after = frame["clean_probabilities"], frame["adversarial_probabilities"]
    return {
        (str(name), str(target)): ([float(p) for p in old], [float(p) for p in new])
        for name, target, old, new in zip(frame["id"], frame["target"], before, after, strict=True)
    }


def speakers_of_parts(card: Mapping[str, Any]) -> dict[str, list[str]]:
    """The speakers of each part of the corpus, as the card of a run tells them.

    >>> speakers_of_parts({"corpus": {"split": {"dev": {"clips": 2, "speakers": ["03"]}}}})
    {'dev': ['03']}
    """
    corpus = card.get("corpus")
    parts = corpus.get("split") if isinstance(corpus, dict) else None
    if not isinstance(parts, dict):
        return {}
    return {str(part): [str(s) for s in about.get("speakers", ())] for part, about in parts.items()}


@contextmanager
def _expecting(path: Path) -> Iterator[None]:
    """Turns a missing key or a wrong type in a file into the error that names the file."""
    try:
        yield
    except KeyError as problem:
        raise InvalidInput(f"lacks {problem}", where=path, remedy=_AGAIN) from problem
    except (TypeError, ValueError, AttributeError) as problem:
        what = f"not as staanet writes it ({problem})"
        raise InvalidInput(what, where=path, remedy=_AGAIN) from problem


def _cell(raw: Mapping[str, Any]) -> Cell:
    def estimate(key: str) -> Estimate:
        found = raw[key]
        value, low, high = (_number(found.get(part)) for part in ("value", "low", "high"))
        return Estimate(value, low, high, int(found["count"]), int(found["clusters"]))

    return Cell(
        attack=str(raw["attack"]),
        title=str(raw["title"]),
        source=str(raw["source"]),
        target=str(raw["target"]),
        white_box=bool(raw["white_box"]),
        control=bool(raw["control"]),
        budget=_budget(raw["budget"]),
        count=int(raw["count"]),
        fooling_rate=estimate("fooling_rate"),
        attack_success_rate=estimate("attack_success_rate"),
        uar_before=estimate("uar_before"),
        uar_after=estimate("uar_after"),
        accuracy_before=estimate("accuracy_before"),
        accuracy_after=estimate("accuracy_after"),
        mean=_distances(raw["mean"].get),
        mean_fooled=_distances((raw.get("mean_fooled") or {}).get),
        untouched=int(raw["untouched"]),
        seconds=_number(raw.get("seconds_median")),
        queries=_number(raw.get("queries_mean")),
        channel=str(raw.get("channel", NO_CHANNEL)),
        defence=str(raw.get("defence", "")),
    )


def _sound(raw: Mapping[str, Any]) -> Sound:
    return Sound(
        value=_number(raw["value"]),
        count=int(raw["count"]),
        of=int(raw["of"]),
        missing={str(reason): int(count) for reason, count in raw["missing"].items()},
    )


def _budget(raw: Mapping[str, Any] | None) -> Budget | None:
    if not raw:
        return None
    known = {one.name for one in fields(Budget)}
    return Budget(**{key: value for key, value in raw.items() if key in known})


def _distances(get: Callable[[str], object]) -> Distances:
    return Distances(**{name: _number(get(name)) for name in DISTANCES})


def _number(value: object) -> float | None:
    """A finite number, or None for what is absent, undefined or unbounded (an untouched clip)."""
    if value is None or value == "":
        return None
    number = float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else None


def _columns(path: Path) -> list[str]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_schema(path).names)


def _rows(path: Path, metrics: Sequence[str] = ()) -> list[Row]:
    """The table of results, with what it says of the perceptual ``metrics``."""
    import pandas

    names = [one.name for one in fields(Row) if one.name not in ("distances", "channel", "scores")]
    if not path.is_file():
        raise InvalidInput("no such file", where=path, remedy=_AGAIN)
    try:
        if "channel" in _columns(path):  # an evaluation of before has none
            names.append("channel")
        frame = pandas.read_parquet(path, columns=[*names, *DISTANCES, *metrics])
    except (OSError, ValueError, KeyError) as problem:  # pyarrow's errors derive from these
        raise InvalidInput(
            f"not a table of results ({problem})", where=path, remedy=_AGAIN
        ) from None
    texts = zip(
        *(frame[name].astype(object).where(frame[name].notna(), "") for name in names), strict=True
    )
    measures = (*DISTANCES, *metrics)
    numbers = zip(*(frame[name].astype(float) for name in measures), strict=True)
    return [
        Row(
            **dict(zip(names, map(str, text), strict=True)),
            distances=_distances(dict(zip(measures, number, strict=True)).get),
            scores=dict(zip(metrics, map(_number, number[len(DISTANCES) :]), strict=True)),
        )
        for text, number in zip(texts, numbers, strict=True)
    ]


def _selfcheck(folder: Path) -> SelfCheck | None:
    path = folder / SELFCHECK
    if not path.is_file():
        return None
    told = storage.read_json(path)
    names = [field.name for field in fields(Judgement)]
    with _expecting(path):
        return SelfCheck(
            checks=[Judgement(**{n: str(one[n]) for n in names}) for one in told["checks"]],
            clips=int(told["clips"]),
            stale=told["results_sha256"] != storage.sha256(folder / "results" / SUMMARY),
        )


def _crafted(folder: Path) -> Crafted:
    card = storage.read_card(folder, "adversarial")
    path = folder / "metadata.csv"
    with _expecting(path):
        clips = [
            _stored(folder, row) for row in csv.DictReader(io.StringIO(_text(path), newline=""))
        ]
    with _expecting(folder / storage.CARD):
        return Crafted(
            attack=str(card["attack"]),
            source=str(card["source"]),
            algorithm=str(card.get("algorithm") or card["attack"]),
            matched=None if card.get("matched") is None else str(card["matched"]),
            budget=_budget(card.get("budget")),
            card=card,
            clips={clip.id: clip for clip in clips},
        )


def _stored(folder: Path, row: Mapping[str, str]) -> StoredClip:
    paths = [folder / row["file_name"], folder / row["original_file_name"]]
    for path in paths:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInput(
                f"'{path}' is outside the folder",
                where=folder / "metadata.csv",
                remedy="Make the set again with staanet attack",
            )
    return StoredClip(
        id=row["id"], adversarial=paths[0], original=paths[1], distances=_distances(row.__getitem__)
    )


def _model(folder: Path, kind: str) -> Model:
    card, path = storage.read_card(folder, kind), folder / "training.csv"
    curve: dict[str, list[float]] = {}
    if path.is_file():
        with _expecting(path):
            for row in csv.DictReader(io.StringIO(_text(path), newline="")):
                for key, value in row.items():
                    curve.setdefault(key, []).append(float(value) if value else math.nan)
    return Model(name=str(card.get("name") or folder.name), card=card, curve=curve)


def _folders(parent: Path, also: str = storage.CARD) -> list[Path]:
    """The finished folders below ``parent``; the card is written last."""
    if not parent.is_dir():
        return []
    return sorted(
        p for p in parent.iterdir() if (p / storage.CARD).is_file() and (p / also).is_file()
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InvalidInput(f"cannot be read ({problem})", where=path, remedy=_AGAIN) from problem
