"""``craft`` runs an attack on clips, rounds its output to 16 bit and proves the budget of every clip."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.audio.levels import active_level_db
from staanet.config import AttackRecipe, default_of
from staanet.core import (
    Attack,
    Budget,
    Clip,
    Corpus,
    Goal,
    Progress,
    Samples,
    Untargeted,
    Victim,
    goal_on,
    silent,
)
from staanet.errors import BudgetExceeded, InvalidInput, UnusableClip, VictimError
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet

DENSE = 0.5
"""Share of a clip's samples beyond which an attack that looks for few samples is called dense."""


def craft(
    attack: Attack,
    source: Victim,
    clips: Corpus | Iterable[Clip],
    *,
    label: str | None = None,
    batch_size: int = default_of(AttackRecipe, "batch_size"),
    progress: Progress = silent,
) -> AdversarialSet:
    """Attacks each clip, and returns the clean and adversarial audio on the 16-bit grid.

    A clip on which a Python victim raises an error is listed in the card under ``quarantined``, and the
    others go on.

    Args:
        attack: The attack, with its budget.
        source: The victim to craft on.
        clips: A corpus, or clips at the source's sample rate.
        label: Answer to reach, such as a class, or ``arousal+``; None: any but the source's own clean one.
        batch_size: Clips in one pass. ``seconds`` of a clip is the time of its batch, shared equally.
        progress: Shows how many clips are done.

    Raises:
        BudgetExceeded: The attack broke its promise.
        InvalidInput: A clip does not fit the source, or the source fails on every clip.
    """
    all_clips = list(clips.clips(source.sample_rate) if isinstance(clips, Corpus) else clips)
    crafted: list[AdversarialClip] = []
    quarantined: list[dict[str, str]] = []
    for start in range(0, len(all_clips), batch_size):
        batch = all_clips[start : start + batch_size]
        crafted += _craft_or_skip(attack, source, batch, label, quarantined)
        progress("attack", len(crafted), len(all_clips), "")
    if quarantined and not crafted:
        raise InvalidInput(
            f"no clip could be attacked; the first: {quarantined[0]['reason']}",
            where=quarantined[0]["id"],
            remedy="Correct the victim",
        )
    card: dict[str, Any] = {
        "attack": type(attack).__name__.lower(),
        "source": source.name,
        "budget": asdict(attack.budget),
    }
    if quarantined:
        card["quarantined"] = quarantined
    densities = [len(clip.support) / len(clip.adversarial) for clip in crafted]
    if flags := density_flags(attack, densities):
        card["flags"] = flags
    return AdversarialSet(crafted, card)


def _craft_or_skip(
    attack: Attack,
    source: Victim,
    clips: Sequence[Clip],
    label: str | None,
    quarantined: list[dict[str, str]],
) -> list[AdversarialClip]:
    """Crafts a batch, or each clip alone where the source raises an error on it; notes those that fail."""
    try:
        return craft_batch(attack, source, clips, label=label)
    except VictimError as error:
        if len(clips) == 1:
            clip_id = clips[0].id
            quarantined.append({"id": clip_id, "file": clip_id, "reason": error.what})
            return []
    single = [_craft_or_skip(attack, source, [clip], label, quarantined) for clip in clips]
    return [pair for pairs in single for pair in pairs]


def craft_batch(
    attack: Attack, source: Victim, clips: Sequence[Clip], *, label: str | None = None
) -> list[AdversarialClip]:
    """Attacks a few clips as one padded batch; see ``craft``.

    An attack whose ``needs_answer`` is False does not use the source's clean prediction, so the source
    is not called for it: the goal is untargeted with label -1, of which no margin can be taken.
    Raises ``UnusableClip`` for a clip so quiet that a relative epsilon is below one 16-bit step.
    """
    device = source.device
    x, lengths = collate(clips, source)
    _require_a_step(attack.budget, clips)
    goal = _goal(attack, source, x, lengths, label)
    with _QueryCounter(source) as counter:
        _synchronise(device)
        start = time.perf_counter()
        x_adv = attack(source, x, goal, lengths)
        _synchronise(device)
        seconds = (time.perf_counter() - start) / len(clips)
    return [
        AdversarialClip(
            clean=clip,
            adversarial=_round_and_check(attack, clip, x_adv[row]),
            seconds=seconds,
            queries=counter.queries // len(clips),
            target_class=label,
        )
        for row, clip in enumerate(clips)
    ]


