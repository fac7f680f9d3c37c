"""Is a finished run honest? Every check on its victims, its files, its split and its figures.

``selfcheck`` reads a run folder, tries its victims (``probes``), recomputes its files and figures, and
writes ``RUN/selfcheck.json``, which the report shows beside the headline.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staanet import audio, config, corpora, metrics, probes, results, storage
from staanet.attacks import PGD
from staanet.core import NO_CHANNEL, Budget, Clip, Corpus, Progress, Samples, Victim, silent
from staanet.errors import InvalidInput, StaaNetError, UnusableClip
from staanet.evaluation import CONTROLS, transfer_matrix
from staanet.probes import Check, Probe, Verdict
from staanet.report.facts import DISTANCES, Distances
from staanet.report.verify import TOLERANCE, measure
from staanet.results import AdversarialClip, AdversarialSet
from staanet.victims import Ensemble, load_victim

FILE = "selfcheck.json"
NEAR_COPY = 0.9
"""Normalised cross-correlation from which two clips are one recording."""
_AGAIN = "Attack and evaluate again: a figure is that of its files or none"
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
        return results.read_clip(self.folder, self.rows[clip_id])


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

    def of(self, cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """The rows behind a cell."""
        wanted = tuple(cell[key] for key in ("attack", "source", "target"))
        return [r for r in self.rows if (r["attack"], r["source"], r["target"]) == wanted]


def selfcheck(
    run: Path | str, *, clips: int = 24, seed: int = 0, corpus: str | None = None,
    victims: Mapping[str, Victim] | None = None, device: str = "cpu", progress: Progress = silent,
) -> list[Check]:  # fmt: skip
    """Every check on a finished run; writes ``RUN/selfcheck.json``.

    Victims are tried on ``clips`` test clips, classes in turn, drawn by ``seed``; files and figures
    are checked whole. ``corpus`` replaces the recipe's, ``victims`` adds or replaces some by name.
    Raises ``InvalidInput`` where ``run`` holds no results.
    """
    finished = read(Path(run), corpus=corpus, victims=victims, device=device)
    jobs = list(_jobs(finished, clips, seed))
    checks = []
    for number, (name, subject, work) in enumerate(jobs):

        def tell(what: str, done: int = number, told: str = f"{name} {subject}".strip()) -> None:
            progress("self-check", done, len(jobs), f"{told} {what}".strip())

        tell("")
        checks.append(_guarded(name, subject, partial(work, tell)))
    progress("self-check", len(jobs), len(jobs), "")
    told = {
        "clips": clips, "seed": seed, "results_sha256": results_hash(Path(run)),
        "checked": looked_at(finished, clips),
    }  # fmt: skip
    storage.write_json(Path(run) / FILE, {"schema": 1, **told, **as_json(checks)})
    return checks


def looked_at(run: Finished, clips: int) -> str:
    """What a self-check of this run looks at, in a sentence."""
    held = f"{sum(len(one.rows) for one in run.sets.values())} clips of {_number(run.sets, 'set')}"
    learned = Counter(kind for kind, _ in _learned(run, "generator", "vector"))
    models = [_number(run.victims, "victim"), *(f"{n} {kind}s" for kind, n in learned.items())]
    corpus = run.corpus.name if run.corpus else f"no corpus ({run.problem})"
    return (
        f"{', '.join(models)}; {held} and {len(run.rows)} rows of results, all of them; victims tried on "
        f"up to {clips} clips; {corpus}"
    )


def _number(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'s' * (len(things) != 1)}"


def failed(checks: Sequence[Check]) -> list[Check]:
    """The checks that say no."""
    return [check for check in checks if check.verdict == "fail"]


def as_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The checks as JSON can hold them."""
    told: dict[str, Any] = _finite(
        {"failed": len(failed(checks)), "checks": [asdict(check) for check in checks]}
    )
    return told


def results_hash(run: Path) -> str:
    """Which results a self-check belongs to: the sha256 of the run's summary."""
    return storage.sha256(run / "results" / "summary.json")


