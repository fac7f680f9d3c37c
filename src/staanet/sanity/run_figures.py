"""Checks the rates of a run: they follow their definitions, and differ from controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from staanet import audio
from staanet.config import epsilon_order
from staanet.config.fields import PAPER_EPSILON
from staanet.core import Clip, Victim, metrics
from staanet.evaluation import CONTROLS, transfer_matrix
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.cells import ClipResult, Key
from staanet.results.checks import Check, Figure, Verdict
from staanet.results.stored import StoredSet
from staanet.sanity import victim_checks
from staanet.sanity.loaded_run import LoadedRun
from staanet.sanity.probe import ALPHA, BLACK_BOX, answers, p_worse


def rates(run: LoadedRun) -> Check:
    """Recomputes each rate of the summary from the rows by its definition.

    Fooling is a changed answer, over all clips. Attack success is a right answer made wrong, over the
    clips that were right. So an error on the clean clip counts in neither.
    """
    wrong = []
    for cell in run.files.cells:
        rows = run.files.rows_of(cell.key, cell.target)
        name_of_cell = f"{cell.attack} from {cell.source} on {cell.target}"
        for name, (value, count) in count_rates(rows, run.files.labels[cell.target]).items():
            written = getattr(cell, name)
            if written.count != count or not _is_equal(written.value, value):
                wrong.append(
                    f"{name} of {name_of_cell} is {_percent(written.value)} of {written.count} in "
                    f"summary.json, {_percent(value)} of {count} by its definition"
                )
    return Check.list_wrong(
        "rates",
        "",
        wrong,
        6 * len(run.files.cells),
        "every rate is what its definition gives from the rows",
        "Evaluate again: fooled means that the answer changed, whatever the label",
    )


def count_rates(
    rows: Sequence[ClipResult], labels: Sequence[str]
) -> dict[str, tuple[float | None, int]]:
    """Returns value and number of clips of each rate, from the rows of one cell.

    ``labels`` are those that its target can give.
    """
    labelled = [row for row in rows if row.label in labels]
    truth, before, after = (
        np.array([getattr(row, key) for row in labelled], dtype=str)
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    lost = (after != truth)[before == truth]
    return {
        "fooling_rate": (_mean([row.fooled for row in rows]), len(rows)),
        "attack_success_rate": (_mean(lost), len(lost)),
        "accuracy_before": (_mean(before == truth), len(labelled)),
        "accuracy_after": (_mean(after == truth), len(labelled)),
        "uar_before": (metrics.uar(truth, before) if labelled else None, len(labelled)),
        "uar_after": (metrics.uar(truth, after) if labelled else None, len(labelled)),
    }


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _is_equal(a: float | None, b: float | None) -> bool:
    return a is b if a is None or b is None else abs(a - b) <= 1e-9


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.2f} %"


def accuracy(run: LoadedRun, name: str) -> Check:
    """``victim_checks.clean_accuracy`` of the run's answers, over each test clip once."""
    rows = {row.id: row for row in run.files.rows if row.target == name and row.label}.values()
    if not rows:
        return Check.skip("clean_accuracy", name, "the results hold no labelled clip for it")
    columns = (
        [getattr(row, key) for row in rows] for key in ("label", "clean_prediction", "speaker")
    )
    return victim_checks.clean_accuracy(name, *columns)


def beats_control(run: LoadedRun, stored: StoredSet) -> Check:
    """On its source a stored attack fools no fewer clips than what knows less.

    That is a control (noise, one universal vector) or a black-box attack, where it changes no more
    samples by no more. Two sets are compared on the clips that both hold.
    """
    attack, source = stored.key
    hits = _fooled(run, stored.key, source)
    figures: dict[str, Figure] = {"fooled": _mean(list(hits.values()))}
    losing, level = [], []
    for other in run.files.sets.values():
        is_weaker = other.algorithm in (*CONTROLS, *BLACK_BOX)
        if other is stored or other.key[1] != source or not is_weaker:
            continue
        weak = _fooled(run, other.key, source)
        ids = sorted(hits.keys() & weak.keys())
        if not ids or not _changes_no_more(other, stored):
            continue
        a, b = (np.array([values[i] for i in ids], dtype=bool) for values in (hits, weak))
        figures[other.key[0]] = _mean(b)
        if p_worse(b, a) < ALPHA:
            losing.append(other.key[0])
        elif a.mean() <= b.mean():
            level.append(other.key[0])
    verdict: Verdict = "fail" if losing else "warn" if level else "pass"
    if len(figures) == 1 or stored.algorithm in BLACK_BOX:
        verdict = "skipped"
    explanations = {
        "fail": f"{attack} fools fewer clips of {source} than {', '.join(losing)}, which knows less",
        "warn": f"{attack} fools no more clips of {source} than {', '.join(level)}",
        "pass": f"{attack} fools more clips of {source} than what knows less",
        "skipped": "nothing that knows less was given the same budget",
    }
    remedy = (
        "Train the generator longer or give the attack more steps, and do not report it as strong"
    )
    return Check(
        name="beats_control",
        subject=stored.name,
        verdict=verdict,
        figures=figures,
        explanation=explanations[verdict],
        remedy=remedy if verdict in ("fail", "warn") else "",
    )


def _fooled(run: LoadedRun, key: Key, target: str) -> dict[str, bool]:
    return {row.id: row.fooled for row in run.files.rows_of(key, target)}


def _changes_no_more(weaker: StoredSet, stored: StoredSet) -> bool:
    """Whether a set was allowed no larger epsilon, and changed on each clip no more samples."""
    epsilons = [each.budget.epsilon if each.budget else PAPER_EPSILON for each in (weaker, stored)]
    orders = [epsilon_order(epsilon) for epsilon in epsilons]
    return (
        orders[0][0] == orders[1][0]
        and orders[0] <= orders[1]
        and all(
            int(row["l0"]) <= int(stored.rows[i]["l0"])
            for i, row in weaker.rows.items()
            if i in stored.rows
        )
    )


def planted_example(victim: Victim, clips: Sequence[Clip]) -> Check:
    """A clip exchanged for one with another answer is counted as fooled, an untouched one is not."""
    clean = answers(victim, clips)
    for a, b in permutations(range(len(clips)), 2):
        swapped = audio.fit_length(clips[b].pcm16, len(clips[a].pcm16))
        if answers(victim, [replace(clips[a], pcm16=swapped)])[0] != clean[a]:
            break
    else:
        return Check.skip(
            "planted_example",
            victim.name,
            "it gives the same answer to every clip: nothing can be planted",
        )
    planted = AdversarialClip(replace(clips[a], id="planted"), swapped, 0.0, 0)
    untouched = AdversarialClip(replace(clips[a], id="untouched"), clips[a].pcm16, 0.0, 0)
    card: Mapping[str, Any] = {"attack": "planted", "source": victim.name}
    matrix = transfer_matrix([AdversarialSet([planted, untouched], card)], [victim])
    rate = matrix.cells[0]["fooling_rate"]["value"]
    fooled = {
        row["id"]: row["clean_prediction"] != row["adversarial_prediction"] for row in matrix.rows
    }
    return Check.judge(
        "planted_example",
        victim.name,
        is_wrong=rate != 0.5 or fooled != {"planted": True, "untouched": False},
        figures={"fooling_rate": rate, "expected": 0.5},
        explanation="one clip with a planted change of answer and one untouched count as "
        f"{_percent(rate)} fooled",
        remedy="The evaluation or the victim is broken: see the check of determinism",
    )
