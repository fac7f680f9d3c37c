"""A generator that listens like a classifier and answers along the same path, backwards.

The encoder is a convolutional classifier (convolution, max-pooling, LSTM); the decoder goes back up
through the positions of the encoder's own maxima, as SegNet does (Badrinarayanan et al., 2017,
arXiv 1511.00561), with transposed convolutions. Which sample won its maximum decides the sign and
place of a sample's influence on any such classifier: an ordinary decoder cannot know it.

``staanet.warm_start`` lets it begin as its source; untrained it is a network like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from staanet.core import standardise, valid
from staanet.generator.proposal import Generator, Perturbation, unit_rms

Block = tuple[int, int, int, int]
"""Channels in, channels out, kernel, pool of one convolution block."""

ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "leaky_relu": (F.leaky_relu, lambda z: torch.where(z > 0, 1.0, 0.01)),
    "elu": (F.elu, lambda z: z.clamp_max(0).exp()),
}
"""Each activation and its derivative."""


class Level(NamedTuple):
    """What the way down leaves for the way up."""

    time: int
    """Frames that came in."""
    pooled: Tensor
    """``[B, C, 1, T']``, before the activation."""
    winner: Tensor
    """``[B, C, 1, T']`` int: which of its ``pool`` frames each maximum came from."""
    inside: Tensor | None
    """``[B, 1, 1, T']`` bool: the frames that belong to the clips; None: all."""


class Heard(NamedTuple):
    """The way down: what the topmost convolution answers, and what the way up needs."""

    features: Tensor
    """``[B, S, C]``."""
    frames: Tensor | None
    """``[B]``: how many of the S steps are each clip's own; None: all."""
    levels: list[Level]


class Understood(NamedTuple):
    """What the recurrent part says: its states ``[B, S, H]``, their mean ``[B, H]``, and
    probabilities and distances behind the first answer ``[B, 2 K]``."""

    steps: Tensor
    mean: Tensor
    answer: Tensor


class Mirror(Generator):
    """See the module; ``blocks`` and ``activation`` describe the convolutions, from the sample up.

    ``classes`` is the number of answers of the classifier inside: its probabilities tell the way
    back which answer has to fall. ``hidden`` is the width of the LSTM that reads the clip from its
    end and names, for each of the topmost features, the wanted direction in (-1, 1). There are
    ``looks`` stages with the same weights: the second looks at what the first proposes, moved by
    ``epsilon``, and what both want is added up.
    """

    architecture = "mirror"

    def __init__(
        self, *, blocks: Sequence[Block] = ((1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8)),
        activation: str = "leaky_relu", classes: int = 8, recurrent: int = 256, hidden: int = 256,
        looks: int = 2, epsilon: float = 0.03, gain: float | None = 2.0, density: float | None = None,
        sample_rate: int = 16_000,
    ) -> None:  # fmt: skip
        super().__init__(gain=gain, density=density, sample_rate=sample_rate)
        self.settings |= {
            "blocks": [list(block) for block in blocks], "activation": activation,
            "classes": classes, "recurrent": recurrent, "hidden": hidden, "looks": looks,
            "epsilon": epsilon,
        }  # fmt: skip
        self.looks, self.epsilon = looks, epsilon
        self.pools = [pool for _, _, _, pool in blocks]
        self.activate, self.slope = ACTIVATIONS[activation]
        self.down = nn.ModuleList(_conv(i, o, kernel) for i, o, kernel, _ in blocks)
        # the way up, used transposed; the lowest has two heads: magnitude and position
        self.up = nn.ModuleList(
            _conv(2 if i == 1 else i, o, k, bias=False) for i, o, k, _ in blocks
        )
        self.skip = nn.ModuleList(nn.Conv2d(o, o, 1) for _, o, _, _ in blocks[:-1])
        top = blocks[-1][1]
        self.lstm = nn.LSTM(top, recurrent, num_layers=2, batch_first=True)
        self.head = nn.Linear(recurrent, classes)
        self.backwards = nn.LSTM(top + 2 * recurrent + 4 * classes, hidden, batch_first=True)
        self.direction = nn.Linear(hidden, top)
        for layer in self.skip:  # at first the way up listens to what comes from above alone
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Perturbation:
        time = waveforms.shape[1]
        heard = self.listen(waveforms, lengths)
        first = self.understood(heard)
        direction = self.wanted(heard, first, first)
        magnitude, position = self.back(direction, heard.levels, time)
        for look in range(1, self.looks):
            with torch.no_grad():
                change = self.proposed(magnitude, position, lengths)
                heard = self.listen(self.moved(waveforms, change), lengths)
            direction = direction + self.wanted(heard, first, self.understood(heard))
            more = self.back(direction / (look + 1), heard.levels, time)
            magnitude = unit_rms(magnitude, lengths) + unit_rms(more[0], lengths) / look
            position = position + more[1]
        return self.proposed(magnitude, position, lengths)

    def proposed(self, magnitude: Tensor, position: Tensor, lengths: Tensor | None) -> Perturbation:
        """The perturbation: samples that would move most are wanted most, unless ``position`` objects."""
        magnitude = unit_rms(magnitude, lengths)
        return self.propose(magnitude, magnitude.abs() + position, lengths)

    def keep_ears(self) -> None:
        """Train the way back alone: what it has learned to read would move with the encoder."""
        for part in (self.down, self.lstm, self.head):
            part.requires_grad_(False)

    def moved(self, waveforms: Tensor, change: Perturbation) -> Tensor:
        """``[B, T]`` as the proposal would leave it."""
        return (waveforms + self.epsilon * change.magnitude * change.mask()).clamp(-1, 1)

    def listen(self, waveforms: Tensor, lengths: Tensor | None = None) -> Heard:
        """The way down, ``[B, T]``."""
        x = standardise(waveforms, lengths)[:, None, None].contiguous(
            memory_format=torch.channels_last
        )
        frames, levels = lengths, []
        for conv, pool in zip(self.down, self.pools, strict=True):
            assert isinstance(conv, nn.Conv2d)
            time = x.shape[3]
            pooled, index = F.max_pool2d(
                conv(_at_least(x, conv, pool)), (1, pool), return_indices=True
            )
            winner = index - pool * torch.arange(pooled.shape[3], device=x.device)
            x, inside = self.activate(pooled), None
            if frames is not None:  # biases write into the padding: clear it again
                frames = (frames + 2 * int(conv.padding[1]) - conv.kernel_size[1] + 1) // pool
                frames = frames.clamp_min(1)  # a short clip ends in zeros, see _at_least
                inside = valid(frames, x.shape[3])[:, None, None]
                x = x * inside
            levels.append(Level(time, pooled, winner, inside))
        return Heard(x[:, :, 0].transpose(1, 2), frames, levels)

    def understood(self, heard: Heard) -> Understood:
        """What the classifier inside makes of it."""
        steps, _ = self.lstm(heard.features)
        if heard.frames is None:
            mean = steps.mean(dim=1)
        else:
            inside = valid(heard.frames, steps.shape[1])[..., None]
            mean = (steps * inside).sum(dim=1) / heard.frames[:, None]
        logits = self.head(mean)
        behind = logits - logits.amax(dim=1, keepdim=True)
        return Understood(steps, mean, torch.cat([torch.softmax(logits, dim=1), behind], dim=1))

    def wanted(self, heard: Heard, first: Understood, now: Understood) -> Tensor:
        """The direction each topmost feature should take, ``[B, S, C]`` in (-1, 1), so that the answer
        understood at ``first`` falls."""
        clip = torch.cat([first.mean, first.answer, now.answer], dim=1)
        clip = clip[:, None].expand(-1, now.steps.shape[1], -1)
        known = torch.cat([heard.features, now.steps, clip], dim=2)
        backwards, _ = self.backwards(reversed_in_time(known, heard.frames))
        wanted: Tensor = torch.tanh(self.direction(reversed_in_time(backwards, heard.frames)))
        return wanted

    def back(self, direction: Tensor, levels: Sequence[Level], time: int) -> tuple[Tensor, Tensor]:
        """Directions ``[B, S, C]`` -> magnitude and position ``[B, time]``, before gain and tanh."""
        x = direction.transpose(1, 2)[:, :, None]
        for number in reversed(range(len(levels))):
            below, pooled, winner, inside = levels[number]
            if number < len(self.skip):
                x = x + self.skip[number](self.activate(pooled))
            if inside is not None:
                x = x * inside
            x = unpooled(x * self.slope(pooled), winner, self.pools[number])
            conv = self.up[number]
            assert isinstance(conv, nn.Conv2d)
            x = F.conv_transpose2d(x, conv.weight)[..., int(conv.padding[1]) :]
            x = _cut(x, below if number else time)
        return x[:, 0, 0], x[:, 1, 0]


def _conv(channels_in: int, channels_out: int, kernel: int, bias: bool = True) -> nn.Conv2d:
    padding = (0, (kernel - 1) // 2)
    return nn.Conv2d(channels_in, channels_out, (1, kernel), padding=padding, bias=bias)


def _at_least(x: Tensor, conv: nn.Module, pool: int) -> Tensor:
    """``x [B, C, 1, T]`` with zeros behind it where it is too short for one maximum."""
    assert isinstance(conv, nn.Conv2d)
    missing = pool + conv.kernel_size[1] - 1 - 2 * int(conv.padding[1]) - x.shape[3]
    return F.pad(x, (0, missing)) if missing > 0 else x


def _cut(x: Tensor, time: int) -> Tensor:
    return F.pad(x, (0, time - x.shape[3])) if x.shape[3] < time else x[..., :time]


def unpooled(values: Tensor, winner: Tensor, pool: int) -> Tensor:
    """``[B, C, 1, S] -> [B, C, 1, S * pool]``: each value where its maximum was, zeros elsewhere.

    >>> unpooled(torch.tensor([[[[5.0, 7.0]]]]), torch.tensor([[[[1, 0]]]]), 2)
    tensor([[[[0., 5., 7., 0.]]]])
    """
    batch, channels, _, steps = values.shape
    places = torch.arange(pool, device=values.device)[:, None]
    last = values[:, :, 0].transpose(1, 2)[:, :, None]  # [B, S, 1, C]: as channels-last memory lies
    won = winner[:, :, 0].transpose(1, 2)[:, :, None] == places
    spread = torch.where(won, last, last.new_zeros(())).reshape(batch, 1, steps * pool, channels)
    return spread.permute(0, 3, 1, 2)


def reversed_in_time(sequences: Tensor, frames: Tensor | None) -> Tensor:
    """``[B, S, C]`` with each clip's own ``frames [B]`` in reverse order, the padding left behind.

    >>> reversed_in_time(torch.tensor([[[1], [2], [0]]]), torch.tensor([2]))[0, :, 0]
    tensor([2, 1, 0])
    """
    if frames is None:
        return sequences.flip(1)
    steps = torch.arange(sequences.shape[1], device=sequences.device)[None]
    order = torch.where(steps < frames[:, None], frames[:, None] - 1 - steps, steps)
    return sequences.gather(1, order[..., None].expand_as(sequences))
