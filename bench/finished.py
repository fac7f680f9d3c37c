"""The parts of ``python -m bench speed RUN`` that need trained weights and speech: what a finished run holds."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.measuring import RATE, Size, spread, table
from staanet import audio
from staanet.attacks import Staa, craft_batch
from staanet.core import Budget, Clip, Victim
from staanet.generators.export import onnx_bytes
from staanet.generators.registry import load_generator
from staanet.generators.runtime import Runner

ROUNDED = "torch, bfloat16"


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
    from staanet.results.adversarial_set import AdversarialSet
    from staanet.victims import load_victim

    folder = sorted((run / "generators").iterdir())[0]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    source = load_victim(run / "victims" / card["source"])
    made = AdversarialSet.load(run / "adversarial" / f"staa__{folder.name}")
    pairs = [made.clips[i] for i in range(min(len(made), 80))]
    budget = Budget(epsilon=card["epsilon"], max_density=card["max_density"])
    model = onnx_bytes(load_generator(folder), budget.epsilon, budget.max_density)
    runners = {"ONNX Runtime": Runner(model), "ONNX Runtime, int8": Runner(quantised(model))}
    rounded = Staa(generator=load_generator(folder), budget=budget, precision="bfloat16")
    rows = [["torch", rate(source, [(p.clean.pcm16, p.adversarial) for p in pairs]), "", ""]]
    times: dict[str, list[float]] = {name: [] for name in runners}
    answers: dict[str, list[Any]] = {name: [] for name in runners}
    answers[ROUNDED] = [craft_batch(rounded, source, [p.clean])[0].adversarial for p in pairs]
    for pair in pairs:
        for name, runner in runners.items():
            begun = time.perf_counter()
            answers[name].append(runner(pair.clean.pcm16))
            times[name].append(time.perf_counter() - begun)
    for name, samples in answers.items():
        others = [int((a != p.adversarial).sum()) for a, p in zip(samples, pairs, strict=True)]
        changed = sum(len(p.support) for p in pairs)
        both = [(p.clean.pcm16, a) for p, a in zip(pairs, samples, strict=True)]
        taken = spread(times[name]) if name in times else ""
        rows.append([name, rate(source, both), f"{sum(others) / changed:.2%}", taken])
    same = sum(
        np.count_nonzero((a != p.clean.pcm16) & (p.adversarial != p.clean.pcm16))
        for a, p in zip(answers[ROUNDED], pairs, strict=True)
    )
    head = [
        "runtime",
        f"fools {source.name}",
        "changed samples that differ from torch",
        "ms per clip",
    ]
    return (
        f"The generator of `{run.name}` attacks {len(pairs)} of the test clips. A GPU runs the generator in bfloat16. "
        f"In bfloat16, {same / changed:.1%} of the changed samples are the same. Their changes differ slightly.\n\n"
        + table(head, rows)
    )


def window_table(run: Path, size: Size) -> str:
    """How much a recording attacked in windows differs from one pass over all of it."""
    from staanet.corpora.recordings import window_bounds
    from staanet.results.adversarial_set import AdversarialSet
    from staanet.victims import load_victim

    folder = sorted((run / "generators").iterdir())[0]
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    source = load_victim(run / "victims" / card["source"])
    made = AdversarialSet.load(run / "adversarial" / f"staa__{folder.name}")
    speech = np.concatenate([made.clips[i].clean.pcm16 for i in range(min(len(made), 24))])
    speech = speech[: round(10 * size.seconds * RATE)]
    budget = Budget(epsilon=card["epsilon"], max_density=card["max_density"])
    attack = Staa(generator=load_generator(folder), budget=budget)

    def crafted(samples: Any) -> Any:
        return craft_batch(attack, source, [Clip("c", samples, RATE)])[0].adversarial

    whole, rows = crafted(speech), []
    for seconds in (size.seconds / 2, size.seconds, 5 * size.seconds):
        edges = window_bounds(len(speech), round(seconds * RATE))
        parts = np.concatenate([crafted(speech[a:b]) for a, b in edges])
        moved = np.count_nonzero(whole != speech)
        both = np.count_nonzero((whole != speech) & (parts != speech))
        rows.append(
            [
                f"{seconds:g}",
                f"{np.mean(parts == whole):.1%}",
                f"{both / moved:.1%}",
                rate(source, [(speech[a:b], parts[a:b]) for a, b in edges]),
                rate(source, [(speech[a:b], whole[a:b]) for a, b in edges]),
            ]
        )
    head = [
        "window in s",
        "samples equal to one pass",
        "changed samples that one pass also changes",
        "windows fooled",
        "windows fooled by one pass",
    ]
    return (
        f"The recording of {len(speech) / RATE:.0f} s joins test clips of `{run.name}`. The table compares an attack in "
        "windows with an attack in one pass.\n\n" + table(head, rows)
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
