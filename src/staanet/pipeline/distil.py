"""A surrogate of a black box: a small network taught by its answers, so that it can be attacked in its place.

Papernot et al. 2017, arXiv 1602.02697; the soft answers are those of Hinton et al. 2015, arXiv 1503.02531.
No label is used, and each clip that the black box is asked about counts as a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from staanet import training
from staanet.attacks import logits_of
from staanet.config import VictimRecipe
from staanet.core import Clip, Corpus, Victim
from staanet.pipeline.clips import load_clips
from staanet.pipeline.context import Context
from staanet.pipeline.folders import begin, end, is_done, normal
from staanet.storage import describe_machine
from staanet.victims import build_victim, learning_rate, load_victim

SCHEME = "distill"
"""``distill:VICTIM`` as a source stands for a surrogate of that victim."""


@dataclass
class DistilTask:
    """Kullback-Leibler divergence from the target's answers on random crops; the score is how often
    both agree on whole dev clips. ``queries`` counts the crops and clips that the target was asked."""

    module: Victim
    target: Victim
    crops: training.Crops
    dev: Sequence[Clip]
    queries: int = 0

    def __post_init__(self) -> None:
        self.answers = logits_of(self.target, self.dev).argmax(axis=1)
        self.queries += len(self.dev)
        self.batches = training.Ahead(lambda step: self.crops.draw(step)[:1], self.module.device)

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        self.module.train()
        (x,) = self.batches(step)
        with torch.inference_mode():
            wanted = torch.softmax(self.target(x.to(self.target.device)), dim=1)
        wanted = wanted.clone().to(self.module.device)
        self.queries += len(x)
        logits = self.module(x)
        same = (logits.argmax(dim=1) == wanted.argmax(dim=1)).float().mean()
        loss = F.kl_div(torch.log_softmax(logits, dim=1), wanted, reduction="batchmean")
        return loss, {"train_agreement": float(same)}

    def evaluate(self) -> tuple[float, dict[str, float]]:
        self.module.eval()
        same = logits_of(self.module, self.dev).argmax(axis=1) == self.answers
        return float(np.mean(same)), {"dev_agreement": float(np.mean(same))}

    def state(self) -> dict[str, float]:
        return {"queries": float(self.queries)}

    def restore(self, state: Mapping[str, float]) -> None:
        self.queries = int(state["queries"])  # what a killed run asked before its checkpoint counts


def distil(
    corpus: Corpus, target: Victim, out: Path, *, recipe: VictimRecipe, context: Context
) -> Victim:
    """A surrogate of ``target``, taught on the corpus's train part; its card in ``out``
    tells ``queries`` and how often it agrees with the target on dev clips.

    ``recipe.network`` is ``emo18`` (the default) or another; steps and crops are those of a victim.
    """
    network = recipe.network or "emo18"
    train, dev, _ = context.split(corpus)
    told = asdict(recipe)
    del told["precision"]  # it learns in float32
    inputs = {
        **context.split_inputs(corpus),
        "network": network,
        "target": target.sha256,
        "recipe": told,
    }
    if is_done(out, "victim", inputs):
        return load_victim(out).to(context.device)
    begin(out, inputs)
    training.seeded(context.seed)
    surrogate = build_victim(network, target.labels).to(context.device)
    surrogate.name = f"{target.name}_surrogate"
    clips = [load_clips(part, target, context) for part in (train, dev)]
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
    task = DistilTask(surrogate, target, training.Crops(clips[0], schedule), clips[1])
    history = training.fit(
        task, schedule, out, what=f"learn from {target.name}", progress=context.progress
    )
    surrogate.requires_grad_(False).eval()
    surrogate.save_pretrained(
        out,
        inputs=normal(inputs),
        distilled_from=target.name,
        queries=task.queries,
        dev_agreement=history.best_score,
        best_step=history.best_step,
        machine=describe_machine(),
    )
    surrogate.origin = str(out)
    end(out)
    return surrogate
