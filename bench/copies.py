"""``python -m bench copies CORPUS``: is a copy of a victim as ONNX or TorchScript as weak as the victim?

Each victim is written in both formats, as a user would write it with torch, and loaded again. PGD attacks the
victim and each copy by gradients of their own. Logits are compared on the clips and on what the attacks made.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import sections
from bench.attacking import percent
from bench.strength import clips_of, typed
from staanet import audio, load_victim, storage
from staanet.attacks import PGD, craft
from staanet.core import Budget, Victim
from staanet.pipeline.run_card import commit
from staanet.results.adversarial_set import AdversarialClip
from staanet.storage import describe_machine, pretrained
from staanet.victims.model_card import ModelCard

HEAD = (
    "| victim | copy | gradient | largest difference of logits | victim fooled | copy fooled | "
    "equal samples of both attacks |\n|---|---|---|---:|---:|---:|---:|"
)


def main(arguments: list[str]) -> None:
    """Attacks victims and copies, and writes the section."""
    options = parser().parse_args(arguments)
    attack = PGD(budget=Budget(epsilon=options.level), steps=options.steps)
    rows = []
    for name in options.victims:
        victim = load_victim(name)
        length = int(options.seconds * victim.sample_rate)
        whole = clips_of(options.corpus, victim, "test", options.clips)
        clips = [replace(clip, pcm16=clip.pcm16[:length]) for clip in whole]
        own = craft(attack, victim, clips)
        for kind in ("onnx", "torchscript"):
            with tempfile.TemporaryDirectory() as folder:
                copy = load_copy(victim, kind, Path(folder) / victim.name)
                rows.append(row(victim, copy, kind, list(own), list(craft(attack, copy, clips))))
            print(rows[-1], flush=True)
    about = (
        f"The command `python -m bench copies {typed(arguments)}` ran at commit `{commit()}` with "
        f"{describe_machine()}. PGD with {options.steps} steps at {options.level} attacked the first "
        f"{options.seconds:g} s of {options.clips} test clips."
    )
    sections.write("copies", "\n".join([f"## Copies of victims\n\n{about}\n\n{HEAD}", *rows]))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    options = argparse.ArgumentParser("python -m bench copies", description=__doc__)
    add, shipped = options.add_argument, [f"shipped:{name}" for name in pretrained.names("victims")]
    add("corpus", metavar="KIND:PATH", help="the corpus whose test clips are attacked")
    add("--victims", nargs="+", default=shipped, help="victims to copy")
    add("--clips", type=int, default=12, help="clips (default: 12)")
    add("--seconds", type=float, default=2.0, help="of each clip (default: 2)")
    add("--steps", type=int, default=10, help="of PGD (default: 10)")
    add("--level", default="-20 dB", help="epsilon (default: -20 dB)")
    return options


class Logits(nn.Module):
    """What a copy holds: from waveforms to logits."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim = victim

    def forward(self, waveforms: Tensor) -> Tensor:
        logits: Tensor = self.victim(waveforms)
        return logits


def load_copy(victim: Victim, kind: str, path: Path) -> Victim:
    """The victim as a file with a card, loaded again."""
    network, example = Logits(victim).eval(), torch.zeros(2, victim.sample_rate)
    axes = {"waveforms": {0: "batch", 1: "time"}, "logits": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what a trace fixes: the logits are compared below
        if kind == "onnx":
            names = {"input_names": ["waveforms"], "output_names": ["logits"], "dynamic_axes": axes}
            torch.onnx.export(network, (example,), str(path), dynamo=False, **names)
        else:
            torch.jit.save(torch.jit.trace(network, example, check_trace=False), str(path))
    card = ModelCard(
        sample_rate=victim.sample_rate, labels=victim.labels, minimum_samples=victim.minimum_samples
    )
    storage.write_text(path.with_name(f"{path.name}.toml"), card.as_toml())
    return load_victim(f"{kind}:{path}")


@torch.no_grad()
def row(
    victim: Victim,
    copy: Victim,
    kind: str,
    own: list[AdversarialClip],
    other: list[AdversarialClip],
) -> str:
    """A line of the table: what the attacks on the victim and on its copy did to each."""
    fooled, difference, equal = [0, 0], 0.0, 0.0
    for pair in zip(own, other, strict=True):
        changed = [torch.from_numpy(audio.to_float(clip.adversarial)) for clip in pair]
        sounds = torch.stack([pair[0].clean.waveform, *changed])
        logits = [attacked(sounds) for attacked in (victim, copy)]
        difference = max(difference, float((logits[0] - logits[1]).abs().max()))
        for number, answers in enumerate(logits):
            fooled[number] += int(answers[0].argmax() != answers[1 + number].argmax())
        equal += float((sounds[1] == sounds[2]).float().mean()) / len(own)
    gradient = "white box" if copy.differentiable else "black box"
    cells = [f"{difference:.1g}", *(percent(n / len(own)) for n in fooled), percent(equal)]
    return f"| {victim.name} | {kind} | {gradient} | {' | '.join(cells)} |"
