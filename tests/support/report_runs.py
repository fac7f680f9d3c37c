"""Finished runs written by hand, for tests of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from staanet import storage
from staanet.core import Clip, Samples, metrics
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.cells import DISTANCES
from staanet.results.transfer_matrix import TransferMatrix

RATE = 16_000
LABELS = ("anger", "joy", "neutral", "sadness")
HOSTILE = '<img src=x onerror="alert(1)"></script>{{7*7}}\u202e\u200fevil'


# ---------------------------------------------------------------- a run folder without any model


@dataclass(frozen=True, kw_only=True)
class Made:
    """An attack of the fake run: how many samples it changes, how often it fools whom."""

    attack: str
    title: str
    density: float
    white_box: float
    transfer: float
    seconds: float
    matched: bool = False


ATTACKS = (
    Made(
        attack="staa", title="STAA-Net", density=0.18, white_box=0.85, transfer=0.35, seconds=0.031
    ),
    Made(
        attack="pgd",
        title="PGD, 20 steps, every sample",
        density=1.0,
        white_box=0.99,
        transfer=0.3,
        seconds=1.9,
    ),
    Made(
        attack="pgd_sparse",
        title="PGD, 20 steps, as many samples as STAA-Net",
        density=0.18,
        white_box=0.9,
        transfer=0.2,
        seconds=2.1,
        matched=True,
    ),
    Made(
        attack="random",
        title="random places and signs, as many samples as STAA-Net",
        density=0.18,
        white_box=0.06,
        transfer=0.05,
        seconds=0.0004,
        matched=True,
    ),
)


def voice(seed: int, seconds: float = 0.6) -> Samples:
    """Something voiced: harmonics of a gliding pitch under three formants, in syllables."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = rng.uniform(90, 240) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.5, 2) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    formants = (rng.uniform(300, 800), rng.uniform(900, 2200), rng.uniform(2300, 3200))
    wave = np.zeros_like(t)
    for k in range(1, 40):
        gain = sum(np.exp(-(((k * pitch.mean() - f) / 180) ** 2)) for f in formants) + 0.02
        wave += gain * np.sin(k * phase) / math.sqrt(k)
    wave *= np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)), 0.03, 1)
    return np.rint(wave / np.abs(wave).max() * 9000).astype(np.int16)


def fake_clips(count: int = 10) -> list[Clip]:
    return [
        Clip(f"clip{i:02d}", voice(i), RATE, LABELS[i % 4], f"speaker {1 + i % 3}")
        for i in range(count)
    ]


def attacked(clip: Clip, made: Made, rng: np.random.Generator, epsilon: float) -> Samples:
    steps, length = math.floor(epsilon * 32768), len(clip.pcm16)
    delta = rng.integers(-steps, steps + 1, length)
    if made.density < 1:
        bursts = np.convolve(rng.standard_normal(length), np.ones(40), mode="same")
        loudest = np.argsort(bursts if made.attack == "staa" else rng.random(length))
        delta[loudest[math.floor(made.density * length) :]] = 0
    return np.clip(clip.pcm16.astype(int) + delta, -32768, 32767).astype(np.int16)


