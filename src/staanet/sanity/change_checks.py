"""Checks that perturbations are aimed: fooling falls when signs or positions are shuffled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from staanet import audio
from staanet.core import Goal, Targeted, Victim
from staanet.results.adversarial_set import AdversarialClip
from staanet.results.checks import Check, Verdict
from staanet.sanity.probe import ALPHA, BATCH, BLACK_BOX, MIN_CLIPS, answer_goal

VARIANTS = ("set", "flipped", "resigned", "shuffled")
DRAWS = 8
INDIRECT = ("staa", "uap")
"""Attacks that see no gradient of the clip: weak ones may be hard to tell from noise."""
LIMITED = 0.1
"""Changes up to this share of full scale have a direction that matters, even where noise misleads as well."""


def direction(
    victim: Victim,
    pairs: Sequence[AdversarialClip],
    subject: str,
    *,
    algorithm: str = "pgd",
    goal_label: str | None = None,
    seed: int = 0,
) -> Check:
    """Checks that signs and positions matter: an attack's changes mislead its source less when redrawn.

    The source's margins on the set are compared with those after the signs are drawn at random, and
    after the changes are shuffled in time: noise presented as an attack is one more such draw. With
    all signs flipped it must do worse, too. A generator's flipped changes may do as well (a tone upside
    down is a tone), so that for ``staa`` flipping is reported and not judged. Where draws mislead most
    clips by themselves, as changes without a limit on epsilon do, a set that does no better is not
    accused, unless its changes are small.

    Args:
        victim: The source of the set.
        pairs: Some clips of the set.
        subject: The name of the set.
        algorithm: Registry name of the attack.
        goal_label: The class that it aimed at, if any.
        seed: Draws signs and orders.
    """
    rng = np.random.default_rng(seed)
    touched = [pair for pair in pairs if len(pair.support)]
    if len(touched) < MIN_CLIPS:
        return Check(
            name="direction",
            subject=subject,
            verdict="warn" if pairs and not touched else "skipped",
            figures={"touched": len(touched), "count": len(pairs)},
            explanation=f"{len(touched)} of {len(pairs)} clips were changed; {MIN_CLIPS} are the fewest",
            remedy="Give more test clips, raise --clips, or mend an attack that changes nothing",
        )
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in VARIANTS}
    for pair in touched:
        goal: Goal = answer_goal(victim, pair.clean)
        if goal_label is not None:
            goal = Targeted(victim.labels.index(goal_label))
        for name, deltas in _variants(pair.delta, rng).items():
            rows[name].append(_margins(victim, pair, np.stack(deltas), goal))
    margins = {name: np.stack(values) for name, values in rows.items()}
    largest = max(int(np.abs(pair.delta).max()) for pair in touched)
    return _judge(subject, margins, algorithm, is_small=largest <= LIMITED * audio.FULL_SCALE)


def _variants(
    delta: NDArray[np.int32], rng: np.random.Generator
) -> dict[str, list[NDArray[np.int32]]]:
    """Changes ``delta [T]`` as they are, upside down, with other signs, at other places."""
    size = np.abs(delta)
    return {
        "set": [delta],
        "flipped": [-delta],
        "resigned": [rng.choice([-1, 1], len(delta)) * size for _ in range(DRAWS)],
        "shuffled": [rng.permutation(delta) for _ in range(DRAWS)],
    }


def p_one_more_draw(value: NDArray[np.float64], draws: NDArray[np.float64]) -> float:
    """Returns how likely one more draw per clip has as low a sum as ``value [N]``.

    ``draws [N, D]`` are those that there are.

    >>> p_one_more_draw(np.zeros(2), np.array([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]))
    0.5
    """
    from scipy.stats import t

    count, number = draws.shape
    variance = float(draws.var(axis=1, ddof=1).sum()) * (1 + 1 / number)
    distance = float((value - draws.mean(axis=1)).sum())
    if variance == 0:
        return 0.0 if distance < 0 else 1.0
    return float(t.cdf(distance / variance**0.5, count * (number - 1)))


def _judge(
    subject: str, margins: Mapping[str, NDArray[np.float64]], algorithm: str, *, is_small: bool
) -> Check:
    from scipy.stats import wilcoxon

    value, flipped = margins["set"][:, 0], margins["flipped"][:, 0]
    p = {name: p_one_more_draw(value, margins[name]) for name in ("resigned", "shuffled")}
    if algorithm != "staa":
        is_same = bool((value == flipped).all())
        p["flipped"] = (
            1.0 if is_same else float(wilcoxon(value, flipped, alternative="less").pvalue)
        )
    # where large noise misleads most clips anyway, that a set does no better says nothing of the attack
    misleads = {name: float(margins[name].mean()) < 0 for name in p}
    judged = [name for name in p if p[name] < ALPHA or is_small or not misleads[name]]
    figures = {
        **{f"margin_{name}": float(values.mean()) for name, values in margins.items()},
        **{f"p_{name}": value for name, value in p.items()},
        "count": len(value),
    }
    if not judged:
        return Check(
            name="direction",
            subject=subject,
            verdict="skipped",
            figures=figures,
            explanation="changes of this size mislead whatever their signs and places",
            remedy="Look at the random control at the same epsilon and number of samples",
        )
    weak = [name for name in judged if not p[name] < ALPHA]
    verdict: Verdict = "warn" if weak else "pass"
    limits = {
        name: ALPHA if name != "flipped" and algorithm not in INDIRECT else 0.05 for name in p
    }
    if algorithm not in BLACK_BOX and any(not p[name] < limits[name] for name in weak):
        verdict = "fail"  # search by queries is no stronger than it can be
    return Check(
        name="direction",
        subject=subject,
        verdict=verdict,
        figures=figures,
        explanation=f"{' or '.join(weak)}, its changes mislead as much: they look like noise"
        if weak
        else f"{' or '.join(judged)}, its changes mislead less",
        remedy="Make the set again from the attack that its card names; if it stays so, the attack is no "
        "stronger than noise and must not be called one"
        if weak
        else "",
    )


def _margins(
    victim: Victim, pair: AdversarialClip, deltas: NDArray[np.int32], goal: Goal
) -> NDArray[np.float64]:
    """The margin with each of ``deltas [V, T]`` added to the clean clip, ``[V]``."""
    limits = np.iinfo(np.int16)
    moved = np.clip(pair.clean.pcm16.astype(np.int32) + deltas, limits.min, limits.max)
    x = torch.from_numpy(audio.to_float(moved.astype(np.int16))).to(victim.device)
    with torch.inference_mode():
        parts = [goal.margin(victim(rows)).double().cpu() for rows in torch.split(x, 2 * BATCH)]
    margins: NDArray[np.float64] = torch.cat(parts).numpy()
    return margins
