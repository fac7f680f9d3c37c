"""Adversarial training of a victim that is trained already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from staanet import storage, training
from staanet.config import HardenRecipe
from staanet.core import Budget, Corpus, Victim
from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.registry import build_generator, save_generator
from staanet.generators.warm_start import backward_net_from, find_conv_recurrent
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.pipeline.train import quality_of
from staanet.storage import describe_machine
from staanet.training import adversarial
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