def density_flags(attack: Attack, densities: Sequence[float]) -> list[str]:
    """Returns a warning where an attack that looks for few samples changed most of them.

    Args:
        attack: Attacks with ``minimises_samples`` can be flagged.
        densities: Share of changed samples of each clip.

    >>> from staanet.attacks import SparseFool
    >>> density_flags(SparseFool(), [1.0, 0.01])
    ['dense: SparseFool changed more than half of the samples of 1 of 2 clips, so it is not sparse there']
    """
    count = sum(density > DENSE for density in densities)
    if not count or not getattr(attack, "minimises_samples", False):
        return []
    return [
        f"dense: {type(attack).__name__} changed more than half of the samples of {count} of "
        f"{len(densities)} clips, so it is not sparse there"
    ]


def collate(clips: Sequence[Clip], source: Victim) -> tuple[Tensor, Tensor | None]:
    """Returns clips as ``[B, T]`` padded with zeros, and their ``lengths [B]``, on the source's device.

    ``lengths`` is None where all are equal. Raises ``InvalidInput`` for a clip at another sample rate,
    and ``UnusableClip`` for one that is too short for the source.
    """
    for clip in clips:
        if clip.sample_rate != source.sample_rate:
            raise InvalidInput(
                f"is {clip.sample_rate} Hz but {source.name} expects {source.sample_rate} Hz",
                where=clip.id,
                remedy=f"Load it at {source.sample_rate} Hz; of a set at another rate, attack the clips anew "
                "from a source of this rate",
            )
        if len(clip.pcm16) < source.minimum_samples:
            raise UnusableClip(
                f"{1000 * len(clip.pcm16) / clip.sample_rate:.1f} ms is shorter than the "
                f"{1000 * source.minimum_samples / source.sample_rate:.1f} ms that {source.name} "
                "needs",
                where=clip.id,
                remedy="Give a longer clip",
            )
    sizes = [len(clip.pcm16) for clip in clips]
    on_gpu = source.device.type == "cuda"  # from pinned memory nobody waits for the copy
    x = torch.zeros(len(clips), max(sizes), pin_memory=on_gpu)
    for row, clip in enumerate(clips):
        x[row, : len(clip.pcm16)] = clip.waveform
    x = x.to(source.device, non_blocking=on_gpu)
    return x, None if min(sizes) == max(sizes) else torch.tensor(sizes, device=source.device)


def logits_of(victim: Victim, clips: Sequence[Clip]) -> NDArray[np.float64]:
    """Returns the logits of each clip alone, ``[N, K]``.

    Raises ``InvalidInput`` where they are NaN: the first class would then be predicted whatever an
    attack does.
    """
    rows = []
    with torch.inference_mode():
        for clip in clips:
            rows.append(victim(*collate([clip], victim))[0].double().cpu().numpy())
            if np.isnan(rows[-1]).any():
                raise InvalidInput(
                    f"{victim.name} returns logits that are no numbers (NaN)",
                    where=clip.id,
                    remedy="Give another model, or train it again",
                )
    return np.stack(rows)


def _require_a_step(budget: Budget, clips: Sequence[Clip]) -> None:
    for clip in clips if budget.is_relative else ():
        if budget.for_clip(clip.pcm16, clip.sample_rate).epsilon_lsb == 0:
            level = active_level_db(clip.samples, clip.sample_rate)
            raise UnusableClip(
                f"epsilon {budget.epsilon} of its speech ({level:.0f} dB of full scale) is below one "
                "16-bit step, so that no sample could change",
                where=clip.id,
                remedy="Give a larger epsilon, or leave the clip out",
            )


def _goal(
    attack: Attack, source: Victim, x: Tensor, lengths: Tensor | None, label: str | None
) -> Goal:
    if label is None and not getattr(attack, "needs_answer", True):
        return Untargeted(-1)
    return goal_on(source, x, lengths, label)


def _round_and_check(attack: Attack, clip: Clip, x_adv: Tensor) -> Samples:
    raw = x_adv[: len(clip.pcm16)].detach().cpu().numpy()
    if not np.isfinite(raw).all():
        raise BudgetExceeded(
            f"{type(attack).__name__} returned {int((~np.isfinite(raw)).sum())} non-finite samples",
            where=clip.id,
            remedy="This is a fault of the attack, not of the clip",
        )
    adversarial = attack.budget.project(clip.pcm16, raw, clip.sample_rate)
    violations = attack.budget.violations(clip.pcm16, adversarial, clip.sample_rate)
    if violations:
        raise BudgetExceeded(
            f"{type(attack).__name__}: {'; '.join(violations)}",
            where=clip.id,
            remedy="This is a fault of the attack, not of the clip",
        )
    return adversarial


@dataclass
class _QueryCounter:
    """Counts the clips that pass through a victim; a randomised victim counts each of its draws."""

    source: Victim
    queries: int = field(default=0, init=False)

    def __enter__(self) -> _QueryCounter:
        def count(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.queries += len(inputs[0]) * self.source.forward_passes

        self.handle = self.source.register_forward_pre_hook(count)
        return self

    def __exit__(self, *exception: object) -> None:
        self.handle.remove()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
