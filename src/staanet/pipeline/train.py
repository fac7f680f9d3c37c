"""The stages that train: victims, generators and universal vectors."""

from __future__ import annotations

import dataclasses
import math
import os.path
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from staanet import config, storage, training
from staanet.attacks import craft, fit_uap, logits_of, save_uap
from staanet.config import AttackRecipe, GeneratorRecipe, VectorRecipe, VictimRecipe
from staanet.core import Budget, Clip, Corpus, Progress, Victim, metrics, silent
from staanet.errors import InvalidInput, unknown_name
from staanet.evaluation import transfer_matrix
from staanet.generators.losses import Objective
from staanet.generators.registry import build_generator, save_generator
from staanet.generators.warm_start import find_conv_recurrent, has_warm_start, warm_start_generator
from staanet.nn import distributed, precision
from staanet.pipeline import unlabelled
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.storage import describe_machine
from staanet.transforms import parse_transform
from staanet.victims import (
    build_victim,
    learning_rate,
    load_victim,
    load_victims,
    members_of,
    victim_folder,
)

USUAL = {"pretrained": None, "config": None, "noise_db": 25.0, "precision": "float32"}


def train_victim(
    corpus: Corpus, name: str, out: Path, *, recipe: VictimRecipe, context: Context
) -> Victim:
    """Train a victim on the corpus's train part; its card tells UAR on dev and test."""
    recipe = replace(
        settled(name, recipe),
        precision=precision.resolve_precision(recipe.precision, context.device),
    )
    network = recipe.network or name
    train, dev, test = context.split(corpus)
    settings = asdict(replace(recipe, network=network))
    for key, usual in USUAL.items():
        if settings[key] == usual:  # most victims have none, and their cards say nothing of it
            del settings[key]
    inputs = {**context.split_inputs(corpus), "recipe": settings}
    if is_done(out, "victim", inputs):
        return load_victim(out).to(context.device)
    if distributed.is_first():
        begin(out, inputs)
    training.seeded(context.seed)
    victim = build_victim(
        network, corpus.labels, pretrained=recipe.pretrained, config=recipe.config
    )
    victim.name = name
    parts = [load_clips(part, victim, context) for part in (train, dev, test)]
    schedule = _schedule(recipe, context.seed)
    history = training.train_victim(
        victim.to(context.device),
        parts[0],
        parts[1],
        schedule,
        out,
        precision=recipe.precision,
        progress=context.progress,
    )
    if not distributed.is_first():
        return victim
    quality = {
        f"{p}_{k}": v
        for p, clips in (("dev", parts[1]), ("test", parts[2]))
        for k, v in quality_of(victim, clips, context.progress).items()
    }
    victim.save_pretrained(
        out,
        inputs=normal(inputs),
        best_step=history.best_step,
        epochs=len(history.rows),
        machine=describe_machine(),
        **quality,
    )
    victim.origin = str(out)
    end(out)
    return victim


def settled(name: str, recipe: VictimRecipe) -> VictimRecipe:
    """With the learning rate that the recipe leaves to the network."""
    rate = recipe.learning_rate or learning_rate(recipe.network or name, config=recipe.config)
    return replace(recipe, learning_rate=rate)


def _settled_generator(recipe: GeneratorRecipe, sources: Sequence[Victim]) -> GeneratorRecipe:
    """With the network and learning rate that fit its sources."""
    network = recipe.network
    if network == "backward_net" and not any(map(has_warm_start, sources)):
        network = "compact"
    usual = 2e-3
    if network == "backward_net":  # begins as its source, others from nothing
        usual = 3e-4 if any(map(find_conv_recurrent, sources)) else 1e-5
    return replace(recipe, network=network, learning_rate=recipe.learning_rate or usual)


def _schedule(recipe: VictimRecipe | GeneratorRecipe, seed: int) -> training.Schedule:
    assert recipe.learning_rate is not None, "settled before"
    return training.Schedule(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        seconds=recipe.seconds,
        learning_rate=recipe.learning_rate,
        final_learning_rate=min(1e-4, recipe.learning_rate / 10),  # never above where it starts
        evaluate_every=recipe.evaluate_every,
        patience=recipe.patience,
        seed=seed,
        speed=recipe.speed,
        noise_db=recipe.noise_db if isinstance(recipe, VictimRecipe) else 25.0,
    )