def is_current(run: Path, seed: int) -> bool:
    """Whether the run was checked with this seed since its results were written."""
    if not (run / FILE).is_file():
        return False
    told = storage.read_json(run / FILE)
    return bool(told.get("seed") == seed and told.get("results_sha256") == results_hash(run))


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _guarded(name: str, subject: str, work: Callable[[], Check]) -> Check:
    """What cannot be carried out, for the run's own files or its victim, is a failure that says why."""
    try:
        return work()
    except StaaNetError as error:
        return Check(
            name=name, subject=subject, verdict="fail",
            explanation=f"could not be carried out: {error}", remedy=error.remedy,
        )  # fmt: skip
    except RuntimeError as error:  # torch: no gradient, no memory, a model that refuses a batch
        return Check(
            name=name, subject=subject, verdict="fail",
            explanation=f"could not be carried out: {(str(error).splitlines() or ['no reason'])[0]}",
            remedy="Mend the victim: an attack or an evaluation fails on it likewise",
        )  # fmt: skip


# ---------------------------------------------------------------- reading a run


def read(
    folder: Path, *, corpus: str | None = None, victims: Mapping[str, Victim] | None = None,
    device: str = "cpu",
) -> Finished:  # fmt: skip
    """The run in ``folder``; ``InvalidInput`` where it is not a finished one."""
    import pandas

    require_finished(folder)
    summary = storage.read_json(folder / "results" / "summary.json")
    try:
        frame = pandas.read_parquet(folder / "results" / "results.parquet")
    except (OSError, ValueError) as problem:
        raise InvalidInput(
            f"not a table of results ({problem})", where=folder / "results" / "results.parquet",
            remedy="Run staanet evaluate again",
        ) from problem  # fmt: skip
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
        folder=folder, summary=summary, rows=rows, corpus=whole, problem=problem_text,
        seed=loaded.seed if loaded else 0, protocol=loaded.protocol if loaded else None,
        clip_seconds=loaded.clip_seconds if loaded else None,
        sets={one.key: one for one in _sets(folder)}, victims={**found, **(victims or {})},
    )  # fmt: skip


def require_finished(folder: Path) -> None:
    """``InvalidInput`` where ``folder`` lacks what every check needs."""
    for needed in ("results/summary.json", "results/results.parquet", "adversarial"):
        if not (folder / needed).exists():
            raise InvalidInput(
                f"is no finished run ({needed} is missing)", where=folder,
                remedy="Give the folder of staanet run, and let the run end first",
            )  # fmt: skip
    summary = storage.read_json(folder / "results" / "summary.json")
    parts = ("cells", list), ("targets", dict)
    if not all(isinstance(summary, dict) and isinstance(summary.get(k), t) for k, t in parts):
        raise InvalidInput(
            "not as staanet writes it", where=folder / "results" / "summary.json",
            remedy="Run staanet evaluate again",
        )  # fmt: skip


def _sets(folder: Path) -> Iterator[Made]:
    for place in sorted((folder / "adversarial").iterdir()):
        if (place / storage.CARD).is_file():
            rows = {row["id"]: row for row in results.read_rows(place)}
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


# ---------------------------------------------------------------- what is checked

Tell = Callable[[str], None]
Job = tuple[str, str, Callable[[Tell], Check]]


def _jobs(run: Finished, count: int, seed: int) -> Iterator[Job]:
    """Name, subject and work of each check, in the order in which they help to understand.

    What several of them need is made when the first one asks, so that a failure is that check's.
    """
    if not run.sets:
        raise InvalidInput(
            "holds no adversarial set", where=run.folder, remedy="Run staanet attack first"
        )
    yield "known_optimum", "linear", lambda tell: probes.finds_known_optimum(_pgd, seed)
    most = max(run.sets.values(), key=lambda one: len(one.rows))
    ids = sampled(most, count, seed)
    clips = cache(lambda: [most.pair(clip_id).clean for clip_id in ids])
    epsilon = max(one.epsilon for one in run.sets.values())
    tried = {
        name: cache(partial(_probe, victim, clips, epsilon)) for name, victim in run.victims.items()
    }
    for name, victim in run.victims.items():
        yield from _victim_jobs(run, name, victim, clips, seed)
        yield from _attack_jobs(name, tried)
    for one in run.sets.values():
        yield from _set_jobs(run, one, count, seed)
    yield "clean_audio", "", lambda tell: clean_audio(run, tell)
    yield "split", "", lambda tell: split(run, tell)
    for _, place in _learned(run, "generator"):
        if _unlabelled_told(place):
            yield "unlabelled", place.name, partial(unlabelled, run, place)
    yield "white_box_marks", "", lambda tell: white_box_marks(run, clips())
    yield "rates", "", lambda tell: rates(run)


