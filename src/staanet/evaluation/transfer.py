"""Computes the transfer matrix: the success of each adversarial set on each target.

Every figure is computed from 16-bit audio; nothing is taken from the attack's own report. Clips
without movement (digital silence, a constant, one click) never reach this module: they are put
aside when a corpus is read.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from staanet.attacks import collate
from staanet.audio.levels import active_level_db
from staanet.core import NO_CHANNEL, Clip, Progress, Victim, answers_to, silent
from staanet.defences import Defended, chain_of
from staanet.errors import InvalidInput, printable
from staanet.evaluation.cells import cell_figures
from staanet.evaluation.comparisons import compare_cells, leading_groups
from staanet.evaluation.controls import CONTROLS, add_above_control
from staanet.evaluation.flags import matrix_flags
from staanet.evaluation.perceptual import Score, score_columns, scores_of_rows, summarise_scores
from staanet.results.adversarial_set import TARGET_CLASS, AdversarialClip, AdversarialSet
from staanet.results.transfer_matrix import TransferMatrix
from staanet.storage import describe_machine
from staanet.transforms import Transform, clip_seed, parse_transform, transform_samples

CELL_KEY = ("attack", "source", "target", "channel")
ATTACK_FIELDS = (
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
"""The attributes of a cell's attack and target, independent of the clips."""
ClipScorer = Callable[[AdversarialClip], Mapping[str, Score]]
"""How one pair sounds, such as ``perceptual.panel``; slow, so that callers remember its results."""


def check_names(targets: Sequence[Victim], sets: Sequence[AdversarialSet] = ()) -> None:
    """Raises ``InvalidInput`` where two targets, or two sets, share a name.

    Rows and cells are told apart by name, so that equal names would be counted together.

    >>> check_names([Victim(name="v", labels=["a", "b"])] * 2)
    Traceback (most recent call last):
    staanet.errors.InvalidInput: 2 targets are called 'v': ...
    """
    for what, names, remedy in (
        (
            "targets are called",
            [target.name for target in targets],
            "Leave one out, or make it anew with --name (staanet defend, staanet harden)",
        ),
        (
            "sets are of",
            [f"{item.attack} from {item.source}" for item in sets],
            "Evaluate each apart, into a folder of its own",
        ),
    ):
        for name, count in Counter(names).items():
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
    scorer: ClipScorer | None = None,
    sexes: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> TransferMatrix:
    """Returns predictions per clip, and rates with 95 % intervals per cell, of sets against targets.

    A cell is white box where the target is the set's source, or one of several.

    Args:
        sets: Adversarial sets, each with a name of its own.
        targets: Victims, each with a name of its own.
        channels: ``NAME[:SETTING]`` each; adds the same matrix after that channel. The clean and the
            adversarial clip both pass it. A changed answer is one that differs from the clean clip's
            answer after the same channel. Distances stay those of the files.
        scorer: Adds how each clip sounds, to its rows and as means per set.
        sexes: Of the speakers, where they are known; adds them to the rows.
        progress: Receives a call per clip.

    Returns:
        The matrix, with a row per clip, target and channel.

    Raises:
        InvalidInput: Two targets, or two sets, have one name, or a channel is unknown.
    """
    check_names(targets, sets)
    parsed = {name: parse_transform(name) for name in (NO_CHANNEL, *channels)}
    rows: list[dict[str, Any]] = []
    cells, sounds, rows_of_cells = [], [], []
    for adversarial in sets:
        scores = _score_clips(adversarial, scorer, progress) if scorer else None
        set_rows = list(_rows(adversarial, targets, parsed, scores, sexes or {}, progress))
        rows += set_rows
        for channel, target in itertools.product(parsed, targets):
            cell_rows = [
                r for r in set_rows if (r["target"], r["channel"]) == (target.name, channel)
            ]
            figures = cell_figures(cell_rows, target.labels)
            cells.append({**_attack_fields(adversarial, target), **figures, "channel": channel})
            rows_of_cells.append(cell_rows)
        if scores is not None:
            means = summarise_scores(scores)
            key = {"attack": adversarial.attack, "source": adversarial.source}
            sounds.append({**key, "perceptual": means})
    summary: dict[str, Any] = {
        "schema": 1,
        "targets": {target.name: _describe(target) for target in targets},
        "cells": cells,
        "machine": describe_machine(),
        "quarantined": [item for each in sets for item in each.card.get("quarantined", [])],
        **_read_across(cells, rows_of_cells),
        "flags": matrix_flags(cells),
    }
    if scorer:
        summary["sets"] = sounds
    return TransferMatrix(rows, summary)


