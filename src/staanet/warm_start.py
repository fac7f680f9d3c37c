"""A mirror generator that begins as its source: the same ears, and what the source wants to hear.

Two things are given to it. Its encoder and decoder are copies of the source's convolutions, so that
the way back is the source's own backward pass. And before it is trained to fool, it learns from the
source's gradient which direction each of the topmost features should take: at 25 frames a second
that costs a tenth of a step of the real training.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from staanet.core import Untargeted, Victim
from staanet.generator import Mirror
from staanet.generator.mirror import ACTIVATIONS, Heard
from staanet.victims.layers import ConvBlock, ConvRecurrent, folded


def network_of(source: Victim) -> ConvRecurrent | None:
    """The convolutional classifier inside a victim, or None where it is of another kind."""
    network = getattr(source, "network", None)
    return network if isinstance(network, ConvRecurrent) else None


def mirror_of(
    source: Victim, density: float | None = None, epsilon: float = 0.03, looks: int = 2
) -> Mirror:
    """A mirror of ``source``: of its shape and with its weights, or untrained where it has no such shape."""
    network = network_of(source)
    if network is None:
        return Mirror(
            classes=len(source.labels), looks=looks, epsilon=epsilon, density=density,
            sample_rate=source.sample_rate,
        )  # fmt: skip
    blocks = [block for block in network.blocks if isinstance(block, ConvBlock)]
    mirror = Mirror(
        blocks=[
            (b.conv.in_channels, b.conv.out_channels, b.conv.kernel_size[1], b.pool) for b in blocks
        ],
        activation=_activation(blocks[0]), classes=len(source.labels),
        recurrent=network.lstm.hidden_size, looks=looks, epsilon=epsilon, density=density,
        sample_rate=source.sample_rate,
    )  # fmt: skip
    with torch.no_grad():
        for block, down, up in zip(blocks, mirror.down, mirror.up, strict=True):
            assert (
                isinstance(down, nn.Conv2d) and isinstance(up, nn.Conv2d) and down.bias is not None
            )
            weight, bias = folded(block.conv, block.norm)
            down.weight.copy_(weight)
            down.bias.copy_(bias)
            up.weight.zero_()
            up.weight[:, : weight.shape[1]] = weight
    mirror.lstm.load_state_dict(network.lstm.state_dict())
    mirror.head.load_state_dict(network.head.state_dict())
    return mirror.to(source.device)


def _activation(block: ConvBlock) -> str:
    return next(name for name, (f, _) in ACTIVATIONS.items() if f is block.activation)


class Lesson(NamedTuple):
    """What a mirror heard at each look at a batch, and the gradients of the margin there."""

    heard: list[Heard]
    gradients: list[Tensor]
    """``[B, S, C]`` each."""


def lesson(mirror: Mirror, source: Victim, x: Tensor) -> Lesson:
    """The margin's gradient at the topmost features of ``x [B, T]``, once for each of the mirror's looks.

    The clip of a later look has been moved as the gradients so far want it.
    """
    network = network_of(source)
    assert network is not None, "only a convolutional source can give this lesson"
    heard, gradients = [], []
    total = torch.zeros(())
    with torch.no_grad():
        goal = Untargeted(source(x).argmax(dim=1))
        moved = x
        for look in range(mirror.looks):
            now = mirror.listen(moved)
            gradient = _gradient(network, goal, now.features)
            heard.append(now._replace(levels=[]))  # learning needs the features alone
            gradients.append(gradient)
            total = total + gradient / gradient.abs().mean(dim=(1, 2), keepdim=True).clamp_min(
                1e-12
            )
            if look + 1 < mirror.looks:
                back = mirror.back(-total.sign(), now.levels, x.shape[1])
                moved = mirror.moved(x, mirror.proposed(*back, None))
    return Lesson(heard, gradients)


def _gradient(network: ConvRecurrent, goal: Untargeted, features: Tensor) -> Tensor:
    leaf = features.clone().requires_grad_()
    with torch.enable_grad():
        steps, _ = network.lstm(leaf)
        margin = goal.margin(network.head(steps.mean(dim=1)))
        (gradient,) = torch.autograd.grad(margin.sum(), leaf)
    return gradient


def learned(mirror: Mirror, lesson: Lesson) -> Tensor:
    """How well the mirror would have known, ``[looks * B]``; see ``alignment``."""
    first = mirror.understood(lesson.heard[0])
    return torch.cat(
        [
            alignment(mirror.wanted(heard, first, mirror.understood(heard)), gradient)
            for heard, gradient in zip(lesson.heard, lesson.gradients, strict=True)
        ]
    )


def alignment(direction: Tensor, gradient: Tensor) -> Tensor:
    """How far ``direction`` goes against ``gradient``, both ``[B, S, C]``: 1 is straight, ``-> [B]``.

    The mean over frames, each frame weighing the same: quiet ones matter as much as loud ones.

    >>> alignment(torch.tensor([[[1.0, -1.0]]]), torch.tensor([[[-3.0, -1.0]]]))
    tensor([0.5000])
    """
    along = -(direction * gradient).sum(dim=2)
    return (along / gradient.abs().sum(dim=2).clamp_min(1e-12)).mean(dim=1)
