"""``python -m bench speed [--quick] [RUN]``: every figure of speed and memory, paired in one run.

Alternatives are measured by turns, so that whatever else slows the machine slows all of them; medians
and ranges over the rounds, and ratios as medians of the rounds' own ratios. Times do not depend on
weights, so networks are untrained; a finished RUN adds whether quantised weights still fool.
``--quick`` tries everything with little and prints; without it the section *Speed* of results.md is written.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from staanet import audio, storage
from staanet.attacks import ATTACKS, Staa, craft_batch
from staanet.core import Budget, Clip, Victim
from staanet.evaluation import machine
from staanet.generator import Generator, build_generator, load_generator
from staanet.generator.export import onnx_bytes
from staanet.objectives import Objective, SparsityController
from staanet.pipeline.recipe import commit
from staanet.runtime import Runner
from staanet.training import Crops, GeneratorTask, Schedule
from staanet.victims import build_victim
from staanet.warm_start import mirror_of

LABELS = ("anger", "boredom", "disgust", "fear", "joy", "neutral", "sadness")
HERE = Path(__file__).parent
RATE = 16_000
BUDGET = Budget(epsilon=0.03, max_density=0.2)
Work = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    batch: int
    factor: int
    square: int


FULL = Size(rounds=9, seconds=6.0, batch=16, factor=100, square=2048)
QUICK = Size(rounds=2, seconds=1.0, batch=2, factor=5, square=512)


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
        f"`python -m bench speed{f' {run.name}' if run else ''}`, commit `{commit()}`, {machine()}. "
        f"{size.rounds} rounds in which the alternatives take turns; median, range.",
        clip_table(times, networks, size), cost(times),
        training_table(networks, source, size), victim_table(size), scaling_table(size),
    ]  # fmt: skip
    if run is not None:
        parts += [quantised_table(run), window_table(run, size)]
    if torch.cuda.is_available():
        parts.append(gpu_table(networks, source, size))
    return "\n\n".join(parts)


def generators(source: Victim) -> dict[str, Generator]:
    """The networks that are compared, frozen."""
    made = {name: build_generator(name, 0.2) for name in ("paper", "compact")}
    return {
        n: g.eval().requires_grad_(False)
        for n, g in {**made, "mirror": mirror_of(source, 0.2)}.items()
    }


# ---------------------------------------------------------------- measuring


def paired(works: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round; the order turns, and a first round is thrown away."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for turn in range(-1, rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begun = time.perf_counter()
            works[name]()
            if turn >= 0:
                taken[name].append(time.perf_counter() - begun)
    return taken


def ratio(above: list[float], below: list[float]) -> str:
    """Median and range of the rounds' own ratios."""
    own = [a / b for a, b in zip(above, below, strict=True)]
    return f"{statistics.median(own):.1f} ({min(own):.1f} to {max(own):.1f})"


def spread(values: list[float], scale: float = 1000.0, digits: int = 1) -> str:
    """Median and range, in milliseconds unless scaled otherwise."""
    low, middle, high = (
        f"{scale * v:.{digits}f}" for v in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low} to {high})"


def clips(number: int, seconds: float) -> list[Clip]:
    """Noise, each clip its own."""
    rng = np.random.default_rng(0)
    length = round(seconds * RATE)
    return [
        Clip(
            f"c{i}", audio.snap(0.1 * rng.standard_normal(length)), RATE, LABELS[i % 7], f"s{i % 5}"
        )
        for i in range(number)
    ]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Rows as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def gflop(module: nn.Module, x: Tensor) -> float:
    """Products and sums of convolutions and matrix products, in 10^9, as torch counts them."""
    with FlopCounterMode(display=False) as count, torch.no_grad():
        module(x)
    return count.get_total_flops() / 1e9


# ---------------------------------------------------------------- a clip


