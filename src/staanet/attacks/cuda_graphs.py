"""Records an attack's forward pass for one clip as a CUDA graph and replays it.

One clip keeps a GPU busy for less time than Python needs to start each of the many small kernels. A
graph starts all of them at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). It
holds for one length and one setting. So a pass is recorded when both come a second time, as the windows
of a recording do; otherwise, and for any batch, the pass runs as it is. The cache of an attack belongs
to one thread.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from staanet.generators.backward_net import BackwardNet
from staanet.generators.base import Generator
from staanet.generators.ensemble import EnsembleGenerator
from staanet.generators.wave_u_net import WaveUNet

Outputs = tuple[Tensor, ...]
Pass = Callable[[Tensor], Outputs]
CAPACITY = 8
"""Graphs that a cache holds."""
WARM_UP = 3
"""Passes before a recording, in which libraries choose their kernels and allocate memory."""
TOLERANCE = 1e-3
"""The largest difference of a replay from the pass itself: sums in another order."""
AGREEING_SHARE = 0.999
"""Share of values within the tolerance: of two samples that rank alike either may be chosen."""


def can_record_graph(generator: Generator, x: Tensor) -> bool:
    """Returns whether a pass over ``x [B, T]`` runs the same kernels whatever the samples are.

    That is so for one clip on a GPU, and a network without automatic differentiation inside.
    """
    members = generator.members if isinstance(generator, EnsembleGenerator) else [generator]
    has_fixed_kernels = all(isinstance(member, BackwardNet | WaveUNet) for member in members)
    return x.is_cuda and len(x) == 1 and has_fixed_kernels


class GraphCache:
    """The last ``capacity`` recordings; ``record`` makes one from a pass and a clip."""

    def __init__(
        self, record: Callable[[Pass, Tensor], Pass] | None = None, capacity: int = CAPACITY
    ) -> None:
        self.record = record or record_graph
        self.capacity = capacity
        self.passes: OrderedDict[Hashable, Pass | None] = OrderedDict()
        """By length and settings; None: met once, not recorded."""

    def __call__(
        self, generator: Generator, run_pass: Pass, x: Tensor, settings: Hashable
    ) -> Outputs:
        """Returns ``run_pass(x)`` for ``x [B, T]``, replayed where it can be.

        ``settings`` is everything besides ``x`` that the pass depends on.
        """
        if not can_record_graph(generator, x):
            return run_pass(x)
        key = x.shape[1], settings
        is_repeated, replay = key in self.passes, self.passes.pop(key, None)
        if is_repeated and replay is None:
            replay = self.record(run_pass, x)
        self.passes[key] = replay  # the latest stands last
        if len(self.passes) > self.capacity:
            self.passes.popitem(last=False)
        return (replay or run_pass)(x)


def record_graph(run_pass: Pass, x: Tensor) -> Pass:
    """Returns ``run_pass`` as a CUDA graph for clips of the shape of ``x``.

    Where the pass cannot be captured, or its replay differs, it returns ``run_pass`` itself.
    """
    with torch.cuda.device(x.device):
        graph_input, graph = x.clone(), torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                expected = run_pass(graph_input)
        torch.cuda.current_stream().wait_stream(side)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                outputs = run_pass(graph_input)
        except RuntimeError as error:
            warnings.warn(f"no CUDA graph of this generator: {error}", stacklevel=2)
            return run_pass

    def replay(x: Tensor) -> Outputs:
        with torch.cuda.device(x.device):
            graph_input.copy_(x)
            graph.replay()
            return tuple(output.clone() for output in outputs)  # the next replay overwrites them

    is_same = all(_agree(a, b) for a, b in zip(replay(x), expected, strict=True))
    return replay if is_same else run_pass


def _agree(replayed: Tensor, expected: Tensor) -> bool:
    near = (replayed - expected).abs() <= TOLERANCE
    return float(near.float().mean()) >= AGREEING_SHARE
