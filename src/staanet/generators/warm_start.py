"""Initialises generators from their source: its weights as encoder, its backward pass as decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from staanet.config import PAPER_EPSILON, GeneratorRecipe
from staanet.config.epsilon import Epsilon
from staanet.core import Victim
from staanet.errors import InvalidInput
from staanet.generators.backward_net import ACTIVATIONS, BackwardNet
from staanet.generators.base import Generator
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.iterative import IterativeGenerator
from staanet.generators.surrogate import SurrogateGradient
from staanet.nn.recurrent import LSTMWithBackward
from staanet.victims.blueprint import blueprint
from staanet.victims.layers import ConvBlock, ConvRecurrent, fold_batch_norm

USUAL = GeneratorRecipe()


def find_conv_recurrent(source: Victim) -> ConvRecurrent | None:
    """Returns the convolutional classifier of a victim, or None where it has none."""
    network = getattr(source, "network", None)
    return network if isinstance(network, ConvRecurrent) else None


def has_warm_start(source: Victim) -> bool:
    """Returns whether a generator can begin as ``source``."""
    return find_conv_recurrent(source) is not None or blueprint(source) is not None


def warm_start_generator(
    sources: Sequence[Victim], density: float | None, epsilon: Epsilon, iterations: int
) -> Generator | None:
    """Returns a generator that begins as the sources that have a warm start.

    That is one member for one such source, an ensemble for several, and None where there is none. See
    ``warm_start_member`` for the other arguments.
    """
    members = [
        warm_start_member(source, density, epsilon, iterations)
        for source in sources
        if has_warm_start(source)
    ]
    if len(members) < 2:
        return members[0] if members else None
    first = members[0]
    return EnsembleGenerator.of(
        members,
        density=density,
        sample_rate=first.sample_rate,
        labels=first.labels,
        tolerance=first.tolerance,
    )


def warm_start_member(
    source: Victim,
    density: float | None = None,
    epsilon: Epsilon = PAPER_EPSILON,
    iterations: int = USUAL.iterations,
) -> IterativeGenerator:
    """Returns a ``BackwardNet`` of a convolutional source, or a ``SurrogateGradient`` of a transformer.

    Args:
        source: The victim to begin as.
        density: Share of positions at or above 1/2; see ``Generator``.
        epsilon: Change of each iteration where the attack names no budget.
        iterations: How often the generator runs.

    Raises:
        InvalidInput: The source is neither.
    """
    plan = blueprint(source)
    if plan is None:
        return backward_net_from(source, density, epsilon, iterations)
    surrogate = SurrogateGradient(
        classifier=plan,
        iterations=iterations,
        epsilon=epsilon,
        density=density,
        sample_rate=source.sample_rate,
        labels=source.class_labels,
        tolerance=source.tolerance,
    )
    surrogate.classifier.load_state_dict(source.state_dict())
    return surrogate.to(source.device)


def backward_net_from(
    source: Victim,
    density: float | None = None,
    epsilon: Epsilon = PAPER_EPSILON,
    iterations: int = USUAL.iterations,
) -> BackwardNet:
    """Returns a ``BackwardNet`` with the shape and the weights of a convolutional source.

    Before any training it takes, with ``density`` and ``epsilon``, one step against the source's
    gradient. The arguments are those of ``warm_start_member``.
    """
    network = find_conv_recurrent(source)
    if network is None:
        raise InvalidInput(
            f"{source.name} is no convolutional classifier with an LSTM, so no backward_net can begin as it",
            remedy="Use the network compact",
        )
    blocks = [block for block in network.blocks if isinstance(block, ConvBlock)]
    generator = BackwardNet(
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
        labels=source.class_labels,
        tolerance=source.tolerance,
    )
    with torch.no_grad():
        for block, down, up in zip(blocks, generator.down, generator.up, strict=True):
            _copy_convolution(block, down, up)
        for number, layer in enumerate(generator.recurrent):
            assert isinstance(layer, LSTMWithBackward)
            _copy_lstm(network.lstm, number, layer)
        generator.head.load_state_dict(network.head.state_dict())
        generator.head_backward.weight.copy_(network.head.weight.T)
    return generator.to(source.device)


def _copy_convolution(block: ConvBlock, down: nn.Module, up: nn.Module) -> None:
    assert isinstance(down, nn.Conv2d) and isinstance(up, nn.Conv2d) and down.bias is not None
    weight, bias = fold_batch_norm(block.conv, block.norm)
    down.weight.copy_(weight)
    down.bias.copy_(bias)
    up.weight.zero_()
    up.weight[:, : weight.shape[1]] = weight  # the lowest has a second output, zero at first


def _copy_lstm(lstm: nn.LSTM, number: int, layer: LSTMWithBackward) -> None:
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        getattr(layer.lstm, f"{name}_l0").copy_(getattr(lstm, f"{name}_l{number}"))
    layer.to_input.weight.copy_(getattr(lstm, f"weight_ih_l{number}").T)
    layer.to_state.weight.copy_(getattr(lstm, f"weight_hh_l{number}").T)
