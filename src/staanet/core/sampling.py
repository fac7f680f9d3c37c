"""Random generators per clip, and subsets balanced over labels and speakers."""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from staanet.core.clips import Clip, Utterance

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ClipOrUtterance = TypeVar("ClipOrUtterance", Clip, Utterance)


def clip_generators(x: Tensor, lengths: Tensor | None, seed: int) -> list[torch.Generator]:
    """A source of randomness (on the CPU) for each clip of ``x [B, T]``, from it and the seed alone.

    So a clip meets the same draws whatever batch, order or machine it comes in.
    """
    import torch

    batch, time = x.shape
    generators = []
    for row in range(batch):
        length = time if lengths is None else int(lengths[row])
        generator = (
            torch.Generator()
        )  # it takes no more than 32 bits of a seed: mix both into those
        generator.manual_seed(zlib.crc32(x[row, :length].detach().cpu().numpy().tobytes(), seed))
        generators.append(generator)
    return generators


def stratified_subset(clips: Sequence[ClipOrUtterance], number: int) -> list[ClipOrUtterance]:
    """``number`` of the clips, as even over labels and then speakers as they allow, in their order.

    Which ones depends on ids, labels and speakers alone, and fewer are always among more.

    >>> import numpy as np
    >>> from staanet.core import Clip
    >>> clips = [Clip(str(i), np.zeros(1, np.int16), 8000, "ab"[i > 3], "s") for i in range(6)]
    >>> [clip.label for clip in stratified_subset(clips, 4)]
    ['a', 'a', 'b', 'b']
    """
    candidates = {clip.id: (hashlib.sha256(clip.id.encode()).hexdigest(), clip) for clip in clips}
    labels: Counter[str | None] = Counter()
    speakers: Counter[str] = Counter()
    pairs: Counter[tuple[str | None, str]] = Counter()
    chosen: set[str] = set()
    while candidates and len(chosen) < number:
        _, clip = min(
            candidates.values(),
            key=lambda e: (
                labels[e[1].label],
                pairs[e[1].label, e[1].speaker],
                speakers[e[1].speaker],
                e[0],
            ),
        )
        del candidates[clip.id]
        chosen.add(clip.id)
        labels[clip.label] += 1
        speakers[clip.speaker] += 1
        pairs[clip.label, clip.speaker] += 1
    return [clip for clip in clips if clip.id in chosen]
