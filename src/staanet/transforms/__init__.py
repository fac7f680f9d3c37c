"""Transforms of a waveform: codecs, filters, noise, edits, repair, rooms; used as channels and defences.

``TRANSFORMS`` names the transforms, ``parse_transform`` reads one from text such as ``mp3:64``.
"""

from __future__ import annotations

from typing import Any

from staanet.errors import InvalidInput
from staanet.transforms.augment import Augmentation, parse_augmentation
from staanet.transforms.backgrounds import Hum, Music, Tone, add_at_snr
from staanet.transforms.base import (
    BaseTransform,
    Transform,
    apply_chain,
    clip_seed,
    parse,
    straight_through,
    transform_samples,
)
from staanet.transforms.codecs import Gsm, Mp3, MuLaw, Opus, Pcm16, Quantise, RoundTrip, Vorbis
from staanet.transforms.devices import Clipping, PacketLoss
from staanet.transforms.edits import Cut, Pitch, Silence, Speed
from staanet.transforms.filters import (
    Average,
    Bandpass,
    Filter,
    Gain,
    Highpass,
    Lowpass,
    Median,
    Resample,
    Tilt,
)
from staanet.transforms.noise import Noise, RandomGain
from staanet.transforms.repair import Repair
from staanet.transforms.rooms import Room

__all__ = [
    "TRANSFORMS",
    "Augmentation",
    "Average",
    "Bandpass",
    "BaseTransform",
    "Clipping",
    "Cut",
    "Filter",
    "Gain",
    "Gsm",
    "Highpass",
    "Hum",
    "Lowpass",
    "Median",
    "Mp3",
    "MuLaw",
    "Music",
    "Noise",
    "Opus",
    "PacketLoss",
    "Pcm16",
    "Pitch",
    "Quantise",
    "RandomGain",
    "Repair",
    "Resample",
    "Room",
    "RoundTrip",
    "Silence",
    "Speed",
    "Tilt",
    "Tone",
    "Transform",
    "Vorbis",
    "add_at_snr",
    "apply_chain",
    "clip_seed",
    "parse_augmentation",
    "parse_transform",
    "straight_through",
    "transform_samples",
]

TRANSFORMS: dict[str, type[Any]] = {
    "average": Average,
    "bandpass": Bandpass,
    "clipping": Clipping,
    "cut": Cut,
    "gain": Gain,
    "gsm": Gsm,
    "highpass": Highpass,
    "hum": Hum,
    "lowpass": Lowpass,
    "median": Median,
    "mp3": Mp3,
    "mulaw": MuLaw,
    "music": Music,
    "noise": Noise,
    "opus": Opus,
    "packet_loss": PacketLoss,
    "pcm16": Pcm16,
    "pitch": Pitch,
    "quantise": Quantise,
    "random_gain": RandomGain,
    "repair": Repair,
    "resample": Resample,
    "rir": Room,
    "round_trip": RoundTrip,
    "silence": Silence,
    "speed": Speed,
    "tilt": Tilt,
    "tone": Tone,
    "vorbis": Vorbis,
}
"""Written out, because shells complete the names from this text (``staanet/cli/names.py``)."""
COMMANDS = {
    "adversarial": "staanet harden CORPUS --victim FOLDER --out FOLDER",
    "detector": "staanet detect CORPUS --victim FOLDER --out FOLDER",
}
"""Defences that are no transform of the input, by the command that makes a victim with them."""


def parse_transform(text: str) -> Transform:
    """The transform of ``NAME[:SETTING[,SETTING...]]``; a setting is a number, or ``KEY=NUMBER``.

    Raises ``InvalidInput`` that names what is wrong and what exists. It is also raised where this
    machine's libsndfile lacks the codec.

    >>> parse_transform("median:5"), str(parse_transform("bandpass:300-3400"))
    (Median(width=5), 'bandpass:300,3400')
    >>> parse_transform("mp4")
    Traceback (most recent call last):
    staanet.errors.InvalidInput: unknown transform 'mp4'. Did you mean 'mp3'? ...
    """
    name = text.partition(":")[0]
    if name in COMMANDS:
        raise InvalidInput(
            f"'{name}' is no transform of the input: it is made by training, or from dev clips",
            remedy=f"Run {COMMANDS[name]}; its folder is a victim, which staanet defend takes too",
        )
    return parse(text, TRANSFORMS)