def _victim_jobs(
    run: Finished, name: str, victim: Victim, clips: Callable[[], list[Clip]], seed: int
) -> Iterator[Job]:
    yield "eval_mode", name, lambda tell: probes.eval_mode(victim, clips())
    yield "deterministic", name, lambda tell: probes.deterministic(victim, clips())
    yield "logits", name, lambda tell: probes.gives_logits(victim, clips())
    yield "gradients", name, lambda tell: probes.gradients(victim, clips()[:8], seed)
    yield "clean_accuracy", name, lambda tell: accuracy(run, name)
    yield "planted_example", name, lambda tell: planted_example(victim, clips())


def _attack_jobs(name: str, tried: Mapping[str, Callable[[], Probe]]) -> Iterator[Job]:
    for check in (probes.more_steps, probes.larger_epsilon, probes.huge_epsilon):
        yield check.__name__, name, partial(_on_probe, check, tried[name])

    def rivalled(probe: Probe) -> Check:
        return probes.white_box_wins(probe, [tried[other]() for other in tried if other != name])

    yield "white_box_wins", name, partial(_on_probe, rivalled, tried[name])


def _set_jobs(run: Finished, one: Made, count: int, seed: int) -> Iterator[Job]:
    ids = cache(lambda: sampled(one, count, seed))
    yield "disk", one.name, lambda tell: disk(run, one)
    yield "predictions", one.name, lambda tell: predictions(run, one, ids())
    if one.algorithm not in CONTROLS:
        yield "beats_control", one.name, lambda tell: beats_control(run, one)
        yield "direction", one.name, lambda tell: _direction(run, one, ids(), seed)


def _probe(victim: Victim, clips: Callable[[], list[Clip]], epsilon: float) -> Probe:
    return Probe(victim, clips(), epsilon=epsilon)


def _on_probe(check: Callable[[Probe], Check], probe: Callable[[], Probe], tell: Tell) -> Check:
    probe().progress = tell
    return check(probe())


def _pgd(budget: Budget) -> PGD:
    return PGD(budget=budget)


def _direction(run: Finished, one: Made, ids: Sequence[str], seed: int) -> Check:
    victim = _attacked(run, one.key[1])
    if victim is None:
        return _absent("direction", one.name, one.key[1])
    kind, _, label = str(one.card.get("goal", "")).partition(": ")
    return probes.direction(
        victim, [one.pair(clip_id) for clip_id in ids], one.name, algorithm=one.algorithm,
        goal_label=label if kind == "targeted" else None, seed=seed,
    )  # fmt: skip


def _attacked(run: Finished, source: str) -> Victim | None:
    """The victim of this name, or the ensemble of several; None where one is not in the run."""
    members = [run.victims[name] for name in source.split(",") if name in run.victims]
    if len(members) <= source.count(","):
        return None
    return members[0] if len(members) == 1 else Ensemble(members)


def _absent(name: str, subject: str, victim: str) -> Check:
    return Check(
        name=name, subject=subject, verdict="skipped",
        explanation=f"the victim {victim} is not in victims/",
        remedy="Check it from Python: selfcheck(run, victims={NAME: VICTIM})",
    )  # fmt: skip


def _verdict(
    name: str, subject: str, wrong: Sequence[str], count: int, right: str, remedy: str
) -> Check:
    """Fail with the first few of what is ``wrong``; else pass with what is ``right``."""
    more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return Check(
        name=name,
        subject=subject,
        verdict="fail" if wrong else "pass",
        figures={"wrong": len(wrong), "count": count},
        explanation="; ".join(wrong[:3]) + more if wrong else right,
        remedy=remedy if wrong else "",
    )


# ---------------------------------------------------------------- figures and files


