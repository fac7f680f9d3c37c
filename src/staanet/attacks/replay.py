"""An attack on one clip on a GPU, recorded as a CUDA graph and replayed.

Alone in a batch a clip keeps a GPU busy for less time than Python needs to ask for each of the many small kernels;
a graph asks for all of them at once (https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). It
holds for one length and one setting. So a pass is recorded when both come a second time, as windows of a
recording do; elsewhere, and for any batch, the pass runs as it is. One attack's replays belong to one thread.
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

Answer = tuple[Tensor, ...]
Pass = Callable[[Tensor], Answer]
KEPT = 8
WARM_UP = 3
"""Passes before a recording, in which libraries choose their kernels and allocate what they need."""
SAME = 1e-3
"""What a replay may differ by from the pass itself: sums in another order."""
NEARLY_ALL = 0.999
"""Of its values: where two samples are wanted alike, either may be chosen."""


def can_record_graph(generator: Generator, x: Tensor) -> bool:
    """Whether a pass over ``x [B, T]`` asks the same kernels whatever the samples are: one clip on a GPU,
    and a network without automatic differentiation inside."""
    voices = generator.members if isinstance(generator, EnsembleGenerator) else [generator]
    known = all(isinstance(voice, BackwardNet | WaveUNet) for voice in voices)
    return x.is_cuda and len(x) == 1 and known


class GraphCache:
    """The last ``kept`` recordings; ``record`` makes one from a pass and a clip."""

    def __init__(
        self, record: Callable[[Pass, Tensor], Pass] | None = None, kept: int = KEPT
    ) -> None:
        self.record = record or record_graph
        self.kept = kept
        self.passes: OrderedDict[Hashable, Pass | None] = OrderedDict()
        """By length and settings; None: met once, not recorded."""

    def __call__(self, generator: Generator, passed: Pass, x: Tensor, settings: Hashable) -> Answer:
        """What ``passed`` answers to ``x [B, T]``; ``settings`` is all that it depends on besides ``x``."""
        if not can_record_graph(generator, x):
            return passed(x)
        key = x.shape[1], settings
        again, replay = key in self.passes, self.passes.pop(key, None)
        if again and replay is None:
            replay = self.record(passed, x)
        self.passes[key] = replay  # the latest stands last
        if len(self.passes) > self.kept:
            self.passes.popitem(last=False)
        return (replay or passed)(x)


def record_graph(passed: Pass, x: Tensor) -> Pass:
    """``passed`` as a CUDA graph for clips of the shape of ``x``; itself where its replay answers otherwise."""
    with torch.cuda.device(x.device):
        read, graph = x.clone(), torch.cuda.CUDAGraph()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                plain = passed(read)
        torch.cuda.current_stream().wait_stream(beside)
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                written = passed(read)
        except RuntimeError as problem:
            warnings.warn(f"no CUDA graph of this generator: {problem}", stacklevel=2)
            return passed

    def replay(x: Tensor) -> Answer:
        with torch.cuda.device(x.device):
            read.copy_(x)
            graph.replay()
            return tuple(one.clone() for one in written)  # the next replay overwrites

    same = all(_same(a, b) for a, b in zip(replay(x), plain, strict=True))
    return replay if same else passed


def _same(one: Tensor, other: Tensor) -> bool:
    near = (one - other).abs() <= SAME
    return float(near.float().mean()) >= NEARLY_ALL
