"""Sweeps budgets: the success of attacks against epsilon and density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.config import AttackRecipe, SweepRecipe
from staanet.core import Clip, Victim, stratified_subset
from staanet.errors import InvalidInput, UnusableClip
from staanet.evaluation import CONTROLS, sweeps
from staanet.pipeline.attack_plan import AttackPlan, plan_attack
from staanet.pipeline.context import Context
from staanet.pipeline.identity import clips_sha256
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.victim_check import check_victims
from staanet.storage import describe_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """Attacks on a source at several budgets, judged on several targets."""

    recipe: SweepRecipe
    attacks: Mapping[str, AttackRecipe]
    source: Victim
    targets: Sequence[Victim]
    generator: Path | None = None
    vectors: Mapping[str, Path] = field(default_factory=dict)
    """The folder of the universal vector of each attack that needs one."""
    context: Context

    def attack(self, point: sweeps.Point) -> AttackPlan:
        """The attack of a point, with the limits of the point."""
        recipe = replace(
            self.attacks[point.attack],
            epsilon=point.epsilon,
            max_density=point.max_density,
            max_l0=None,
            clips=None,
            match="",
        )
        return plan_attack(
            point.attack,
            recipe,
            self.source,
            generator=self.generator,
            vector=self.vectors.get(point.attack),
            context=self.context,
        )

    def descriptions(self) -> dict[str, sweeps.AttackDescription]:
        """What figures show of each attack; titles end at their first comma."""
        return {
            key: sweeps.AttackDescription(
                title=(self.attacks[key].title or key).split(",")[0],
                control=name in CONTROLS,
                minimising=name in sweeps.MINIMISING,
            )
            for key, name in self.names().items()
        }

    def names(self) -> dict[str, str]:
        """The registry name of each attack."""
        return {key: self.attacks[key].attack or key for key in self.recipe.attacks}

    def points(self) -> list[sweeps.Point]:
        """The points that are run."""
        return sweep_points(self.recipe, self.attacks)


def sweep_points(recipe: SweepRecipe, attacks: Mapping[str, AttackRecipe]) -> list[sweeps.Point]:
    """The points of a sweep over some attacks of a recipe."""
    names = {key: attacks[key].attack or key for key in recipe.attacks}
    return sweeps.sweep_points(names, recipe.epsilons, recipe.densities, grid=recipe.grid)


@dataclass(frozen=True)
class Sweeping:
    """A sweep as a stage that goes on with the next clip after a kill."""

    name: str
    make_plan: Callable[[], SweepPlan]
    read_clips: Callable[[], Sequence[Clip]]
    out: Path
    keep: bool = False
    """Keep the audio of every point."""
    size: Callable[[], str] = str

    def stage(self) -> Stage:
        return Stage(
            name=self.name,
            folder=self.out,
            kind="sweep",
            inputs=self.inputs,
            work=self.work,
            size=self.size,
        )

    @cached_property
    def plan(self) -> SweepPlan:
        return self.make_plan()

    @cached_property
    def clips(self) -> list[Clip]:
        """The clips of the sweep: those that are long enough for each victim, spread over labels."""
        plan = self.plan
        shortest = max(victim.minimum_samples for victim in plan.targets)
        usable = []
        for clip in self.read_clips():
            if len(clip.pcm16) >= shortest:
                usable.append(clip)
                continue
            problem = UnusableClip(
                f"{len(clip.pcm16)} samples; a victim of this sweep needs {shortest}",
                where=clip.id,
                remedy="Drop it or give a longer clip",
            )
            plan.context.quarantine.add(clip.id, problem)
        subset = stratified_subset(usable, plan.recipe.clips)
        if not subset:
            raise InvalidInput(
                "no clip to attack", where=self.out, remedy="Give at least one usable clip"
            )
        return subset

    def inputs(self) -> Inputs:
        plan = self.plan
        return {
            "attacks": {point.name: dict(plan.attack(point).inputs) for point in plan.points()},
            "keep": self.keep,
            "victims": {target.name: target.identity for target in plan.targets},
            "source": plan.source.identity,
            "targets": [target.name for target in plan.targets],
            "clips": clips_sha256(self.clips),
        }

    def work(self, inputs: Inputs) -> None:
        plan = self.plan
        check_victims([plan.source, *plan.targets], self.clips, plan.context)
        storage.make_folder(self.out)
        measured = sweeps.Sweep(
            source=plan.source,
            targets=plan.targets,
            make_attack=lambda point: plan.attack(point).attack,
            descriptions=plan.descriptions(),
        )
        rows = measured.run(
            plan.points(),
            self.clips,
            journal=storage.Journal(self.out / "journal.jsonl"),
            audio_folder=self.out / "audio" if self.keep else None,
            progress=plan.context.progress,
        )
        sweeps.save(rows, self.out)
        report.draw_sweep(self.out, plan.source.name)
        of = len(self.read_clips())
        storage.write_card(
            self.out,
            {
                "kind": "sweep",
                "source": plan.source.name,
                "inputs": inputs,
                "machine": describe_machine(),
                "chosen": f"{len(self.clips)} of {of} clips, spread over labels and speakers",
                "quarantined": plan.context.quarantine.rows,
            },
        )


def sweep(
    plan: SweepPlan, clips: Sequence[Clip], out: Path, *, keep: bool = False
) -> list[dict[str, Any]]:
    """Measures success against budget; writes tables, the figure, and with ``keep`` the audio.

    Returns a row per point and target. Raises ``InvalidInput`` if no clip is usable, or ``out`` holds
    another sweep.
    """
    name = f"sweep from {plan.source.name}"
    Sweeping(name, lambda: plan, lambda: clips, out, keep).stage().perform()
    return sweeps.load(out)