def recount_matrix(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> TransferMatrix:
    """Returns the matrix of ``rows``, in the cells of ``summary``, with every figure recomputed.

    Use it for rows that were evaluated in parts.
    """
    by_cell: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_cell.setdefault(tuple(str(row[key]) for key in CELL_KEY), []).append(row)
    cells, rows_of_cells = [], []
    for cell in summary["cells"]:
        cell_rows = by_cell.get(tuple(str(cell[key]) for key in CELL_KEY), [])
        rows_of_cells.append(cell_rows)
        figures = cell_figures(cell_rows, summary["targets"][cell["target"]]["labels"])
        fields = {key: cell[key] for key in ATTACK_FIELDS}
        cells.append({**fields, **figures, "channel": cell["channel"]})
    across = _read_across(cells, rows_of_cells)
    doubts = [flag for target in summary["targets"].values() for flag in target.get("doubts", ())]
    recounted = {**summary, "cells": cells, **across, "flags": [*matrix_flags(cells), *doubts]}
    if "sets" in summary:
        recounted["sets"] = [
            {**each, "perceptual": _summarised_again(each, rows)} for each in summary["sets"]
        ]
    return TransferMatrix(rows, recounted)


def _read_across(
    cells: Sequence[dict[str, Any]], rows_of_cells: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What only several cells tell: differences between them, which are paired clip by clip."""
    add_above_control(cells, rows_of_cells)
    return {
        "comparisons": compare_cells(cells, rows_of_cells),
        "groups": leading_groups(cells, rows_of_cells),
    }


def _summarised_again(
    sounds: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any]:
    """``summarise_scores`` of one set, from the columns of its rows, each clip once."""
    key = (sounds["attack"], sounds["source"])
    set_rows = [row for row in rows if (row["attack"], row["source"]) == key]
    if not set_rows:
        return {}
    first = set_rows[0]["target"], set_rows[0]["channel"]
    once = [row for row in set_rows if (row["target"], row["channel"]) == first]
    return summarise_scores(scores_of_rows(once, list(sounds["perceptual"])))


def _attack_fields(adversarial: AdversarialSet, target: Victim) -> dict[str, Any]:
    card, defence = adversarial.card, defence_knowledge(adversarial, target)
    algorithm = card.get("algorithm", adversarial.attack)
    is_same_model = adversarial.source != target.name or defence != "static"
    values = (
        adversarial.attack,
        card.get("title") or adversarial.attack,
        adversarial.source,
        target.name,
        _is_source(adversarial, target) and is_same_model,
        defence,
        algorithm,
        algorithm in CONTROLS,
        card.get("budget", {}),
        card.get("matched"),
    )
    return dict(zip(ATTACK_FIELDS, values, strict=True))


def _is_source(adversarial: AdversarialSet, target: Victim) -> bool:
    """Whether the set was crafted on the target: by the name, or by the hash under another name."""
    hashes = adversarial.card.get("inputs", {}).get("sources", {})
    names = adversarial.card.get("sources", [adversarial.source])
    return target.name in names or target.sha256 in hashes.values()


def defence_knowledge(adversarial: AdversarialSet, target: Victim) -> str:
    """Returns an attack's knowledge of a target's defence: ``static`` (nothing) or ``adaptive`` (all).

    The answer is empty where the target has no defence. A source of the same name behind other
    defences knew nothing of these.
    """
    if not isinstance(target, Defended):
        return ""
    chain = adversarial.card.get("source_defences", chain_of(target))
    is_same = adversarial.source == target.name and chain == chain_of(target)
    return "adaptive" if is_same else "static"


def _describe(target: Victim) -> dict[str, Any]:
    """Labels of a target and, where it is defended, by what and whom it defends."""
    description: dict[str, Any] = {"labels": list(target.labels)}
    if target.task == "regression":
        description["tolerance"] = list(target.tolerance)
    if isinstance(target, Defended):
        description["defended"] = {
            "inner": target.inner.name,
            "chain": [str(step) for step in target.chain],
            "exact_gradient": target.exact_gradient,
            "randomised": target.randomised,
        }
    return description


def _score_clips(
    adversarial: AdversarialSet, scorer: ClipScorer, progress: Progress
) -> list[Mapping[str, Score]]:
    what, scores = f"listen to {adversarial.attack} from {adversarial.source}", []
    for number, clip in enumerate(adversarial, start=1):
        scores.append(scorer(clip))
        progress(what, number, len(adversarial), "")
    return scores


def _rows(
    adversarial: AdversarialSet,
    targets: Sequence[Victim],
    channels: Mapping[str, Transform],
    scores: Sequence[Mapping[str, Score]] | None,
    sexes: Mapping[str, str],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    what = f"evaluate {adversarial.attack} from {adversarial.source}"
    for number, clip in enumerate(adversarial, start=1):
        measurements = clip.measurements()
        level = active_level_db(clip.clean.samples, clip.clean.sample_rate)
        received = {name: _apply_channel(channel, clip) for name, channel in channels.items()}
        for name, target in itertools.product(channels, targets):
            outputs = _outputs(target, received[name])
            before, after = answers_to(target, outputs[:1], outputs, clip.target_class)
            yield {
                "attack": adversarial.attack,
                "source": adversarial.source,
                "target": target.name,
                "channel": name,
                "id": clip.clean.id,
                "label": clip.clean.label,
                "speaker": clip.clean.speaker,
                "clean_prediction": before,
                "adversarial_prediction": after,
                **_output_columns(target, outputs),
                **measurements,
                **({TARGET_CLASS: clip.target_class} if clip.target_class else {}),
                **(score_columns(scores[number - 1]) if scores is not None else {}),
                **(_abstentions(target, received[name]) if target.may_abstain else {}),
                "seconds_audio": len(clip.adversarial) / clip.clean.sample_rate,
                "sample_rate": clip.clean.sample_rate,
                "level_db": level,
                **({"sex": sexes.get(clip.clean.speaker, "")} if sexes else {}),
            }
        progress(what, number, len(adversarial), "")


def _apply_channel(channel: Transform, clip: AdversarialClip) -> AdversarialClip:
    """Both clips after one channel, with the same noise and room."""
    rate, seed = clip.clean.sample_rate, clip_seed(clip.clean.id)
    clean, adversarial = (
        transform_samples(channel, pcm16, rate, seed=seed)
        for pcm16 in (clip.clean.pcm16, clip.adversarial)
    )
    return replace(clip, clean=replace(clip.clean, pcm16=clean), adversarial=adversarial)


def _pair(clip: AdversarialClip) -> list[Clip]:
    return [clip.clean, replace(clip.clean, pcm16=clip.adversarial)]


def _outputs(target: Victim, clip: AdversarialClip) -> Tensor:
    """What a target returns for the clean and the adversarial clip, ``[2, K]``."""
    x, _ = collate(_pair(clip), target)
    with torch.inference_mode():
        outputs: Tensor = target(x).double().cpu()
    return outputs


def _output_columns(target: Victim, outputs: Tensor) -> dict[str, list[float]]:
    """The probabilities of the classes before and after, or the numbers of a regression target."""
    what = "values"
    if target.task == "classification":
        what, outputs = "probabilities", torch.softmax(outputs, dim=1)
    return {f"clean_{what}": outputs[0].tolist(), f"adversarial_{what}": outputs[1].tolist()}


def _abstentions(target: Victim, clip: AdversarialClip) -> dict[str, bool]:
    """Whether a victim with a detector answers the clip at all, before and after."""
    x, _ = collate(_pair(clip), target)
    with torch.inference_mode():
        clean, adversarial = target.abstains(x).tolist()
    return {"clean_abstained": clean, "adversarial_abstained": adversarial}
