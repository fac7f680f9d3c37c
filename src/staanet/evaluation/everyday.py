"""What everyday change does to a victim: answers unchanged, and UAR lost, under each condition.

The conditions and thresholds follow the robustness tests of Derington et al. (Testing Correctness,
Fairness, and Robustness of Speech Emotion Recognition Models, arXiv 2312.06270), which ``ser-tests`` runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from staanet import audio
from staanet.attacks import logits_of
from staanet.core import Clip, Progress, Samples, Victim, metrics, require_classes, silent
from staanet.core.metrics import Estimate
from staanet.transforms import add_at_snr, clip_seed, parse_transform, transform_samples

LEAST_UNCHANGED = {"unheard": 0.95, "noise": 0.90, "device": 0.80, "phone": 0.50}
"""The least share of answers that stay, by the kind of a condition: what nobody hears, noises, devices and
rooms, a poor phone."""
MOST_UAR_LOSS = 0.05
BABBLE = "babble"
BABBLE_VOICES = 4

CONDITIONS: dict[str, dict[str, str]] = {
    "unheard": {
        "1 dB louder": "gain:1",
        "1 dB softer": "gain:-1",
        "2 dB louder": "gain:2",
        "2 dB softer": "gain:-2",
        "6 dB louder": "gain:6",
        "6 dB softer": "gain:-6",
        "100 zeros before": "silence:100,0",
        "500 zeros before": "silence:500,0",
        "1000 zeros before": "silence:1000,0",
        "100 zeros after": "silence:0,100",
        "500 zeros after": "silence:0,500",
        "1000 zeros after": "silence:0,1000",
        "100 samples cut before": "cut:100,0",
        "500 samples cut before": "cut:500,0",
        "1000 samples cut before": "cut:1000,0",
        "100 samples cut after": "cut:0,100",
        "500 samples cut after": "cut:0,500",
        "1000 samples cut after": "cut:0,1000",
        "tone at 40 dB": "tone:40",
        "white noise at 45 dB": "noise:45",
        "white noise at 40 dB": "noise:40",
        "white noise at 35 dB": "noise:35",
    },
    "noise": {
        "white noise at 20 dB": "noise:20",
        "white noise at 10 dB": "noise:10",
        "white noise at 5 dB": "noise:5",
        "babble at 20 dB": "babble:20",
        "babble at 10 dB": "babble:10",
        "music at 20 dB": "music:20",
        "music at 10 dB": "music:10",
        "mains hum at 20 dB": "hum:20",
    },
    "device": {
        "high-pass at 100 Hz": "highpass:100",
        "low-pass at 4 kHz": "lowpass:4000",
        "0.1 % clipped": "clipping:0.1",
        "1 % clipped": "clipping:1",
        "10 % clipped": "clipping:10",
        "spectrum tilted down": "tilt:-6",
        "spectrum tilted up": "tilt:6",
        "MP3 at 40 kbit/s": "mp3:40",
        "Opus at 16 kbit/s": "opus:16",
        "Opus at 6 kbit/s": "opus:6",
        "small room": "rir:0.3",
        "large room": "rir:0.8",
        "small room, far away": "rir:0.3,2",
        "large room, far away": "rir:0.8,2",
        "8 kHz and back": "round_trip:8000",
        "44.1 kHz and back": "round_trip:44100",
        "5 % faster": "speed:5",
        "5 % slower": "speed:-5",
        "1 semitone higher": "pitch:1",
        "1 semitone lower": "pitch:-1",
    },
    "phone": {
        "telephone band, 8 bit": "bandpass:300,3400 + mulaw",
        "GSM": "gsm",
        "5 % of packets lost": "packet_loss:5",
    },
}
"""By kind, each condition's name and its transforms; ``babble:SNR`` adds other clips."""
CARD_CONDITIONS = (
    "6 dB louder",
    "1000 zeros before",
    "white noise at 20 dB",
    "MP3 at 40 kbit/s",
    "telephone band, 8 bit",
)
"""Those that the card of a trained victim tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How a victim answers under one condition: clips, kind, and what was measured."""

    name: str
    kind: str
    transforms: str
    unchanged: Estimate
    uar: float | None
    uar_loss: Estimate
    seconds: float
    answers: Mapping[str, str] = field(repr=False)
    """The answer by clip id."""

    @property
    def passed(self) -> bool:
        """Whether enough answers stay, and UAR falls by at most ``MOST_UAR_LOSS``."""
        loss, stays = self.uar_loss.value, self.unchanged.value
        is_loss_small = loss is None or loss <= MOST_UAR_LOSS
        return stays is not None and stays >= LEAST_UNCHANGED[self.kind] and is_loss_small

    def row(self) -> dict[str, Any]:
        """As plain values, the answers left out."""
        values = {key: value for key, value in asdict(self).items() if key != "answers"}
        least = LEAST_UNCHANGED[self.kind]
        return {**values, "least_unchanged": least, "passed": self.passed}


@dataclass(frozen=True, slots=True)
class Everyday:
    """What everyday change does to a victim."""

    victim: str
    uar: float | None
    clean: Mapping[str, str] = field(repr=False)
    conditions: Sequence[Condition] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """As plain values for JSON; ``worst`` of a kind is its condition with the fewest answers left."""
        rows = [condition.row() for condition in self.conditions]
        return {
            "victim": self.victim,
            "clips": len(self.clean),
            "uar": self.uar,
            "most_uar_loss": MOST_UAR_LOSS,
            "passed": sum(row["passed"] for row in rows),
            "of": len(rows),
            "worst": {row["kind"]: row for row in sorted(rows, key=_share, reverse=True)},
            "conditions": rows,
            "seconds": sum(row["seconds"] for row in rows),
        }


