"""``python -m bench fidelity emodb:PATH --env DIR``: each baseline beside an independent implementation.

Both attack the same clips of the same victim, with the same settings: success, samples and queries. The
libraries torchattacks and adversarial-library ask for torchvision, which must not enter the main
environment. They are installed without dependencies in an environment of their own below DIR (it reads
the main environment's packages and adds these two), and clips and results travel in files. Finished rows
are recorded in ``DIR/fidelity.jsonl``, so that the same command continues where it was stopped; after a
change of an attack, delete that file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import staanet
from bench import sections
from staanet import storage
from staanet.attacks import FGSM, MIFGSM, PGD, VFGA, VMIFGSM, SigmaZero, SparseFool, collate
from staanet.core import Attack, Budget, Clip, Untargeted, Victim
from staanet.core.sampling import stratified_subset
from staanet.corpora import load_corpus
from staanet.storage import describe_machine
from staanet.victims import load_victim

PACKAGES = ("adv-lib==0.2.8", "torchattacks==3.5.1")
OWN_ENVIRONMENT = ("adv-lib", "torchattacks")
REFERENCE = Path(__file__).parent / "fidelity_reference.py"
VICTIMS = ("emo18", "zhao19")
LEAST_CHANGE = 1e-5
"""A third of a step of the 16-bit grid: less is the rounding of another range, and no change."""
BOUND = 1.1
"""How much weaker a baseline may be: fewer fooled clips, or more samples for each."""


@dataclass(frozen=True)
class Case:
    """One baseline and the independent implementation beside it."""

    title: str
    attack: Attack
    library: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    clips: int = 40
    minimises: bool = False
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one implementation reached on one victim."""

    is_fooled: Tensor
    """Which clips, ``[B]`` bool."""
    transferred: int
    samples: Tensor
    """How many samples of each clip changed, ``[B]``."""
    queries: float

    def median_samples(self, clips: Tensor) -> float:
        """The median number of changed samples of some clips, ``[B]`` bool."""
        chosen = self.samples[clips].double()
        return float(chosen.quantile(0.5)) if len(chosen) else 0.0


def cases(epsilon: float) -> list[Case]:
    """The baselines that another library has; sizes there are of images in [0, 1]: half of ours."""
    size, budget = epsilon / 2, Budget(epsilon=epsilon)
    pgd = {"eps": size, "alpha": size / 4, "steps": 20}
    momentum = {"eps": size, "alpha": size / 10, "steps": 10}
    fgsm, follow = (
        FGSM(budget=budget, loss="cross_entropy"),
        PGD(budget=budget, loss="cross_entropy"),
    )
    whole = Budget(epsilon=2)
    return [
        Case("fgsm", fgsm, "torchattacks", "FGSM", {"eps": size}),
        Case("fgsm", fgsm, "foolbox", "LinfFastGradientAttack", {"epsilon": size}),
        Case("pgd", follow, "torchattacks", "PGD", pgd),
        Case(
            "pgd",
            follow,
            "foolbox",
            "LinfPGD",
            {"epsilon": size, "rel_stepsize": 0.25, "steps": 20},
        ),
        Case(
            "pgd",
            follow,
            "art",
            "ProjectedGradientDescentPyTorch",
            {"eps": size, "eps_step": size / 4, "max_iter": 20, "verbose": False},
        ),
        Case(
            "pgd, margin",
            PGD(budget=budget),
            "pyautoattack",
            "apgd-ce",
            {"epsilon": size, "steps": 20},
            note="APGD adapts its step size and keeps the best point",
        ),
        Case("mi_fgsm", MIFGSM(budget=budget), "torchattacks", "MIFGSM", momentum),
        Case("vmi_fgsm", VMIFGSM(budget=budget), "torchattacks", "VMIFGSM", {**momentum, "N": 5}),
        Case(
            "vfga, one sample per step",
            VFGA(budget=whole, steps=400, growth=0.0),
            "adv-lib",
            "vfga",
            {"max_iter": 400},
            clips=20,
            minimises=True,
        ),
        Case(
            "vfga",
            VFGA(budget=whole, steps=400),
            "adv-lib",
            "vfga",
            {"max_iter": 400},
            clips=20,
            minimises=True,
            note="growth 0.1: each step changes a tenth more samples",
        ),
        Case(
            "sparsefool, lambda 3",
            SparseFool(budget=whole, control=3.0),
            "torchattacks",
            "SparseFool",
            {"steps": 20, "lam": 3},
            clips=20,
            minimises=True,
            note="torchattacks starts each round at the clean clip; the code of the authors continues",
        ),
        Case(
            "sigma_zero",
            SigmaZero(budget=whole),
            "adv-lib",
            "sigma_zero",
            {"num_steps": 200},
            clips=20,
            minimises=True,
        ),
    ]


def main(arguments: list[str]) -> None:
    """Runs every case on every victim, and writes the section of ``results.md``."""
    parser = argparse.ArgumentParser(prog="python -m bench fidelity", description=__doc__)
    parser.add_argument("corpus")
    parser.add_argument("--env", type=Path, required=True, help="folder of the other environment")
    parser.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--clips", type=int, default=40)
    options = parser.parse_args(arguments)
    interpreters = {library: own_environment(options.env) for library in OWN_ENVIRONMENT}
    victims = {name: load_victim(f"shipped:{name}") for name in VICTIMS}
    clips = test_clips(options.corpus, options.seconds, options.clips)
    journal = storage.Journal(options.env / "fidelity.jsonl")
    finished = {record["key"]: record for record in journal}
    rows, worst = [], 0.0
    for case in cases(options.epsilon):
        interpreter = interpreters.get(case.library, Path(sys.executable))
        for name in VICTIMS:
            key = f"{case} {name} {victims[name].sha256} {options.seconds:g} s {options.clips}"
            print(case.title, case.library, name, flush=True)
            if key not in finished:
                row, ratio = compare(case, name, victims, clips[: case.clips], interpreter)
                finished[key] = {"key": key, "row": row, "ratio": ratio}
                journal.append(finished[key])
            rows.append(finished[key]["row"])
            worst = max(worst, 0.0 if case.note else finished[key]["ratio"])
    sections.write("fidelity", section(rows, worst, options))