def quality_of(
    victim: Victim, clips: Sequence[Clip], progress: Progress = silent
) -> dict[str, float]:
    """Recall and accuracy of a victim on labelled clips."""
    answers = []
    for number, clip in enumerate(clips, start=1):
        answers.append(victim.labels[int(logits_of(victim, [clip])[0].argmax())])
        progress(f"judge {victim.name}", number, len(clips), "")
    truth = [clip.label or "" for clip in clips]
    same = [a == b for a, b in zip(truth, answers, strict=True)]
    return {"uar": metrics.uar(truth, answers), "accuracy": float(np.mean(same))}


def train_generator(
    corpus: Corpus, source: Victim, out: Path, *, recipe: GeneratorRecipe, context: Context
) -> None:
    """Train STAA-Net against ``source`` on the corpus's train part, judged on its dev part.

    ``source`` comes from ``load_victim`` or ``load_victims``: the card refers to its folders.
    """
    sources = members_of(source)
    train, dev, test = context.split(corpus)
    source_sha256 = source.sha256
    recipe = replace(
        _settled_generator(recipe, sources),
        precision=precision.resolve_precision(recipe.precision, context.device),
    )
    settings = _told(replace(recipe, sources=()))
    del settings["unlabelled"]  # what is there counts, not where: its hashes are among the inputs
    augment = [parse_transform(text) for text in recipe.augment]
    for way in augment:  # one that the rate does not allow is told before anything is made
        silence = torch.zeros(1, source.sample_rate)
        way(silence, None, torch.Generator(), sample_rate=source.sample_rate)
    extra = unlabelled.gather(recipe.unlabelled, (train, dev, test), source, out, context=context)
    inputs = {
        **context.split_inputs(corpus),
        **extra.inputs,
        "source": source_sha256,
        "recipe": settings,
    }
    if is_done(out, "generator", inputs):
        return
    if distributed.is_first():
        begin(out, inputs)
    extra.save(out)
    training.seeded(context.seed)
    density = recipe.max_density if recipe.objective == "constrained" else None
    begun = warm_start_generator(sources, density, recipe.epsilon, recipe.iterations)
    generator = (
        begun
        if recipe.network == "backward_net" and begun is not None
        else build_generator(recipe.network, density, source.labels)
    ).to(context.device)
    clips = [load_clips(part, source, context) for part in (train, dev)]
    schedule = _schedule(recipe, context.seed)
    budget = Budget(
        epsilon=recipe.epsilon, max_density=recipe.max_density, min_snr_db=recipe.min_snr_db
    )
    history = training.train_generator(
        generator,
        source,
        [*clips[0], *extra.clips],
        clips[1],
        schedule,
        out,
        budget=budget,
        objective=_objective(recipe),
        targeted=recipe.goal == "targeted",
        augment=augment,
        precision=recipe.precision,
        progress=context.progress,
    )
    if not distributed.is_first():
        return
    last = history.rows[-1]
    save_generator(
        generator,
        out,
        inputs=normal(inputs),
        network=recipe.network,
        source=source.name,
        sources=[one.name for one in sources],
        source_sha256=source_sha256,
        source_folders=[_relative(one.origin, out) for one in sources],
        goal=recipe.goal,
        epsilon=recipe.epsilon,
        max_density=recipe.max_density,
        best_step=history.best_step,
        dev_fooling_rate=history.best_score,
        parameters=sum(w.numel() for w in generator.parameters()),
        flags=[*training.collapse_flags(last), *extra.flags],
        machine=describe_machine(),
        **extra.card,
    )
    end(out)


def _told(recipe: GeneratorRecipe) -> dict[str, object]:
    """What a card says of a recipe: nothing of what most do not use."""
    unused = {
        "goal": "untargeted",
        "objective": "constrained",
        "sparsity": 1.0,
        "min_snr_db": None,
        "augment": (),
        "precision": "float32",
        "quantisation": None,
    }
    return {k: v for k, v in asdict(recipe).items() if k not in unused or v != unused[k]}