def _share(row: Mapping[str, Any]) -> float:
    value = row["unchanged"]["value"]
    return 1.0 if value is None else float(value)


def measure_everyday(
    victim: Victim,
    clips: Sequence[Clip],
    *,
    conditions: Mapping[str, Mapping[str, str]] = CONDITIONS,
    progress: Progress = silent,
) -> Everyday:
    """Measures a victim's answers on clips under each condition.

    A condition is drawn from the clip's id, so that a clip meets the same noise in every evaluation. A
    clip that a condition makes too short for the victim does not count there.

    Args:
        victim: Any victim.
        clips: Test clips at its rate; UAR is None where they have no labels.
        conditions: By kind, each one's name and transforms.
        progress: Receives a call per condition.
    """
    names = [(kind, name) for kind, group in conditions.items() for name in group]
    require_classes([victim], "this measure")
    clean = _answers(victim, clips)
    measured = []
    for number, (kind, name) in enumerate(names, start=1):
        begin = time.perf_counter()
        text = conditions[kind][name]
        changed = [change_clip(text, clip, clips) for clip in clips]
        # what did not change a sample is not asked again
        same = {
            c.id for c, h in zip(clips, changed, strict=True) if np.array_equal(c.pcm16, h.pcm16)
        }
        queries = [
            h for h in changed if h.id not in same and len(h.pcm16) >= victim.minimum_samples
        ]
        answers = _answers(victim, queries) | {id: clean[id] for id in same}
        used = [clip for clip in clips if clip.id in answers]
        measured.append(
            Condition(
                name=name,
                kind=kind,
                transforms=text,
                answers=answers,
                seconds=time.perf_counter() - begin,
                **_compare(used, clean, answers),
            )
        )
        progress("everyday", number, len(names), name)
    truth = [clip.label or "" for clip in clips]
    uar = metrics.uar(truth, [clean[clip.id] for clip in clips]) if all(truth) else None
    return Everyday(victim.name, uar, clean, measured)


def unchanged_shares(victim: Victim, clips: Sequence[Clip]) -> dict[str, float | None]:
    """The share of answers that stay under each of ``CARD_CONDITIONS``, for the card of a victim."""
    chosen = {
        kind: {name: text for name, text in group.items() if name in CARD_CONDITIONS}
        for kind, group in CONDITIONS.items()
    }
    measured = measure_everyday(victim, clips, conditions=chosen)
    return {condition.name: condition.unchanged.value for condition in measured.conditions}


def change_clip(text: str, clip: Clip, clips: Sequence[Clip]) -> Clip:
    """A clip after the transforms of a condition; ``clips`` are those that babble is mixed from."""
    samples = clip.pcm16
    for part in text.split(" + "):
        name, _, level = part.partition(":")
        if name == BABBLE:
            samples = _with_babble(samples, clip, clips, float(level))
        else:
            transform = parse_transform(part)
            samples = transform_samples(
                transform, samples, clip.sample_rate, seed=clip_seed(clip.id)
            )
    return replace(clip, pcm16=samples)


def _with_babble(samples: Samples, clip: Clip, clips: Sequence[Clip], snr_db: float) -> Samples:
    """A clip with four others behind it, of other speakers where there are any."""
    rng = np.random.default_rng(clip_seed(clip.id))
    others = [c for c in clips if c.speaker != clip.speaker] or [c for c in clips if c is not clip]
    if not others:
        return samples
    sounds = [
        np.resize(audio.to_float(others[i].pcm16), len(samples))
        for i in rng.choice(len(others), min(BABBLE_VOICES, len(others)), replace=False)
    ]
    babble = sum(sound / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-9) for sound in sounds)
    x, background = (
        torch.from_numpy(np.asarray(y, float))[None] for y in (audio.to_float(samples), babble)
    )
    return audio.snap(add_at_snr(x, background, snr_db).clamp(-1, 1)[0].numpy())


def _answers(victim: Victim, clips: Sequence[Clip]) -> dict[str, str]:
    if not clips:
        return {}
    logits = logits_of(victim, clips)
    return {c.id: victim.labels[i] for c, i in zip(clips, logits.argmax(axis=1), strict=True)}


def _compare(
    clips: Sequence[Clip], clean: Mapping[str, str], answers: Mapping[str, str]
) -> dict[str, Any]:
    """Answers unchanged, UAR and how much of it is lost, over the clips that count."""
    speakers = [clip.speaker for clip in clips]
    truth, before, after = (
        np.array(values)
        for values in (
            [clip.label or "" for clip in clips],
            [clean[clip.id] for clip in clips],
            [answers[clip.id] for clip in clips],
        )
    )
    unchanged = metrics.rate(before == after, speakers)
    if not len(clips) or not all(truth):
        return {"unchanged": unchanged, "uar": None, "uar_loss": metrics.rate([], [])}
    loss = metrics.jackknife(
        lambda i: (1 + metrics.uar(truth[i], before[i]) - metrics.uar(truth[i], after[i])) / 2,
        speakers,
    )  # moved into [0, 1], where a jackknife's interval is kept
    value, low, high = (
        None if end is None else 2 * end - 1 for end in (loss.value, loss.low, loss.high)
    )
    uar_loss = replace(loss, value=value, low=low, high=high)
    return {"unchanged": unchanged, "uar": metrics.uar(truth, after), "uar_loss": uar_loss}