def own_environment(folder: Path) -> Path:
    """The interpreter below ``folder``; made, and filled from the package index, where it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=False)
        packages = Path(
            sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
        )
        (packages / "main.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "-q"]
        subprocess.run([*pip, *PACKAGES], check=True)
    return python


def test_clips(corpus: str, seconds: float, count: int) -> list[Clip]:
    """The first ``seconds`` of test clips, spread over labels and speakers."""
    test = load_corpus(corpus).split(seed=0)[2]
    length = round(seconds * 16_000)
    whole = [clip for clip in test.clips(16_000) if len(clip.pcm16) >= length]
    return [
        Clip(clip.id, clip.pcm16[:length], clip.sample_rate, clip.label, clip.speaker)
        for clip in stratified_subset(whole, count)
    ]


def compare(
    case: Case, name: str, victims: dict[str, Victim], clips: list[Clip], interpreter: Path
) -> tuple[str, float]:
    """One row of the table, and how many times weaker the baseline is than the other implementation."""
    victim, other = victims[name], next(v for n, v in victims.items() if n != name)
    x, _ = collate(clips, victim)
    ours = measure(x, *run_ours(case.attack, victim, x), victim, other)
    theirs = measure(x, *run_theirs(case, name, x, interpreter), victim, other)
    both = ours.is_fooled & theirs.is_fooled
    ratio = int(theirs.is_fooled.sum()) / max(1, int(ours.is_fooled.sum()))
    if case.minimises and both.any():
        ratio = max(ratio, ours.median_samples(both) / theirs.median_samples(both))
    cells = [case.title, name, str(len(clips)), *describe(ours, both)]
    cells += [case.library, *describe(theirs, both)]
    cells += [f"{ratio:.2f}", "yes" if ratio <= BOUND else "no", case.note]
    return "| " + " | ".join(cells) + " |", ratio


def describe(outcome: Outcome, both: Tensor) -> list[str]:
    """The cells of an outcome in the table; ``both [B]`` are the clips that both implementations fool."""
    return [
        str(int(outcome.is_fooled.sum())),
        str(outcome.transferred),
        f"{outcome.median_samples(both):.0f}",
        f"{outcome.queries:.0f}",
    ]


def run_ours(attack: Attack, victim: Victim, x: Tensor) -> tuple[Tensor, float]:
    """Adversarial clips ``[B, T]`` and queries per clip."""
    count = 0

    def add(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal count
        count += len(inputs[0])

    with torch.inference_mode():
        label = victim(x).argmax(dim=1)
    handle = victim.register_forward_pre_hook(add)
    try:
        x_adv = attack(victim, x, Untargeted(label.clone()), None)
    finally:
        handle.remove()
    return x_adv, count / len(x)


def run_theirs(case: Case, victim: str, x: Tensor, interpreter: Path) -> tuple[Tensor, float]:
    """The same from the other implementation, in its own process."""
    request = {
        "victim": f"shipped:{victim}",
        "library": case.library,
        "name": case.name,
        "settings": case.settings,
    }
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, x=x.numpy(), case=json.dumps(request))
        home = str(Path(staanet.__file__).parents[1])  # which an editable install does not pass on
        environment = {**os.environ, "PYTHONPATH": home}
        subprocess.run([interpreter, REFERENCE, source, target], check=True, env=environment)
        with np.load(target) as file:
            result: NDArray[np.float32] = file["x_adv"]
            return torch.from_numpy(result), float(file["queries"])


def measure(x: Tensor, x_adv: Tensor, queries: float, victim: Victim, other: Victim) -> Outcome:
    """Which clips are fooled on the victim, how many on another, and how many samples changed."""
    with torch.inference_mode():
        fooled, transferred = (
            model(x).argmax(dim=1) != model(x_adv).argmax(dim=1) for model in (victim, other)
        )
    samples = ((x_adv - x).abs() > LEAST_CHANGE).sum(dim=1)
    return Outcome(fooled.clone(), int(transferred.sum()), samples, queries)


def section(rows: list[str], worst: float, options: argparse.Namespace) -> str:
    """The text of the section in ``results.md``."""
    head = [
        "attack",
        "victim",
        "clips",
        "fooled",
        "on the other victim",
        "median samples",
        "queries",
        "other library",
        "fooled",
        "on the other victim",
        "median samples",
        "queries",
        "ratio",
        f"within {BOUND}",
        "note",
    ]
    return "\n\n".join(
        [
            "## Fidelity of the baselines",
            f"The command was `python -m bench fidelity emodb:PATH --env DIR`, with {describe_machine()}. It used "
            f"{options.seconds:g} s of the test clips of EMO-DB and the same settings for both libraries. Attacks with a "
            f"limit on the largest change have epsilon {options.epsilon:g}. Attacks with few samples may use the "
            "whole range.",
            "*ratio* shows how many times weaker our attack is. It compares the fooled clips. For attacks that "
            "minimise samples, it compares the median samples of the clips that both fool. The largest ratio "
            f"without a note is {worst:.2f}.",
            "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows]),
            "No other library has Sparse-RS, Sparse-PGD, One-Pixel on raw waveforms or a universal "
            "vector. Our Sparse-RS follows the schedule and the acceptance rule of its authors. A test compares the "
            "universal vector with random signs on every victim.",
        ]
    )