def per_clip(networks: dict[str, Generator], source: Victim, size: Size) -> dict[str, list[float]]:
    """Seconds for one clip, batch of one, and for a large matrix product (the arithmetic peak)."""
    (clip,) = clips(1, size.seconds)
    attacks: dict[str, Any] = {
        name: Staa(generator=g, budget=BUDGET) for name, g in networks.items()
    }
    attacks["PGD, 20 steps"] = ATTACKS["pgd"](budget=BUDGET, steps=20)
    works: dict[str, Work] = {
        name: (lambda one=one: craft_batch(one, source, [clip])) for name, one in attacks.items()
    }
    for name in ("compact", "mirror"):
        runner = Runner(onnx_bytes(networks[name], 0.03, 0.2), threads=torch.get_num_threads())
        works[f"{name}, ONNX Runtime"] = lambda runner=runner: runner(clip.samples)
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
        rows.append([
            name, spread(times[name]), ratio(times["paper"], times[name]),
            ratio(times["PGD, 20 steps"], times[name]),
            *([f"{work:.2f}", f"{share:.0%}"] if network is not None else ["", ""]),
        ])  # fmt: skip
    head = ["attack", "ms a clip", "paper takes times", "PGD takes times", "GFLOP", "of the peak"]
    return (
        f"One clip of {size.seconds:g} s, batch of one, the whole attack with its budget and rounding (a "
        f"victim's answer for the goal, except on ONNX Runtime). Peak: {peak:.0f} GFLOP/s in a product of "
        f"{size.square} x {size.square} matrices; torch counts convolutions and products, not an LSTM's "
        "loops, norms, maxima and the choice of samples, which is what the rest of the time goes to.\n\n"
        + table(head, rows)
    )


def cost(times: dict[str, list[float]]) -> str:
    """What a million clips take, from the median of one."""
    rows = [
        [name, f"{statistics.median(taken) * 1e6 / 3600:.1f}"]
        for name, taken in times.items() if name != "product"
    ]  # fmt: skip
    return "A million such clips, at the median time of one:\n\n" + table(
        ["attack", "hours of this machine"], rows
    )


# ---------------------------------------------------------------- training