def disk(run: Finished, one: Made) -> Check:
    """l0, density, linf, SNR of every clip, from its files, in the set's table and in the results;
    the budget that the card names is kept.
    """
    reported = defaultdict(list)
    for row in run.rows:
        if (row["attack"], row["source"]) == one.key:
            reported[str(row["id"])].append(row)
    wrong = []
    for clip_id, told in one.rows.items():
        pair = one.pair(clip_id)
        true = measure(pair.clean.samples, pair.adversarial)
        wrong += [f"{clip_id}: {what}" for what in _differing(told, true, "metadata.csv")]
        for row in reported[clip_id]:
            wrong += [f"{clip_id}: {what}" for what in _differing(row, true, "results.parquet")]
            wrong += [
                f"{clip_id}: {key} is '{told[key]}' in metadata.csv and '{row[key]}' in "
                f"results.parquet for {row['target']}"
                for key in ("label", "speaker")
                if str(row[key] or "") != told[key]
            ]
        budget = _budget(one)
        wrong += [
            f"{clip_id}: {what}" for what in budget.violations(pair.clean.samples, pair.adversarial)
        ]
        if not reported[clip_id]:
            wrong.append(f"{clip_id}: is in no row of results.parquet")
    wrong += [f"{i}: has results and no files" for i in reported if i not in one.rows]
    return _verdict(
        "disk", one.name, wrong, len(one.rows), "tables and budget are those of the files", _AGAIN
    )


def _budget(one: Made) -> Budget:
    told = one.card.get("budget") or {}
    known = {field.name for field in fields(Budget)}
    return Budget(**{"epsilon": one.epsilon} | {k: v for k, v in told.items() if k in known})


def _differing(told: Mapping[str, Any], true: Distances, table: str) -> Iterator[str]:
    for name in DISTANCES:
        value, own = float(told[name]), getattr(true, name)
        finite = value if math.isfinite(value) else None
        same = (
            finite is own if finite is None or own is None else abs(finite - own) <= TOLERANCE[name]
        )
        if not same:
            yield f"{name} is {own} in the file and {told[name]} in {table}"


def predictions(run: Finished, one: Made, ids: Sequence[str]) -> Check:
    """Each victim, given the files again, answers what results.parquet says."""
    wrong, count, absent = [], 0, set()
    rows = {
        (str(row["id"]), str(row["target"])): row
        for row in run.rows
        if (row["attack"], row["source"]) == one.key
    }
    for clip_id in ids:
        pair = one.pair(clip_id)
        both = [pair.clean, replace(pair.clean, samples=pair.adversarial)]
        for target in run.summary["targets"]:
            victim, row = run.victims.get(target), rows.get((clip_id, target))
            if victim is None or row is None:
                absent.add(target)
                continue
            for name, logits in zip(
                ("clean", "adversarial"), probes.logits_of(victim, both), strict=True
            ):
                told, count = str(row[f"{name}_prediction"]), count + 1
                if not _answers(victim, logits, told):
                    wrong.append(
                        f"{clip_id}: {target} answers {victim.labels[int(logits.argmax())]} to the "
                        f"{name} file, results.parquet says {told}"
                    )
    if not count:
        return _absent("predictions", one.name, ", ".join(sorted(absent)))
    return _verdict(
        "predictions", one.name, wrong, count, "the victims answer again as the results say", _AGAIN
    )


def _answers(victim: Victim, logits: NDArray[np.float64], told: str) -> bool:
    """Whether ``told`` is the answer, or ties with it within the rounding of another machine."""
    if told not in victim.labels:
        return False
    reach = 1e-3 * max(float(logits.max() - logits.min()), 1e-9)
    return bool(logits[victim.labels.index(told)] >= logits.max() - reach)


def rates(run: Finished) -> Check:
    """Each rate of the summary, counted anew from the rows by its definition.

    Fooling is a changed answer, over all clips; attack success a right answer made wrong, over the
    clips that were right; so an error on the clean clip counts in neither.
    """
    wrong = []
    for cell in run.cells:
        place = f"{cell['attack']} from {cell['source']} on {cell['target']}"
        for name, (value, count) in counted(run.of(cell), run.summary["targets"]).items():
            told = cell[name]
            if told["count"] != count or not _equal(told["value"], value):
                wrong.append(
                    f"{name} of {place} is {_shown(told['value'])} of {told['count']} in "
                    f"summary.json, {_shown(value)} of {count} by its definition"
                )
    return _verdict(
        "rates", "", wrong, 6 * len(run.cells),
        "every rate is what its definition gives from the rows",
        "Evaluate again: fooled means that the answer changed, whatever the label",
    )  # fmt: skip


