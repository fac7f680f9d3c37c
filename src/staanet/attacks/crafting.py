"""The only road from an attack to audio: checks its promise, rounds to 16 bit, proves the budget."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from staanet.core import Attack, Clip, Corpus, Goal, Progress, Targeted, Untargeted, Victim, silent
from staanet.errors import BudgetExceeded, InvalidInput, UnusableClip, VictimError
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet


def craft(
    attack: Attack,
    source: Victim,
    clips: Corpus | Iterable[Clip],
    *,
    label: str | None = None,
    batch_size: int = 1,
    progress: Progress = silent,
) -> AdversarialSet:
    """Attack each clip, and return the clean and adversarial audio on the 16-bit grid.

    The goal is to change the source's own clean answer, or, with ``label``, to reach that class.
    ``seconds`` of a clip is the time of its batch, shared equally; it is the time of one clip at a
    batch of one. Raises ``BudgetExceeded`` where an attack breaks its promise, ``InvalidInput``
    where a clip does not fit the source. A clip on which a Python victim raises an error is listed in
    the card under ``quarantined``, and the others go on.
    """
    wanted = list(clips.clips(source.sample_rate) if isinstance(clips, Corpus) else clips)
    done: list[AdversarialClip] = []
    quarantined: list[dict[str, str]] = []
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        done += _craft_or_skip(attack, source, batch, label, quarantined)
        progress("attack", len(done), len(wanted), "")
    if quarantined and not done:
        raise InvalidInput(
            f"no clip could be attacked; the first: {quarantined[0]['reason']}",
            where=quarantined[0]["id"],
            remedy="Correct the victim",
        )
    card: dict[str, Any] = {"attack": type(attack).__name__.lower(), "source": source.name}
    if quarantined:
        card["quarantined"] = quarantined
    return AdversarialSet(done, card)


def _craft_or_skip(
    attack: Attack,
    source: Victim,
    clips: Sequence[Clip],
    label: str | None,
    quarantined: list[dict[str, str]],
) -> list[AdversarialClip]:
    """Craft a batch, or, where the source raises an error on it, each clip alone; the rest is noted."""
    try:
        return craft_batch(attack, source, clips, label=label)
    except VictimError as problem:
        if len(clips) == 1:
            clip_id = clips[0].id
            quarantined.append({"id": clip_id, "file": clip_id, "reason": problem.what})
            return []
    single = [_craft_or_skip(attack, source, [clip], label, quarantined) for clip in clips]
    return [pair for pairs in single for pair in pairs]


def craft_batch(
    attack: Attack, source: Victim, clips: Sequence[Clip], *, label: str | None = None
) -> list[AdversarialClip]:
    """Attack a few clips as one padded batch; see ``craft``.

    An attack with ``needs_answer`` of False never iterations at what the source answers to a clean clip, so
    the source is not asked: its goal is untargeted, of label -1, of which no margin can be taken.
    """
    device = source.device
    x, lengths = collate(clips, source)
    goal = _goal(attack, source, x, lengths, label)
    with _QueryCounter(source) as count:
        _synchronise(device)
        begun = time.perf_counter()
        x_adv = attack(source, x, goal, lengths)
        _synchronise(device)
        seconds = (time.perf_counter() - begun) / len(clips)
    return [
        AdversarialClip(
            clean=clip,
            adversarial=_proven(attack, clip, x_adv[row]),
            seconds=seconds,
            queries=count.queries // len(clips),
            target_class=label,
        )
        for row, clip in enumerate(clips)
    ]


def collate(clips: Sequence[Clip], source: Victim) -> tuple[Tensor, Tensor | None]:
    """Clips as ``[B, T]`` padded with zeros and their ``lengths [B]``, None where all are equal.

    Both are on the source's device.
    """
    for clip in clips:
        if clip.sample_rate != source.sample_rate:
            raise InvalidInput(
                f"is {clip.sample_rate} Hz but {source.name} expects {source.sample_rate} Hz",
                where=clip.id,
                remedy="Load it at the victim's rate",
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
    """What a victim answers to each clip alone, ``[N, K]``.

    ``InvalidInput`` where that is NaN: whatever is done to the clip, the same class would seem to be meant.
    """
    rows = []
    with torch.inference_mode():
        for clip in clips:
            rows.append(victim(*collate([clip], victim))[0].double().cpu().numpy())
            if np.isnan(rows[-1]).any():
                raise InvalidInput(
                    f"{victim.name} answers with numbers that are none (NaN)",
                    where=clip.id,
                    remedy="Give another model, or train it again",
                )
    return np.stack(rows)


def _goal(
    attack: Attack, source: Victim, x: Tensor, lengths: Tensor | None, label: str | None
) -> Goal:
    if label is not None:
        if label not in source.labels:
            raise InvalidInput(
                f"{source.name} knows no class '{label}'",
                remedy=f"Known: {', '.join(source.labels)}",
            )
        return Targeted(source.labels.index(label))
    if not getattr(attack, "needs_answer", True):
        return Untargeted(-1)
    with torch.inference_mode():
        answer = source(x, lengths).argmax(dim=1)
    return Untargeted(answer.clone())


def _proven(
    attack: Attack, clip: Clip, x_adv: Tensor
) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    raw = x_adv[: len(clip.pcm16)].detach().cpu().numpy()
    if not np.isfinite(raw).all():
        raise BudgetExceeded(
            f"{type(attack).__name__} returned {int((~np.isfinite(raw)).sum())} non-finite samples",
            where=clip.id,
            remedy="This is a fault of the attack, not of the clip",
        )
    adversarial = attack.budget.project(clip.pcm16, raw)
    broken = attack.budget.violations(clip.pcm16, adversarial)
    if broken:
        raise BudgetExceeded(
            f"{type(attack).__name__}: {'; '.join(broken)}",
            where=clip.id,
            remedy="This is a fault of the attack, not of the clip",
        )
    return adversarial


@dataclass
class _QueryCounter:
    """Counts the clips that pass through a victim, padding and gradients aside; a mean over draws is
    as many."""

    source: Victim
    queries: int = field(default=0, init=False)

    def __enter__(self) -> _QueryCounter:
        def seen(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.queries += len(inputs[0]) * self.source.forward_passes

        self.handle = self.source.register_forward_pre_hook(seen)
        return self

    def __exit__(self, *exception: object) -> None:
        self.handle.remove()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
