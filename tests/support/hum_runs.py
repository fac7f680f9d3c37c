"""Honest runs on hummed notes, what a fraudster does to their files, and the checks made on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.support.speech import RATE

from staanet import audio, config, pipeline, storage
from staanet.results import adversarial_set
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.sanity import Check
from staanet.sanity.jobs import jobs_of
from staanet.sanity.loaded_run import load_run
from staanet.victims import load_victim

RECIPE = """
name = "tones"
corpus = "folder:{corpus}"
seed = {seed}
selfcheck = true
{keys}

[victims.emo18]
steps = 40
batch_size = 8
seconds = 0.2
evaluate_every = 20
augment = "none"

[victims.other]
network = "emo18"
steps = 40
batch_size = 8
seconds = 0.2
evaluate_every = 20
augment = "none"
speed = 0.2

[generator]
sources = ["emo18"]
any_budget = false
epsilon = 0.05
steps = 60
batch_size = 8
seconds = 0.2
evaluate_every = 20

[attacks.staa]
epsilon = 0.05
max_density = 0.2

[attacks.pgd]
epsilon = 0.05
settings = {{ steps = 5 }}

[attacks.random]
epsilon = 0.05
match = "staa"

{attacks}
"""
RICH = {
    "keys": """
protocol = "speakers:s0,s1,s2,s3/s4,s5"
channels = ["gain:-6", "resample:4000"]
clip_seconds = 0.22
""",
    "attacks": """
[attacks.few]
attack = "pgd"
epsilon = 0.05
max_l0 = 1000
clips = 10
settings = { steps = 5 }

[attacks.uap]
epsilon = 0.05
match = "staa"
settings = { steps = 20, batch_size = 8, seconds = 0.2 }
""",
}
"""What a recipe may also ask for: an own split, channels, one length, few clips, a learned control."""
CLASSES = {"high": 1200.0, "mid": 500.0, "low": 200.0}


def hum(hz: float, *seed: int) -> np.ndarray:
    """A quiet wavering tone in noise, so quiet that epsilon matters; no two are alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(round((0.2 + 0.04 * seed[-1]) * RATE)) / RATE
    waver = np.interp(t, np.linspace(0, 0.24, 13), rng.uniform(-0.1, 0.1, 13))
    phase = 2 * np.pi * np.cumsum(hz * 2**waver) / RATE + rng.uniform(0, 6)
    return audio.snap(0.04 * np.sin(phase) + 0.006 * rng.standard_normal(len(t)))


def honest_run(root: Path, seed: int, *, keys: str = "", attacks: str = "") -> Path:
    """Ten voices hum three notes twice; the second middle one is too high, so that some clean
    answers are errors.
    """
    for number, (label, hz) in enumerate(CLASSES.items()):
        for speaker in range(10):
            for take in range(2):
                path = root / "hums" / label / f"s{speaker}" / f"{take}.wav"
                note = CLASSES["high"] if (label, take) == ("mid", 1) else hz
                samples = hum(note, seed, number, speaker, take)
                storage.write_bytes(path, audio.encode(samples, RATE))
    recipe = root / "hums.toml"
    text = RECIPE.format(corpus=(root / "hums").as_posix(), seed=seed, keys=keys, attacks=attacks)
    recipe.write_text(text)
    pipeline.run(config.load_recipe(str(recipe)), root / "run", context=pipeline.Context())
    return root / "run"


def check_run(folder: Path, *names: str, **options: Any) -> dict[tuple[str, str], Check]:
    """The checks of these names, as the command makes them."""
    jobs = [job for job in jobs_of(load_run(folder, **options), 12, 0) if job.name in names]
    return {(job.name, job.subject): job.run(lambda what: None) for job in jobs}


def failing(checks: dict[tuple[str, str], Check]) -> set[str]:
    return {name for (name, _), check in checks.items() if check.verdict == "fail"}


def evaluate_again(folder: Path) -> None:
    """What a fraudster does after tampering, so that tables and files agree."""
    victims = [load_victim(place) for place in sorted((folder / "victims").iterdir())]
    sets = sorted(p for p in (folder / "adversarial").iterdir())
    pipeline.evaluate(sets, victims, folder / "results", context=pipeline.Context())


def remake(
    folder: Path, name: str, change: Callable[[AdversarialClip, np.random.Generator], np.ndarray]
) -> None:
    """A set with other changes, its table measured and its results computed anew."""
    place, rng = folder / "adversarial" / name, np.random.default_rng(1)
    made = AdversarialSet.load(place)
    pairs = []
    for pair in list(made):
        moved = np.clip(pair.clean.pcm16 + change(pair, rng), -32768, 32767).astype(np.int16)
        pairs.append(replace(pair, adversarial=moved))
    adversarial_set.write_set(
        place, [adversarial_set.write_clip(place, pair) for pair in pairs], made.card
    )
    evaluate_again(folder)


def selfcheck_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "selfcheck.json").read_text())


def alarms(folder: Path) -> list[dict[str, Any]]:
    return [one for one in selfcheck_json(folder)["checks"] if one["verdict"] in ("fail", "warn")]


def copy_victim(folder: Path, nudge: float = 0.0) -> None:
    """The source under another name, evaluated as if it were a stranger."""
    victim = load_victim(folder / "victims" / "emo18")
    victim.name = "stranger"
    with torch.no_grad():
        next(victim.parameters()).mul_(1 + nudge)
    card = storage.read_card(folder / "victims" / "emo18", "victim")
    victim.save_pretrained(folder / "victims" / "stranger", inputs=card["inputs"])
    evaluate_again(folder)