def _objective(recipe: GeneratorRecipe) -> Objective:
    """The loss; the published one also mixes masks, and so does any loss of the published network."""
    published = recipe.objective == "paper"
    mixing = published or recipe.network == "paper"
    kappa = recipe.kappa if recipe.kappa is not None else (0.0 if published else math.inf)
    quantisation = (
        recipe.quantisation if recipe.quantisation is not None else (0.1 if mixing else 0.0)
    )
    return Objective(
        kappa=kappa,
        magnitude=recipe.magnitude,
        quantisation=quantisation,
        mixing=mixing,
        sparsity=recipe.sparsity if published else None,
    )


def _relative(spec: str, start: Path) -> str:
    if str(spec).startswith("hf:"):
        return str(spec)
    return Path(os.path.relpath(Path(victim_folder(spec)).resolve(), start.resolve())).as_posix()


def train_uap(
    corpus: Corpus,
    source: Victim,
    out: Path,
    *,
    recipe: VectorRecipe,
    label: str | None = None,
    context: Context,
) -> None:
    """Learn one universal vector for ``source`` on the corpus's train part; dev clips judge it.

    With ``label`` it aims at that class.
    """
    if label is not None and label not in source.labels:
        raise unknown_name("class", label, source.labels)
    train, dev, _ = context.split(corpus)
    source_sha256 = source.sha256
    inputs = {
        **context.split_inputs(corpus),
        "label": label,
        "source": source_sha256,
        "recipe": asdict(recipe),
    }
    if is_done(out, "vector", inputs):
        return
    clips = [load_clips(part, source, context) for part in (train, dev)]
    schedule = training.Schedule(
        steps=recipe.steps, batch_size=recipe.batch_size, seconds=recipe.seconds, seed=context.seed
    )
    crops = training.Crops(clips[0], schedule)

    def batches() -> Iterable[tuple[Tensor, None]]:
        for step in range(recipe.steps):
            yield crops.draw(step)[0].to(source.device), None
            context.progress(f"universal vector on {source.name}", step + 1, recipe.steps, "")

    uap = fit_uap(
        source,
        batches(),
        Budget(epsilon=recipe.epsilon, max_density=recipe.max_density),
        length=round(recipe.seconds * source.sample_rate),
        relative_step=recipe.relative_step,
        decay=recipe.decay,
        target=None if label is None else source.labels.index(label),
    )
    made = craft(uap, source, clips[1], label=label, progress=context.progress)
    judged = transfer_matrix([made], [source], progress=context.progress).cells[0]
    save_uap(
        uap,
        out,
        inputs=normal(inputs),
        source=source.name,
        label=label,
        source_folder=_relative(source.origin, out),
        source_sha256=source_sha256,
        max_density=recipe.max_density,
        dev_fooling_rate=judged["fooling_rate"]["value"],
        machine=describe_machine(),
    )


def vector_recipe(key: str, attacks: Mapping[str, AttackRecipe]) -> VectorRecipe:
    """How the vector of a recipe's attack ``key`` is learned: at the density that it will have."""
    own = attacks[key]
    matched = attacks[own.match].max_density if own.match else None
    known = {f.name for f in dataclasses.fields(VectorRecipe)} - {"epsilon", "max_density"}
    for setting in own.settings:
        if setting not in known:
            raise unknown_name("setting of uap", setting, known)
    settings = {"epsilon": own.epsilon, "max_density": own.max_density or matched, **own.settings}
    return config.checked(VectorRecipe, settings, where=f"[attacks.{key}]")


def source_of(generator_folder: Path, kind: str = "generator") -> Victim:
    """The victim that a generator or a vector was trained against, found through its card."""
    card = storage.read_card(generator_folder, kind)
    specs = [str(spec) for spec in card.get("source_folders") or [card.get("source_folder", "")]]
    places = [spec if spec.startswith("hf:") else generator_folder / spec for spec in specs]
    for place in places:
        if isinstance(place, Path) and not (place / "card.json").exists():
            raise InvalidInput(
                f"its source '{card.get('source')}' is not at {place}",
                where=generator_folder,
                remedy="Pass --source VICTIM",
            )
    victim = load_victims(places)
    if victim.sha256 != card.get("source_sha256"):
        raise InvalidInput(
            f"its source at {', '.join(specs)} was trained again since",
            where=generator_folder,
            remedy=f"Train the {kind} again, or pass --source VICTIM",
        )
    return victim
