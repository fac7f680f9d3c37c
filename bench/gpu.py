"""``python -m bench gpu [--quick] [--device cuda]``: what a GPU makes of attacks and of training.

Ceilings are measured on the spot; networks attack in each precision, as they are and replayed, alone and in
a batch, beside PGD; clips go from numpy to int16; generators are trained. ``python -m bench speed`` adds
the same tables where there is a GPU. ``--quick`` tries everything with little and prints; without it the
section *On a GPU* of results.md is written. Each part is told on the error stream as soon as it is there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bench import sections
from bench.measuring import (
    FULL,
    LABELS,
    QUICK,
    RATE,
    Size,
    Work,
    clips,
    paired,
    ratio,
    spread,
    table,
)
from bench.subjects import BUDGET, generators, gflop, task
from staanet.attacks import ATTACKS, Staa, craft_batch
from staanet.attacks.cuda_graphs import GraphCache
from staanet.cli.session import checked_device
from staanet.core import Attack, Goal, Untargeted, Victim
from staanet.generators.base import Generator
from staanet.nn.precision import resolve_precision
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine
from staanet.training import GeneratorTask, Prefetcher
from staanet.victims import build_victim

WAYS = {
    "eager": ("float32", False),
    "bfloat16": ("bfloat16", False),
    "graph": ("float32", True),
    "graph, bfloat16": ("bfloat16", True),
}
"""How a generator can run: in which precision, and whether its pass is replayed."""
PGD = "PGD, 20 steps"
STEPS = 8  # of drawing, one after another
IN_A_ROW = 5  # products or copies, which together take longer than asking for them
FEW = 3  # rounds of what takes seconds
Ceilings = Mapping[str, Sequence[float]]
"""Of ``float32`` and ``bfloat16`` in TFLOP/s, of ``copy`` in TB/s: a value from each round."""


def main(arguments: list[str]) -> None:
    """Measure; print, or write the section into results.md."""
    asks = argparse.ArgumentParser(
        prog="python -m bench gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    asks.add_argument("--quick", action="store_true", help="try everything with little, and print")
    asks.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N (default: cuda)")
    chosen = asks.parse_args(arguments)
    checked_device(chosen.device)  # before anything is made
    size = QUICK if chosen.quick else FULL
    torch.manual_seed(0)
    source = build_victim("emo18", LABELS).eval().requires_grad_(False)
    asked = "" if chosen.device == "cuda" else f" --device {chosen.device}"
    about = (
        f"The command `python -m bench gpu{asked}` ran at commit `{commit()}` with {describe_machine()}. The test has {size.rounds} "
        f"rounds. Each round measures every row of a table. A batch has {_halved(size)} rounds. PGD and steps in a row have {FEW} "
        "rounds. The tables show the median and the range. The networks are untrained, because times do not depend on weights."
    )
    made = parts(generators(source), source, size, chosen.device)
    text = "\n\n".join(["## On a GPU", about, *made])
    if chosen.quick:
        print(text)
    else:
        sections.write("gpu", text)


def parts(networks: dict[str, Generator], source: Victim, size: Size, device: str) -> list[str]:
    """All tables of a GPU; the kernels are those that the commands ask for."""
    where = torch.device(checked_device(device))
    source.to(where)
    ceilings: dict[str, list[float]] = {}
    many, few = (
        max(2, size.large // 4),
        {n: networks[n] for n in ("narrow", "backward_net", "paper")},
    )
    fast = resolve_precision("auto", where)
    both = tuple(dict.fromkeys(("float32", fast)))  # a CPU has no units for bfloat16
    long = replace(size, batch=many, rounds=min(FEW, size.rounds))

    def measured() -> str:
        ceilings.update(measured_ceilings(size, where))
        return ceiling_table(ceilings, size, where)

    made = [
        _told(what, part)
        for what, part in (
            ("ceilings", measured),
            ("attacks", lambda: attack_table(networks, source, size, where, ceilings)),
            (
                "from numpy to int16",
                lambda: crafting_table(networks, source, size, where, (1, many)),
            ),
            (
                "training",
                lambda: training_table(
                    tasks(source, size.batch), networks, size, where, precisions=both
                ),
            ),
            (
                "training, large batch",
                lambda: training_table(
                    tasks(source, many),
                    few,
                    long,
                    where,
                    precisions=(fast,),
                    threads=(None,),
                    in_a_row=size.steps,
                ),
            ),
        )
    ]
    source.cpu()
    return made


def _told(what: str, part: Callable[[], str]) -> str:
    """The part, said on the error stream with its seconds: what stops later loses nothing of it."""
    begun = time.perf_counter()
    text = part()
    print(f"{what}: {time.perf_counter() - begun:.1f} s\n\n{text}\n", file=sys.stderr, flush=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return text


# ---------------------------------------------------------------- ceilings


def measured_ceilings(size: Size, device: torch.device) -> dict[str, list[float]]:
    """What ``device`` reaches in products of large matrices and in copying its memory."""
    side, count = _large(size, device)
    a = torch.randn(side, side, device=device)
    b, read = a.bfloat16(), torch.zeros(count, device=device)
    written = torch.zeros_like(read)
    works = {
        "float32": lambda: a @ a,
        "bfloat16": lambda: b @ b,
        "copy": lambda: written.copy_(read),
    }
    times = paired(
        {name: _in_a_row(work, IN_A_ROW, device) for name, work in works.items()}, size.rounds
    )
    each = {"float32": 2 * side**3, "bfloat16": 2 * side**3, "copy": 2 * 4 * count}
    return {
        name: [IN_A_ROW * each[name] / t / 1e12 for t in taken] for name, taken in times.items()
    }


def _large(size: Size, device: torch.device) -> tuple[int, int]:
    """Rows of the matrices, and numbers that are copied; little where a CPU only tries."""
    return (8192, 2**30) if device.type == "cuda" else (size.square, 2**20)


def ceiling_table(ceilings: Ceilings, size: Size, device: torch.device) -> str:
    """The ceilings as a table."""
    side, count = _large(size, device)
    rows = [
        *(
            [
                f"product of {side} x {side} matrices in {name}",
                spread([*ceilings[name]], 1, 2),
                "TFLOP/s",
            ]
            for name in ("bfloat16", "float32")
        ),
        [
            f"copy of {4 * count / 2**30:.3g} GiB, read and written",
            spread([*ceilings["copy"]], 1, 2),
            "TB/s",
        ],
    ]
    return (
        f"The table shows upper limits of {_called(device)}, with {IN_A_ROW} operations in a row. The kernels are "
        "deterministic, as in the commands. In float32, torch rounds convolutions to TF32 but not matrix "
        "products. The limit of the product is therefore not the limit of a convolution.\n\n"
        + table(["ceiling", "measured", ""], rows)
    )


def _in_a_row(work: Work, times: int, device: torch.device) -> Work:
    def repeated() -> None:
        for _ in range(times):
            work()
        _synchronise(device)

    return repeated


# ---------------------------------------------------------------- attacks


def attack_table(
    networks: dict[str, Generator],
    source: Victim,
    size: Size,
    device: torch.device,
    ceilings: Ceilings,
    batches: Sequence[int] = (),
) -> str:
    """Time of a clip on ``device``, alone and in a batch: what bfloat16 and replays gain, beside PGD."""
    for network in networks.values():
        network.to(device)
    length = round(size.seconds * RATE)
    pgd = ATTACKS["pgd"](budget=BUDGET, steps=20)
    clip = 0.1 * torch.randn(1, length, device=device)
    work = {name: gflop(network, clip) for name, network in networks.items()}
    work[PGD] = 21 * gflop(
        lambda x: _gradient(source, x), clip
    )  # a step each, and one to begin with
    rows = []
    for batch in batches or (1, size.large):
        x = 0.1 * torch.randn(batch, length, device=device)
        for name, way, taken, paper, plain, same in (
            *_by_network(networks, source, x, size.rounds if batch == 1 else _halved(size)),
            _by_gradient(pgd, networks["paper"], source, x, min(FEW, size.rounds)),
        ):
            precision = WAYS[way][0]
            reached = work[name] * batch / statistics.median(taken) / 1e3
            rows.append(
                [
                    name,
                    str(batch),
                    way,
                    spread([t / batch for t in taken], 1e6),
                    plain,
                    paper,
                    same,
                    f"{work[name]:.2f}",
                    f"{reached / statistics.median(ceilings[precision]):.1%}",
                ]
            )
        _emptied()
    for network in networks.values():
        network.cpu()
    head = [
        "attack",
        "batch",
        "way",
        "microseconds per clip",
        "speed-up over eager",
        "speed-up over eager paper",
        "samples equal to eager",
        "GFLOP per clip",
        "share of the ceiling",
    ]
    return (
        f"The table shows clips of {size.seconds:g} s on {_called(device)}. The ceiling is the limit of a product in "
        "the same precision. The GFLOP of torch contain convolutions and products, but not an LSTM of cuDNN.\n\n"
        + table(head, rows)
    )


Row = tuple[str, str, list[float], str, str, str]
"""Attack, way, seconds of each round, how often ``paper`` takes them and how often the attack as it is
does, and the share of samples that are as there."""


def _by_network(
    networks: dict[str, Generator], source: Victim, x: Tensor, rounds: int
) -> list[Row]:
    works: dict[tuple[str, str], Callable[[], Tensor]] = {}
    made = {}
    for name, network in networks.items():
        for way, (precision, replayed) in WAYS.items():
            if replayed and len(x) > 1:
                continue
            attack = Staa(
                generator=network,
                budget=BUDGET,
                precision=precision,
                graphs=GraphCache() if replayed else None,
            )
            works[name, way] = _finished(attack, source, x, Untargeted(-1))
            made[name, way] = [works[name, way]() for _ in range(2)][-1]  # and recorded
        _emptied()
    times = paired({" ".join(key): work for key, work in works.items()}, rounds)
    plain, paper = {n: times[f"{n} eager"] for n in networks}, times["paper eager"]
    return [
        (
            name,
            way,
            taken,
            ratio(paper, taken),
            ratio(plain[name], taken),
            f"{float((made[name, way] == made[name, 'eager']).float().mean()):.1%}",
        )
        for name, way in works
        for taken in [times[f"{name} {way}"]]
    ]


def _by_gradient(pgd: Attack, paper: Generator, source: Victim, x: Tensor, rounds: int) -> Row:
    """PGD takes seconds, so it takes turns with ``paper`` alone, in few rounds."""
    beside = _finished(Staa(generator=paper, budget=BUDGET, graphs=None), source, x, Untargeted(-1))
    times = paired({PGD: _finished(pgd, source, x, _goal(source, x)), "paper": beside}, rounds)
    return PGD, "eager", times[PGD], ratio(times["paper"], times[PGD]), "", ""


def _gradient(source: Victim, x: Tensor) -> None:
    with torch.enable_grad():
        source(x.clone().requires_grad_()).sum().backward()


def _goal(source: Victim, x: Tensor) -> Goal:
    with torch.inference_mode():
        answer = source(x).argmax(dim=1)
    return Untargeted(answer.clone())


def _finished(attack: Attack, source: Victim, x: Tensor, goal: Goal) -> Callable[[], Tensor]:
    """The attack, and the end of what it asked of the device."""

    def work() -> Tensor:
        x_adv = attack(source, x, goal)
        _synchronise(x.device)
        return x_adv

    return work


def crafting_table(
    networks: dict[str, Generator],
    source: Victim,
    size: Size,
    device: torch.device,
    batches: Sequence[int],
) -> str:
    """Clips a second from samples in numpy to adversarial ones in int16, every limit proven."""
    precision = resolve_precision("auto", device)
    rows = []
    for batch in batches:
        many = clips(batch, size.seconds)
        works: dict[str, Work] = {}
        for name in ("narrow", "backward_net"):
            attack = Staa(generator=networks[name].to(device), budget=BUDGET, precision=precision)
            works[name] = lambda attack=attack, many=many: craft_batch(attack, source, many)  # type: ignore[misc]
            for _ in range(2):  # and recorded
                works[name]()
        for name, taken in paired(works, _halved(size)).items():
            rows.append([name, str(batch), spread([batch / t for t in taken], 1, 1)])
    for network in networks.values():
        network.cpu()
    return (
        f"The work is the whole way from numpy to int16 for clips of {size.seconds:g} s on {_called(device)}. It attacks "
        f"the clips (networks in {precision}), rounds them and checks their budget on the CPU, batch by batch.\n\n"
        + table(["attack", "batch", "clips per second"], rows)
    )


# ---------------------------------------------------------------- training


def tasks(source: Victim, batch: int) -> Callable[[Generator, str], GeneratorTask]:
    """What trains a network in a precision, on ``batch`` crops."""
    made = clips(batch, 2.0)

    def make(network: Generator, precision: str) -> GeneratorTask:
        plain = task(network, source, made, batch)
        return replace(plain, settings=replace(plain.settings, precision=precision))

    return make


def training_table(
    task: Callable[[Generator, str], GeneratorTask],
    networks: dict[str, Generator],
    size: Size,
    device: torch.device,
    *,
    precisions: Sequence[str] = ("float32", "bfloat16"),
    threads: Sequence[int | None] = (None, 0),
    in_a_row: int = 1,
) -> str:
    """Steps of training on ``device`` in each precision, the crops drawn ahead and when asked for."""
    works: dict[str, Work] = {}
    memory: dict[str, str] = {}
    for name, network in networks.items():
        network.to(device)
        for precision in precisions:
            for drawing in threads:
                one = task(network, precision)
                one.batches = Prefetcher(one.draw, device, drawing)
                key = f"{name} | {precision} | {'ahead' if drawing is None else 'on demand'}"
                step = _stepping(one)
                memory[key] = _memory(step, device)
                works[key] = _in_a_row(step, in_a_row, device)
            network.zero_grad(set_to_none=True)
        network.cpu()  # the memory of the next is its own
        _emptied()
    for network in networks.values():
        network.to(device)
    times = paired(works, size.rounds)
    rows = [
        [
            *key.split(" | "),
            spread(taken, 1000 / in_a_row),
            f"{size.batch * in_a_row / statistics.median(taken):.0f}",
            memory[key],
        ]
        for key, taken in times.items()
    ]
    for network in networks.values():
        network.zero_grad(set_to_none=True)
        network.cpu()
    several = f", {in_a_row} steps in a row" if in_a_row > 1 else ""
    head = ["generator", "precision", "crops drawn", "ms per step", "clips per second", "peak MB"]
    return (
        f"The table shows training against emo18 on {_called(device)} with a batch of {size.batch} crops of 2 s{several}. "
        "With `ahead`, the drawing of crops also continues during the other rows.\n\n"
        + table(head, rows)
    )


def _stepping(one: GeneratorTask) -> Work:
    """One step after another, each to its end."""
    fresh = itertools.count()

    def step() -> None:
        one.module.zero_grad(set_to_none=True)
        one.loss(next(fresh))[0].backward()  # type: ignore[no-untyped-call]
        _synchronise(next(one.module.parameters()).device)

    return step


def _memory(step: Work, device: torch.device) -> str:
    """Largest memory of ``device`` in a step, in MB; nothing on a CPU."""
    if device.type != "cuda":
        return ""
    step()  # libraries take what they keep
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


def drawing_table(one: GeneratorTask, step: Work, size: Size) -> str:
    """What drawing the crops takes of a training step, when asked for and ahead of it."""
    fresh = itertools.count()
    threads = (0, 1, 2, 4)
    ways = {n: Prefetcher(one.draw, torch.device("cpu"), n) for n in threads}
    works: dict[str, Work] = {
        str(n): (lambda way=way: [way(next(fresh)) for _ in range(STEPS)])  # type: ignore[misc]
        for n, way in ways.items()
    }
    times = paired({"step": step, **works}, max(2, size.rounds // 3))
    whole = statistics.median(times["step"])
    rows = [
        [
            "on demand" if n == 0 else f"ahead, threads: {n}",
            spread(times[str(n)], 1000 / STEPS),
            f"{statistics.median(times[str(n)]) / STEPS / whole:.1%}",
        ]
        for n in threads
    ]
    return (
        f"The table shows the drawing of {size.batch} crops of 2 s. A training step of `narrow` against emo18 takes "
        f"{1000 * whole:.0f} ms on this machine. In training, other threads draw crops during a step. In this "
        "test no step runs. The rows therefore show the largest drawing rate.\n\n"
        + table(["drawing of crops", "ms per batch", "share of a step"], rows)
    )


def _halved(size: Size) -> int:
    return max(2, (size.rounds + 1) // 2)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _emptied() -> None:
    """Give back what torch keeps of a GPU's memory for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _called(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
