"""Exports a generator as ONNX, after comparing it with the torch attack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from staanet import audio, storage
from staanet.attacks import Staa
from staanet.config import PAPER_EPSILON
from staanet.core import Budget, Samples, Untargeted, Victim
from staanet.errors import StaaNetError
from staanet.generators.base import Generator
from staanet.generators.export import onnx_bytes
from staanet.generators.registry import load_generator
from staanet.generators.runtime import KEY, Runner

ALLOWED_SHARE = 0.01
"""Share of the changed samples that may differ, because two ranks or two roundings nearly tie."""


def export_generator(folder: Path, out: Path) -> dict[str, int | float]:
    """Writes an ONNX file of a generator; returns how many samples of its clips differ from torch's.

    Raises ``InvalidInput`` if ``out`` is a file that staanet did not write. Raises ``StaaNetError``, and
    writes nothing, if more than ``ALLOWED_SHARE`` of the changed samples differ.
    """
    storage.refuse_foreign(out, KEY.encode())
    card = storage.read_card(folder, "generator")
    epsilon, density = card.get("epsilon", PAPER_EPSILON), card.get("max_density")
    generator = load_generator(folder)
    model = onnx_bytes(generator, epsilon, density)
    budget = Budget(epsilon=epsilon, max_density=density)
    counts = count_differences(generator, Runner(model), budget)
    if counts["differing"] > ALLOWED_SHARE * counts["changed"]:
        raise StaaNetError(
            f"{counts['differing']} of {counts['changed']} changed samples differ from those of torch; "
            f"at most {ALLOWED_SHARE:.0%} may differ",
            where=out,
            remedy="This is a fault of the exporter; nothing was written",
        )
    storage.write_bytes(out, model)
    return counts


def count_differences(
    generator: Generator, runner: Runner, budget: Budget
) -> dict[str, int | float]:
    """Counts the samples on which ``runner`` and the attack ``staa`` differ, on noise of several lengths."""
    rng = np.random.default_rng(0)
    least, rate = runner.minimum_samples, runner.sample_rate
    counts = {"samples": 0, "changed": 0, "differing": 0, "largest_steps": 0}
    for length in (least, least + 1, rate // 2 + 7, rate, 3 * rate + 13):
        clean = audio.snap(0.1 * rng.standard_normal(length))
        expected, exported = attack_with_torch(generator, clean, budget), runner(clean)
        steps = np.abs(expected.astype(np.int32) - exported)
        counts["samples"] += length
        counts["changed"] += int(np.count_nonzero(expected != clean))
        counts["differing"] += int(np.count_nonzero(steps))
        counts["largest_steps"] = max(counts["largest_steps"], int(steps.max()))
    return {**counts}


def attack_with_torch(generator: Generator, clean: Samples, budget: Budget) -> Samples:
    """Returns the adversarial clip that the attack ``staa`` computes in torch."""
    no_victim = Victim(name="none", labels=("none",), sample_rate=generator.sample_rate)
    x = torch.from_numpy(audio.to_float(clean))[None]
    x_adv = Staa(generator=generator, budget=budget)(no_victim, x, Untargeted(0))
    return budget.project(clean, x_adv[0].numpy(), generator.sample_rate)
