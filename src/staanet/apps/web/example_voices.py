"""Three clips of synthetic speech, so that the page can be tried without a recording."""

from __future__ import annotations

from functools import cache

from staanet.config import SAMPLE_RATE
from staanet.core import Samples
from staanet.corpora.espeak import start_espeak
from staanet.corpora.prosody import VOICES, synthesise_clip
from staanet.errors import unknown_name

EXAMPLES = {
    "Angry voice": ("m1", "anger"),
    "Sad voice": ("m6", "sadness"),
    "Calm voice": ("f2", "neutral"),
}
"""Title of each example: its voice and its emotion."""
SENTENCE = "They are coming home tonight."


@cache
def speak_example(title: str) -> tuple[Samples, int]:
    """Returns the samples ``[T]`` of an example and their rate in Hz.

    Raises ``InvalidInput`` for another title, and where eSpeak NG (extra ``demo``) is missing.
    """
    if title not in EXAMPLES:
        raise unknown_name("example", title, EXAMPLES)
    name, emotion = EXAMPLES[title]
    voice = next(voice for voice in VOICES if voice.name == name)
    with start_espeak() as (_, say):
        return synthesise_clip(say, voice, emotion, SENTENCE, name="example", seed=0), SAMPLE_RATE
