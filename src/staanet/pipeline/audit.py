"""Audits a model: how robust is it, to whom, at which budget, and what helps?

A model that only answers is attacked by transfer: the attacker trains models of its own on the same
corpus and crafts on them, and the audited model judges the files. A few clips are also attacked by
queries to the model itself. A model with gradients is attacked through them besides. Every stage is a
folder that is skipped once it is done, so that a killed audit goes on where it was.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.config import AttackRecipe, AuditRecipe, GeneratorRecipe, VictimRecipe
from staanet.core import Clip, Corpus, Victim, stratified_subset
from staanet.defences import Defended
from staanet.errors import InvalidInput, unknown_name
from staanet.pipeline.attack import Attacking
from staanet.pipeline.attack_plan import AttackPlan, plan_attack
from staanet.pipeline.audit_findings import (
    describe_cell,
    describe_findings,
    fooling_rate,
    strongest_sets,
)
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.evaluate import evaluate
from staanet.pipeline.stage import Inputs, Stage, StageTimer, folder_state, mark_begun, normal, walk
from staanet.pipeline.train_generator import GeneratorTraining
from staanet.pipeline.train_victim import VictimTraining
from staanet.pipeline.victim_check import check_victims, meet_labels
from staanet.report.audit_verdict import audit_outcome, audit_verdict
from staanet.storage import describe_machine
from staanet.transforms import Transform, parse_transform
from staanet.victims import VICTIMS, load_victim, victim_folder

TRANSFERRED = {"staa": "staa", "pgd-sparse": "pgd", "mi-fgsm": "mi_fgsm", "random": "random"}
"""What is crafted on each source, by the name of its folders; ``random`` is the control."""
SCHEMA = 1
SURROGATE_HZ = 16_000


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
    doubts: list[str] = field(default_factory=list)
    """What is doubtful about the audited model: then no verdict is established."""

    def stages(self) -> Iterator[Stage]:
        """Every stage; those of the defences depend on the results before."""
        self._choose_clips()
        for name in () if self.sources else self.recipe.surrogates:
            yield self._surrogate(name)
            folder = self.out / "surrogates" / f"surrogate-{name}"
            surrogate = load_victim(folder).to(self.context.device)
            self.sources = [*self.sources, Source(surrogate)]
        if self.victim.differentiable:
            self.sources = [*self.sources, Source(self.victim, white_box=True)]
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
        for text in self.recipe.defences:
            yield from self._defence(text, strongest)

    def _choose_clips(self) -> None:
        self.usable = load_clips(self.context.split(self.corpus)[2], self.victim, self.context)
        self.clips = stratified_subset(self.usable, self.recipe.clips)
        if not self.clips:
            raise InvalidInput(
                "no test clip can be used", where=self.corpus.name, remedy="Give more clips"
            )
        victims = [self.victim, *(source.victim for source in self.sources)]
        labels = [clip.label for clip in self.usable]
        meet_labels(victims, labels, self.context, where=self.corpus.name)
        reports = check_victims(victims, self.usable, self.context)
        self.doubts = list(reports[0].flags)

    def _surrogate(self, network: str) -> Stage:
        """A model of the attacker's own, trained on the labels of the corpus."""
        if self.victim.sample_rate != SURROGATE_HZ:
            raise InvalidInput(
                f"{self.victim.name} expects {self.victim.sample_rate} Hz; surrogates are trained at "
                f"{SURROGATE_HZ} Hz",
                remedy="Pass --source with models of its rate",
            )
        name, steps = f"surrogate-{network}", self.recipe.surrogate_steps
        recipe = VictimRecipe(
            network=network,
            steps=steps,
            seconds=self.recipe.seconds,
            speed=0.2,
            batch_size=2 * self.recipe.batch_size,
            evaluate_every=max(1, min(50, steps // 4)),
        )
        context = replace(
            self.context, seed=self.context.seed + 1, protocol=self._protocol_of_this_split()
        )
        folder = self.out / "surrogates" / name
        return VictimTraining(lambda: self.corpus, name, folder, recipe, context).stage()

    def _protocol_of_this_split(self) -> str:
        """The split of the audit, whatever the seed: a surrogate must not meet a test speaker."""
        _, dev, test = self.context.split(self.corpus)
        return f"speakers:{','.join(test.speakers)}/{','.join(dev.speakers)}"

    def _generator(self, source: Source) -> Stage:
        steps = self.recipe.generator_steps
        recipe = GeneratorRecipe(
            sources=(),
            epsilon=max(self.recipe.epsilons),
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
                "uar": static["uar_before"]["value"],
                "exact_gradient": target.exact_gradient,
                "crafted_on": source.name,
            }
        )

    def _strongest_recipe(self, name: str, attack: str) -> tuple[str, AttackRecipe]:
        """An attack at the largest budget."""
        return _recipe(name, attack, max(self.recipe.epsilons), max(self.recipe.densities))

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
            evaluate(sets, [target], folder, channels=channels, context=self.context)
            storage.write_card(folder, {"kind": "evaluation", "inputs": inputs})

        return Stage(
            name=f"evaluate {folder.name}",
            folder=folder,
            kind="evaluation",
            inputs=inputs,
            work=work,
        )


def audit(
    victim: Victim,
    corpus: Corpus,
    out: Path,
    *,
    recipe: AuditRecipe,
    sources: Sequence[str] = (),
    fail_above: float | None = None,
    command: str = "",
    context: Context,
) -> dict[str, Any]:
    """Audits a model on the test part of a corpus.

    Args:
        victim: The model.
        corpus: Labelled speech. Its train part trains the attacker's own models.
        out: Receives ``audit.json``, ``audit.md`` and ``audit.html`` besides the folders of the stages.
        recipe: Budgets, attacks and defences.
        sources: Names of trained models that stand for the attacker's own.
        fail_above: The largest fooling rate with which the model passes.
        command: What was typed, for the report.
        context: Of the command.

    Returns:
        The content of ``audit.json``.

    Raises:
        InvalidInput: If a setting is wrong, before anything is trained, or if ``out`` holds another
            audit.
    """
    check_audit(recipe, fail_above)
    loaded = [load_source(name, victim, context) for name in sources]
    names = [source.victim.name for source in loaded]
    if len({*names}) < len(names):
        raise InvalidInput(
            f"two sources are called {max(names, key=names.count)}",
            remedy="Give each source once, under a name of its own",
        )
    inputs = {
        "victim": victim.identity,
        **context.split_inputs(corpus),
        "recipe": asdict(recipe),
        "sources": [source.victim.identity for source in loaded],
    }
    if folder_state(out, "audit", inputs) == "to do":
        mark_begun(out, inputs)
    timer = StageTimer.of(out)
    whole = Audit(victim, corpus, out, recipe, context, loaded)
    walk(whole.stages(), timer)
    split_hash = context.split(corpus)[2].split_hash
    flags = [*whole.summary["flags"], *_split_flags(loaded, split_hash)]
    flags += [flag for flag in context.quarantine.flags if flag not in flags]
    facts = normal(
        {
            "schema": SCHEMA,
            **_describe_subject(whole),
            "seed": context.seed,
            "fail_above": fail_above,
            "seconds": timer.seconds(),
            "machine": describe_machine(),
            "quarantined": context.quarantine.rows,
            "flags": flags,
            **describe_findings(whole.summary["cells"], whole.defences, recipe),
        }
    )
    context.quarantine.save(out)
    facts |= _verdict(facts, out, command)
    storage.write_json(out / "audit.json", facts)
    report.write_audit(out, facts)
    storage.write_card(out, {"kind": "audit", "inputs": normal(inputs)})
    storage.remove(out / storage.UNFINISHED)
    return facts


def check_audit(recipe: AuditRecipe, fail_above: float | None) -> list[Transform]:
    """The defences of a recipe. Raises ``InvalidInput`` if anything in it is mistyped."""
    for name in recipe.channels:
        parse_transform(name)
    for name in recipe.surrogates:
        if name not in VICTIMS:
            raise unknown_name("surrogate", name, VICTIMS)
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InvalidInput(f"--fail-above is {fail_above}", remedy="Give a share in [0, 1]")
    return [parse_transform(text) for text in recipe.defences]


def load_source(name: str, victim: Victim, context: Context) -> Source:
    """Loads a model that stands for the attacker's own.

    Raises ``InvalidInput`` if it gives no gradients, or expects another rate than the audited model.
    """
    source = load_victim(name).to(context.device)
    if not source.differentiable:
        raise InvalidInput(
            f"{source.name} gives no gradients: nothing can be crafted on it",
            where=name,
            remedy="Give a victim folder, or leave --source out and surrogates are trained",
        )
    if source.sample_rate != victim.sample_rate:
        raise InvalidInput(
            f"{source.name} expects {source.sample_rate} Hz, {victim.name} {victim.sample_rate} Hz",
            where=name,
            remedy="Give a source of the same rate",
        )
    if source.name == victim.name:  # a cell would take one for the other
        source.name = f"source-{source.name}"
    return Source(source)


def _describe_subject(whole: Audit) -> dict[str, Any]:
    """The part of ``audit.json`` that says what was audited, on what, and with what."""
    victim, corpus = whole.victim, whole.corpus
    return {
        "victim": {
            "name": victim.name,
            "spec": victim.origin,
            "sha256": victim.sha256,
            "labels": list(victim.labels),
            "gradients": victim.differentiable,
            "flags": whole.doubts,
        },
        "corpus": {
            "name": corpus.name,
            "clips": len(whole.clips),
            "of": len(whole.usable),
            "speakers": len({clip.speaker for clip in whole.clips}),
            "split_hash": whole.context.split(corpus)[2].split_hash,
        },
        "sources": [{"name": s.victim.name, "white_box": s.white_box} for s in whole.sources],
        "recipe": asdict(whole.recipe),
    }


def _split_flags(sources: Sequence[Source], split_hash: str) -> Iterator[str]:
    """A flag for each source of which it is not sure that it has not met a test speaker."""
    for source in sources:
        folder = Path(victim_folder(source.victim.origin))
        is_folder = (folder / storage.CARD).is_file()
        card = storage.read_card(folder, "victim") if is_folder else {}
        if (card.get("inputs") or {}).get("split") != split_hash:
            yield (
                f"{source.victim.name} was not trained on this split: it may have met the test "
                "speakers, which flatters the attacks crafted on it"
            )


def _recipe(name: str, attack: str, epsilon: float, density: float) -> tuple[str, AttackRecipe]:
    """The key and the recipe of an attack at one budget."""
    title = f"{name}, epsilon {epsilon:g}, {100 * density:g} % of samples"
    recipe = AttackRecipe(attack=attack, epsilon=epsilon, max_density=density, title=title)
    return f"{name}-e{epsilon:g}-d{density:g}", recipe


def _verdict(facts: Mapping[str, Any], out: Path, command: str) -> dict[str, Any]:
    """Whether the model passed, why in plain words, and the commands that show it again."""
    worst, outcome = facts["worst"], audit_outcome(facts)
    channels = [word for name in facts["recipe"]["channels"] for word in ("--channel", name)]
    adversarial = str(out / "adversarial" / f"{worst['attack']}__{worst['source']}")
    target = facts["victim"]["spec"]
    again = ["staanet", "evaluate", adversarial, "--target", target, *channels, "--out", "check"]
    return {
        "outcome": outcome,
        "passed": {"passed": True, "failed": False}.get(outcome or ""),
        "verdict": audit_verdict(facts),
        "commands": [*([command] if command else []), shlex.join(again)],
    }
