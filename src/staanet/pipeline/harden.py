"""Hardens a trained victim by adversarial training, into a victim folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from staanet import training
from staanet.config import HardenRecipe
from staanet.core import Budget, Clip, Corpus, Victim, require_classes
from staanet.errors import InvalidInput
from staanet.generators.base import Generator
from staanet.generators.registry import build_generator, save_generator
from staanet.generators.warm_start import backward_net_from, find_conv_recurrent
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.train_victim import make_schedule, measure_parts, measure_quality
from staanet.pipeline.victim_check import check_victims, match_corpus_labels
from staanet.storage import describe_machine
from staanet.training import AdversarialTraining, train_adversarially
from staanet.victims import load_victim
from staanet.victims.external import External


@dataclass(frozen=True)
class Hardening:
    """A victim that is trained on against attacks, as a stage."""

    corpus: Corpus
    victim: Victim
    out: Path
    recipe: HardenRecipe
    context: Context
    name: str | None = None

    def stage(self) -> Stage:
        name = f"harden {self.victim.name}"
        return Stage(name=name, folder=self.out, kind="victim", inputs=self.inputs, work=self.work)

    def inputs(self) -> Inputs:
        return {
            **self.context.split_inputs(self.corpus),
            "victim": self.victim.identity,
            "recipe": asdict(self.recipe),
            **({"name": self.name} if self.name else {}),
            **({"meets": list(self.victim.labels)} if self.victim.own_labels else {}),
        }

    def work(self, inputs: Inputs) -> Victim:
        victim, recipe, context = self.victim, self.recipe, self.context
        require_classes([victim], "adversarial training")
        method = AdversarialTraining(recipe)
        parts = [load_clips(part, victim, context) for part in context.split(self.corpus)]
        check_victims([victim], parts[1], context)
        before = {
            "from": victim.name,
            "from_sha256": victim.sha256,
            "method": recipe.method,
            "test_uar_before": measure_quality(victim, parts[2])["uar"],
        }
        training.seed_weights(context.seed)
        generator = new_generator(victim, method.budget) if recipe.method == "staa" else None
        schedule = replace(
            make_schedule(recipe, context.seed),
            final_learning_rate=recipe.learning_rate / 10,
            evaluate_every=min(recipe.evaluate_every, recipe.steps),
        )
        history, cost = train_adversarially(
            victim,
            parts[0],
            parts[1],
            schedule,
            self.out,
            method=method,
            generator=generator,
            progress=context.progress,
        )
        victim.name = self.name or f"{victim.name}+{recipe.method}"
        if generator is not None:  # before the card that says done; its source's sha256 follows
            save_inner_generator(generator, self.out, victim, method.budget)
        about = {**before, "budget": asdict(method.budget), "cost": cost}
        self._save(history, inputs, about, parts[1:])
        if generator is not None:
            digest = str(victim.sha256)
            save_inner_generator(generator, self.out, victim, method.budget, digest)
        return victim

    def _save(
        self,
        history: training.History,
        inputs: Inputs,
        about: Mapping[str, Any],
        parts: Sequence[Sequence[Clip]],
    ) -> None:
        victim = self.victim
        victim.save_pretrained(
            self.out,
            labels=[*(victim.own_labels or victim.labels)],
            inputs=inputs,
            best_step=history.best_step,
            epochs=len(history.rows),
            machine=describe_machine(),
            **measure_parts(victim, dict(zip(("dev", "test"), parts, strict=True))),
            hardened={**about, "dev_score": history.best_score, "history": history.rows[-1]},
            **self.context.quarantine.warn_of(history.flags),
        )
        victim.origin = str(self.out)


def harden(
    corpus: Corpus,
    victim: Victim,
    out: Path,
    *,
    recipe: HardenRecipe,
    name: str | None = None,
    context: Context,
) -> Victim:
    """Trains ``victim`` on against an attack, on the corpus's train part, into a victim folder.

    The card holds UAR before and after, on dev and test, and what a step costs beside a plain one.
    With the method ``staa`` the generator that was trained beside the victim is in ``out/generator``.
    The labels of the victim meet those of the corpus by the label map and by well-known words; the folder
    keeps its own.

    Args:
        corpus: The one that the victim was trained on, or one whose labels its own meet.
        victim: Changed in place.
        out: The victim folder.
        recipe: The method, its budget, and how long.
        name: Of the new victim; by default ``VICTIM+METHOD``.
        context: The shared settings of the command.

    Returns:
        The hardened victim.

    Raises:
        InvalidInput: If its weights cannot be trained, the corpus has labels that the victim does not
            have, or ``out`` holds a victim that was made from something else.
    """
    AdversarialTraining(recipe)
    if isinstance(victim, External) or not victim.differentiable:
        raise InvalidInput(
            f"{victim.name} was made elsewhere: its weights cannot be trained here",
            where=victim.origin,
            remedy="Harden a victim folder, or put a transformation or a detector in front of it",
        )
    match_corpus_labels([victim], corpus, context, is_required=True)
    lacking = sorted({*corpus.labels} - {*victim.labels})
    if lacking:
        raise InvalidInput(
            f"{victim.name} has {len(victim.labels)} labels ({', '.join(victim.labels)}), the corpus "
            f"also has {', '.join(lacking)}",
            where=victim.origin,
            remedy="Give the corpus that it was trained on, or a label map: --label-map LABEL=CLASS,...",
        )
    hardened = Hardening(corpus, victim, out, recipe, context, name).stage().perform()
    return hardened if isinstance(hardened, Victim) else load_victim(out).to(victim.device)


def save_inner_generator(
    generator: Generator, out: Path, source: Victim, budget: Budget, sha256: str = "", **card: Any
) -> None:
    """Writes a generator inside the folder ``out`` of the victim that it attacks."""
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


def new_generator(victim: Victim, budget: Budget) -> Generator:
    """The generator trained beside a victim; it starts from the victim's weights where possible."""
    if find_conv_recurrent(victim) is None:
        return build_generator("compact", budget.max_density).to(victim.device)
    return backward_net_from(victim, budget.max_density, budget.epsilon)
