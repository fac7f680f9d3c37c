"""Generators that begin as their sources: with the source's ears, and its backward pass as way back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from staanet.core import Victim
from staanet.errors import InvalidInput
from staanet.generators.backward_net import ACTIVATIONS, BackwardNet, Recurrent
from staanet.generators.base import Generator
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.surrogate import SurrogateGradient
from staanet.victims.blueprint import blueprint
from staanet.victims.layers import ConvBlock, ConvRecurrent, folded


def network_of(source: Victim) -> ConvRecurrent | None:
    """The convolutional classifier inside a victim, or None where it is of another kind."""
    network = getattr(source, "network", None)
    return network if isinstance(network, ConvRecurrent) else None


def has_backward_net(source: Victim) -> bool:
    """Whether a generator can begin as ``source``."""
    return network_of(source) is not None or blueprint(source) is not None


def generator_of(
    sources: Sequence[Victim], density: float | None, epsilon: float, iterations: int
) -> Generator | None:
    """A mirror or reflection of the one source that can be mirrored, or a chorus of several; None
    where there is none."""
    members = [voice_of(s, density, epsilon, iterations) for s in sources if has_backward_net(s)]
    if len(members) < 2:
        return members[0] if members else None
    first = members[0]
    return EnsembleGenerator.of(
        members, density=density, sample_rate=first.sample_rate, labels=first.labels
    )


def voice_of(
    source: Victim, density: float | None = None, epsilon: float = 0.03, iterations: int = 1
) -> BackwardNet | SurrogateGradient:
    """A mirror where ``source`` is convolutional with an LSTM, else a reflection; ``InvalidInput``
    where it is neither that nor a transformer."""
    plan = blueprint(source)
    if plan is None:
        return backward_net_of(source, density, epsilon, iterations)
    surrogate = SurrogateGradient(
        inside=plan,
        iterations=iterations,
        epsilon=epsilon,
        density=density,
        sample_rate=source.sample_rate,
        labels=source.labels,
    )
    surrogate.inside.load_state_dict(source.state_dict())
    return surrogate.to(source.device)


def backward_net_of(
    source: Victim, density: float | None = None, epsilon: float = 0.03, iterations: int = 1
) -> BackwardNet:
    """A mirror of ``source``: of its shape and with its weights; ``InvalidInput`` where it has no such shape.

    With ``density`` and ``epsilon`` it is, before any training, one step against the source's gradient.
    """
    network = network_of(source)
    if network is None:
        raise InvalidInput(
            f"{source.name} is no convolutional classifier with an LSTM, so nothing can mirror it",
            remedy="Use the network compact",
        )
    blocks = [block for block in network.blocks if isinstance(block, ConvBlock)]
    backward_net = BackwardNet(
        blocks=[
            (b.conv.in_channels, b.conv.out_channels, b.conv.kernel_size[1], b.pool) for b in blocks
        ],
        activation=next(n for n, (f, _) in ACTIVATIONS.items() if f is blocks[0].activation),
        classes=len(source.labels),
        hidden=network.lstm.hidden_size,
        layers=network.lstm.num_layers,
        iterations=iterations,
        epsilon=epsilon,
        density=density,
        sample_rate=source.sample_rate,
        labels=source.labels,
    )
    with torch.no_grad():
        for block, down, up in zip(blocks, backward_net.down, backward_net.up, strict=True):
            _mirror_convolution(block, down, up)
        for number, layer in enumerate(backward_net.recurrent):
            assert isinstance(layer, Recurrent)
            _mirror_layer(network.lstm, number, layer)
        backward_net.head.load_state_dict(network.head.state_dict())
        backward_net.ask.weight.copy_(network.head.weight.T)
    return backward_net.to(source.device)


def _mirror_convolution(block: ConvBlock, down: nn.Module, up: nn.Module) -> None:
    assert isinstance(down, nn.Conv2d) and isinstance(up, nn.Conv2d) and down.bias is not None
    weight, bias = folded(block.conv, block.norm)
    down.weight.copy_(weight)
    down.bias.copy_(bias)
    up.weight.zero_()
    up.weight[:, : weight.shape[1]] = weight  # the lowest has a second head, silent at first


def _mirror_layer(lstm: nn.LSTM, number: int, layer: Recurrent) -> None:
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(layer.lstm, f"{name}_l0").copy_(getattr(lstm, f"{name}_l{number}"))
    layer.to_input.weight.copy_(getattr(lstm, f"weight_ih_l{number}").T)
    layer.to_state.weight.copy_(getattr(lstm, f"weight_hh_l{number}").T)
