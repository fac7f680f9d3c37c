"""``python -m bench universal emodb:PATH``: does a universal vector fool more than random signs of its size?

For each victim a vector is learned on train clips, as ``staanet train-uap`` does. Vector and random signs change
every sample of the same test clips by epsilon. A control that noise beats would make each attack look good.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench import sections
from bench.attacking import told
from bench.strength import clips_of, typed
from staanet import load_corpus, load_victim, pipeline, training
from staanet.attacks import Random, craft, fit_uap, logits_of
from staanet.config import VectorRecipe
from staanet.core import Attack, Budget, Clip, Victim, answers_to
from staanet.pipeline.run_card import commit
from staanet.storage import describe_machine, pretrained

DRAWS = 5


def main(arguments: list[str]) -> None:
    """Learns a vector for each victim, and writes the section."""
    options = parser().parse_args(arguments)
    recipe = replace(VectorRecipe(), epsilon=options.epsilon)
    rows = []
    for spec in options.victims:
        row = judge(options.corpus, load_victim(spec), recipe, options)
        print(json.dumps(row), flush=True)
        rows.append(row)
    sections.write("universal", section(rows, recipe, typed(arguments)))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser(prog="python -m bench universal", description=__doc__)
    add = options.add_argument
    add("corpus", metavar="KIND:PATH")
    shipped = [f"shipped:{name}" for name in pretrained.names("victims")]
    add("--victims", nargs="+", default=shipped)
    add("--epsilon", default="-15 dB")
    add("--seconds", type=float, default=1.0, help="length of a test clip")
    add("--clips", type=int, default=60)
    return options


def judge(
    spec: str, victim: Victim, recipe: VectorRecipe, options: argparse.Namespace
) -> dict[str, Any]:
    """How many clips the vector fools, and how many each draw of random signs fools."""
    context = pipeline.Context(progress=told)
    train = pipeline.load_clips(context.split(load_corpus(spec))[0], victim, context)
    schedule = training.Schedule(
        steps=recipe.steps, batch_size=recipe.batch_size, seconds=recipe.seconds
    )
    crops = training.Crops(train, schedule)
    batches = ((crops.draw(step)[0], None) for step in range(recipe.steps))
    vector = fit_uap(victim, batches, recipe, seed=0)
    length = round(options.seconds * victim.sample_rate)
    whole = clips_of(spec, victim, "test", options.clips)
    clips = [replace(clip, pcm16=clip.pcm16[:length]) for clip in whole]
    budget = Budget(epsilon=recipe.epsilon)
    signs = [Random(budget=budget, seed=seed) for seed in range(DRAWS)]
    return {
        "victim": victim.name,
        "clips": len(clips),
        "vector": fooled(vector, victim, clips),
        "signs": [fooled(attack, victim, clips) for attack in signs],
    }


def fooled(attack: Attack, victim: Victim, clips: Sequence[Clip]) -> int:
    """How many answers an attack changes."""
    pairs = craft(attack, victim, clips)
    noisy = [replace(clip, pcm16=pair.adversarial) for clip, pair in zip(clips, pairs, strict=True)]
    before, after = (torch.from_numpy(logits_of(victim, group)) for group in (clips, noisy))
    first, other = answers_to(victim, before, before), answers_to(victim, before, after)
    return sum(x != y for x, y in zip(first, other, strict=True))


def section(rows: Sequence[dict[str, Any]], recipe: VectorRecipe, command: str) -> str:
    """The text of the section in ``results.md``."""
    head = "| victim | clips | universal vector fools | random signs fool, mean | most | above |\n|---|---:|---:|---:|---:|---|"
    lines = [
        f"| {row['victim']} | {row['clips']} | {row['vector']} | {statistics.mean(row['signs']):.1f} "
        f"| {max(row['signs'])} | {'yes' if row['vector'] > max(row['signs']) else 'no'} |"
        for row in rows
    ]
    about = (
        f"The command `python -m bench universal {command}` ran at commit `{commit()}` with {describe_machine()}. Epsilon "
        f"is {recipe.epsilon} on every sample. The training has {recipe.steps} steps. The control has {DRAWS} draws "
        "of random signs. *above* means that the vector fools more clips than every draw."
    )
    return "\n\n".join(
        ["## Universal vector against random signs", about, "\n".join([head, *lines])]
    )
