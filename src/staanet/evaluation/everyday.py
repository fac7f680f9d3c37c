"""What everyday change does to a victim: answers unchanged, and UAR lost, under each condition.

The conditions and thresholds follow the robustness tests of Derington et al. (Testing Correctness,
Fairness, and Robustness of Speech Emotion Recognition Models, arXiv 2312.06270), which ``ser-tests`` runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from staanet import audio
from staanet.attacks import logits_of
from staanet.core import Clip, Progress, Samples, Victim, answers_to, metrics, silent
from staanet.core.dimensions import dimension_values
from staanet.core.metrics import Estimate
from staanet.transforms import add_at_snr, clip_seed, parse_transform, transform_samples

MIN_UNCHANGED = {"unheard": 0.95, "noise": 0.90, "device": 0.80, "phone": 0.50}
"""The least share of answers that stay, by the kind of a condition: what nobody hears, noises, devices and
rooms, a poor phone."""
MAX_UAR_LOSS = 0.05
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
NOTHING = metrics.rate([], [])
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
    """How a victim answers under one condition: clips, kind, and what was measured.

    Of a regression victim an answer stays where no number moves by more than its tolerance, and CCC stands
    in the place of UAR: its mean over the numbers.
    """

    name: str
    kind: str
    transforms: str
    unchanged: Estimate
    uar: float | None
    uar_loss: Estimate
    seconds: float
    answers: Mapping[str, str] = field(repr=False)
    """The answer by clip id."""
    ccc: float | None = None
    ccc_loss: Estimate = NOTHING

    @property
    def passed(self) -> bool:
        """Whether enough answers stay, and UAR (or CCC) falls by at most ``MAX_UAR_LOSS``."""
        losses, stays = (self.uar_loss.value, self.ccc_loss.value), self.unchanged.value
        loss = next((value for value in losses if value is not None), None)
        is_loss_small = loss is None or loss <= MAX_UAR_LOSS
        return stays is not None and stays >= MIN_UNCHANGED[self.kind] and is_loss_small

    def row(self) -> dict[str, Any]:
        """As plain values, the answers left out."""
        values = {key: value for key, value in asdict(self).items() if key != "answers"}
        least = MIN_UNCHANGED[self.kind]
        return {**values, "least_unchanged": least, "passed": self.passed}


@dataclass(frozen=True, slots=True)
class Everyday:
    """What everyday change does to a victim."""

    victim: str
    uar: float | None
    clean: Mapping[str, str] = field(repr=False)
    conditions: Sequence[Condition] = field(repr=False)
    ccc: float | None = None
    """Of a regression victim, whose UAR is None."""

    def summary(self) -> dict[str, Any]:
        """As plain values for JSON; ``worst`` of a kind is its condition with the fewest answers left."""
        rows = [condition.row() for condition in self.conditions]
        return {
            "victim": self.victim,
            "clips": len(self.clean),
            "uar": self.uar,
            "ccc": self.ccc,
            "most_uar_loss": MAX_UAR_LOSS,
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
        clips: Test clips at its rate; UAR (of numbers: CCC) is None where they have no labels, or others.
        conditions: By kind, each one's name and transforms.
        progress: Receives a call per condition.
    """
    names = [(kind, name) for kind, group in conditions.items() for name in group]
    clean = _Answers.of(victim, clips)
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
        answers = clean.under(victim, queries, same)
        used = [clip for clip in clips if clip.id in answers.words]
        measured.append(
            Condition(
                name=name,
                kind=kind,
                transforms=text,
                answers=answers.words,
                seconds=time.perf_counter() - begin,
                **_compare(used, clean, answers),
            )
        )
        progress("everyday", number, len(names), name)
    quality = _quality(clips, clean)
    uar, ccc = (None, quality) if clean.names else (quality, None)
    return Everyday(victim.name, uar, clean.words, measured, ccc)


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


@dataclass(frozen=True, slots=True)
class _Answers:
    """What a victim answers to clips, by id: as words, and its outputs ``[K]``."""

    words: Mapping[str, str]
    outputs: Mapping[str, NDArray[np.float32]]
    names: tuple[str, ...] = ()
    """Of a regression victim: its numbers; empty for classes."""
    classes: tuple[str, ...] = ()
    """The classes of a classifier."""

    @classmethod
    def of(cls, victim: Victim, clips: Sequence[Clip], clean: _Answers | None = None) -> _Answers:
        """The answers to clips; those of a regression victim are judged by the ``clean`` ones."""
        is_regression = victim.task == "regression"
        kinds = (victim.labels, ()) if is_regression else ((), victim.labels)
        if not clips:
            return cls({}, {}, *kinds)
        rows = logits_of(victim, clips)
        outputs = {clip.id: row for clip, row in zip(clips, rows, strict=True)}
        reference = outputs if clean is None else clean.outputs
        before = torch.from_numpy(np.stack([reference[clip.id] for clip in clips]))
        words = answers_to(victim, before, torch.from_numpy(rows))
        return cls(dict(zip(outputs, words, strict=True)), outputs, *kinds)

    def under(self, victim: Victim, changed: Sequence[Clip], same: Collection[str]) -> _Answers:
        """The answers to ``changed`` clips, beside those that a condition left the ``same``."""
        fresh = _Answers.of(victim, changed, self)
        words = {**fresh.words, **{id: self.words[id] for id in same}}
        outputs = {**fresh.outputs, **{id: self.outputs[id] for id in same}}
        return _Answers(words, outputs, self.names, self.classes)


def _quality(clips: Sequence[Clip], answers: _Answers) -> float | None:
    """UAR of classes, mean CCC of numbers; None without clips or labels, or where they are others."""
    truth = [clip.label or "" for clip in clips]
    if not clips or not all(truth):
        return None
    if not answers.names:
        if not {*truth} & {*answers.classes}:
            return None
        return metrics.uar(truth, [answers.words[clip.id] for clip in clips])
    numbers = dimension_values(truth, answers.names)
    values = np.stack([answers.outputs[clip.id] for clip in clips])
    if not np.isfinite(numbers).all():
        return None
    return float(np.mean([metrics.ccc(x, y) for x, y in zip(numbers.T, values.T, strict=True)]))


def _compare(clips: Sequence[Clip], clean: _Answers, answers: _Answers) -> dict[str, Any]:
    """Answers unchanged, and UAR (or CCC) and how much of it is lost, over the clips that count."""
    speakers = [clip.speaker for clip in clips]
    stays = [clean.words[clip.id] == answers.words[clip.id] for clip in clips]
    unchanged = metrics.rate(stays, speakers)
    after = _quality(clips, answers)
    figure = "ccc" if clean.names else "uar"
    others = {"uar": None, "uar_loss": NOTHING}
    if after is None or not math.isfinite(after):
        return {"unchanged": unchanged, **others}
    span = 2.0 if clean.names else 1.0  # CCC reaches from -1 to 1

    def fall(indices: NDArray[np.intp]) -> float:
        some = [clips[i] for i in indices]
        before, now = (_quality(some, x) or 0.0 for x in (clean, answers))
        return (1 + (before - now) / span) / 2  # in [0, 1], where a jackknife's interval is kept

    loss = metrics.jackknife(fall, speakers)
    value, low, high = (
        None if end is None else span * (2 * end - 1) for end in (loss.value, loss.low, loss.high)
    )
    fallen = replace(loss, value=value, low=low, high=high)
    return {"unchanged": unchanged, **others, figure: after, f"{figure}_loss": fallen}
