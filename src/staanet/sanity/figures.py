"""Are rates what their definitions give, and do they say what they seem to? Counts, controls, a planted case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from staanet import audio, sanity
from staanet.core import Clip, Victim, metrics
from staanet.evaluation import CONTROLS, transfer_matrix
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.sanity import Check, Verdict
from staanet.sanity.run_folder import Finished, Key, Made
from staanet.sanity.verdicts import judged


def rates(run: Finished) -> Check:
    """Each rate of the summary, counted anew from the rows by its definition.

    Fooling is a changed answer, over all clips; attack success a right answer made wrong, over the
    clips that were right; so an error on the clean clip counts in neither.
    """
    wrong = []
    for cell in run.cells:
        attack, source, target = cell["attack"], cell["source"], cell["target"]
        rows, place = run.of(attack, source, target), f"{attack} from {source} on {target}"
        for name, (value, count) in counted(rows, run.summary["targets"]).items():
            told = cell[name]
            if told["count"] != count or not _equal(told["value"], value):
                wrong.append(
                    f"{name} of {place} is {_shown(told['value'])} of {told['count']} in "
                    f"summary.json, {_shown(value)} of {count} by its definition"
                )
    return judged(
        "rates",
        "",
        wrong,
        6 * len(run.cells),
        "every rate is what its definition gives from the rows",
        "Evaluate again: fooled means that the answer changed, whatever the label",
    )


def counted(
    rows: Sequence[Mapping[str, Any]], targets: Mapping[str, Any]
) -> dict[str, tuple[float | None, int]]:
    """Value and number of clips of each rate, from the rows of one cell."""
    known = [r for r in rows if r["label"] in targets[r["target"]]["labels"]]
    truth, before, after = (
        np.array([str(r[key]) for r in known])
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    changed = list(map(_changed, rows))
    lost = (after != truth)[before == truth]
    return {
        "fooling_rate": (_mean(changed), len(rows)),
        "attack_success_rate": (_mean(lost), len(lost)),
        "accuracy_before": (_mean(before == truth), len(known)),
        "accuracy_after": (_mean(after == truth), len(known)),
        "uar_before": (metrics.uar(truth, before) if known else None, len(known)),
        "uar_after": (metrics.uar(truth, after) if known else None, len(known)),
    }


def _changed(row: Mapping[str, Any]) -> bool:
    return bool(row["clean_prediction"] != row["adversarial_prediction"])


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
            name="clean_accuracy",
            subject=name,
            verdict="skipped",
            explanation="the results hold no labelled clip for it",
        )
    columns = (
        [str(row[key]) for row in own.values()] for key in ("label", "clean_prediction", "speaker")
    )
    return sanity.clean_accuracy(name, *columns)


def beats_control(run: Finished, one: Made) -> Check:
    """On its own source a stored attack fools no fewer clips than a control (noise, one universal
    vector) that changes as many samples by as much, and no fewer than a stored black-box attack.

    Two sets are compared on the clips that both hold.
    """
    attack, source = one.key
    own = _fooled(run, one.key, source)
    figures: dict[str, sanity.Figure] = {"fooled": _mean(list(own.values()))}
    losing, level = [], []
    for other in run.sets.values():
        weaker = other.algorithm in (*CONTROLS, *sanity.BLACK_BOX)
        if other is one or other.key[1] != source or not weaker or not _no_more(other, one):
            continue
        theirs = _fooled(run, other.key, source)
        ids = sorted(own.keys() & theirs.keys())
        if not ids:
            continue
        a, b = (np.array([hits[i] for i in ids], dtype=bool) for hits in (own, theirs))
        figures[other.key[0]] = _mean(b)
        if sanity.p_worse(b, a) < sanity.ALPHA:
            losing.append(other.key[0])
        elif a.mean() <= b.mean():
            level.append(other.key[0])
    verdict: Verdict = "fail" if losing else "warn" if level else "pass"
    if len(figures) == 1 or one.algorithm in sanity.BLACK_BOX:
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
        remedy=""
        if verdict in ("pass", "skipped")
        else "Train the generator longer or give the attack "
        "more steps, and do not report it as strong",
    )


def _fooled(run: Finished, key: Key, target: str) -> dict[str, bool]:
    return {str(row["id"]): _changed(row) for row in run.of(*key, target)}


def _no_more(weaker: Made, one: Made) -> bool:
    """Whether a set changed, on each clip, no more samples and was allowed no larger epsilon."""
    return weaker.epsilon <= one.epsilon and all(
        int(row["l0"]) <= int(one.rows[i]["l0"]) for i, row in weaker.rows.items() if i in one.rows
    )


def planted_example(victim: Victim, clips: Sequence[Clip]) -> Check:
    """A clip exchanged for one with another answer is counted as fooled, an untouched one is not."""
    told = sanity.answers(victim, clips)
    for a, b in permutations(range(len(clips)), 2):
        swapped = audio.fit_length(clips[b].pcm16, len(clips[a].pcm16))
        found = sanity.answers(victim, [replace(clips[a], pcm16=swapped)])[0]
        if found != told[a]:
            break
    else:
        return Check(
            name="planted_example",
            subject=victim.name,
            verdict="skipped",
            explanation="it gives the same answer to every clip: nothing can be planted",
        )
    planted = AdversarialClip(replace(clips[a], id="planted"), swapped, 0.0, 0)
    untouched = AdversarialClip(replace(clips[a], id="untouched"), clips[a].pcm16, 0.0, 0)
    made = AdversarialSet([planted, untouched], {"attack": "planted", "source": victim.name})
    matrix = transfer_matrix([made], [victim])
    rate = matrix.cells[0]["fooling_rate"]["value"]
    hits = {row["id"]: _changed(row) for row in matrix.rows}
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