def counted(
    rows: Sequence[Mapping[str, Any]], targets: Mapping[str, Any]
) -> dict[str, tuple[float | None, int]]:
    """Value and number of clips of each rate, from the rows of one cell."""
    known = [r for r in rows if r["label"] in targets[r["target"]]["labels"]]
    truth, before, after = (
        np.array([str(r[key]) for r in known])
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    changed = [r["clean_prediction"] != r["adversarial_prediction"] for r in rows]
    lost = (after != truth)[before == truth]
    return {
        "fooling_rate": (_mean(changed), len(rows)),
        "attack_success_rate": (_mean(lost), len(lost)),
        "accuracy_before": (_mean(before == truth), len(known)),
        "accuracy_after": (_mean(after == truth), len(known)),
        "uar_before": (metrics.uar(truth, before) if known else None, len(known)),
        "uar_after": (metrics.uar(truth, after) if known else None, len(known)),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _equal(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= 1e-9


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.2f} %"


def accuracy(run: Finished, name: str) -> Check:
    """See ``probes.clean_accuracy``: over each test clip once."""
    own = {str(r["id"]): r for r in run.rows if r["target"] == name and r["label"]}
    if not own:
        return Check(
            name="clean_accuracy", subject=name, verdict="skipped",
            explanation="the results hold no labelled clip for it",
        )  # fmt: skip
    columns = ([str(row[key]) for row in own.values()]
               for key in ("label", "clean_prediction", "speaker"))  # fmt: skip
    return probes.clean_accuracy(name, *columns)


def beats_control(run: Finished, one: Made) -> Check:
    """On its own source a stored attack fools no fewer clips than a control (noise, one universal
    vector) that changes as many samples by as much, and no fewer than a stored black-box attack.

    Two sets are compared on the clips that both hold.
    """
    attack, source = one.key
    own = _fooled(run, one.key, source)
    figures: dict[str, probes.Figure] = {"fooled": _mean(list(own.values()))}
    losing, level = [], []
    for other in run.sets.values():
        weaker = other.algorithm in (*CONTROLS, *probes.BLACK_BOX)
        if other is one or other.key[1] != source or not weaker or not _no_more(other, one):
            continue
        theirs = _fooled(run, other.key, source)
        ids = sorted(own.keys() & theirs.keys())
        if not ids:
            continue
        a, b = (np.array([hits[i] for i in ids], dtype=bool) for hits in (own, theirs))
        figures[other.key[0]] = _mean(b)
        if probes.p_worse(b, a) < probes.ALPHA:
            losing.append(other.key[0])
        elif a.mean() <= b.mean():
            level.append(other.key[0])
    verdict: Verdict = "fail" if losing else "warn" if level else "pass"
    if len(figures) == 1 or one.algorithm in probes.BLACK_BOX:
        verdict = "skipped"
    return Check(
        name="beats_control",
        subject=one.name,
        verdict=verdict,
        figures=figures,
        explanation={
            "fail": f"{attack} fools fewer clips of {source} than {', '.join(losing)}, which knows less",
            "warn": f"{attack} fools no more clips of {source} than {', '.join(level)}",
            "pass": f"{attack} fools more clips of {source} than what knows less",
            "skipped": "nothing that knows less was given the same budget",
        }[verdict],
        remedy="" if verdict in ("pass", "skipped") else "Train the generator longer or give the attack "
        "more steps, and do not report it as strong",
    )  # fmt: skip


def _fooled(run: Finished, key: Key, target: str) -> dict[str, bool]:
    return {
        str(r["id"]): r["clean_prediction"] != r["adversarial_prediction"]
        for r in run.rows
        if (r["attack"], r["source"], r["target"]) == (*key, target)
    }


def _no_more(weaker: Made, one: Made) -> bool:
    """Whether a set changed, on each clip, no more samples and was allowed no larger epsilon."""
    return weaker.epsilon <= one.epsilon and all(
        int(row["l0"]) <= int(one.rows[i]["l0"]) for i, row in weaker.rows.items() if i in one.rows
    )


def planted_example(victim: Victim, clips: Sequence[Clip]) -> Check:
    """A clip exchanged for one with another answer is counted as fooled, an untouched one is not."""
    told = probes.answers(victim, clips)
    for a, b in permutations(range(len(clips)), 2):
        swapped = audio.fit_length(clips[b].samples, len(clips[a].samples))
        found = probes.answers(victim, [replace(clips[a], samples=swapped)])[0]
        if found != told[a]:
            break
    else:
        return Check(
            name="planted_example", subject=victim.name, verdict="skipped",
            explanation="it gives the same answer to every clip: nothing can be planted",
        )  # fmt: skip
    planted = AdversarialClip(replace(clips[a], id="planted"), swapped, 0.0, 0)
    untouched = AdversarialClip(replace(clips[a], id="untouched"), clips[a].samples, 0.0, 0)
    made = AdversarialSet([planted, untouched], {"attack": "planted", "source": victim.name})
    matrix = transfer_matrix([made], [victim])
    rate = matrix.cells[0]["fooling_rate"]["value"]
    hits = {r["id"]: r["clean_prediction"] != r["adversarial_prediction"] for r in matrix.rows}
    bad = rate != 0.5 or hits != {"planted": True, "untouched": False}
    return Check(
        name="planted_example",
        subject=victim.name,
        verdict="fail" if bad else "pass",
        figures={"fooling_rate": rate, "expected": 0.5},
        explanation="one clip with a planted change of answer and one untouched count as "
        f"{_shown(rate)} fooled",
        remedy="The evaluation or the victim is broken: see the check of determinism"
        if bad
        else "",
    )


# ---------------------------------------------------------------- who knew whom


def weights_hash(victim: Victim) -> str:
    """The sha256 of a victim's tensors, whatever their names."""
    parts = sorted(
        hashlib.sha256(
            f"{tuple(tensor.shape)}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes()
        ).hexdigest()
        for tensor in victim.state_dict().values()
    )
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def white_box_marks(run: Finished, clips: Sequence[Clip]) -> Check:
    """A cell is marked white box where source and target are one function, and nowhere else.

    They are one where their tensors are, or where their logits are equal on the clips.
    """
    hashes = {name: weights_hash(victim) for name, victim in run.victims.items()}
    said = {name: probes.logits_of(victim, clips) for name, victim in run.victims.items()}

    def same(a: str, b: str) -> bool:
        if a == b or (run.victims[a].state_dict() and hashes[a] == hashes[b]):
            return True
        x, y = said[a], said[b]
        return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-4, atol=1e-5))

    wrong = []
    known = [
        c for c in run.cells
        if {*c["source"].split(","), c["target"]} <= run.victims.keys()
    ]  # fmt: skip
    for cell in known:
        one = any(same(member, cell["target"]) for member in cell["source"].split(","))
        if one != bool(cell["white_box"]):
            wrong.append(
                f"{cell['attack']} from {cell['source']} on {cell['target']}: "
                + ("the target is the source's copy and is not marked white box" if one else
                   "is marked white box, but the target is another model")
            )  # fmt: skip
    wrong += list(_other_sources(run))
    if not known:
        return _absent("white_box_marks", "", "of any cell")
    return _verdict(
        "white_box_marks", "", wrong, len(known), "white box is what shares the source's weights",
        "Count a copy of the source as the white box, and take it out of transfer figures",
    )  # fmt: skip


