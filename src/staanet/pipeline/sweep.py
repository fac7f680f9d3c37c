"""The stage of a sweep: success against budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from staanet import report, storage
from staanet.config import AttackRecipe, SweepRecipe
from staanet.core import Clip, Victim, stratified_subset
from staanet.errors import InvalidInput, UnusableClip
from staanet.evaluation import CONTROLS, sweeps
from staanet.pipeline.attack import clips_sha256
from staanet.pipeline.attack_plan import AttackPlan, plan_attack
from staanet.pipeline.context import Context
from staanet.pipeline.folders import is_done, normal
from staanet.storage import describe_machine


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """What a sweep is made of; ``vectors`` are the folders of each uap."""

    recipe: SweepRecipe
    attacks: Mapping[str, AttackRecipe]
    source: Victim
    targets: Sequence[Victim]
    generator: Path | None = None
    vectors: Mapping[str, Path] = field(default_factory=dict)
    context: Context

    def attack(self, point: sweeps.Point) -> AttackPlan:
        """The attack of a point, its own limits replaced by the point's."""
        own = replace(
            self.attacks[point.attack],
            epsilon=point.epsilon,
            max_density=point.max_density,
            max_l0=None,
            clips=None,
            match="",
        )
        return plan_attack(
            point.attack,
            own,
            self.source,
            generator=self.generator,
            vector=self.vectors.get(point.attack),
            context=self.context,
        )

    def descriptions(self) -> dict[str, sweeps.AttackDescription]:
        """Titles without what a recipe says of samples behind the first comma."""
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


def sweep(
    plan: SweepPlan, clips: Sequence[Clip], out: Path, *, keep: bool = False
) -> list[dict[str, Any]]:
    """Success against budget into ``out``: tables, the figure, and with ``keep`` the audio.

    Returns a row per point and target. A killed sweep goes on with the next clip.
    """
    shortest = max(victim.minimum_samples for victim in plan.targets)
    for clip in clips:
        if len(clip.pcm16) < shortest:
            plan.context.quarantine.add(
                clip.id,
                UnusableClip(
                    f"{len(clip.pcm16)} samples; a victim of this sweep needs {shortest}",
                    where=clip.id,
                    remedy="Drop it or give a longer clip",
                ),
            )
    usable = [clip for clip in clips if len(clip.pcm16) >= shortest]
    chosen = stratified_subset(usable, plan.recipe.clips)
    if not chosen:
        raise InvalidInput("no clip to attack", where=out, remedy="Give at least one usable clip")
    wanted = sweeps.sweep_points(
        plan.names(), plan.recipe.epsilons, plan.recipe.densities, grid=plan.recipe.grid
    )
    inputs = normal(
        {
            "attacks": {p.name: dict(plan.attack(p).inputs) for p in wanted},
            "keep": keep,
            "victims": {target.name: target.sha256 for target in plan.targets},
            "source": plan.source.name,
            "targets": [target.name for target in plan.targets],
            "clips": clips_sha256(chosen),
        }
    )
    if is_done(out, "sweep", inputs):
        return sweeps.load(out)
    storage.make_folder(out)
    journal = storage.Journal(out / "journal.jsonl")
    before = journal.records()
    if before and before[0].get("inputs") != inputs:
        raise InvalidInput(
            "holds an unfinished sweep of something else",
            where=out,
            remedy="Choose another --out, or delete that folder",
        )
    if not before:
        journal.append({"inputs": inputs})
    measured = sweeps.Sweep(
        source=plan.source,
        targets=plan.targets,
        make_attack=lambda point: plan.attack(point).attack,
        descriptions=plan.descriptions(),
    )
    rows = measured.run(
        wanted,
        chosen,
        journal=journal,
        audio_folder=out / "audio" if keep else None,
        progress=plan.context.progress,
    )
    found = sweeps.save(rows, out)
    report.draw_sweep(out, plan.source.name)
    storage.write_card(
        out,
        {
            "kind": "sweep",
            "source": plan.source.name,
            "inputs": inputs,
            "machine": describe_machine(),
            "chosen": f"{len(chosen)} of {len(clips)} clips, spread over labels and speakers",
            "quarantined": plan.context.quarantine.rows,
        },
    )
    storage.remove(out / "journal.jsonl")
    return found
