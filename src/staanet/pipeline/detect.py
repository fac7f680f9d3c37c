"""Adds a detector to a victim, and measures it against static and adaptive attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from staanet import report, storage, training
from staanet.attacks import Staa
from staanet.config import DetectRecipe
from staanet.core import Attack, Budget, Clip, Corpus, Victim, require_classes, stratified_subset
from staanet.core.roc import check_rate
from staanet.defences import DetectorGated
from staanet.defences.detectors import Learned, build_detector
from staanet.evaluation.detection import detection_figures
from staanet.generators.registry import load_generator
from staanet.pipeline.attack import attack
from staanet.pipeline.attack_plan import AttackPlan, source_hashes
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.harden import new_generator, save_inner_generator
from staanet.pipeline.stage import Inputs, Stage
from staanet.pipeline.victim_check import check_victims, match_corpus_labels
from staanet.results import row_files
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.storage import describe_machine
from staanet.training import adaptive, detectors
from staanet.victims import load_victim

DEV_CLIPS = 48
"""So many dev clips judge the generator that is trained through a detector."""


@dataclass(frozen=True)
class Detection:
    """Puts a detector in front of a victim; the gated victim and each adaptive attack are stages."""

    corpus: Corpus
    victim: Victim
    out: Path
    recipe: DetectRecipe
    context: Context

    @property
    def budget(self) -> Budget:
        return Budget(epsilon=self.recipe.epsilon, max_density=self.recipe.max_density)

    def gate_victim(self) -> DetectorGated:
        """The victim behind its detector; trains and saves it unless that is done."""
        stage = Stage(
            name=f"detect {self.victim.name}",
            folder=self.out,
            kind="victim",
            inputs=self.inputs,
            work=self.work,
        )
        stage.perform()
        target = load_victim(self.out).to(self.victim.device)
        assert isinstance(target, DetectorGated), "its inputs name a detector"
        return target

    def inputs(self) -> Inputs:
        recipe = self.recipe
        return {
            **self.context.split_inputs(self.corpus),
            "victim": self.victim.identity,
            "detector": recipe.detector,
            "false_positive_rate": recipe.false_positive_rate,
            "budget": asdict(self.budget),
            "steps": recipe.steps if recipe.detector == "learned" else None,
        }

    def work(self, inputs: Inputs) -> None:
        require_classes([self.victim], "a detector")
        train, dev, _ = self.context.split(self.corpus)
        dev_clips = load_clips(dev, self.victim, self.context)
        check_victims([self.victim], dev_clips, self.context)
        training.seed_weights(self.context.seed)
        detector = build_detector(self.recipe.detector)
        flags: list[str] = []
        if isinstance(detector, Learned):
            clips = load_clips(train, self.victim, self.context)
            flags = self._learn(detector, clips, dev_clips).flags
        target = detectors.gate_victim(
            self.victim, detector, dev_clips, false_positive_rate=self.recipe.false_positive_rate
        )
        entry = self.context.quarantine.warn_of(flags)
        target.save_pretrained(self.out, inputs=inputs, machine=describe_machine(), **entry)

    def _learn(
        self, detector: Learned, train: Sequence[Clip], dev: Sequence[Clip]
    ) -> training.History:
        steps, context = self.recipe.steps, self.context
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
        return detectors.train_detector(
            detector.to(self.victim.device),
            self.victim,
            train,
            dev,
            schedule,
            self.out,
            budget=self.budget,
            progress=context.progress,
        )

    def adaptive_sets(self, target: DetectorGated) -> Iterator[tuple[str, AdversarialSet]]:
        """Yields title and set of each attack that takes the detector into account."""
        recipe = self.recipe
        if not (recipe.adaptive_clips or recipe.generator_steps):
            return
        test = load_clips(self.context.split(self.corpus)[2], target, self.context)
        if recipe.adaptive_clips:
            clips = stratified_subset(test, recipe.adaptive_clips)
            title = "PGD that knows the detector"
            pgd = adaptive.AdaptivePGD(budget=self.budget)
            inputs = {"recipe": asdict(pgd)}
            yield title, self._attack("pgd", title, pgd, target, clips, len(test), inputs)
        if recipe.generator_steps:
            folder = self.out / "generator"
            self._generator_stage(target, folder).perform()
            generator = load_generator(folder).to(target.device)
            title = "STAA-Net that knows the detector"
            staa = Staa(generator=generator, budget=self.budget)
            inputs = {"generator": storage.read_card(folder, "generator")["sha256"]}
            yield title, self._attack("staa", title, staa, target, test, len(test), inputs)

    def _attack(
        self,
        key: str,
        title: str,
        method: Attack,
        target: DetectorGated,
        clips: Sequence[Clip],
        of: int,
        inputs: Inputs,
    ) -> AdversarialSet:
        source = {
            "sources": source_hashes(target),
            "seed": self.context.seed,
            "budget": asdict(self.budget),
        }
        plan = AttackPlan(
            key=f"{key}-adaptive",
            title=title,
            attack=method,
            source=target,
            of=of if len(clips) < of else None,
            inputs={**inputs, **source},
        )
        folder = self.out / "adversarial" / f"{plan.key}__{target.name}"
        return attack(plan, clips, folder, context=self.context)

    def _generator_stage(self, target: DetectorGated, folder: Path) -> Stage:
        """A STAA-Net that is trained through the detector."""
        steps, context = self.recipe.generator_steps, self.context
        inputs = {
            "source": target.identity,
            "steps": steps,
            "seed": context.seed,
            "budget": asdict(self.budget),
        }

        def work(inputs: Inputs) -> None:
            training.seed_weights(context.seed)
            generator = new_generator(target.inner, self.budget)
            schedule = training.Schedule(
                steps=steps,
                batch_size=8,
                seconds=1.5,
                learning_rate=3e-4,
                seed=context.seed,
                evaluate_every=max(1, min(100, steps // 2)),
            )
            parts = context.split(self.corpus)[:2]
            train, dev = (load_clips(part, target, context) for part in parts)
            history = adaptive.train_adaptive_generator(
                generator,
                target,
                train,
                stratified_subset(dev, DEV_CLIPS),
                schedule,
                folder,
                budget=self.budget,
                progress=context.progress,
            )
            entry = context.quarantine.warn_of(history.flags)
            save_inner_generator(
                generator, self.out, target, self.budget, str(target.sha256), inputs=inputs, **entry
            )

        return Stage(
            name=f"train-generator {target.name}",
            folder=folder,
            kind="generator",
            inputs=lambda: inputs,
            work=work,
        )


def detect(
    corpus: Corpus,
    victim: Victim,
    out: Path,
    *,
    recipe: DetectRecipe,
    sets: Sequence[Path] = (),
    context: Context,
) -> dict[str, Any]:
    """Puts a victim behind a detector, and measures it against attacks.

    The threshold is chosen on dev clips. ROC (``roc.csv``, ``roc.png``) and rates are of each set of
    ``sets`` (one that is named twice counts once) and of the adaptive attacks of the recipe. Those are
    adversarial sets below ``out/adversarial``, crafted once.

    Args:
        corpus: Its train part trains the detector ``learned``, its test part is attacked.
        victim: The model that the detector stands before.
        out: The victim folder.
        recipe: The detector, its threshold and the adaptive attacks.
        sets: Folders of adversarial sets that were crafted without knowledge of the detector.
        context: The shared settings of the command.

    Returns:
        The content of ``detector.json``.

    Raises:
        InvalidInput: If there is no such detector or set, or ``out`` holds another victim.
    """
    static = check_detection(recipe, sets)
    match_corpus_labels([victim], corpus, context)
    detection = Detection(corpus, victim, out, recipe, context)
    target = detection.gate_victim()
    attacks = [
        detection_figures(title, target, list(clips), context.progress)
        for title, clips in _all_sets(static, detection, target)
    ]
    facts = {
        "victim": target.inner.name,
        "detector": recipe.detector,
        "threshold": target.threshold,
        "false_positive_rate": recipe.false_positive_rate,
        "chosen_on": f"{len(context.split(corpus)[1])} dev clips",
        "attacks": attacks,
        "adaptive": bool(recipe.adaptive_clips or recipe.generator_steps),
    }
    storage.write_json(out / "detector.json", facts)
    if attacks:
        rows = [{"attack": row["attack"], **point} for row in attacks for point in row["roc"]]
        columns = ["attack", "false_positive_rate", "detected"]
        storage.write_text(out / "roc.csv", row_files.csv_text(columns, rows))
        report.draw_roc(out / "roc.png", facts)
    return facts


def _all_sets(
    static: Sequence[AdversarialSet], detection: Detection, target: DetectorGated
) -> Iterator[tuple[str, Sequence[AdversarialClip]]]:
    for loaded in static:
        yield f"{loaded.attack} from {loaded.source}", list(loaded)
    for title, crafted in detection.adaptive_sets(target):
        yield title, list(crafted)


def check_detection(recipe: DetectRecipe, sets: Sequence[Path]) -> list[AdversarialSet]:
    """Loads the adversarial sets of ``detect``, each folder once.

    Raises ``InvalidInput`` for a detector, a rate or a set that cannot be, before anything is written.
    """
    check_rate(recipe.false_positive_rate)
    build_detector(recipe.detector)
    folders = {folder.resolve(): folder for folder in reversed(sets)}
    return [AdversarialSet.load(folder) for folder in reversed(folders.values())]
