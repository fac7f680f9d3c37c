"""Adds defences to a victim, and attacks defended victims adaptively."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import PAPER_EPSILON, AttackRecipe
from staanet.core import Clip, Corpus, Victim, stratified_subset
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.evaluation import CONTROLS, check_names, defence_knowledge
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import plan_attack
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.train_victim import measure_parts
from staanet.pipeline.victim_check import check_victims, match_corpus_labels
from staanet.results.adversarial_set import AdversarialSet
from staanet.transforms import parse_transform
from staanet.victims import load_victim, victim_folder

ADAPTIVE = ("pgd", "sigma_zero")
"""Attacks through a defence by default: many samples a little, and few samples by more."""
BLACK_BOX = ("sparse_rs",)
"""Attacks on a defended model that gives no gradient."""
_OF_ANY_CARD = {
    "kind",
    "architecture",
    "name",
    "labels",
    "sample_rate",
    "settings",
    "sha256",
    "schema",
    "staanet",
    "python",
    "numpy",
    "torch",
}


@dataclass(frozen=True)
class Defending:
    """A victim behind a chain of defences, as a stage."""

    victim: Callable[[], Victim]
    chain: Sequence[str]
    out: Path
    context: Context
    corpus: Callable[[], Corpus] | None = None
    """Its dev and test part measure recall before and after."""
    name: str | None = None

    def stage(self) -> Stage:
        return Stage(
            name=f"defend {self.name}",
            folder=self.out,
            kind="victim",
            inputs=self.inputs,
            work=self.work,
            size=lambda: ", ".join(self.chain),
        )

    @cached_property
    def defended(self) -> Defended:
        transforms = [parse_transform(text) for text in self.chain]
        return Defended(self.victim(), transforms, name=self.name, seed=self.context.seed)

    @cached_property
    def inner_card(self) -> dict[str, Any]:
        """The card of the victim's folder; empty for a model that was made elsewhere."""
        folder = Path(victim_folder(self.victim().origin))
        is_folder = (folder / storage.CARD).is_file()
        return storage.read_card(folder, "victim") if is_folder else {}

    def inputs(self) -> Inputs:
        split = self.context.split_inputs(self.corpus()) if self.corpus is not None else {}
        return {
            **(self.inner_card.get("inputs") or {}),
            "defences": [str(transform) for transform in self.defended.chain],
            "draws": self.context.seed,
            "inner": self.victim().identity,
            **split,
        }

    def work(self, inputs: Inputs) -> Defended:
        figures: dict[str, float] = {}
        if self.corpus is not None:
            victim, parts = self.victim(), self.context.split(self.corpus())[1:]
            match_corpus_labels([self.defended], self.corpus(), self.context, is_required=True)
            clips = {part.part: load_clips(part, victim, self.context) for part in parts}
            check_victims([victim], clips["dev"], self.context)
            before = measure_parts(victim, clips)
            self.context.progress("defend", 1, 2, "")
            figures = {f"undefended_{name}": value for name, value in before.items()}
            figures |= measure_parts(self.defended, clips)
            self.context.progress("defend", 2, 2, "")
        inner = {key: value for key, value in self.inner_card.items() if key not in _OF_ANY_CARD}
        labels = [*(self.defended.own_labels or self.defended.labels)]  # those of the model inside
        self.defended.save_pretrained(
            self.out, inner_card=inner, inputs=inputs, labels=labels, **figures
        )
        self.defended.origin = str(self.out)
        return self.defended


def defend(
    victim: Victim,
    chain: Sequence[str],
    out: Path,
    *,
    name: str | None = None,
    corpus: Corpus | None = None,
    context: Context,
) -> Defended:
    """Writes ``victim`` behind a chain of defences as a victim folder.

    Args:
        victim: The model inside.
        chain: Transforms in their order, each ``NAME[:SETTING]``.
        out: The victim folder.
        name: Of the defended victim; by default made of the names of victim and defences.
        corpus: With it the card holds recall before (``undefended_dev_uar`` ...) and after
            (``dev_uar`` ...), on its dev and test part.
        context: The shared settings of the command.

    Returns:
        The defended victim.

    Raises:
        InvalidInput: If there is no such transform, or ``out`` holds another victim.
    """
    read_corpus = None if corpus is None else lambda: corpus
    task = Defending(lambda: victim, chain, out, context, read_corpus, name)
    defended = task.stage().perform()
    if not isinstance(defended, Victim):
        defended = load_victim(out).to(context.device)
    assert isinstance(defended, Defended), "its inputs name defences"
    return defended


def adapt(
    sets: Sequence[Path],
    targets: Sequence[Victim],
    out: Path,
    *,
    attacks: Sequence[str] | None = None,
    clips: int,
    context: Context,
) -> list[Path]:
    """Attacks each defended target that no set was crafted against, through its defence.

    The clips are those of ``sets``. Epsilon and density are those of the first set that is no control.

    Args:
        sets: Folders of adversarial sets.
        targets: Victims; those without a defence are left out.
        out: Each attack goes to ``out/ATTACK__TARGET``.
        attacks: Registry names; by default PGD and sigma-zero, and Sparse-RS on a black box.
        clips: Largest number of clips.
        context: The shared settings of the command.

    Returns:
        The folders of the new sets.

    Raises:
        InvalidInput: If two targets have one name, or no clip is long enough for a target.
    """
    check_names(targets)
    static = [AdversarialSet.load(folder) for folder in sets]
    without_controls = [held for held in static if held.card.get("algorithm") not in CONTROLS]
    largest = max(static, key=len)
    budget = next(iter(without_controls), static[0]).card.get("budget") or {}
    folders = []
    for target in targets:
        knowledge = {defence_knowledge(held, target) for held in without_controls}
        if not isinstance(target, Defended) or "adaptive" in knowledge:
            continue
        usable = [c.clean for c in largest if len(c.clean.pcm16) >= target.minimum_samples]
        subset = _subset(usable, clips, target, sets[0])
        for name in attacks or (ADAPTIVE if target.differentiable else BLACK_BOX):
            recipe = AttackRecipe(
                attack=name,
                title=f"{name}, knowing the defence",
                epsilon=budget.get("epsilon") or PAPER_EPSILON,
                max_density=budget.get("max_density"),
            )
            plan = plan_attack(name, recipe, target, context=context)
            plan = replace(
                plan,
                inputs={**plan.inputs, "target": target.identity},
                of=len(usable) if len(subset) < len(usable) else None,
            )
            folders.append(out / f"{name}__{target.name}")
            attack(plan, subset, folders[-1], context=context)
    return folders


def _subset(clips: Sequence[Clip], limit: int, target: Victim, where: Path) -> list[Clip]:
    subset = stratified_subset(clips, limit)
    if not subset:
        raise InvalidInput(
            f"no clip is long enough for {target.name}",
            where=where,
            remedy="Evaluate it on longer clips",
        )
    return subset