def _other_sources(run: Finished) -> Iterator[str]:
    for kind, place in _learned(run, "generator", "vector"):
        card = storage.read_card(place, kind)
        source = run.folder / "victims" / str(card.get("source"))
        if (source / storage.CARD).is_file():
            now = storage.read_card(source, "victim").get("sha256")
            if now != card.get("source_sha256"):
                yield f"the {kind} {place.name} was trained on other weights of {source.name}"


def _learned(run: Finished, *kinds: str) -> Iterator[tuple[str, Path]]:
    """Kind and folder of what the run trained."""
    for kind in kinds:
        for place in sorted((run.folder / f"{kind}s").glob("*")):
            if (place / storage.CARD).is_file():
                yield kind, place


# ---------------------------------------------------------------- corpus and split


def clean_audio(run: Finished, tell: Tell) -> Check:
    """Each clean file is the corpus's clip on the 16-bit grid, with its label and its speaker."""
    if run.corpus is None:
        return _no_corpus("clean_audio", run)
    known = {utterance.id: utterance for utterance in run.corpus.utterances}
    seconds = run.clip_seconds
    wrong: list[str] = []
    seen: set[tuple[str, str, str, str]] = set()
    for one in run.sets.values():
        for number, clip_id in enumerate(one.rows, start=1):
            clean = one.pair(clip_id).clean
            tell(f"{number}/{len(one.rows)} of {one.name}")
            about = (clip_id, clean.label or "", clean.speaker, audio.content_hash(clean.samples))
            if about in seen:  # the same as in another set, and right there
                continue
            own = known.get(clip_id)
            if own is None:
                wrong.append(f"{clip_id} of {one.name} is not in {run.corpus.name}")
                continue
            wanted = run.corpus.load(own, clean.sample_rate).samples
            if seconds is not None:
                wanted = audio.fit_length(wanted, round(seconds * clean.sample_rate))
            found = [
                f"{clip_id} of {one.name}: {key} is '{is_}', in the corpus '{due}'"
                for key, is_, due in (("label", clean.label or "", own.label or ""),
                                      ("speaker", clean.speaker, own.speaker))
                if is_ != due
            ]  # fmt: skip
            if not np.array_equal(wanted, clean.samples):
                found.append(f"{clip_id} of {one.name}: its clean file is not the corpus's clip")
            wrong += found
            if not found:
                seen.add(about)
    return _verdict(
        "clean_audio", "", wrong, sum(len(one.rows) for one in run.sets.values()),
        "clean files, labels and speakers are those of the corpus", _AGAIN,
    )  # fmt: skip


