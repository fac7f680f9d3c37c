"""The stages that harden, guard and certify a victim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from staanet import report, storage, training
from staanet.attacks import Staa
from staanet.config import HardenRecipe
from staanet.core import Budget, Clip, Corpus, Victim, stratified_subset
from staanet.defences import DetectorGated
from staanet.defences.detectors import Detector, Learned, build_detector
from staanet.errors import InvalidInput
from staanet.evaluation import certificates
from staanet.generators.base import Generator
from staanet.generators.registry import build_generator, load_generator, save_generator
from staanet.generators.warm_start import backward_net_from, find_conv_recurrent
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.crafting import clips_sha256
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.pipeline.models import quality_of
from staanet.results import adversarial_set, row_files
from staanet.storage import describe_machine
from staanet.training import adversarial, detectors
from staanet.transforms.noise import SmoothingNoise
from staanet.victims import load_victim
from staanet.victims.external import External


def harden(
    corpus: Corpus,
    victim: Victim,
    out: Path,
    *,
    recipe: HardenRecipe,
    name: str | None = None,
    context: Context,
) -> Victim:
    """Train ``victim`` on against an attack, on the corpus's train part, into the victim folder ``out``.

    ``name`` is by default ``VICTIM+METHOD``. The card tells UAR before and after, on dev
    and test, and what a step costs beside a plain one. With ``staa`` the generator that grew up beside
    the victim is kept in ``out/generator``.
    """
    how = hardening_of(recipe)
    if isinstance(victim, External) or not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} was made elsewhere: its weights cannot be trained here",
            where=victim.origin,
            remedy="Harden a victim folder, or put a transformation or a detector in front of it",
        )
    lacking = sorted({*corpus.labels} - {*victim.labels})
    if lacking:
        raise InvalidInput(
            f"{victim.name} knows {len(victim.labels)} labels ({', '.join(victim.labels)}), the corpus "
            f"also has {', '.join(lacking)}",
            where=victim.origin,
            remedy="Give the corpus that it was trained on",
        )
    train, dev, test = context.split(corpus)
    sha256 = victim.sha256
    inputs = {
        **context.split_inputs(corpus),
        "victim": sha256,
        "recipe": asdict(recipe),
        **({"name": name} if name else {}),
    }
    if is_done(out, "victim", inputs):
        return load_victim(out).to(victim.device)
    begin(out, inputs)
    clips = [load_clips(part, victim, context) for part in (train, dev, test)]
    before = quality_of(victim, clips[2])
    training.seeded(context.seed)
    generator = _beside(victim, how.budget) if how.method == "staa" else None
    history, cost = adversarial.harden(
        victim,
        clips[0],
        clips[1],
        _schedule(recipe, context.seed),
        out,
        how=how,
        generator=generator,
        progress=context.progress,
    )
    if generator is not None:  # before the card that says done; its source's sha256 follows
        _keep(generator, out, victim, how.budget)
    plain, victim.name = victim.name, name or f"{victim.name}+{recipe.method}"
    found = {
        f"{part}_{key}": value
        for part, own in (("dev", clips[1]), ("test", clips[2]))
        for key, value in quality_of(victim, own).items()
    }
    victim.save_pretrained(
        out,
        inputs=normal(inputs),
        best_step=history.best_step,
        epochs=len(history.rows),
        machine=describe_machine(),
        **found,
        hardened={
            "from": plain,
            "from_sha256": sha256,
            "method": recipe.method,
            "budget": asdict(how.budget),
            "cost": cost,
            "test_uar_before": before["uar"],
            "dev_score": history.best_score,
            "history": history.rows[-1],
        },
    )
    victim.origin = str(out)
    if generator is not None:
        _keep(generator, out, victim, how.budget, str(storage.read_card(out, "victim")["sha256"]))
    end(out)
    return victim


def _keep(
    generator: Generator, out: Path, source: Victim, budget: Budget, sha256: str = "", **card: Any
) -> None:
    """A generator inside the folder of the victim that it attacks."""
    save_generator(
        generator.requires_grad_(False).eval(),
        out / "generator",
        source=source.name,
        source_folder="..",
        source_sha256=sha256,
        epsilon=budget.epsilon,
        max_density=budget.max_density,
        **card,
    )


def hardening_of(recipe: HardenRecipe) -> adversarial.Hardening:
    """What a recipe says of hardening; ``InvalidInput`` where its parts do not fit each other."""
    density = recipe.max_density
    if density is None and recipe.method in adversarial.SPARSE:
        density = 0.2
    return adversarial.Hardening(
        method=recipe.method,
        budget=Budget(epsilon=recipe.epsilon, max_density=density),
        steps=recipe.inner_steps,
        weight=recipe.weight,
        ramp=recipe.ramp,
        average=recipe.average,
        sigma=recipe.sigma,
        keep=recipe.keep,
    )


def _schedule(recipe: HardenRecipe, seed: int) -> training.Schedule:
    return training.Schedule(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        seconds=recipe.seconds,
        learning_rate=recipe.learning_rate,
        final_learning_rate=recipe.learning_rate / 10,
        evaluate_every=min(recipe.evaluate_every, recipe.steps),
        patience=recipe.patience,
        seed=seed,
        speed=recipe.speed,
        noise_db=recipe.noise_db,
    )


def _beside(victim: Victim, budget: Budget) -> Generator:
    """The generator that begins beside a victim: its mirror where it has one, ears not kept."""
    if find_conv_recurrent(victim) is None:
        return build_generator("compact", budget.max_density).to(victim.device)
    return backward_net_from(victim, budget.max_density, budget.epsilon)


def certified(
    victim: Victim,
    clips: Sequence[Clip],
    out: Path,
    *,
    noise: SmoothingNoise,
    how: certificates.Votes,
    attack_steps: int = 0,
    limit: int = 50,
    context: Context,
) -> dict[str, Any]:
    """Certificates of ``limit`` clips, spread over labels and speakers, into ``out``.

    Writes ``certificates.csv`` (a row per clip), ``curve.csv``, ``curve.png`` and ``certificate.json``,
    which it returns. A killed run goes on with the next clip.
    """
    chosen = stratified_subset(clips, limit)
    if not chosen:
        raise InvalidInput("no clip to certify", where=out, remedy="Give at least one usable clip")
    method = type(noise).__name__.lower()
    inputs = normal(
        {
            "victim": victim.sha256,
            "clips": clips_sha256(chosen),
            "method": method,
            "noise": asdict(noise),  # type: ignore[call-overload]
            "votes": asdict(replace(how, batch_size=1)),
            "attack_steps": attack_steps,
        }
    )
    if is_done(out, "certificate", inputs):
        done: dict[str, Any] = storage.read_json(out / "certificate.json")
        return done
    out.mkdir(parents=True, exist_ok=True)
    journal = storage.Journal(out / "journal.jsonl")
    known = journal.records()
    if known and known[0].get("inputs") != inputs:
        raise InvalidInput(
            "holds unfinished certificates of something else",
            where=out,
            remedy="Choose another --out, or delete that folder",
        )
    if not known:
        journal.append({"inputs": inputs})
    rows = {str(row["id"]): row for row in known[1:]}
    for number, clip in enumerate(chosen, start=1):
        if clip.id not in rows:
            rows[clip.id] = certificates.certify_clip(
                victim, noise, clip, how, attack_steps=attack_steps
            )
            journal.append(rows[clip.id])
        context.progress(f"certify {victim.name} by {method}", number, len(chosen), "")
    told = _certificate(victim, noise, how, [rows[clip.id] for clip in chosen], len(clips))
    columns = list(rows[chosen[0].id])
    storage.write_text(
        out / "certificates.csv", row_files.csv_text(columns, [rows[clip.id] for clip in chosen])
    )
    storage.write_text(out / "curve.csv", row_files.csv_text(list(told["curve"][0]), told["curve"]))
    report.draw_certificate(out / "curve.png", told)
    storage.write_json(out / "certificate.json", told)
    storage.write_card(
        out,
        {
            "kind": "certificate",
            "inputs": inputs,
            "machine": describe_machine(),
            "quarantined": context.quarantine.rows,
        },
    )
    (out / "journal.jsonl").unlink(missing_ok=True)
    return told


def _certificate(
    victim: Victim,
    noise: SmoothingNoise,
    how: certificates.Votes,
    rows: Sequence[dict[str, Any]],
    of: int,
) -> dict[str, Any]:
    method = type(noise).__name__.lower()
    radii = sorted(float(row["radius"]) for row in rows)
    return {
        "victim": victim.name,
        "method": method,
        "noise": asdict(noise),  # type: ignore[call-overload]
        "unit": "samples that may take any value"
        if method == "ablation"
        else "L2 norm, full scale 1",
        "votes": asdict(how),
        "clips": len(rows),
        "chosen_from": of,
        "right": sum(bool(row["right"]) for row in rows),
        "abstained": sum(row["answer"] is None for row in rows),
        "median_radius": radii[len(radii) // 2],
        "largest_radius": radii[-1],
        "attacked": sum(bool(row["attacked"]) for row in rows),
        "broken": sum(bool(row["broken"]) for row in rows),
        "curve": certificates.certified_accuracy(rows),
    }


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
