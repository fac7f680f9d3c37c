"""A generator as an ONNX file, proven against the attack that it stands for before it is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from staanet import audio, storage
from staanet.attacks import Staa
from staanet.core import Budget, Samples, Untargeted, Victim
from staanet.errors import StaaNetError
from staanet.generators.base import Generator
from staanet.generators.export import onnx_bytes
from staanet.generators.registry import load_generator
from staanet.generators.runtime import Runner

ALLOWED = 0.01
"""Of the changed samples of a clip, how many may be others: those whose rank or rounding is a near tie."""


def export_generator(folder: Path, out: Path) -> dict[str, int | float]:
    """Write ``out``; return how many samples the file's clips have otherwise than torch's.

    Raises ``StaaNetError``, and writes nothing, where that is more than ``ALLOWED`` of those changed.
    """
    card = storage.read_card(folder, "generator")
    epsilon, density = float(card.get("epsilon", 0.03)), card.get("max_density")
    generator = load_generator(folder)
    model = onnx_bytes(generator, epsilon, density)
    budget = Budget(epsilon=epsilon, max_density=density)
    found = differing(generator, Runner(model), budget)
    if found["differing"] > ALLOWED * found["changed"]:
        raise StaaNetError(
            f"{found['differing']} of {found['changed']} changed samples differ from torch's; "
            f"{ALLOWED:.0%} may",
            where=out,
            remedy="This is a fault of the exporter; nothing was written",
        )
    storage.write_bytes(out, model)
    return found


def differing(generator: Generator, runner: Runner, budget: Budget) -> dict[str, int | float]:
    """Samples that ``runner`` and the attack ``staa`` set otherwise, on noise of several lengths."""
    rng = np.random.default_rng(0)
    least, rate = runner.minimum_samples, runner.sample_rate
    counts = {"samples": 0, "changed": 0, "differing": 0, "largest_steps": 0}
    for length in (least, least + 1, rate // 2 + 7, rate, 3 * rate + 13):
        clean = audio.snap(0.1 * rng.standard_normal(length))
        wanted, made = attacked(generator, clean, budget), runner(clean)
        steps = np.abs(wanted.astype(np.int32) - made)
        counts["samples"] += length
        counts["changed"] += int(np.count_nonzero(wanted != clean))
        counts["differing"] += int(np.count_nonzero(steps))
        counts["largest_steps"] = max(counts["largest_steps"], int(steps.max()))
    return {**counts}


def attacked(generator: Generator, clean: Samples, budget: Budget) -> Samples:
    """The clip as the attack ``staa`` makes it, by torch."""
    nobody = Victim(name="none", labels=("none",), sample_rate=generator.sample_rate)
    x = torch.from_numpy(audio.to_float(clean))[None]
    moved = Staa(generator=generator, budget=budget)(nobody, x, Untargeted(0))
    return budget.project(clean, moved[0].numpy())