def make_run(
    folder: Path,
    clips: Sequence[Clip],
    *,
    targets: Sequence[str] = ("emo18", "zhao19"),
    sources: Sequence[str] = ("emo18",),
    attacks: Sequence[Made] = ATTACKS,
    parts: bool = True,
    labels: Sequence[str] = LABELS,
    flags: Sequence[str] = (),
    epsilon: float = 0.03,
) -> Path:
    """Write ``adversarial/`` and ``results/`` and, with ``parts``, all that a whole run leaves."""
    rng, rows, cells = np.random.default_rng(0), [], []
    for source in sources:
        for made in attacks:
            pairs = [
                AdversarialClip(clip, attacked(clip, made, rng, epsilon), made.seconds, 20)
                for clip in clips
            ]
            sparse = None if made.density == 1 else 0.2
            budget = {"epsilon": epsilon, "max_density": sparse, "max_l0": None, "min_snr_db": None}
            card = {
                "attack": made.attack,
                "algorithm": made.attack.removesuffix("_sparse"),
                "title": made.title,
                "source": source,
                "goal": "untargeted",
                "budget": budget,
                "inputs": {
                    "recipe": {"settings": {"steps": 20} if "pgd" in made.attack else {}},
                    "seed": 0,
                },
                "matched": f"staa__{source}" if made.matched else None,
                "machine": "2 threads",
                "quarantined": [],
            }
            AdversarialSet(pairs, card).save(folder / "adversarial" / f"{made.attack}__{source}")
            for target in targets:
                chance = made.white_box if target == source else made.transfer
                own = [answers(pair, made, source, target, labels, chance, rng) for pair in pairs]
                rows += own
                cells.append(cell(own, made, source, target, budget))
    summary = {
        "schema": 1,
        "targets": {name: {"labels": list(labels)} for name in targets},
        "cells": cells,
        "machine": "2 threads, Intel Xeon",
        "quarantined": [{"id": "hum", "reason": "digital silence"}],
        "flags": list(flags),
    }
    TransferMatrix(rows, summary).save(folder / "results")
    if parts:
        rest_of_run(folder, targets, sources, labels, clips, epsilon)
    return folder


def answers(
    pair: AdversarialClip,
    made: Made,
    source: str,
    target: str,
    labels: Sequence[str],
    chance: float,
    rng: np.random.Generator,
) -> dict[str, Any]:
    own = np.random.default_rng([len(pair.adversarial), *target.encode(), *pair.clean.id.encode()])
    truth = labels.index(pair.clean.label or labels[0])
    before = own.dirichlet([0.4] * len(labels))
    top = truth if own.random() < 0.75 else int(own.integers(len(labels)))
    before[[top, int(before.argmax())]] = before[[int(before.argmax()), top]]
    after = 0.7 * before + 0.3 * rng.dirichlet([0.6] * len(labels))
    wanted = (
        top if rng.random() >= chance else (top + int(rng.integers(1, len(labels)))) % len(labels)
    )
    after[[wanted, int(after.argmax())]] = after[[int(after.argmax()), wanted]]
    return {
        "attack": made.attack,
        "source": source,
        "target": target,
        "id": pair.clean.id,
        "label": pair.clean.label,
        "speaker": pair.clean.speaker,
        "clean_prediction": labels[int(before.argmax())],
        "adversarial_prediction": labels[int(after.argmax())],
        "clean_probabilities": before.tolist(),
        "adversarial_probabilities": (after / after.sum()).tolist(),
        **pair.measurements(),
        "seconds_audio": len(pair.adversarial) / RATE,
        "sample_rate": RATE,
    }


def cell(
    rows: Sequence[dict[str, Any]], made: Made, source: str, target: str, budget: dict[str, Any]
) -> dict[str, Any]:
    speakers = [row["speaker"] for row in rows]
    truth, before, after = (
        np.array([row[key] for row in rows])
        for key in ("label", "clean_prediction", "adversarial_prediction")
    )
    right = truth == before
    figures = {
        "fooling_rate": metrics.rate(metrics.changed(before, after), speakers),
        "attack_success_rate": metrics.rate(
            (after != truth)[right], list(np.array(speakers)[right])
        ),
        "uar_before": metrics.jackknife(lambda i: metrics.uar(truth[i], before[i]), speakers),
        "uar_after": metrics.jackknife(lambda i: metrics.uar(truth[i], after[i]), speakers),
        "accuracy_before": metrics.rate(right, speakers),
        "accuracy_after": metrics.rate(truth == after, speakers),
    }
    return {
        "attack": made.attack,
        "title": made.title,
        "source": source,
        "target": target,
        "white_box": source == target,
        "control": made.attack in ("random", "uap"),
        "budget": budget,
        "count": len(rows),
        "speakers": len(set(speakers)),
        **{name: plain(figure) for name, figure in figures.items()},
        "mean": means(rows),
        "mean_fooled": means([r for r, hit in zip(rows, before != after) if hit]),
        "untouched": sum(row["l0"] == 0 for row in rows),
        "seconds_median": made.seconds,
    }


