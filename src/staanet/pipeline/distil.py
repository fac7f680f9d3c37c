"""Distils a black box into a small surrogate network, which attacks use as their source.

The method is that of Papernot et al. 2017 (arXiv 1602.02697) with the soft labels of Hinton et al. 2015
(arXiv 1503.02531). No label of the corpus is used. Each clip sent to the black box counts as a query.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from staanet import training
from staanet.config import VictimRecipe
from staanet.core import Corpus, Victim, require_classes
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.stage import Inputs, Stage
from staanet.storage import describe_machine
from staanet.training.distillation import DistillationTask
from staanet.victims import build_victim, learning_rate, load_victim

SCHEME = "distill"
"""The source ``distill:VICTIM`` is a surrogate of that victim."""

UNUSED = ("precision", "augment", "sample_rate")
"""Settings of a victim's training that distillation ignores.

It trains in float32 on crops without augmentation, at the target's sample rate.
"""


def distil(
    corpus: Corpus, target: Victim, out: Path, *, recipe: VictimRecipe, context: Context
) -> Victim:
    """Trains a surrogate of ``target`` on the train part of a corpus, and writes the victim folder ``out``.

    ``recipe.network`` names the network; the default is ``emo18``. Steps and crops are those of a victim's
    training. The card holds the number of queries, and how often the surrogate agrees with the target on
    dev clips. A finished folder is loaded. Raises ``InvalidInput`` where ``target`` is no classifier.
    """
    network = recipe.network or "emo18"
    settings = {key: value for key, value in asdict(recipe).items() if key not in UNUSED}
    inputs = {
        **context.split_inputs(corpus),
        "network": network,
        "target": target.identity,
        "recipe": settings,
    }

    def work(inputs: Inputs) -> Victim:
        require_classes([target], "distillation")
        training.seed_weights(context.seed)
        surrogate = build_victim(network, target.labels, sample_rate=target.sample_rate)
        surrogate.to(context.device)
        surrogate.name = f"{target.name}_surrogate"
        train, dev = (load_clips(part, target, context) for part in context.split(corpus)[:2])
        schedule = training.Schedule(
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            seconds=recipe.seconds,
            learning_rate=recipe.learning_rate or learning_rate(network),
            seed=context.seed,
            speed=recipe.speed,
            evaluate_every=recipe.evaluate_every,
            patience=recipe.patience,
        )
        task = DistillationTask(surrogate, target, training.Crops(train, schedule), dev)
        history = training.fit(
            task, schedule, out, what=f"learn from {target.name}", progress=context.progress
        )
        surrogate.requires_grad_(False).eval()
        surrogate.save_pretrained(
            out,
            inputs=inputs,
            distilled_from=target.name,
            queries=task.queries,
            dev_agreement=history.best_score,
            best_step=history.best_step,
            machine=describe_machine(),
            **context.quarantine.warn_of(history.flags),
        )
        surrogate.origin = str(out)
        return surrogate

    stage = Stage(
        name=f"distil {target.name}", folder=out, kind="victim", inputs=lambda: inputs, work=work
    )
    surrogate = stage.perform()
    return surrogate if isinstance(surrogate, Victim) else load_victim(out).to(context.device)
