"""The part of ``python -m bench speed`` on ``torch.compile``: what it gains on one clip, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

import torch

from bench.measuring import LABELS, RATE, Size, paired, ratio, spread, table
from staanet.core import Budget
from staanet.generators.registry import build_generator
from staanet.generators.warm_start import backward_net_from
from staanet.victims import build_victim

LIMIT = 400.0
"""Seconds after which a compilation is given up."""


def compiled_table(size: Size, limit: float = LIMIT) -> str:
    """One pass over one clip, as it is and compiled, each network in a process of its own."""
    rows = []
    for name in ("compact", "narrow", "backward_net"):
        found = _measured(name, size, limit)
        if found is None:
            rows.append([name, f"above {limit:.0f}, given up", "", "", ""])
            continue
        plain, compiled = found["plain"], found["compiled"]
        rows.append(
            [
                name,
                f"{found['compilation']:.0f}",
                spread(plain),
                spread(compiled),
                ratio(plain, compiled),
            ]
        )
    head = ["generator", "seconds to compile", "ms without compiling", "ms compiled", "speed-up"]
    return (
        f"The table compares one pass over a clip of {size.seconds:g} s with and without `torch.compile`. Shapes are "
        "fixed, so each length needs its own compilation. The cache is empty at the start.\n\n"
        + table(head, rows)
    )


def _measured(name: str, size: Size, limit: float) -> dict[str, float | list[float]] | None:
    code = f"from bench import compiled; compiled.child({name!r}, {size.seconds}, {size.rounds})"
    with tempfile.TemporaryDirectory() as cache:
        start = f"import os; os.environ['TORCHINDUCTOR_CACHE_DIR'] = {cache!r}; {code}"
        try:
            done = subprocess.run(
                [sys.executable, "-c", start],
                check=True,
                capture_output=True,
                text=True,
                timeout=limit,
            )
        except subprocess.TimeoutExpired:
            return None
    told: dict[str, float | list[float]] = json.loads(done.stdout.splitlines()[-1])
    return told


def child(name: str, seconds: float, rounds: int) -> None:
    """In a process of its own: seconds of compiling and of each round, as JSON."""
    torch.manual_seed(0)
    source = build_victim("emo18", LABELS).eval().requires_grad_(False)
    network = (
        backward_net_from(source, 0.2) if name == "backward_net" else build_generator(name, 0.2)
    )
    network = network.eval().requires_grad_(False)
    fast, budget = torch.compile(network, dynamic=False), Budget(epsilon=0.03, max_density=0.2)
    x = 0.1 * torch.randn(1, round(seconds * RATE))
    with torch.inference_mode():
        begun = time.perf_counter()
        fast(x, None, None, budget)
        compilation = time.perf_counter() - begun
        times = paired(
            {
                "plain": lambda: network(x, None, None, budget),
                "compiled": lambda: fast(x, None, None, budget),
            },
            rounds,
        )
    print(json.dumps({"compilation": compilation, **times}))
