"""The parts of ``python -m bench speed`` on drawing crops, and on a GPU: precisions, replays, training."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.measuring import RATE, Size, Work, paired, ratio, spread, table
from staanet.attacks import Staa
from staanet.attacks.replay import Replays
from staanet.core import Budget, Untargeted, Victim
from staanet.generator import Generator
from staanet.training import Ahead, GeneratorTask

BUDGET = Budget(epsilon=0.03, max_density=0.2)
WAYS = {
    "as it is": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "graph": ("float32", True),
    "graph, bfloat16": ("bfloat16", True),
}
"""How a generator can run: in which precision, and whether its pass is replayed."""
STEPS = 8  # of drawing, one after another


def drawing_table(one: GeneratorTask, step: Work, size: Size) -> str:
    """What drawing the crops takes of a training step, when asked for and ahead of it."""
    fresh = itertools.count()
    threads = (0, 1, 2, 4)
    ways = {n: Ahead(one._drawn, torch.device("cpu"), n) for n in threads}
    works: dict[str, Work] = {
        str(n): (lambda way=way: [way(next(fresh)) for _ in range(STEPS)])  # type: ignore[misc]
        for n, way in ways.items()
    }
    times = paired({"step": step, **works}, max(2, size.rounds // 3))
    whole = statistics.median(times["step"])
    rows = [
        [
            "when asked for" if n == 0 else f"ahead, threads: {n}",
            spread(times[str(n)], 1000 / STEPS),
            f"{statistics.median(times[str(n)]) / STEPS / whole:.1%}",
        ]
        for n in threads
    ]
    return (
        f"Drawing {size.batch} crops of 2 s, of a training step of `narrow` against emo18 that takes "
        f"{1000 * whole:.0f} ms on this machine. Ahead, other threads draw while a step is computed; "
        "here nothing else is computed, so that the rows tell how many batches they can draw.\n\n"
        + table(["crops are drawn", "ms a batch", "of a step"], rows)
    )


def attack_table(
    networks: dict[str, Generator], source: Victim, size: Size, device: torch.device,
    batches: Sequence[int] = (1, 256),
) -> str:  # fmt: skip
    """Time of a clip on ``device``, alone and in a batch: what bfloat16 and replays gain."""
    rows = []
    for batch in batches:
        x = 0.1 * torch.randn(batch, round(size.seconds * RATE), device=device)
        works: dict[tuple[str, str], Callable[[], Tensor]] = {}
        for name, network in networks.items():
            for way, (precision, replayed) in WAYS.items():
                if replayed and batch > 1:
                    continue
                attack = Staa(
                    generator=network.to(device), budget=BUDGET, precision=precision,
                    replays=Replays() if replayed else None,
                )  # fmt: skip
                works[name, way] = lambda attack=attack, x=x: _finished(attack, source, x)
        made = {key: [work() for _ in range(2)][-1] for key, work in works.items()}  # and recorded
        times = paired({" ".join(key): work for key, work in works.items()}, size.rounds)
        for (name, way), work in made.items():
            taken = times[f"{name} {way}"]
            same = (work == made[name, "as it is"]).float().mean()
            rows.append([
                name, str(batch), way, spread([t / batch for t in taken], 1e6),
                ratio(times[f"{name} as it is"], taken), ratio(times["paper as it is"], taken),
                f"{float(same):.1%}",
            ])  # fmt: skip
    for network in networks.values():
        network.cpu()
    head = ["attack", "batch", "way", "microseconds a clip", "as it is takes times",
            "paper as it is takes times", "samples as there"]  # fmt: skip
    return f"Clips of {size.seconds:g} s on {_called(device)}:\n\n" + table(head, rows)


def _finished(attack: Staa, source: Victim, x: Tensor) -> Tensor:
    """The attack, and the end of what it asked of the device."""
    x_adv = attack(source, x, Untargeted(-1))
    if x.is_cuda:
        torch.cuda.synchronize()
    return x_adv


def training_table(
    task: Callable[[Generator, str], GeneratorTask], networks: dict[str, Generator], size: Size,
    device: torch.device,
) -> str:  # fmt: skip
    """Steps of training on ``device`` in both precisions, the crops drawn ahead and when asked for."""
    works: dict[str, Work] = {}
    for name, network in networks.items():
        for precision in ("float32", "bfloat16"):
            for threads in (None, 0):
                one = task(network.to(device), precision)
                one.batches = Ahead(one._drawn, device, threads)
                key = f"{name} | {precision} | {'ahead' if threads is None else 'when asked for'}"
                works[key] = _stepping(one)
    times = paired(works, size.rounds)
    rows = [
        [*key.split(" | "), spread(taken), f"{size.batch / statistics.median(taken):.0f}"]
        for key, taken in times.items()
    ]
    for network in networks.values():
        network.cpu()
    return (
        f"Training against emo18 on {_called(device)}, batch of {size.batch} crops of 2 s:\n\n"
        + table(["generator", "precision", "crops drawn", "ms a step", "clips a second"], rows)
    )


def _stepping(one: GeneratorTask) -> Work:
    fresh = itertools.count()

    def step() -> None:
        one.module.zero_grad(set_to_none=True)
        one.loss(next(fresh))[0].backward()  # type: ignore[no-untyped-call]
        if next(one.module.parameters()).is_cuda:
            torch.cuda.synchronize()

    return step


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
