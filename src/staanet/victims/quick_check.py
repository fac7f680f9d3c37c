"""A quick check of a victim on a few clips before its first use: can its answers be judged?

A model that is wired wrong reads as robust: constant answers never change, a dead gradient stops every
white-box attack. ``check_victim`` refuses what cannot be judged and flags what is doubtful.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from staanet.core import Clip, Victim, answers_to, goal_of, stratified_subset
from staanet.errors import InvalidInput, VictimError
from staanet.victims.ensemble import members_of
from staanet.victims.labels import check_class_labels

CLIPS = 32
"""The largest number of clips that are tried, balanced over labels and speakers."""
REPEATED_CLIPS, GRADIENT_CLIPS = 8, 4
"""How many of them are tried twice, and how many for a gradient."""
MIN_JUDGED = 8
"""Fewer clips say nothing about chance, nor that the answer is always the same."""
_POOL = 2_000
"""The clips are chosen among at most so many, evenly spaced in the list."""
MULTI_LABEL = "multi_label_classification"
REGRESSION = "regression"
_SAME = 1e-6
"""Outputs that differ by less, relative to the largest, count as equal."""
_CHANCE = 0.2
"""A victim is flagged where guessing would do as well with at least this probability."""


@dataclass(frozen=True, slots=True)
class VictimReport:
    """The result of a quick check of a victim."""

    name: str
    sha256: str | None
    clips: int
    flags: tuple[str, ...] = ()
    """Doubts, as sentences; empty if there are none."""

    @property
    def is_doubtful(self) -> bool:
        """Whether figures of this victim establish nothing."""
        return bool(self.flags)


def check_victim(victim: Victim, clips: Sequence[Clip]) -> VictimReport:
    """Tries a victim on a few clips and reports doubts about its answers.

    The labels of a classifier must be two or more different classes. The outputs must be finite, one per label, and
    must depend on the clip. Doubtful are: answers that are not repeated, the same answer to every clip,
    one-hot outputs, probabilities passed as logits, independent outputs of a multi-label model, answers
    no better than guessing, and a gradient that is zero or not finite.

    Args:
        victim: The model; an ensemble is checked member by member.
        clips: Clips at the victim's sample rate, of which equal ones are asked once; those with one of
            its labels are also judged.

    Returns:
        The report; its flags go to tables, cards and verdicts.

    Raises:
        InvalidInput: The victim cannot be judged; the error says why.
    """
    pool = clips[:: max(1, len(clips) // _POOL)]
    long_enough = [clip for clip in pool if len(clip.pcm16) >= victim.minimum_samples]
    distinct = {clip.pcm16.tobytes(): clip for clip in long_enough}.values()
    chosen = stratified_subset(list(distinct), CLIPS)
    flags: list[str] = []
    for member in members_of(victim):
        if member.task == "classification":
            check_class_labels(member.labels, where=member.name)
            _check_problem_type(member)
        answered, outputs, errors = _outputs(member, chosen)
        if errors:
            flags.append(
                f"{member.name}: fails on {len(errors)} of {len(chosen)} clips: {errors[0]}"
            )
        if not outputs:
            _check_errors(member, errors)
            continue
        _check_outputs(member, outputs)
        member_flags = [
            *(_output_flags(outputs) if member.task == "classification" else ()),
            *_repetition_flags(member, answered[:REPEATED_CLIPS], outputs),
            *_chance_flags(member, answered, outputs),
            *_gradient_flags(member, answered[:GRADIENT_CLIPS]),
        ]
        flags += [f"{member.name}: {flag}" for flag in member_flags]
    return VictimReport(victim.name, victim.sha256, len(chosen), tuple(flags))


class CheckedVictims:
    """Keeps the reports of one process, so that each victim is checked once."""

    def __init__(self) -> None:
        self._reports: dict[tuple[str, str], VictimReport] = {}

    def check(self, victim: Victim, clips: Sequence[Clip]) -> VictimReport:
        """The report of ``check_victim``, from memory where this victim was checked before."""
        key = (victim.sha256 or f"object {id(victim)}", victim.name)
        report = self._reports.get(key)
        if report is None or (report.clips == 0 and clips):
            report = self._reports[key] = check_victim(victim, clips)
        return report


# ---------------------------------------------------------------- what cannot be judged


def _check_problem_type(victim: Victim) -> None:
    """Refuse models of transformers that are no classifiers of one class per clip."""
    config = getattr(getattr(victim, "network", None), "config", None)
    problem = getattr(config, "problem_type", None)
    if problem == REGRESSION:
        raise InvalidInput(
            "is a regression model: it answers with numbers and names no class",
            where=victim.name,
            remedy="Give its numbers a tolerance, which makes it a regression victim",
        )
    if problem == MULTI_LABEL:
        raise InvalidInput(
            "is a multi-label model: a clip may have several of its classes, or none",
            where=victim.name,
            remedy="Give a model with one class per clip",
        )


def _outputs(
    victim: Victim, clips: Sequence[Clip]
) -> tuple[list[Clip], list[Tensor], list[VictimError]]:
    """The clips that the victim answers, its outputs for them, and its errors on the others."""
    answered, outputs, errors = [], [], []
    for clip in clips:
        try:
            with torch.inference_mode():
                outputs.append(victim(_waveform(clip, victim)).cpu())
            answered.append(clip)
        except VictimError as problem:
            errors.append(VictimError(problem.what, where=clip.id))
    return answered, outputs, errors


def _check_errors(victim: Victim, errors: Sequence[VictimError]) -> None:
    if errors:
        raise InvalidInput(
            f"fails on each of {len(errors)} clips; the first: {errors[0]}",
            where=victim.name,
            remedy="Correct the model",
        )


def _waveform(clip: Clip, victim: Victim) -> Tensor:
    return torch.as_tensor(clip.samples, dtype=torch.float32)[None].to(victim.device)


def _check_outputs(victim: Victim, outputs: Sequence[Tensor]) -> None:
    expected = [1, len(victim.labels)]
    for output in outputs:
        if list(output.shape) != expected:
            raise InvalidInput(
                f"answers {list(output.shape)} to a clip where {expected} is due: one number per label",
                where=victim.name,
                remedy="Give as many labels as it has classes, and a model with one answer per clip",
            )
        if not bool(torch.isfinite(output).all()):
            raise InvalidInput(
                "answers a clip with numbers that are not finite",
                where=victim.name,
                remedy="Correct the model: such an answer names no class",
            )
    stacked = torch.cat(list(outputs))
    tolerance = _SAME * float(stacked.abs().max().clamp_min(1e-12))
    spread = float((stacked.amax(dim=1) - stacked.amin(dim=1)).max())
    if victim.task == "classification" and spread <= tolerance:
        raise InvalidInput(
            "gives all classes the same number: its answers mean nothing",
            where=victim.name,
            remedy="Name the output that holds one number per class",
        )
    if len(stacked) > 1 and float((stacked - stacked[:1]).abs().max()) <= tolerance:
        raise InvalidInput(
            f"answers the same to each of {len(stacked)} clips: nothing could change its answer",
            where=victim.name,
            remedy="Correct the model, or name another of its outputs",
        )


# ---------------------------------------------------------------- what is doubtful


def _output_flags(outputs: Sequence[Tensor]) -> list[str]:
    stacked = torch.cat(list(outputs))
    answers, flags = stacked.argmax(dim=1), []
    if len(stacked) >= MIN_JUDGED and len(set(answers.tolist())) == 1:
        flags.append(f"gives the same answer to all of {len(stacked)} clips")
    is_share = bool((stacked >= 0).all()) and bool((stacked <= 1).all())
    if len(set(stacked.flatten().tolist())) == 2 and bool(
        (stacked == stacked.amax()).sum(dim=1).eq(1).all()
    ):
        flags.append("answers one-hot: an attack sees no margin, so robustness is not established")
    elif is_share and bool(((stacked.sum(dim=1) - 1).abs() < 1e-3).all()):
        flags.append(
            "answers probabilities where logits are due, which weakens gradients; say that its "
            "outputs are probabilities"
        )
    elif is_share and stacked.shape[1] > 2:
        flags.append("answers independent shares, as a multi-label model does")
    return flags


def _repetition_flags(
    victim: Victim, clips: Sequence[Clip], outputs: Sequence[Tensor]
) -> list[str]:
    repeated, second, _ = _outputs(victim, clips)
    if len(repeated) < len(clips):
        return ["answers a clip and fails on it when asked again"]
    pairs = list(zip(outputs, second, strict=False))
    changed = sum(answers_to(victim, a, b) != answers_to(victim, a, a) for a, b in pairs)
    if changed:
        return [f"answers {changed} of {len(clips)} clips otherwise when asked twice"]
    difference = max(float((a - b).abs().max()) for a, b in pairs)
    if difference > 1e-3 * max(float(output.abs().max()) for output in outputs):
        return ["does not repeat its outputs: two passes of a clip differ"]
    return []


def _chance_flags(victim: Victim, clips: Sequence[Clip], outputs: Sequence[Tensor]) -> list[str]:
    from scipy.stats import binom

    judged = [(c, o) for c, o in zip(clips, outputs, strict=True) if c.label in victim.labels]
    labels = Counter(clip.label for clip, _ in judged)
    if len(labels) < 2 or len(judged) < MIN_JUDGED:
        return []
    correct = sum(victim.labels[int(output.argmax())] == clip.label for clip, output in judged)
    chance = max(labels.values()) / len(judged)  # of always giving the most frequent label
    if float(binom.sf(correct - 1, len(judged), chance)) <= _CHANCE:
        return []
    return [
        f"is no better than chance: {correct} of {len(judged)} clips right where guessing gives "
        f"{math.ceil(chance * len(judged))}; check its labels and its input"
    ]


def _gradient_flags(victim: Victim, clips: Sequence[Clip]) -> list[str]:
    if not victim.differentiable:
        return []
    norms = [_gradient_norm(victim, clip) for clip in clips]
    if not all(math.isfinite(norm) for norm in norms):
        return ["has a gradient that is not finite: attacks that follow it are blind"]
    dead = sum(norm == 0 for norm in norms)
    if 2 * dead >= len(norms) > 0:
        return [f"has a gradient of zero on {dead} of {len(norms)} clips: such attacks are blind"]
    return []


def _gradient_norm(victim: Victim, clip: Clip) -> float:
    """The norm of the gradient of the goal's margin, a Python float; NaN where there is none."""
    x = _waveform(clip, victim).requires_grad_()
    with torch.enable_grad():
        outputs: Any = victim(x)
        if not outputs.requires_grad:
            return 0.0
        margin = goal_of(victim, outputs.detach()).margin(outputs)
        (gradient,) = torch.autograd.grad(margin.sum(), x, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.norm())