def training_table(networks: dict[str, Generator], source: Victim, size: Size) -> str:
    """Steps of training against emo18, and the memory of a process that takes one."""
    made = clips(size.batch, 2.0)
    tasks = {name: task(network, source, made, size.batch) for name, network in networks.items()}
    works: dict[str, Work] = {name: (lambda one=one: step(one)) for name, one in tasks.items()}
    times = paired(works, max(2, size.rounds // 3))
    drawn = tasks["mirror"].crops.draw
    crops = statistics.median(paired({"crops": lambda: drawn(0)}, size.rounds)["crops"])
    idle = peak("nothing")
    peaks = {
        n: max(1.0, peak(f"step {n} {size.batch}") - idle) for n in networks
    }  # 1: not above it
    rows = [
        [name, f"{size.batch / statistics.median(times[name]):.2f}", ratio(times["paper"], times[name]),
         f"{peaks[name]:.0f}", f"{peaks['paper'] / peaks[name]:.1f}"]
        for name in networks
    ]  # fmt: skip
    head = ["generator", "clips a second", "times paper", "MB at its peak", "of paper's, one in"]
    return (
        f"A training step against emo18, batch of {size.batch} crops of 2 s, loss, backward pass and "
        f"crops included (drawing them takes {1000 * crops:.1f} ms of a step); memory beyond that of a "
        "process that has loaded all and trains nothing.\n\n" + table(head, rows)
    )


def task(network: Generator, source: Victim, made: list[Clip], batch: int) -> GeneratorTask:
    """What ``train-generator`` optimises."""
    network.requires_grad_(True)
    schedule = Schedule(steps=1, batch_size=batch, seconds=2.0)
    return GeneratorTask(
        module=network, source=source, crops=Crops(made, schedule), dev=made, budget=BUDGET,
        objective=Objective(), sparsity=SparsityController(target=0.2, warmup=1),
    )  # fmt: skip


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
        network = mirror_of(source, 0.2) if what[1] == "mirror" else build_generator(what[1], 0.2)
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
            quarantine = pipeline.Quarantine()
            limits = audio.AudioLimits(max_seconds=1e9, max_bytes=2**40)
            corpus = corpora.unlabelled([folder / "in"])
            corpus = type(corpus)(corpus.name, corpus.utterances, corpus.labels, limits=limits)
            recipe = AttackRecipe(attack="random", epsilon=0.03, max_density=0.2)
            plan = pipeline.plan_attack("random", recipe, source)
            plan = type(plan)("staa", "staa", Staa(generator=network, budget=BUDGET), source)
            read = pipeline.ReadingClips(corpus, source, quarantine, window_s=6.0)
            made = pipeline.attack(plan, read, folder / "out", quarantine=quarantine)
            pipeline.join_recordings(read.recordings.values(), made, folder / "out")
            print(time.perf_counter() - begun)
    print(largest())


def largest() -> float:
    """The largest resident memory of this process so far, in MB (Linux).

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def write_noise(path: Path, seconds: float) -> None:
    """A file of noise, block by block."""
    rng, count = np.random.default_rng(len(path.name)), round(seconds * RATE)
    with storage.FileWriter(path) as file:
        file.write(audio.wav_header(count, RATE))
        for start in range(0, count, RATE):
            block = audio.snap(0.1 * rng.standard_normal(min(RATE, count - start)))
            file.write(block.astype("<i2").tobytes())


class Plain(nn.Module):
    """emo18 as its paper writes it: Conv1d, BatchNorm, activation, MaxPool, LSTM."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(1, 64, 8, 10), (64, 128, 6, 8), (128, 256, 6, 8)]
        self.blocks = nn.Sequential(*(
            layer for i, o, kernel, pool in shapes
            for layer in (nn.Conv1d(i, o, kernel, padding=(kernel - 1) // 2), nn.BatchNorm1d(o),
                          nn.LeakyReLU(), nn.MaxPool1d(pool))
        ))  # fmt: skip
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
    steps = {"plain": VictimStep(Plain(), x, labels),
             "ours": VictimStep(build_victim("emo18", LABELS), x, labels)}  # fmt: skip
    works: dict[str, Work] = {name: (lambda one=one: step(one)) for name, one in steps.items()}
    times = paired(works, size.rounds)
    rows = [[name, spread(taken), ratio(times["plain"], taken)] for name, taken in times.items()]
    return (
        f"A training step of emo18, batch of {size.batch} crops of 2 s: the module as its paper writes it, "
        "and ours (MaxPool before the activation, two-dimensional channels-last convolutions).\n\n"
        + table(["module", "ms a step", "plain takes times"], rows)
    )


# ---------------------------------------------------------------- scaling


def scaling_table(size: Size) -> str:
    """Time and memory of the whole command's work as clips become more, or longer."""
    rows = []
    for name in ("compact", "mirror"):
        one = measured(f"attack {name} 1 6")
        for what, arguments in (
            (f"{size.factor} files", f"{size.factor} 6"),
            (f"one file {size.factor} times as long", f"1 {6 * size.factor}"),
        ):
            many = measured(f"attack {name} {arguments}")
            rows.append([
                name, what, f"{1000 * one[0]:.0f}", f"{1000 * many[0] / size.factor:.0f}",
                f"{one[1]:.0f}", f"{many[1]:.0f}",
            ])  # fmt: skip
    head = [
        "generator",
        "work",
        "ms, one of 6 s",
        "ms for each 6 s of it",
        "MB, one",
        "MB, all of it",
    ]
    return (
        "Reading, attacking, writing, reading back and measuring, windows of 6 s, each in a process of its "
        "own (the first clip of a process is slower than others, so the second figure may be below the "
        "first).\n\n" + table(head, rows)
    )


def measured(what: str) -> tuple[float, float]:
    """Seconds and peak MB of a child that tells both."""
    code = f"from bench import speed; speed.child({what.split()!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    return seconds, megabytes


# ---------------------------------------------------------------- quantised weights, GPU


def quantised(model: bytes) -> bytes:
    """Weights of products and LSTMs as 8-bit integers, by onnxruntime's dynamic quantisation."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "a.onnx", Path(name) / "b.onnx"
        before.write_bytes(model)
        quantize_dynamic(before, after, weight_type=QuantType.QInt8)
        return after.read_bytes()


def quantised_table(run: Path) -> str:
    """How often the generator of a run fools its source on the run's test clips, and how fast."""
    from staanet.results import AdversarialSet
    from staanet.victims import load_victim

    folder = sorted((run / "generators").iterdir())[0]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    source = load_victim(run / "victims" / card["source"])
    made = AdversarialSet.load(run / "adversarial" / f"staa__{folder.name}")
    pairs = [made.clips[i] for i in range(min(len(made), 80))]
    budget = Budget(epsilon=card["epsilon"], max_density=card["max_density"])
    model = onnx_bytes(load_generator(folder), budget.epsilon, budget.max_density)
    runners = {"ONNX Runtime": Runner(model), "ONNX Runtime, int8": Runner(quantised(model))}
    rows = [["torch", rate(source, [(p.clean.samples, p.adversarial) for p in pairs]), "", ""]]
    times: dict[str, list[float]] = {name: [] for name in runners}
    answers: dict[str, list[Any]] = {name: [] for name in runners}
    for pair in pairs:
        for name, runner in runners.items():
            begun = time.perf_counter()
            answers[name].append(runner(pair.clean.samples))
            times[name].append(time.perf_counter() - begun)
    for name, samples in answers.items():
        others = [int((a != p.adversarial).sum()) for a, p in zip(samples, pairs, strict=True)]
        changed = sum(len(p.support) for p in pairs)
        both = [(p.clean.samples, a) for p, a in zip(pairs, samples, strict=True)]
        rows.append([name, rate(source, both), f"{sum(others) / changed:.2%}", spread(times[name])])
    head = [
        "runtime",
        f"fools {source.name}",
        "samples unlike torch's, of those changed",
        "ms a clip",
    ]
    return f"The generator of `{run.name}` on {len(pairs)} of its test clips.\n\n" + table(
        head, rows
    )


def window_table(run: Path, size: Size) -> str:
    """How much a recording attacked in windows differs from one pass over all of it."""
    from staanet.recordings import bounds
    from staanet.results import AdversarialSet
    from staanet.victims import load_victim

    folder = sorted((run / "generators").iterdir())[0]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    source = load_victim(run / "victims" / card["source"])
    made = AdversarialSet.load(run / "adversarial" / f"staa__{folder.name}")
    speech = np.concatenate([made.clips[i].clean.samples for i in range(min(len(made), 24))])
    speech = speech[: round(10 * size.seconds * RATE)]
    budget = Budget(epsilon=card["epsilon"], max_density=card["max_density"])
    attack = Staa(generator=load_generator(folder), budget=budget)

    def crafted(samples: Any) -> Any:
        return craft_batch(attack, source, [Clip("c", samples, RATE)])[0].adversarial

    whole, rows = crafted(speech), []
    for seconds in (size.seconds / 2, size.seconds, 5 * size.seconds):
        edges = bounds(len(speech), round(seconds * RATE))
        parts = np.concatenate([crafted(speech[a:b]) for a, b in edges])
        moved = np.count_nonzero(whole != speech)
        both = np.count_nonzero((whole != speech) & (parts != speech))
        rows.append([
            f"{seconds:g}", f"{np.mean(parts == whole):.1%}", f"{both / moved:.1%}",
            rate(source, [(speech[a:b], parts[a:b]) for a, b in edges]),
            rate(source, [(speech[a:b], whole[a:b]) for a, b in edges]),
        ])  # fmt: skip
    head = ["window, s", "samples equal to those of one pass", "moved samples that one pass moves too",
            "windows fooled", "windows fooled by one pass over all"]  # fmt: skip
    return (
        f"A recording of {len(speech) / RATE:.0f} s, test clips of `{run.name}` in a row, attacked in windows "
        "and in one pass.\n\n" + table(head, rows)
    )


def rate(source: Victim, pairs: list[tuple[Any, Any]]) -> str:
    """Share of pairs that the victim answers differently."""
    fooled = 0
    with torch.inference_mode():
        for pair in pairs:
            x = torch.from_numpy(np.stack([audio.to_float(one) for one in pair]))
            before, after = source(x).argmax(dim=1).tolist()
            fooled += before != after
    return f"{fooled / len(pairs):.1%}"


def gpu_table(networks: dict[str, Generator], source: Victim, size: Size) -> str:
    """Time of a clip on the GPU, alone and in a batch."""
    device = torch.device("cuda")
    rows = []
    for batch in (1, 256):
        x = 0.1 * torch.randn(batch, round(size.seconds * RATE), device=device)
        works: dict[str, Work] = {}
        for name, network in networks.items():
            attack = Staa(generator=network.to(device), budget=BUDGET)
            works[name] = lambda attack=attack, x=x: synchronised(attack, source, x)
        times = paired(works, size.rounds)
        rows += [
            [
                name,
                str(batch),
                spread([t / batch for t in taken], 1e6),
                ratio(times["paper"], taken),
            ]
            for name, taken in times.items()
        ]
    for network in networks.values():
        network.cpu()
    return f"On {torch.cuda.get_device_name()}:\n\n" + table(
        ["attack", "batch", "microseconds a clip", "paper takes times"], rows
    )


def synchronised(attack: Staa, source: Victim, x: Tensor) -> None:
    """The attack and the end of what it asked of the GPU."""
    from staanet.core import Untargeted

    attack(source, x, Untargeted(0))
    torch.cuda.synchronize()