def plain(figure: metrics.Estimate) -> dict[str, Any]:
    names = ("value", "low", "high", "count", "clusters")
    return {name: getattr(figure, name) for name in names}


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    finite = {name: [row[name] for row in rows if math.isfinite(row[name])] for name in DISTANCES}
    return {name: float(np.mean(values)) if values else None for name, values in finite.items()}


def rest_of_run(
    folder: Path,
    targets: Sequence[str],
    sources: Sequence[str],
    labels: Sequence[str],
    clips: Sequence[Clip],
    epsilon: float,
) -> None:
    steps = np.arange(50, 1050, 50)
    for number, name in enumerate(targets):
        card = {"architecture": name, "name": name, "labels": list(labels), "sample_rate": RATE}
        scores = {
            "dev_uar": 0.71,
            "test_uar": 0.64 - 0.05 * number,
            "test_accuracy": 0.66,
            "epochs": 20,
        }
        storage.write_card(folder / "victims" / name, {"kind": "victim", **card, **scores})
        rise = 0.7 - 0.5 * np.exp(-steps / (250 + 90 * number))
        lines = [
            f"{i},{s},{2 - r},{r:.4f},{r:.4f},{s / 9:.1f}"
            for i, (s, r) in enumerate(zip(steps, rise), 1)
        ]
        write_csv(folder / "victims" / name, "epoch,step,loss,dev_uar,dev_accuracy,seconds", lines)
    for source in sources:
        card = {"network": "small", "source": source, "epsilon": epsilon, "max_density": 0.2}
        storage.write_card(
            folder / "generators" / source, {"kind": "generator", **card, "parameters": 201_332}
        )
        rise = 1 - np.exp(-steps / 300)
        lines = [
            f"{i},{s},{3 - 5 * r},{2 - 5 * r},0,0,0,{r:.3f},{0.9 * r:.4f},{0.5 - 0.3 * r},{12 + 5 * r},"
            f"{0.8 * r:.4f},{0.45 - 0.27 * r},{13 + 4 * r},{s / 3}"
            for i, (s, r) in enumerate(zip(steps, rise), 1)
        ]
        columns = (
            "epoch,step,loss,adversarial,magnitude,sparsity,quantisation,sparsity_weight,fooling_rate,"
            "density,snr_db,dev_fooling_rate,dev_density,dev_snr_db,seconds"
        )
        write_csv(folder / "generators" / source, columns, lines)
    speakers = sorted({clip.speaker for clip in clips})
    split = {
        "train": {"clips": 321, "speakers": ["09", "10", "11", "12", "14", "16"]},
        "dev": {"clips": 107, "speakers": ["13", "15"]},
        "test": {"clips": len(clips), "speakers": speakers},
    }
    corpus = {
        "name": "emodb",
        "clips": 535,
        "speakers": 10,
        "labels": list(labels),
        "split": split,
        "notes": [],
    }
    storage.write_card(
        folder,
        {
            "kind": "run",
            "command": "staanet run emodb --set corpus=emodb:PATH",
            "recipe": "emodb",
            "commit": "0123456789ab",
            "machine": "2 x Intel Xeon",
            "corpus": corpus,
            "seconds": {
                "train-victim emo18": 312.0,
                "train-generator emo18": 1604.5,
                "attack staa": 3.25,
            },
        },
    )
    storage.write_text(
        folder / "recipe.toml", 'corpus = "emodb:PATH"\nseed = 0\n\n[victims.emo18]\n'
    )


def write_csv(folder: Path, columns: str, lines: Sequence[str]) -> None:
    storage.write_text(folder / "training.csv", "\n".join([columns, *lines]) + "\n")
