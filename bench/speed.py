"""``python -m bench speed [--quick] [RUN]``: every figure of speed and memory, paired in one run.

Alternatives are measured by turns, so that whatever else slows the machine slows all of them; medians
and ranges over the rounds, and ratios as medians of the rounds' own ratios. Times do not depend on
weights, so networks are untrained; a finished RUN adds whether quantised weights still fool.
``--quick`` tries everything with little and prints; without it the section *Speed* of results.md is written.
"""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench import compiled, finished, gpu, scaling
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
    write_noise,
)
from bench.subjects import BUDGET, generators, gflop, task
from staanet import audio, storage
from staanet.attacks import ATTACKS, Staa, craft_batch
from staanet.core import Victim
from staanet.generators.base import Generator
from staanet.generators.export import onnx_bytes
from staanet.generators.registry import build_generator
from staanet.generators.runtime import Runner
from staanet.generators.warm_start import backward_net_from
from staanet.generators.wave_u_net import ConvUnit
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine
from staanet.training import GeneratorTask
from staanet.victims import build_victim

HERE = Path(__file__).parent


def main(arguments: list[str]) -> None:
    """Measure; print, or write the section into results.md."""
    size = QUICK if "--quick" in arguments else FULL
    runs = [Path(one) for one in arguments if not one.startswith("--")]
    text = section(size, runs[0] if runs else None)
    if "--quick" in arguments:
        print(text)
        return
    storage.write_text(HERE / "speed.md", text + "\n")
    before, *behind = (HERE / "results.md").read_text(encoding="utf-8").split(HEAD)
    rest = behind[0].partition("\n## ")[2] if behind else ""
    after = f"\n## {rest}" if rest else ""
    storage.write_text(HERE / "results.md", f"{before.rstrip()}\n\n{text}\n{after}")


HEAD = "## Speed\n"


def section(size: Size, run: Path | None) -> str:
    """The whole text."""
    torch.manual_seed(0)
    source = build_victim("emo18", LABELS).eval().requires_grad_(False)
    networks = generators(source)
    times = per_clip(networks, source, size)
    parts = [
        HEAD,
        f"The command `python -m bench speed{f' {run.name}' if run else ''}` ran at commit `{commit()}` with {describe_machine()}. "
        f"The test has {size.rounds} rounds. Each round measures every row of a table. The tables show the median "
        "and the range.",
        clip_table(times, networks, size),
        batch_table(networks, source, size),
        cost(times),
        compiled.compiled_table(size),
        training_table(networks, source, size),
        drawn_table(networks["narrow"], source, size),
        victim_table(size),
        scaling.scaling_table(size),
        scaling.together_table(size),
        scaling.loading_table(size),
    ]
    if run is not None:
        parts += [finished.quantised_table(run), finished.window_table(run, size)]
    if torch.cuda.is_available():
        parts += gpu.parts(networks, source, size, "cuda")
    return "\n\n".join(parts)


PUBLISHED = "paper, one-dimensional"