def split(run: Finished, tell: Tell) -> Check:
    """No speaker and no recording in two parts; the test clips are tested; all cards name this split.

    Where the classes are the speakers, each is in every part, and no content may be in two.
    """
    if run.corpus is None:
        return _no_corpus("split", run)
    parts = run.corpus.split(run.seed, run.protocol)
    wrong = list(_wrong_cards(run, parts[0].split_hash))
    tested = {u.id for u in parts[2].utterances}
    for one in run.sets.values():
        outside = sorted(one.rows.keys() - tested)
        if outside:
            wrong.append(
                f"{len(outside)} clips of {one.name} are not of the test part ({outside[0]})"
            )
    for a, b in combinations(parts, 2):
        shared = sorted({a.unit(u) for u in a.utterances} & {b.unit(u) for u in b.utterances})
        if shared:
            wrong.append(f"the {a.apart[:-1]} {shared[0]} is in {a.part} and {b.part}")
    wrong += shared_recordings(parts, tell)
    return _verdict(
        "split", "", wrong, len(run.corpus),
        f"no {run.corpus.apart[:-1]} and no recording is in two parts, and every card names this split",
        "Take the copies out of the corpus, train and evaluate again",
    )  # fmt: skip


def _unlabelled_told(place: Path) -> Mapping[str, Any]:
    """What a generator's card tells of audio that trained it and is not of its corpus."""
    inputs = storage.read_card(place, "generator").get("inputs")
    told = inputs.get("unlabelled") if isinstance(inputs, dict) else None
    return told if isinstance(told, dict) else {}


def unlabelled(run: Finished, place: Path, tell: Tell) -> Check:
    """The list of unlabelled clips that trained a generator is the one its card sums up, and none of
    them is a clip of the dev or test part, sample by sample."""
    if run.corpus is None:
        return _no_corpus("unlabelled", run)
    told, listed = _unlabelled_told(place), place / results.UNLABELLED
    rows = results.read_table(listed, ("id", "from", "seconds", "sha256"))
    hashes = [row["sha256"] for row in rows]
    every = hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()
    wrong = []
    if told.get("sha256") != every or told.get("clips") != len(rows):
        wrong.append(
            f"{listed.name} lists {len(rows)} clips ({every[:12]}), the card {told.get('clips')} "
            f"({str(told.get('sha256'))[:12]})"
        )
    held_out = _held_out(run, tell)
    wrong += [
        f"{row['id']} of {row['from']} is {held_out[row['sha256']]}"
        for row in rows
        if row["sha256"] in held_out
    ]
    return _verdict(
        "unlabelled", place.name, wrong, len(rows),
        f"{len(rows)} unlabelled clips are those of the card, none of dev or test by its samples; who "
        "speaks in them is not known",
        "Train the generator again, without clips of dev and test",
    )  # fmt: skip


def _held_out(run: Finished, tell: Tell) -> dict[str, str]:
    """The hash of each clip of dev and test, at each rate of the run's victims -> its name."""
    assert run.corpus is not None, "asked for by its check"
    _, *parts = run.corpus.split(run.seed, run.protocol)
    rates = sorted({victim.sample_rate for victim in run.victims.values()})
    clips = [(rate, part, u) for rate in rates for part in parts for u in part.utterances]
    found: dict[str, str] = {}
    for number, (rate, part, utterance) in enumerate(clips, start=1):
        tell(f"{number}/{len(clips)}")
        with suppress(UnusableClip):
            samples = part.load(utterance, rate).samples
            found[audio.content_hash(samples)] = f"{utterance.id} of the {part.part} part"
    return found


