"""``python -m bench.retrain CORPUS OUT NAME...``: shipped victims trained on under everyday change.

Begins with the shipped weights; a stopped training goes on. Of the weights on the way those with the best
UAR on dev clips are kept: every second clip as it is, the others after a draw of everyday change.
Then ``staanet train-generator`` makes ``OUT/generators/emo18,zhao19`` against them, and ``bench.ship OUT
CORPUS`` measures and ships all.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from staanet import audio, config, corpora, storage, training
from staanet.core import Clip
from staanet.pipeline.train_victim import measure_parts
from staanet.storage import pretrained
from staanet.transforms import Augmentation, clip_seed, parse_augmentation
from staanet.victims import load_victim

STEPS = {"emo18": 240, "zhao19": 240, "wav2vec2_tiny": 480}
AUGMENT = ("everyday",)


def retrain(corpus_spec: str, out: Path, name: str) -> None:
    """Train a shipped victim on, into the folder ``out / "victims" / name``."""
    train, dev = (
        list(part.clips(16_000)) for part in corpora.load_corpus(corpus_spec).split(0)[:2]
    )
    victim = load_victim(pretrained.folder("victims", name))
    victim.requires_grad_(True)
    begun_from = victim.sha256
    schedule = training.Schedule(
        steps=STEPS[name],
        batch_size=8,
        seconds=1.0,
        learning_rate=4e-4,
        final_learning_rate=4e-5,
        evaluate_every=40,
        speed=0.1,
        augment=AUGMENT,
    )
    change = parse_augmentation(AUGMENT)
    assert change is not None
    judged = [*dev[::2], *(_changed(clip, change) for clip in dev[1::2])]
    folder = out / "victims" / name
    history = training.train_victim(
        victim,
        train,
        judged,
        schedule,
        folder,
        progress=lambda what, done, total, text: print(done, total, text, flush=True),
    )
    before = storage.read_card(pretrained.folder("victims", name), "victim")["inputs"]
    settings = {"begun_from": begun_from, "retrained_steps": schedule.steps, "augment": AUGMENT}
    inputs = {**before, "recipe": {**before["recipe"], **settings}}
    quality = measure_parts(victim, {"dev": dev})
    victim.save_pretrained(folder, inputs=inputs, best_step=history.best_step, **quality)
    recipe = config.load_recipe("emodb_full", [f"corpus={corpus_spec}"])
    storage.write_text(out / "recipe.toml", config.to_toml(recipe))
    storage.write_card(out, {"kind": "run"})


def _changed(clip: Clip, change: Augmentation) -> Clip:
    rng = np.random.default_rng(clip_seed(clip.id))
    samples = change(audio.to_float(clip.pcm16), rng, clip.sample_rate)
    return replace(clip, pcm16=audio.snap(samples))


if __name__ == "__main__":
    for each in sys.argv[3:]:
        retrain(sys.argv[1], Path(sys.argv[2]), each)
