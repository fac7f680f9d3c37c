"""``python -m bench.retrain CORPUS OUT NAME...``: shipped victims trained on under everyday change.

Begins with the shipped weights. Each crop is met as it is and after a draw of everyday change: the loss is
the cross-entropy of both, and ``CONSISTENCY`` times the Jensen-Shannon divergence of both answers
(Hendrycks et al. 2020, arXiv 1912.02781). The result lies on the line from the shipped weights to the mean of
the trained ones (Wortsman et al. 2022, arXiv 2109.01903), where UAR and answers unchanged are best on
dev clips. Then ``staanet train-generator`` makes ``OUT/generators/emo18,zhao19`` against them, and
``bench.ship OUT CORPUS`` measures and ships all.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from staanet import config, corpora, storage, training
from staanet.attacks import logits_of
from staanet.core import Clip, Victim, metrics
from staanet.evaluation.everyday import unchanged_shares
from staanet.pipeline.run_card import commit
from staanet.pipeline.train_victim import measure_parts
from staanet.storage import pretrained
from staanet.training.crops import balanced_crops
from staanet.transforms.augment import EVERYDAY_STEPS, Augmentation
from staanet.victims import load_victim

STEPS = 400
CONSISTENCY = 8.0
DOSE = 0.8
"""How often each step of everyday change happens, of how often it does in ``augment = "everyday"``."""
SHARES = (0.4, 0.6, 0.8, 1.0)
"""Points on the line from the shipped weights to the trained ones."""
Weights = Mapping[str, Tensor]


def retrain(corpus_spec: str, out: Path, name: str) -> None:
    """Train a shipped victim on, into the folder ``out / "victims" / name``."""
    train, dev = (
        list(part.clips(16_000)) for part in corpora.load_corpus(corpus_spec).split(0)[:2]
    )
    victim = load_victim(pretrained.folder("victims", name))
    begun_from = victim.sha256
    start = {key: value.clone() for key, value in victim.state_dict().items()}
    trained = train_consistently(victim, train)
    scores = {share: judge(victim, between(start, trained, share), dev) for share in SHARES}
    share = max(scores, key=lambda each: scores[each])
    victim.load_state_dict(between(start, trained, share))
    folder = out / "victims" / name
    before = storage.read_card(pretrained.folder("victims", name), "victim")["inputs"]
    settings = {
        "begun_from": begun_from,
        "retrained_steps": STEPS,
        "augment": f"everyday x {DOSE}",
        "consistency": CONSISTENCY,
        "share_of_retrained_weights": share,
    }
    inputs = {**before, "recipe": {**before["recipe"], **settings}}
    victim.save_pretrained(folder, inputs=inputs, **measure_parts(victim, {"dev": dev}))
    changes = [f"corpus={corpus_spec}", "name=emodb_full-bench.retrain"]
    recipe = config.load_recipe("emodb_full", changes)
    storage.write_text(out / "recipe.toml", config.to_toml(recipe))
    storage.write_card(out, {"kind": "run", "commit": commit()})


def train_consistently(victim: Victim, train: Sequence[Clip]) -> Weights:
    """Returns the mean weights of a training on crops as they are and after everyday change."""
    schedule = training.Schedule(steps=STEPS, batch_size=8, seconds=2.0, speed=0.1)
    crops = balanced_crops(train, schedule)
    index = [victim.labels.index(clip.label or "") for clip in train]
    change = Augmentation([(share * DOSE, texts) for share, texts in EVERYDAY_STEPS])
    victim.requires_grad_(True)
    optimiser = torch.optim.AdamW(victim.parameters(), lr=4e-4, weight_decay=1e-4)
    mean = {key: value.clone() for key, value in victim.state_dict().items()}
    for step in range(STEPS):
        decay = 0.1 + 0.45 * (1 + math.cos(math.pi * step / STEPS))
        optimiser.param_groups[0]["lr"] = 4e-4 * min(1.0, (step + 1) / 20) * decay
        x, chosen = crops.draw(step)
        rng = np.random.default_rng([7, step])
        changed = np.stack([change(crop.numpy(), rng, 16_000) for crop in x])
        y = torch.tensor([index[i] for i in chosen])
        victim.train()
        logits = victim(torch.cat([x, torch.from_numpy(changed)])).float()
        loss = F.cross_entropy(logits, torch.cat([y, y]))
        loss = loss + CONSISTENCY * jensen_shannon(*logits.chunk(2))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(victim.parameters(), 1.0)
        optimiser.step()
        mean = between(mean, victim.state_dict(), 1 - min(0.98, (step + 1) / (step + 10)))
        if step % 20 == 0:
            print(victim.name, step, STEPS, f"{loss.item():.3f}", flush=True)
    victim.requires_grad_(False).eval()
    return mean


def jensen_shannon(a: Tensor, b: Tensor) -> Tensor:
    """The mean divergence of the answers of two logits ``[B, C]``, in nats.

    >>> float(jensen_shannon(torch.tensor([[2.0, 0.0]]), torch.tensor([[2.0, 0.0]])))
    0.0
    """
    p, q = a.softmax(dim=1), b.softmax(dim=1)
    middle = ((p + q) / 2).clamp_min(1e-7).log()
    return sum(F.kl_div(middle, each, reduction="batchmean") for each in (p, q)) / 2


def between(start: Weights, end: Weights, share: float) -> Weights:
    """Weights at a share of the way from ``start`` to ``end``; what is no float is taken from ``end``."""
    return {
        key: torch.lerp(start[key], value, share) if value.is_floating_point() else value.clone()
        for key, value in end.items()
    }


def judge(victim: Victim, weights: Weights, dev: Sequence[Clip]) -> float:
    """The UAR of a victim with these weights on dev clips, and its mean share of answers unchanged."""
    victim.load_state_dict(weights)
    victim.eval()
    answers = [victim.labels[i] for i in logits_of(victim, dev).argmax(axis=1)]
    unchanged = [share for share in unchanged_shares(victim, dev).values() if share is not None]
    recall = metrics.uar([clip.label or "" for clip in dev], answers)
    print(victim.name, f"dev UAR {recall:.3f}", f"unchanged {np.mean(unchanged):.3f}", flush=True)
    return recall + float(np.mean(unchanged))


if __name__ == "__main__":
    for each in sys.argv[3:]:
        retrain(sys.argv[1], Path(sys.argv[2]), each)