class OneDimensional(nn.Module):
    """A convolution of kernel height 1 as the published code has it: Conv1d or ConvTranspose1d."""

    def __init__(self, conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        kernel, stride, padding = conv.kernel_size[1], conv.stride[1], int(conv.padding[1])
        shape = conv.in_channels, conv.out_channels, kernel, stride, padding
        self.out_channels = conv.out_channels
        self.conv: nn.Conv1d | nn.ConvTranspose1d = (
            nn.ConvTranspose1d(*shape, output_padding=conv.output_padding[1])
            if isinstance(conv, nn.ConvTranspose2d)
            else nn.Conv1d(*shape)
        )
        state = {
            name: one.squeeze(2) if one.ndim > 1 else one for name, one in conv.state_dict().items()
        }
        self.conv.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.conv(x[:, :, 0])
        return answer[:, :, None]


def one_dimensional(network: Generator) -> Generator:
    """The same function in the layers of the published code, which convolve in one dimension."""
    plain = copy.deepcopy(network)
    for unit in [module for module in plain.modules() if isinstance(module, ConvUnit)]:
        unit.conv = OneDimensional(unit.conv)  # type: ignore[assignment]
    return plain.requires_grad_(False)


# ---------------------------------------------------------------- a clip


def per_clip(networks: dict[str, Generator], source: Victim, size: Size) -> dict[str, list[float]]:
    """Seconds for one clip, batch of one, and for a large matrix product (the arithmetic peak)."""
    (clip,) = clips(1, size.seconds)
    attacks: dict[str, Any] = {
        name: Staa(generator=g, budget=BUDGET) for name, g in networks.items()
    }
    plain = one_dimensional(networks["paper"])
    attacks[PUBLISHED] = Staa(generator=plain, budget=BUDGET)
    attacks["PGD, 20 steps"] = ATTACKS["pgd"](budget=BUDGET, steps=20)
    works: dict[str, Work] = {
        name: (lambda one=one: craft_batch(one, source, [clip])) for name, one in attacks.items()
    }
    for name in ("compact", "narrow", "backward_net"):
        runner = Runner(onnx_bytes(networks[name], 0.03, 0.2), threads=torch.get_num_threads())
        works[f"{name}, ONNX Runtime"] = lambda runner=runner: runner(clip.pcm16)
    square = torch.randn(size.square, size.square)
    works["product"] = lambda: square @ square
    return paired(works, size.rounds)


def clip_table(times: dict[str, list[float]], networks: dict[str, Generator], size: Size) -> str:
    """Time of a clip, and beside what; the share of the peak that is reached."""
    x = torch.randn(1, round(size.seconds * RATE)) / 10
    peak = 2 * size.square**3 / statistics.median(times["product"]) / 1e9
    rows = []
    for name in (n for n in times if n != "product"):
        network = networks.get(name)
        work = gflop(network, x) if network is not None else 0.0
        share = work / statistics.median(times[name]) / peak
        rows.append(
            [
                name,
                spread(times[name]),
                ratio(times["paper"], times[name]),
                ratio(times[PUBLISHED], times[name]),
                ratio(times["PGD, 20 steps"], times[name]),
                *([f"{work:.2f}", f"{share:.0%}"] if network is not None else ["", ""]),
            ]
        )
    head = [
        "attack",
        "ms per clip",
        "speed-up over paper",
        f"speed-up over {PUBLISHED}",
        "speed-up over PGD",
        "GFLOP",
        "share of the peak",
    ]
    return (
        f"Each attack changes one clip of {size.seconds:g} s in a batch of one. The time includes the budget and "
        f"the rounding. `{PUBLISHED}` is the published network in the layers of the published code. The peak is "
        f"{peak:.0f} GFLOP/s in a product of {size.square} x {size.square} matrices. The GFLOP of torch contain only "
        "convolutions and products. LSTM loops, norms, maxima and the choice of samples take the other time.\n\n"
        + table(head, rows)
    )


def batch_table(networks: dict[str, Generator], source: Victim, size: Size) -> str:
    """Clips a second where many are attacked at once."""
    many = clips(size.batch, size.seconds)
    attacks = {name: Staa(generator=g, budget=BUDGET) for name, g in networks.items()}
    works: dict[str, Work] = {
        name: (lambda one=one: craft_batch(one, source, many))  # type: ignore[misc]
        for name, one in attacks.items()
    }
    times = paired(works, max(2, size.rounds // 4))
    rows = [
        [name, f"{size.batch / statistics.median(taken):.2f}", ratio(times["paper"], taken)]
        for name, taken in times.items()
    ]
    return f"The table shows a batch of {size.batch} of these clips.\n\n" + table(
        ["attack", "clips per second", "speed-up over paper"], rows
    )


def cost(times: dict[str, list[float]]) -> str:
    """What a million clips take, from the median of one."""
    rows = [
        [name, f"{statistics.median(taken) * 1e6 / 3600:.1f}"]
        for name, taken in times.items()
        if name != "product"
    ]
    return (
        "The table shows the time for a million of these clips at the median time of one clip.\n\n"
        + table(["attack", "hours on this machine"], rows)
    )


# ---------------------------------------------------------------- training


def training_table(networks: dict[str, Generator], source: Victim, size: Size) -> str:
    """Steps of training against emo18, and the memory of a process that takes one."""
    made = clips(size.batch, 2.0)
    tasks = {name: task(network, source, made, size.batch) for name, network in networks.items()}
    works: dict[str, Work] = {name: (lambda one=one: step(one)) for name, one in tasks.items()}
    times = paired(works, max(2, size.rounds // 3))
    idle = peak("nothing")
    peaks = {
        n: max(1.0, peak(f"step {n} {size.batch}") - idle) for n in networks
    }  # 1: not above it
    rows = [
        [
            name,
            f"{size.batch / statistics.median(times[name]):.2f}",
            ratio(times["paper"], times[name]),
            f"{peaks[name]:.0f}",
            f"{peaks['paper'] / peaks[name]:.1f}",
        ]
        for name in networks
    ]
    head = [
        "generator",
        "clips per second",
        "speed-up over paper",
        "peak MB",
        "memory of paper / memory of this row",
    ]
    return (
        f"A training step against emo18 uses a batch of {size.batch} crops of 2 s. The time includes the loss, "
        "the backward pass and the crops. The memory excludes the memory of an idle process.\n\n"
        + table(head, rows)
    )


def drawn_table(network: Generator, source: Victim, size: Size) -> str:
    """What of a training step the crops take."""
    one = task(network, source, clips(size.batch, 2.0), size.batch)
    return gpu.drawing_table(one, lambda: step(one), size)


def step(one: GeneratorTask | VictimStep) -> None:
    """One loss and its gradients."""
    one.module.zero_grad(set_to_none=True)
    one.loss(0)[0].backward()  # type: ignore[no-untyped-call]


def peak(what: str) -> float:
    """Largest resident memory of a fresh process that does ``what``, in MB."""
    code = f"from bench import speed; speed.child({what.split()!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(what: list[str]) -> None:
    """In a process of its own: do it, print its peak in MB."""
    torch.manual_seed(0)
    source = build_victim("emo18", LABELS).eval().requires_grad_(False)
    if what[0] == "step":
        network = (
            backward_net_from(source, 0.2)
            if what[1] == "backward_net"
            else build_generator(what[1], 0.2)
        )
        step(task(network, source, clips(int(what[2]), 2.0), int(what[2])))
    if what[0] == "attack":  # NAME, recordings, seconds of each
        from staanet import corpora, pipeline
        from staanet.config import AttackRecipe

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            network = generators(source)[what[1]]
            for number in range(int(what[2])):
                write_noise(folder / "in" / f"{number}.wav", float(what[3]))
            begun = time.perf_counter()
            context = pipeline.Context()
            limits = audio.AudioLimits(max_seconds=1e9, max_bytes=2**40)
            corpus = corpora.unlabelled_corpus([folder / "in"])
            corpus = type(corpus)(corpus.name, corpus.utterances, corpus.labels, limits=limits)
            recipe = AttackRecipe(attack="random", epsilon=0.03, max_density=0.2)
            plan = pipeline.plan_attack("random", recipe, source, context=context)
            plan = type(plan)("staa", "staa", Staa(generator=network, budget=BUDGET), source)
            read = pipeline.ReadingClips(corpus, source, context, window_s=6.0)
            pipeline.attack(plan, read, folder / "out", context=context)
            pipeline.join_recordings(read.recordings.values(), folder / "out", context=context)
            print(time.perf_counter() - begun)
    print(largest())


def largest() -> float:
    """The largest resident memory of this process so far, in MB (Linux).

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


class Plain(nn.Module):
    """emo18 as its paper writes it: Conv1d, BatchNorm, activation, MaxPool, LSTM."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8)]
        self.blocks = nn.Sequential(
            *(
                layer
                for i, o, kernel, pool in shapes
                for layer in (
                    nn.Conv1d(i, o, kernel, padding=(kernel - 1) // 2),
                    nn.BatchNorm1d(o),
                    nn.LeakyReLU(),
                    nn.MaxPool1d(pool),
                )
            )
        )
        self.lstm = nn.LSTM(256, 256, 2, batch_first=True)
        self.head = nn.Linear(256, len(LABELS))

    def forward(self, x: Tensor) -> Tensor:
        x = (x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)
        steps, _ = self.lstm(self.blocks(x[:, None]).transpose(1, 2))
        answer: Tensor = self.head(steps).mean(dim=1)
        return answer


@dataclass
class VictimStep:
    """A step of training a classifier."""

    module: nn.Module
    x: Tensor
    labels: Tensor

    def loss(self, number: int) -> tuple[Tensor, dict[str, float]]:
        return F.cross_entropy(self.module.train()(self.x), self.labels), {}


def victim_table(size: Size) -> str:
    """A training step of emo18, as published and as it is here."""
    x = 0.1 * torch.randn(size.batch, 2 * RATE)
    labels = torch.arange(size.batch) % len(LABELS)
    steps = {
        "plain": VictimStep(Plain(), x, labels),
        "ours": VictimStep(build_victim("emo18", LABELS), x, labels),
    }
    works: dict[str, Work] = {name: (lambda one=one: step(one)) for name, one in steps.items()}
    times = paired(works, size.rounds)
    rows = [[name, spread(taken), ratio(times["plain"], taken)] for name, taken in times.items()]
    return (
        f"A training step of emo18 uses a batch of {size.batch} crops of 2 s. `plain` is the module of the paper. "
        "`ours` has MaxPool before the activation and two-dimensional channels-last convolutions.\n\n"
        + table(["module", "ms per step", "speed-up over plain"], rows)
    )
