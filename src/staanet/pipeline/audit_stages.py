"""The stages of an audit, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import storage
from staanet.config import (
    AttackRecipe,
    AuditRecipe,
    GeneratorRecipe,
    VictimRecipe,
    epsilon_order,
    epsilon_text,
)
from staanet.config.epsilon import Epsilon
from staanet.core import Clip, Corpus, Victim, stratified_subset
from staanet.core.protocols import DRAWN, MANIFEST
from staanet.defences import Defended
from staanet.errors import InvalidInput
from staanet.pipeline.attack import Attacking
from staanet.pipeline.attack_plan import AttackPlan, plan_attack
from staanet.pipeline.audit_findings import (
    describe_cell,
    fooling_rate,
    quality_entry,
    strongest_sets,
)
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.evaluate import evaluate, sexes_of
from staanet.pipeline.everyday_change import SUMMARY, EverydayChange
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.train_generator import GeneratorTraining
from staanet.pipeline.train_victim import VictimTraining
from staanet.pipeline.victim_check import check_victims, match_clip_labels
from staanet.transforms import parse_transform
from staanet.victims import load_victim

TRANSFERRED = {"staa": "staa", "pgd-sparse": "pgd", "mi-fgsm": "mi_fgsm", "random": "random"}
"""The attacks crafted on each source, by the name of their folders; ``random`` is the control."""


@dataclass(frozen=True, slots=True)
class Source:
    """A model that attacks are crafted on; ``white_box`` if it is the audited model itself."""

    victim: Victim
    white_box: bool = False


@dataclass
class Audit:
    """The stages of an audit, each in a folder of its own below ``out``, and what they found."""

    victim: Victim
    corpus: Corpus
    out: Path
    recipe: AuditRecipe
    context: Context
    sources: list[Source]
    """Trained models that stand for the attacker's own. Empty: surrogates are trained."""
    usable: list[Clip] = field(default_factory=list)
    """The test clips that can be used."""
    clips: list[Clip] = field(default_factory=list)
    """Those of them that are attacked."""
    sets: list[Path] = field(default_factory=list)
    """Adversarial sets that were crafted on the sources."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Of the results without a defence."""
    defences: list[dict[str, Any]] = field(default_factory=list)
    everyday: dict[str, Any] | None = None
    """What everyday change does to the model."""
    doubts: list[str] = field(default_factory=list)
    """Doubts about the audited model; with any, no verdict is established."""

    def stages(self) -> Iterator[Stage]:
        """Every stage; those of the defences depend on the results before."""
        self._choose_clips()
        for name in self.surrogate_names():
            yield self._surrogate(name)
            folder = self.out / "surrogates" / f"surrogate-{name}"
            surrogate = load_victim(folder).to(self.context.device)
            self.sources = [*self.sources, Source(surrogate)]
        if self.victim.differentiable:
            self.sources = [*self.sources, Source(self.victim, white_box=True)]
        if self.recipe.everyday:
            stage = self._everyday()
            yield stage
            self.everyday = storage.read_json(stage.folder / SUMMARY)
        for source in self.sources:
            yield self._generator(source)
            yield from self._transferred(source)
        queries = list(self._queries())
        yield from queries
        folder = self.out / "results"
        sets = [*self.sets, *(stage.folder for stage in queries)]
        yield self._evaluation(sets, self.victim, folder, self.recipe.channels)
        self.summary = storage.read_json(folder / "summary.json")
        strongest = strongest_sets(self.summary["cells"], self.sets)
        for text in self.recipe.defences if strongest else ():
            yield from self._defence(text, strongest)

    def surrogate_names(self) -> Sequence[str]:
        """The networks of the attacker's own models; none where clips have no label of the model's kind."""
        if self.sources or not self.recipe.surrogates:
            return ()
        if self.victim.task == self.corpus.task:
            return self.recipe.surrogates
        self.context.quarantine.warn(
            f"{self.victim.name} answers with numbers and the clips have classes: no surrogate was "
            "trained, so that no attacker without access to the model was tried; pass --source, or "
            "clips with numbers (--task regression)"
        )
        return ()

    def _choose_clips(self) -> None:
        self.usable = load_clips(self.context.split(self.corpus)[2], self.victim, self.context)
        self.clips = stratified_subset(self.usable, self.recipe.clips)
        if not self.clips:
            raise InvalidInput(
                "no test clip can be used", where=self.corpus.name, remedy="Give more clips"
            )
        victims = [self.victim, *(source.victim for source in self.sources)]
        labels = [clip.label for clip in self.usable]
        match_clip_labels(victims, labels, self.context, where=self.corpus.name)
        reports = check_victims(victims, self.usable, self.context)
        self.doubts = list(reports[0].flags)

    def _everyday(self) -> Stage:
        folder = self.out / "everyday"
        return EverydayChange(
            self.victim.name, lambda: self.victim, lambda: self.clips, folder, self.context
        ).stage()

    def _surrogate(self, network: str) -> Stage:
        """A model of the attacker's own, trained on the labels of the corpus."""
        name, steps = f"surrogate-{network}", self.recipe.surrogate_steps
        recipe = VictimRecipe(
            network=network,
            sample_rate=self.victim.sample_rate,
            steps=steps,
            seconds=self.recipe.seconds,
            speed=0.2,
            batch_size=2 * self.recipe.batch_size,
            evaluate_every=max(1, min(50, steps // 4)),
        )
        corpus, protocol = keep_split(self.corpus, self.context)
        context = replace(self.context, seed=self.context.seed + 1, protocol=protocol)
        folder = self.out / "surrogates" / name
        return VictimTraining(lambda: corpus, name, folder, recipe, context).stage()

    def _generator(self, source: Source) -> Stage:
        steps = self.recipe.generator_steps
        recipe = GeneratorRecipe(
            sources=(),
            epsilon=max(self.recipe.epsilons, key=epsilon_order),
            max_density=max(self.recipe.densities),
            steps=steps,
            batch_size=self.recipe.batch_size,
            seconds=self.recipe.seconds,
            evaluate_every=max(1, min(100, steps // 2)),
        )
        name = source.victim.name
        return GeneratorTraining(
            lambda: self.corpus,
            lambda: source.victim,
            name,
            self.out / "generators" / name,
            recipe,
            self.context,
        ).stage()

    def _transferred(self, source: Source) -> Iterator[Stage]:
        """Every attack at every budget on one source."""
        generator = self.out / "generators" / source.victim.name
        for name, attack in TRANSFERRED.items():
            for epsilon in self.recipe.epsilons:
                for density in self.recipe.densities:
                    key, recipe = _recipe(name, attack, epsilon, density)
                    plan = plan_attack(
                        key, recipe, source.victim, generator=generator, context=self.context
                    )
                    stage = self._attack(plan, self.clips, len(self.usable))
                    self.sets.append(stage.folder)
                    yield stage

    def _queries(self) -> Iterator[Stage]:
        """A few clips attacked by queries to the audited model alone, at the largest budget."""
        clips = stratified_subset(self.clips, self.recipe.query_clips)
        if clips:
            key, recipe = self._strongest_recipe("sparse-rs", "sparse_rs")
            title = recipe.title.replace(",", f", {self.recipe.queries} queries,", 1)
            recipe = replace(recipe, title=title, settings={"steps": self.recipe.queries})
            plan = plan_attack(key, recipe, self.victim, context=self.context)
            yield self._attack(plan, clips, len(self.usable))

    def _defence(self, text: str, strongest: Sequence[tuple[Path, str]]) -> Iterator[Stage]:
        """A defence against the strongest sets as they are, and against PGD that knows it."""
        transform = parse_transform(text)
        target = Defended(self.victim, [transform])
        name = text.replace(":", "-").replace(",", "-")
        folder = self.out / "defended" / name
        yield self._evaluation([held for held, _ in strongest], target, folder)
        source = next(s.victim for s in self.sources if s.victim.name == strongest[0][1])
        _, recipe = self._strongest_recipe(f"PGD that knows {text}", "pgd")
        adaptive_source = Defended(source, [transform])
        plan = plan_attack(f"knowing-{name}", recipe, adaptive_source, context=self.context)
        clips = stratified_subset(self.clips, self.recipe.defended_clips)
        attack = self._attack(plan, clips, len(self.clips), source.name)
        yield attack
        adaptive_folder = self.out / "defended" / f"{name}-known"
        yield self._evaluation([attack.folder], target, adaptive_folder)
        static = max(storage.read_json(folder / "summary.json")["cells"], key=fooling_rate)
        adaptive = storage.read_json(adaptive_folder / "summary.json")["cells"][0]
        self.defences.append(
            {
                "defence": text,
                "static": describe_cell(static),
                "adaptive": describe_cell(adaptive),
                **quality_entry(static),
                "exact_gradient": target.exact_gradient,
                "crafted_on": source.name,
            }
        )

    def _strongest_recipe(self, name: str, attack: str) -> tuple[str, AttackRecipe]:
        """An attack at the largest budget."""
        return _recipe(
            name, attack, max(self.recipe.epsilons, key=epsilon_order), max(self.recipe.densities)
        )

    def _attack(
        self, plan: AttackPlan, clips: Sequence[Clip], of: int, source: str | None = None
    ) -> Stage:
        name = f"{plan.key}__{source or plan.source.name}"
        plan = replace(plan, of=of)
        folder = self.out / "adversarial" / name
        task = Attacking(f"attack {name}", lambda: plan, lambda: clips, folder, self.context)
        return task.stage()

    def _evaluation(
        self, sets: Sequence[Path], target: Victim, folder: Path, channels: Sequence[str] = ()
    ) -> Stage:
        """The matrix of some sets; computed once for the same sets and target."""

        def inputs() -> Inputs:
            return {
                "sets": {held.name: storage.sha256(held / "metadata.csv") for held in sets},
                "targets": [target.name],
                "victim": self.victim.identity,
                "channels": list(channels),
            }

        def work(inputs: Inputs) -> None:
            sexes = sexes_of(self.corpus)
            evaluate(sets, [target], folder, channels=channels, sexes=sexes, context=self.context)
            storage.write_card(folder, {"kind": "evaluation", "inputs": inputs})

        return Stage(
            name=f"evaluate {folder.name}",
            folder=folder,
            kind="evaluation",
            inputs=inputs,
            work=work,
        )


def _recipe(name: str, attack: str, epsilon: Epsilon, density: float) -> tuple[str, AttackRecipe]:
    """The key and the recipe of an attack at one budget."""
    title = f"{name}, epsilon {epsilon_text(epsilon)}, {100 * density:g} % of samples"
    recipe = AttackRecipe(attack=attack, epsilon=epsilon, max_density=density, title=title)
    return f"{name}-e{epsilon_text(epsilon).replace(' ', '')}-d{density:g}", recipe


def keep_split(corpus: Corpus, context: Context) -> tuple[Corpus, str]:
    """The corpus and a protocol with which every seed gives its split of now.

    A surrogate must not meet a test speaker (or content). Speakers are named in the protocol. Contents may
    be whole sentences or paths, which no protocol can name: then each clip holds its part.
    """
    train, dev, test = context.split(corpus)
    names = [",".join(part.speakers) for part in (test, dev)]
    commas = sum(len(part.speakers) - 1 for part in (test, dev))
    protocol = f"{DRAWN}:{'/'.join(names)}"
    if corpus.disjoint_by == DRAWN and (protocol.count(","), protocol.count("/")) == (commas, 1):
        return corpus, protocol
    clips = [
        replace(clip, part=part.part) for part in (train, dev, test) for clip in part.utterances
    ]
    return replace(corpus, utterances=tuple(sorted(clips, key=lambda clip: clip.id))), MANIFEST