def _wrong_cards(run: Finished, wanted: str) -> Iterator[str]:
    found = {}
    for kind, place in _learned(run, "victim", "generator", "vector"):
        inputs = storage.read_card(place, kind).get("inputs")
        found[f"the {kind} {place.name}"] = (
            inputs.get("split") if isinstance(inputs, dict) else None
        )
    if (run.folder / storage.CARD).is_file():
        corpus = storage.read_card(run.folder, "run").get("corpus")
        found["the run's card"] = corpus.get("split_hash") if isinstance(corpus, dict) else None
    for name, told in found.items():
        if told != wanted:
            yield f"{name} names the split {str(told)[:12]}, the corpus gives {wanted[:12]}"


def _no_corpus(name: str, run: Finished) -> Check:
    return Check(
        name=name, verdict="skipped", explanation=f"no corpus to compare with: {run.problem}",
        remedy="Pass --corpus KIND:PATH",
    )  # fmt: skip


def shared_recordings(parts: Sequence[Corpus], tell: Tell = lambda what: None) -> list[str]:
    """Recordings that are in two parts: equal, or equal but for gain, shift, trimming or noise.

    A clip is compared with the few of other parts whose average spectrum is nearest to its own.
    """
    rate, bands = 16_000, []
    everyone = [(part, utterance) for part in parts for utterance in part.utterances]
    usable: list[tuple[Corpus, Any]] = []
    hashes: dict[str, tuple[Corpus, Any]] = {}
    wrong = []
    for number, (part, utterance) in enumerate(everyone, start=1):
        tell(f"{number}/{len(everyone)}")
        try:
            samples = part.load(utterance, rate).samples
        except UnusableClip:
            continue
        usable.append((part, utterance))
        bands.append(_spectrum(samples))
        other, twin = hashes.setdefault(audio.content_hash(samples), (part, utterance))
        if other is not part:
            wrong.append(_copy_found(other, twin.id, part, utterance.id, "equal"))
    number_of = np.array([parts.index(part) for part, _ in usable])
    likeness = np.array(bands) @ np.array(bands).T
    likeness[number_of[:, None] == number_of[None]] = -np.inf
    near = {
        (min(i, int(j)), max(i, int(j)))
        for i in range(len(usable))
        for j in np.argsort(-likeness[i])[:3]
        if likeness[i, j] > 0.9
    }
    for done, (i, j) in enumerate(sorted(near), start=1):
        tell(f"pair {done}/{len(near)}")
        (a, one), (b, two) = usable[i], usable[j]
        found = correlation(a.load(one, rate).samples, b.load(two, rate).samples)
        if found > NEAR_COPY and not any(one.id in w and two.id in w for w in wrong):
            wrong.append(_copy_found(a, one.id, b, two.id, f"correlated by {found:.2f}"))
    return wrong


def _copy_found(a: Corpus, one: str, b: Corpus, two: str, how: str) -> str:
    return f"{one} in {a.part} and {two} in {b.part} are one recording ({how})"


def _spectrum(samples: Samples, bands: int = 64) -> NDArray[np.float64]:
    """Average log spectrum, free of gain: centred and of length 1, ``[T] -> [bands]``."""
    power = np.square(np.abs(np.fft.rfft(samples.astype(np.float64), max(len(samples), 2 * bands))))
    pooled = np.array([chunk.mean() for chunk in np.array_split(power, bands)])
    level = np.log(pooled + 1e-3 * pooled.mean() + 1e-9)
    centred = level - level.mean()
    unit: NDArray[np.float64] = centred / max(float(np.linalg.norm(centred)), 1e-9)
    return unit


def correlation(a: Samples, b: Samples) -> float:
    """The largest normalised cross-correlation of two clips over all shifts, in [0, 1].

    >>> x = np.int16([0, 90, -50, 20, 0, 0])
    >>> round(correlation(x, np.roll(-x // 2, 1)), 1)
    1.0
    """
    from scipy.signal import correlate

    x, y = (one.astype(np.float64) - one.mean() for one in (a, b))
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(np.abs(correlate(x, y, method="fft")).max()) / scale if scale else 0.0
