"""Synthetic speech: voices, emotions and sentences, and the samples of one clip by eSpeak NG.

The name of a clip and a seed decide its random variation. The strength of the emotion, its pitch, range,
rate, melody, effort and level vary around the means of the emotion. Faint noise is added to the speech.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from staanet import audio
from staanet.config import SAMPLE_RATE
from staanet.corpora.espeak import Say

SEMITONE_PERCENT = 11.6
"""eSpeak's ``pitch="+P%"`` raises f0 by about P / 11.6 semitones, for P from -50 to 100."""


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker: a name, the voice of eSpeak NG (accent and variant), and a sex."""

    name: str
    espeak: str
    sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Emotion:
    """Prosody relative to the voice; ``pitch``, ``melody`` and ``bounce`` are in semitones."""

    pitch: float = 0.0
    melody: float = 0.0  # how far pitch rises (or falls) from the first word to the last
    bounce: float = 0.0  # how far pitch jumps up and down from word to word
    range: float = 1.0  # of pitch within words, as a factor
    rate: float = 1.0  # of words, as a factor
    pause_ms: float = 0.0  # between words, which are then stressed one by one
    effort: float = 0.0  # filter 1 - effort / z: above 0 bright (shouted), below 0 dull (tired)
    level_db: float = 0.0


VOICES = (  # female and male in turn, so that any even number of them is balanced
    Voice("f2", "en-us+f2", "female"),
    Voice("m1", "en-us+m1", "male"),
    Voice("f5", "en-gb-x-rp+f5", "female"),
    Voice("m6", "en-gb-x-rp+m6", "male"),
    Voice("annie", "en-us+Annie", "female"),
    Voice("m4", "en-us+m4", "male"),
    Voice("f3", "en-gb-scotland+f3", "female"),
    Voice("boris", "en-gb-scotland+boris", "male"),
    Voice("belinda", "en-us+belinda", "female"),
    Voice("m2", "en-us+m2", "male"),
    Voice("grandma", "en-029+grandma", "female"),
    Voice("alex", "en-029+Alex", "male"),
    Voice("f1", "en-us-nyc+f1", "female"),
    Voice("m3", "en-us-nyc+m3", "male"),
    Voice("f4", "en-us+f4", "female"),
    Voice("m5", "en-us+m5", "male"),
    Voice("andrea", "en-gb-x-gbclan+Andrea", "female"),
    Voice("john", "en-gb-x-gbclan+john", "male"),
    Voice("aunty", "en-us+aunty", "female"),
    Voice("pablo", "en-us+pablo", "male"),
)
EMOTIONS = {
    "anger": Emotion(
        pitch=4, melody=-6, range=1.4, rate=1.45, pause_ms=30, effort=0.85, level_db=5
    ),
    "happiness": Emotion(pitch=8, melody=5, bounce=4, range=1.8, rate=1.15, effort=0.4, level_db=2),
    "neutral": Emotion(range=0.7),
    "sadness": Emotion(pitch=-4, melody=-1, range=0.4, rate=0.72, effort=-0.8, level_db=-5),
}
SENTENCES = (
    "The train leaves at seven.",
    "Your bag is on the chair.",
    "We talked about it today.",
    "She put the keys on the table.",
    "They are coming home tonight.",
    "It will rain in the morning.",
    "I will call you back later.",
    "The letter came this week.",
    "He is waiting at the door.",
    "Nobody has seen the paper.",
    "The bus stops at the corner.",
    "We will meet in the office.",
    "He left his coat in the car.",
    "The shop is open on Sunday.",
    "She lives above the bakery.",
    "There is water in the kitchen.",
    "They moved to another town.",
    "The meeting begins at noon.",
    "My brother works in the city.",
    "You can take the other road.",
)


def synthesise_clip(
    say: Say, voice: Voice, label: str, sentence: str, name: str, seed: int
) -> NDArray[np.int16]:
    """Return the 16-bit samples ``[T]`` of one clip.

    Args:
        say: Runs eSpeak NG: a voice and SSML in, float samples ``[T]`` out.
        voice: The speaker.
        label: The emotion, a key of ``EMOTIONS``.
        sentence: The text.
        name: The name of the clip; with ``seed`` it decides the random variation.
        seed: The seed of the corpus.
    """
    rng = _generator(name, seed)
    emotion = _vary(rng, label)
    speech = _trim(say(voice.espeak, ssml(sentence, emotion)))
    speech[1:] -= np.float32(emotion.effort) * speech[:-1].copy()
    level = 10 ** ((emotion.level_db - 18) / 20)
    noise = rng.standard_normal(len(speech)) * level * 10 ** (-rng.uniform(35, 45) / 20)
    # tanh lowers loud peaks, so that none clips
    limited = 0.9 * np.tanh(speech * (level / _rms(speech) / 0.9))
    return audio.snap(limited + noise)


def prosody_values(name: str, label: str, seed: int) -> dict[str, float]:
    """Return the prosody of a clip: ``pitch`` in semitones above the voice's mean, ``rate`` as a factor.

    >>> sorted(prosody_values("f2_anger_00", "anger", 0))
    ['pitch', 'rate']
    """
    emotion = _vary(_generator(name, seed), label)
    return {"pitch": round(emotion.pitch, 4), "rate": round(emotion.rate, 4)}


def _generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()])


def _vary(rng: np.random.Generator, label: str) -> Emotion:
    """Return the emotion of a clip, around the mean of its label."""
    mean, strength = EMOTIONS[label], rng.uniform(0.8, 1.2)

    def vary(value: float, centre: float, deviation: float) -> float:
        return centre + strength * (value - centre) + deviation * rng.standard_normal()

    return Emotion(
        pitch=vary(mean.pitch, 0, 0.8),
        melody=vary(mean.melody, 0, 0.8),
        bounce=vary(mean.bounce, 0, 0.4),
        range=max(0.1, vary(mean.range, 1, 0.1)),
        rate=vary(mean.rate, 1, 0.04),
        pause_ms=vary(mean.pause_ms, 0, 0.0),
        effort=float(np.clip(vary(mean.effort, 0, 0.08), -0.95, 0.95)),
        level_db=vary(mean.level_db, 0, 1.0),
    )


def ssml(sentence: str, emotion: Emotion) -> str:
    """Return the sentence in the markup of eSpeak NG, with a pitch for each word.

    >>> ssml("Yes it is.", Emotion(melody=4))[:77]
    '<speak><prosody rate="100%" range="100%"><prosody pitch="-23%">Yes</prosody> '
    """
    words = sentence.split()
    parts = []
    for index, word in enumerate(words):
        position = index / max(1, len(words) - 1) - 0.5
        pitch = emotion.pitch + emotion.melody * position + emotion.bounce * (-1) ** index
        percent = round(SEMITONE_PERCENT * pitch)
        parts.append(f'<prosody pitch="{max(percent, -90):+d}%">{escape(word)}</prosody>')
    rate, extent = f"{emotion.rate:.0%}", f"{emotion.range:.0%}"
    pause = f'<break time="{emotion.pause_ms:.0f}ms"/>' if emotion.pause_ms >= 1 else " "
    return f'<speak><prosody rate="{rate}" range="{extent}">{pause.join(parts)}</prosody></speak>'


def _trim(speech: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the speech without silence beyond 50 ms at either end."""
    loud = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    margin = SAMPLE_RATE // 20
    return speech[max(0, loud[0] - margin) : loud[-1] + margin].copy()


def _rms(samples: NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
