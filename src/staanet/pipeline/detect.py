"""A victim behind a detector, and what attacks do to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from staanet import report, storage, training
from staanet.attacks import Staa
from staanet.core import Budget, Corpus, Victim, stratified_subset
from staanet.defences import DetectorGated
from staanet.defences.detectors import Detector, Learned, build_detector
from staanet.generators.base import Generator
from staanet.generators.registry import load_generator
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.pipeline.harden import _beside, _keep
from staanet.results import adversarial_set, row_files
from staanet.storage import describe_machine
from staanet.training import detectors
from staanet.victims import load_victim


def detect(
    corpus: Corpus,
    victim: Victim,
    out: Path,
    *,
    detector: str,
    false_positive_rate: float = 0.05,
    sets: Sequence[Path] = (),
    budget: Budget,
    aware: int = 0,
    generator_steps: int = 0,
    steps: int = 200,
    context: Context,
) -> dict[str, Any]:
    """A victim behind a detector, as the victim folder ``out``, its threshold chosen on dev.

    Then, on each adversarial set of ``sets`` and on ``aware`` test clips attacked by who knows the
    detector (with ``generator_steps`` also on all of them by a STAA-Net trained through it): ROC
    (``roc.csv``, ``roc.png``) and rates, which go into ``detector.json`` and come back.
    ``learned`` is trained on the train part for ``steps`` steps under ``budget``.
    """
    made, opened = detecting(detector, false_positive_rate, sets)
    train, dev, test = context.split(corpus)
    inputs = {
        **context.split_inputs(corpus),
        "victim": victim.sha256,
        "detector": detector,
        "false_positive_rate": false_positive_rate,
        "budget": asdict(budget),
        "steps": steps if detector == "learned" else None,
    }
    if is_done(out, "victim", inputs):
        target = load_victim(out).to(victim.device)
        assert isinstance(target, DetectorGated)
    else:
        begin(out, inputs)
        tune = load_clips(dev, victim, context)
        if isinstance(made, Learned):
            training.seeded(context.seed)
            made = Learned().to(victim.device)
            schedule = training.Schedule(
                steps=steps,
                batch_size=8,
                seconds=1.0,
                learning_rate=2e-3,
                evaluate_every=max(1, min(50, steps // 4)),
                seed=context.seed,
                speed=0.0,
                noise_db=60.0,
            )
            clips = load_clips(train, victim, context)
            detectors.train_detector(
                made, victim, clips, tune, schedule, out, budget=budget, progress=context.progress
            )
        target = detectors.guarded(victim, made, tune, false_positive_rate=false_positive_rate)
        target.save_pretrained(out, inputs=normal(inputs), machine=describe_machine())
        target.origin = str(out)
        end(out)
    found = []
    for one in opened:
        found.append(
            detectors.told(f"{one.attack} from {one.source}", target, list(one), context.progress)
        )
    if aware:
        chosen = stratified_subset(load_clips(test, target, context), aware)
        attack = detectors.AwarePGD(budget=budget)
        made_of = detectors.aware_clips(target, chosen, attack, progress=context.progress)
        found.append(
            detectors.told("PGD that knows the detector", target, made_of, context.progress)
        )
    if generator_steps:
        generator = _knowing(target, [train, dev], out, budget, generator_steps, context)
        knowing = Staa(generator=generator, budget=budget)
        clips = load_clips(test, target, context)
        made_of = detectors.aware_clips(target, clips, knowing, progress=context.progress)
        found.append(
            detectors.told("STAA-Net that knows the detector", target, made_of, context.progress)
        )
    told = {
        "victim": target.inner.name,
        "detector": detector,
        "threshold": target.threshold,
        "false_positive_rate": false_positive_rate,
        "chosen_on": f"{len(dev)} dev clips",
        "attacks": found,
        "adaptive": bool(aware or generator_steps),
    }
    storage.write_json(out / "detector.json", told)
    if found:
        rows = [{"attack": a["attack"], **point} for a in found for point in a["roc"]]
        storage.write_text(
            out / "roc.csv", row_files.csv_text(["attack", "false_positive_rate", "detected"], rows)
        )
        report.draw_roc(out / "roc.png", told)
    return told


def detecting(
    detector: str, false_positive_rate: float, sets: Sequence[Path]
) -> tuple[Detector, list[adversarial_set.AdversarialSet]]:
    """The detector and the adversarial sets that ``detect`` is asked for; ``InvalidInput`` where one
    cannot be, before anything is written."""
    detectors.check_rate(false_positive_rate)
    return build_detector(detector), [
        adversarial_set.AdversarialSet.load(folder) for folder in sets
    ]


def _knowing(
    target: DetectorGated,
    parts: Sequence[Corpus],
    out: Path,
    budget: Budget,
    steps: int,
    context: Context,
) -> Generator:
    """The STAA-Net trained through a detector, in ``out/generator``."""
    sha256 = str(storage.read_card(out, "victim")["sha256"])
    inputs = {"source": sha256, "steps": steps, "seed": context.seed, "budget": asdict(budget)}
    if is_done(out / "generator", "generator", inputs):
        return load_generator(out / "generator").to(target.device)
    training.seeded(context.seed)
    generator = _beside(target.inner, budget)
    schedule = training.Schedule(
        steps=steps,
        batch_size=8,
        seconds=1.5,
        learning_rate=3e-4,
        seed=context.seed,
        evaluate_every=max(1, min(100, steps // 2)),
    )
    train, dev = (load_clips(part, target, context) for part in parts)
    detectors.aware_generator(
        generator,
        target,
        train,
        stratified_subset(dev, 48),
        schedule,
        out / "generator",
        budget=budget,
        progress=context.progress,
    )
    _keep(generator, out, target, budget, sha256, inputs=normal(inputs))
    storage.discard_checkpoints(out / "generator" / "checkpoint")
    return generator
