"""What adversarial audio does to each target: the transfer matrix, from the files on disk.

Every figure is computed from the 16-bit audio; nothing is taken from the attack's own word. Clips
without movement (digital silence, constant, one click) cannot reach this far: they are put aside
when a corpus is read.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from staanet.attacks import collate
from staanet.core import NO_CHANNEL, Progress, Victim, metrics, silent
from staanet.core.metrics import Estimate
from staanet.defences import Defended, chain_of
from staanet.errors import InvalidInput, printable
from staanet.evaluation.perceptual import Score
from staanet.results.adversarial_set import TARGET_CLASS, AdversarialClip, AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix
from staanet.storage import describe_machine
from staanet.transforms.channels import Channel, clip_seed, parse_channel

CONTROLS = ("random", "uap")
"""What an attack has to beat: noise, and one universal vector for all clips."""
Listen = Callable[[AdversarialClip], Mapping[str, Score]]
"""Such as ``perception.panel`` on a pair; slow, so that a caller may remember what it heard."""
DISTANCES = ("l0", "density", "linf", "snr_db", "peak_ratio_db")


def check_names(targets: Sequence[Victim], sets: Sequence[AdversarialSet] = ()) -> None:
    """``InvalidInput`` where two targets, or two sets, have one name: rows and cells are told apart by
    it, so that they would be counted together.

    >>> check_names([Victim(name="v", labels=["a", "b"])] * 2)
    Traceback (most recent call last):
    staanet.errors.InvalidInput: 2 targets are called 'v': ...
    """
    for what, found, remedy in (
        (
            "targets are called",
            [one.name for one in targets],
            "Leave one out, or make it anew with --name (staanet defend, staanet harden)",
        ),
        (
            "sets are of",
            [f"{one.attack} from {one.source}" for one in sets],
            "Evaluate each apart, into a folder of its own",
        ),
    ):
        for name, count in Counter(found).items():
            if count > 1:
                raise InvalidInput(
                    f"{count} {what} '{printable(name)}': their figures could not be told apart",
                    remedy=remedy,
                )


def transfer_matrix(
    sets: Sequence[AdversarialSet],
    targets: Sequence[Victim],
    *,
    channels: Sequence[str] = (),
    listen: Listen | None = None,
    progress: Progress = silent,
) -> TransferMatrix:
    """Every set against every target: predictions per clip, rates with 95 % intervals per cell.

    A cell is white box where the target is the set's source, or one of several. Clips whose label a target does not
    know count for the fooling rate and not for accuracy, UAR or attack success.

    Each of ``channels`` (``NAME[:SETTING]``) adds the same matrix after it: the clean and the
    adversarial clip both pass, and a changed answer is one that differs from the clean clip's after
    the same channel. Distances stay those of the files. ``listen`` adds how each clip sounds, to its
    rows and as means per set. Raises ``InvalidInput`` where two targets, or two sets, have one name.
    """
    check_names(targets, sets)
    ways = {name: parse_channel(name) for name in (NO_CHANNEL, *channels)}
    rows: list[dict[str, Any]] = []
    cells = []
    sounds = []
    for one in sets:
        scores = _listened(one, listen, progress) if listen else None
        made = list(_rows(one, targets, ways, scores, progress))
        rows += made
        for name in ways:
            for target in targets:
                own = [r for r in made if (r["target"], r["channel"]) == (target.name, name)]
                cells.append({**_cell(one, target, own), "channel": name})
        if scores is not None:
            sounds.append(
                {"attack": one.attack, "source": one.source, "perceptual": _heard(scores)}
            )
    summary: dict[str, Any] = {
        "schema": 1,
        "targets": {target.name: _about(target) for target in targets},
        "cells": cells,
        "machine": describe_machine(),
        "quarantined": [item for one in sets for item in one.card.get("quarantined", [])],
        "flags": _all_flags(cells),
    }
    if listen:
        summary["sets"] = sounds
    return TransferMatrix(rows, summary)


def _rows(
    one: AdversarialSet,
    targets: Sequence[Victim],
    channels: Mapping[str, Channel],
    scores: Sequence[Mapping[str, Score]] | None,
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    what = f"evaluate {one.attack} from {one.source}"
    for number, clip in enumerate(one, start=1):
        measured = clip.measurements()
        heard = {name: _through(channel, clip) for name, channel in channels.items()}
        for name, target in itertools.product(channels, targets):
            before, after = _probabilities(target, heard[name])
            yield {
                "attack": one.attack,
                "source": one.source,
                "target": target.name,
                "channel": name,
                "id": clip.clean.id,
                "label": clip.clean.label,
                "speaker": clip.clean.speaker,
                "clean_prediction": target.labels[int(before.argmax())],
                "adversarial_prediction": target.labels[int(after.argmax())],
                "clean_probabilities": before.tolist(),
                "adversarial_probabilities": after.tolist(),
                **measured,
                **({TARGET_CLASS: clip.target_class} if clip.target_class else {}),
                **(_columns(scores[number - 1]) if scores is not None else {}),
                **(_abstentions(target, heard[name]) if target.may_abstain else {}),
                "seconds_audio": len(clip.adversarial) / clip.clean.sample_rate,
                "sample_rate": clip.clean.sample_rate,
            }
        progress(what, number, len(one), "")


def _about(target: Victim) -> dict[str, Any]:
    """Its classes and, where it is defended, by what and whom it defends."""
    about: dict[str, Any] = {"labels": list(target.labels)}
    if isinstance(target, Defended):
        about["defended"] = {
            "inner": target.inner.name,
            "chain": [str(one) for one in target.chain],
            "exact_gradient": target.exact_gradient,
            "randomised": target.randomised,
        }
    return about


def knowledge(one: AdversarialSet, target: Victim) -> str:
    """What an attack knew of a target's defence: ``static`` (nothing) or ``adaptive`` (all); empty
    where there is none. A source of the same name behind other defences knew nothing."""
    if not isinstance(target, Defended):
        return ""
    chain = one.card.get("source_defences", chain_of(target))
    return "adaptive" if one.source == target.name and chain == chain_of(target) else "static"


def _listened(one: AdversarialSet, listen: Listen, progress: Progress) -> list[Mapping[str, Score]]:
    what, scores = f"listen to {one.attack} from {one.source}", []
    for number, clip in enumerate(one, start=1):
        scores.append(listen(clip))
        progress(what, number, len(one), "")
    return scores


def _columns(scores: Mapping[str, Score]) -> dict[str, Any]:
    """A column per metric, empty where there is no value, and the reasons in one more."""
    missing = [f"{name}: {score.reason}" for name, score in scores.items() if score.value is None]
    return {name: s.value for name, s in scores.items()} | {"unheard": "; ".join(missing)}


def _heard(scores: Sequence[Mapping[str, Score]]) -> dict[str, Any]:
    """The mean of each metric over the ``count`` of ``of`` clips that have it; why others do not."""
    found = {}
    for name in scores[0] if scores else ():
        values = [v for s in scores if (v := s[name].value) is not None]
        missing = [s[name].reason for s in scores if s[name].value is None]
        reasons = Counter(reason.partition(" (")[0] for reason in missing)
        found[name] = {
            "value": float(np.mean(values)) if values else None,
            "count": len(values),
            "of": len(scores),
            "missing": dict(reasons),
        }
    return found


def _through(channel: Channel, clip: AdversarialClip) -> AdversarialClip:
    """Both clips after one channel, with the same noise and room."""
    rate, seed = clip.clean.sample_rate, clip_seed(clip.clean.id)
    clean = replace(clip.clean, pcm16=channel(clip.clean.pcm16, rate, seed=seed))
    return replace(clip, clean=clean, adversarial=channel(clip.adversarial, rate, seed=seed))


def _probabilities(
    target: Victim, clip: AdversarialClip
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    pair = [clip.clean, replace(clip.clean, pcm16=clip.adversarial)]
    x, _ = collate(pair, target)
    with torch.inference_mode():
        clean, adversarial = torch.softmax(target(x).double(), dim=1).cpu().numpy()
    return clean, adversarial


def _abstentions(target: Victim, clip: AdversarialClip) -> dict[str, bool]:
    """Whether a victim with a detector answers the clip at all, before and after."""
    x, _ = collate([clip.clean, replace(clip.clean, pcm16=clip.adversarial)], target)
    with torch.inference_mode():
        clean, adversarial = target.abstains(x).tolist()
    return {"clean_abstained": clean, "adversarial_abstained": adversarial}


def _told_apart(
    rows: Sequence[Mapping[str, Any]], fooled: Any, speakers: Sequence[str]
) -> dict[str, Any]:
    """Of a target that may abstain: how often it does, and how often it is fooled and answers."""
    if not rows or "adversarial_abstained" not in rows[0]:
        return {}
    silent_after = np.array([row["adversarial_abstained"] for row in rows])
    silent_before = np.array([row["clean_abstained"] for row in rows])
    unseen = np.asarray(fooled, dtype=bool) & ~silent_after
    return {
        "abstention": {
            "clean": _estimate(metrics.rate(silent_before, speakers)),
            "adversarial": _estimate(metrics.rate(silent_after, speakers)),
            "fooling_rate_answered": _estimate(metrics.rate(unseen, speakers)),
        }
    }


def recounted(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> TransferMatrix:
    """The matrix of ``rows``, in the cells (attack, source, target, channel) of ``summary``.

    For rows that were evaluated in parts: every rate, interval, mean and flag is computed anew.
    """
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(tuple(str(row[key]) for key in PLACE), []).append(row)
    cells = []
    for cell in summary["cells"]:
        own = found.get(tuple(str(cell[key]) for key in PLACE), [])
        labels = summary["targets"][cell["target"]]["labels"]
        counted = {**{key: cell[key] for key in ABOUT}, **_statistics(own, labels)}
        cells.append({**counted, "channel": cell["channel"]})
    whole = {**summary, "cells": cells, "flags": _all_flags(cells)}
    if "sets" in summary:
        whole["sets"] = [{**one, "perceptual": _heard_again(one, rows)} for one in summary["sets"]]
    return TransferMatrix(rows, whole)


PLACE = ("attack", "source", "target", "channel")
ABOUT = (
    "attack",
    "title",
    "source",
    "target",
    "white_box",
    "defence",
    "algorithm",
    "control",
    "budget",
    "matched",
)
"""What a cell says of its attack and its target, whatever the clips."""


def _heard_again(
    one: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """``_heard`` from the columns that ``_columns`` made, once for each clip."""
    own = [r for r in rows if (r["attack"], r["source"]) == (one["attack"], one["source"])]
    if not own:
        return {}
    first = own[0]["target"], own[0]["channel"]
    scores = []
    for row in (r for r in own if (r["target"], r["channel"]) == first):
        names = "|".join(map(re.escape, one["perceptual"]))
        missing = re.split(rf"; (?=(?:{names}): )", row["unheard"]) if row["unheard"] else []
        reasons = dict(text.split(": ", 1) for text in missing)
        scores.append({n: Score(row[n], reasons.get(n, "")) for n in one["perceptual"]})
    return _heard(scores)


def _cell(one: AdversarialSet, target: Victim, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "attack": one.attack,
        "title": one.card.get("title") or one.attack,
        "source": one.source,
        "target": target.name,
        "white_box": target.name in one.card.get("sources", [one.source])
        and not (one.source == target.name and knowledge(one, target) == "static"),
        "defence": knowledge(one, target),
        "algorithm": one.card.get("algorithm", one.attack),
        "control": one.card.get("algorithm", one.attack) in CONTROLS,
        "budget": one.card.get("budget", {}),
        "matched": one.card.get("matched"),
        **_statistics(rows, target.labels),
    }


def _statistics(rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, Any]:
    """The figures of a cell whose target can give these ``answers``."""
    before = np.array([row["clean_prediction"] for row in rows])
    after = np.array([row["adversarial_prediction"] for row in rows])
    speakers = [row["speaker"] for row in rows]
    labels = [row["label"] for row in rows]
    known = np.array([label in answers for label in labels], dtype=bool)
    fooled = metrics.changed(before, after)
    return {
        "count": len(rows),
        "speakers": len(set(speakers)),
        "fooling_rate": _estimate(metrics.rate(fooled, speakers)),
        **_told_apart(rows, fooled, speakers),
        **_against_labels(labels, before, after, speakers, known),
        **_reached(rows),
        "mean": _means(rows),
        "mean_fooled": _means([row for row, hit in zip(rows, fooled, strict=True) if hit]),
        "untouched": sum(row["l0"] == 0 for row in rows),
        "seconds_median": float(np.median([row["seconds"] for row in rows])) if rows else None,
        "queries_mean": float(np.mean([row["queries"] for row in rows])) if rows else None,
    }


def _against_labels(
    labels: Sequence[str], before: Any, after: Any, speakers: Sequence[str], known: Any
) -> dict[str, Any]:
    truth = np.array([label or "" for label in labels])[known]
    clean, attacked = before[known], after[known]
    who = [speaker for speaker, use in zip(speakers, known, strict=True) if use]
    right = truth == clean
    who_right = [speaker for speaker, use in zip(who, right, strict=True) if use]

    def recall(answers: Any) -> Estimate:
        return metrics.jackknife(lambda i: metrics.uar(truth[i], answers[i]), who)

    return {
        "attack_success_rate": _estimate(metrics.rate(attacked[right] != truth[right], who_right)),
        "uar_before": _estimate(recall(clean)),
        "uar_after": _estimate(recall(attacked)),
        "accuracy_before": _estimate(metrics.rate(truth == clean, who)),
        "accuracy_after": _estimate(metrics.rate(truth == attacked, who)),
    }


def _reached(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an attack that aimed: how often it hit, over the clips that were not there already."""
    if not any(row.get(TARGET_CLASS) for row in rows):
        return {}
    away = [row for row in rows if row["clean_prediction"] != row[TARGET_CLASS]]
    hit = [row["adversarial_prediction"] == row[TARGET_CLASS] for row in away]
    speakers = [row["speaker"] for row in away]
    return {"targeted_success_rate": _estimate(metrics.rate(hit, speakers))}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "count": estimate.count,
        "clusters": estimate.clusters,
    }


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean of each distance over clips; ratios over the clips that were touched at all."""
    means: dict[str, float | None] = {}
    for name in DISTANCES:
        values = [row[name] for row in rows if math.isfinite(row[name])]
        means[name] = float(np.mean(values)) if values else None
    return means


def _all_flags(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    return [*_flags(cells), *_non_adaptive(cells), *_unaware(cells)]


def _flags(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [cell for cell in cells if cell["channel"] == NO_CHANNEL]
    controls = [cell for cell in cells if cell["control"]]
    for cell in cells:
        if cell["count"] and cell["untouched"] == cell["count"]:
            yield f"{cell['title']} from {cell['source']}: mask empty in every clip: SNR undefined"
    beaten: dict[tuple[str, str, str], list[str]] = {}
    for cell, control in itertools.product(cells, controls):
        same = (control["source"], control["target"]) == (cell["source"], cell["target"])
        value, noise = cell["fooling_rate"]["value"], control["fooling_rate"]["value"]
        if same and not cell["control"] and None not in (value, noise) and value <= noise:
            name = "universal vector" if control["algorithm"] == "uap" else "random control"
            if not _changed_far_more(control, cell):
                key = (cell["title"], cell["source"], f"the {name}")
                beaten.setdefault(key, []).append(cell["target"])
    for (title, source, name), targets in beaten.items():
        yield f"{title} from {source} fools {' and '.join(targets)} no more often than {name}"


def _changed_far_more(control: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """More than twice the samples: such a control says nothing of an attack that iterations for few."""
    most, own = control["mean"]["density"], cell["mean"]["density"]
    return most is not None and own is not None and most > 2 * own


def _non_adaptive(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Defended targets that nobody attacked who knew the defence: such a figure is no robustness."""
    for name in dict.fromkeys(cell["target"] for cell in cells if cell["defence"]):
        knowing = [c for c in cells if c["target"] == name and c["defence"] == "adaptive"]
        if all(cell["control"] for cell in knowing):
            yield (
                f"{name}: non-adaptive: no attack here knew the defence, so that this says nothing of "
                "an attacker who does"
            )


def _unaware(cells: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Targets with a detector: a source's answers do not tell an attacker when it abstains."""
    for name in dict.fromkeys(cell["target"] for cell in cells if "abstention" in cell):
        yield (
            f"{name}: non-adaptive: no attack here knew its detector; staanet detect --aware makes one "
            "that does"
        )
