"""Emotional speech without a download: eSpeak NG speaks, voices are speakers, prosody is emotion.

Each clip is drawn from its own seeded generator: how strong the emotion is, its pitch, range, rate,
melody, effort and loudness vary around the emotion's mean, and a little noise lies below the voice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from staanet import audio, storage
from staanet.core import Corpus, Progress, Utterance, silent
from staanet.corpora import espeak
from staanet.corpora.files import build_corpus, list_folder, require_folder
from staanet.errors import InvalidInput

SAMPLE_RATE = 16_000
SEMITONE_PERCENT = 11.6
"""eSpeak's ``pitch="+P%"`` raises f0 by about P / 11.6 semitones, for P from -50 to 100."""

KIND, SCHEMA = "synthetic-corpus", 1
REINSTALL = "Install it anew: pip install --force-reinstall espeakng-loader"
AGAIN = "Delete the folder and render it again, or choose another one"


@dataclass(frozen=True, slots=True)
class Voice:
    """A speaker: an accent and a voice variant of eSpeak NG."""

    name: str
    espeak: str
    sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Emotion:
    """Prosody against the voice's own; ``pitch``, ``melody`` and ``bounce`` in semitones."""

    pitch: float = 0.0
    melody: float = 0.0  # how far pitch rises (or falls) from the first word to the last
    bounce: float = 0.0  # how far pitch jumps up and down from word to word
    range: float = 1.0  # of pitch within words, as a factor
    rate: float = 1.0  # of words, as a factor
    pause_ms: float = 0.0  # between words, which are then stressed one by one
    effort: float = 0.0  # the filter 1 - effort / z: shouted speech is bright, weary speech dull
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


def read_synthetic(folder: Path) -> Corpus:
    """What was rendered into ``folder``, each file checked by its hash; rendered now if need be."""
    if not (folder / "manifest.json").exists():
        return render_synthetic(folder)
    return _verified(folder)


def render_synthetic(
    folder: Path,
    progress: Progress = silent,
    *,
    voices: int = 10,
    sentences: int = 10,
    seed: int = 0,
) -> Corpus:
    """``voices`` x 4 emotions x ``sentences`` clips at 16 kHz below ``folder``, then its manifest.

    What an interrupted call has finished is kept. Raises ``InvalidInput`` where the folder holds
    something else, or eSpeak NG is missing.
    """
    for name, given, known in (("voices", voices, VOICES), ("sentences", sentences, SENTENCES)):
        if not 1 <= given <= len(known):
            raise InvalidInput(f"{name} is {given}", remedy=f"Give 1 to {len(known)}")
    parameters = _parameters(voices, sentences, seed)
    if (folder / "manifest.json").exists():
        _check_parameters(_manifest(folder)["parameters"], parameters, folder)
        return _verified(folder)
    begun = (folder / "journal.jsonl").exists()
    if not begun and folder.exists() and list_folder(require_folder(folder, "synthetic")):
        raise InvalidInput(
            "is not empty and holds no synthetic speech",
            where=folder,
            remedy="Choose another folder",
        )
    with storage.FolderLock(folder):
        _render(folder, progress, parameters)
    return _verified(folder)


def planned_synthetic(folder: Path, *, voices: int = 10, sentences: int = 10) -> Corpus:
    """The clips that ``render_synthetic`` would speak into ``folder``, none of which is there yet.

    >>> len(planned_synthetic(Path("nowhere"), voices=6, sentences=2))
    48
    """
    utterances = tuple(
        Utterance(
            name,
            folder / "wav" / f"{name}.wav",
            label,
            voice.name,
            voice.sex,
            content=f"{number:02d}",
        )
        for voice in VOICES[:voices]
        for label in EMOTIONS
        for number in range(sentences)
        for name in [f"{voice.name}_{label}_{number:02d}"]
    )
    return Corpus("synthetic", utterances, tuple(sorted(EMOTIONS)))


def _parameters(voices: int, sentences: int, seed: int) -> dict[str, Any]:
    return {
        "voices": [asdict(voice) for voice in VOICES[:voices]],
        "emotions": {name: asdict(emotion) for name, emotion in EMOTIONS.items()},
        "sentences": list(SENTENCES[:sentences]),
        "seed": seed,
        "sample_rate": SAMPLE_RATE,
    }


def _check_parameters(found: object, wanted: dict[str, Any], folder: Path) -> None:
    differing = [k for k in wanted if not isinstance(found, dict) or found.get(k) != wanted[k]]
    if differing:
        raise InvalidInput(
            f"was rendered with other {', '.join(differing)}", where=folder, remedy=AGAIN
        )


def _render(folder: Path, progress: Progress, parameters: dict[str, Any]) -> None:
    journal = storage.Journal(folder / "journal.jsonl")
    records = journal.records()
    if records:
        _check_parameters(records[0].get("parameters"), parameters, folder)
    else:
        journal.append({"parameters": parameters})
    done = {str(record.get("id")): str(record.get("sha256")) for record in records[1:]}
    voices = [Voice(**voice) for voice in parameters["voices"]]
    planned = [
        (voice, label, number)
        for voice in voices
        for label in EMOTIONS
        for number in range(len(parameters["sentences"]))
    ]
    files = []
    with _espeak() as (version, say):
        for count, (voice, label, number) in enumerate(planned, start=1):
            name = f"{voice.name}_{label}_{number:02d}"
            path = folder / "wav" / f"{name}.wav"
            if name not in done or not path.exists() or storage.sha256(path) != done[name]:
                samples = _perform(say, voice, label, SENTENCES[number], name, parameters["seed"])
                data = audio.encode(samples, SAMPLE_RATE)
                storage.write_bytes(path, data)
                done[name] = hashlib.sha256(data).hexdigest()
                journal.append({"id": name, "sha256": done[name]})
            files.append(
                {"id": name, "sha256": done[name], "label": label}
                | {"speaker": voice.name, "sex": voice.sex}
            )
            progress("speaking", count, len(planned), voice.name)
    manifest = {"kind": KIND, "schema": SCHEMA, "parameters": parameters, "espeak": version}
    storage.write_json(folder / "manifest.json", {**manifest, "files": files})


# ---------------------------------------------------------------- reading back


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    manifest = storage.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InvalidInput("is not the manifest of a synthetic corpus", where=path, remedy=AGAIN)
    if manifest.get("schema") != SCHEMA:
        raise InvalidInput(
            f"has schema {manifest.get('schema')}; this version reads {SCHEMA}",
            where=path,
            remedy=AGAIN,
        )
    entries = manifest.get("files")
    complete = isinstance(entries, list) and isinstance(manifest.get("parameters"), dict)
    if not complete or not all(_is_entry(entry) for entry in entries or []):
        raise InvalidInput("is damaged", where=path, remedy=AGAIN)
    return manifest


def _is_entry(entry: object) -> bool:
    """All words, and an id that cannot lead out of the folder."""
    keys = ("id", "sha256", "label", "speaker", "sex")
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in keys)
        and re.fullmatch(r"[a-z0-9_]+", entry["id"]) is not None
    )


def _verified(folder: Path) -> Corpus:
    manifest = _manifest(folder)
    utterances = []
    for entry in manifest["files"]:
        path = folder / "wav" / f"{entry['id']}.wav"
        if not path.is_file():
            raise InvalidInput("is missing", where=path, remedy=AGAIN)
        if storage.sha256(path) != entry["sha256"]:
            raise InvalidInput("differs from the manifest's sha256", where=path, remedy=AGAIN)
        utterances.append(
            Utterance(
                entry["id"],
                path,
                entry["label"],
                entry["speaker"],
                entry["sex"],
                content=entry["id"].rpartition("_")[2],
            )
        )
    note = f"synthetic speech by eSpeak NG {manifest.get('espeak')}"
    return build_corpus("synthetic", folder, utterances, [note], "the files of its manifest")


# ---------------------------------------------------------------- speaking

Say = Callable[[str, str], NDArray[np.float32]]
"""(eSpeak voice, SSML) -> float samples ``[T]`` at 16 kHz."""


def _perform(
    say: Say, voice: Voice, label: str, sentence: str, name: str, seed: int
) -> NDArray[np.int16]:
    """One clip ``[T]``: a seeded variation of the emotion, on a bed of faint noise."""
    rng = np.random.default_rng([seed, *hashlib.sha256(name.encode()).digest()])
    mean, strength = EMOTIONS[label], rng.uniform(0.8, 1.2)

    def vary(value: float, centre: float, spread: float) -> float:
        return centre + strength * (value - centre) + spread * rng.standard_normal()

    emotion = Emotion(
        pitch=vary(mean.pitch, 0, 0.8),
        melody=vary(mean.melody, 0, 0.8),
        bounce=vary(mean.bounce, 0, 0.4),
        range=max(0.1, vary(mean.range, 1, 0.1)),
        rate=vary(mean.rate, 1, 0.04),
        pause_ms=vary(mean.pause_ms, 0, 0.0),
        effort=float(np.clip(vary(mean.effort, 0, 0.08), -0.95, 0.95)),
        level_db=vary(mean.level_db, 0, 1.0),
    )
    speech = _trimmed(say(voice.espeak, ssml(sentence, emotion)))
    speech[1:] -= np.float32(emotion.effort) * speech[:-1].copy()
    level = 10 ** ((emotion.level_db - 18) / 20)
    noise = rng.standard_normal(len(speech)) * level * 10 ** (-rng.uniform(35, 45) / 20)
    limited = 0.9 * np.tanh(
        speech * (level / _rms(speech) / 0.9)
    )  # loud peaks give way, none clips
    return audio.snap(limited + noise)


def spoken(sentence: str, voice: str = "en") -> tuple[str, NDArray[np.float32]]:
    """The version of eSpeak NG and a sentence as it says it: ``[T]`` in [-1, 1] at 16 kHz.

    Raises ``InvalidInput`` where the package is absent or does not work.
    """
    with _espeak() as (version, say):
        return version, say(voice, f"<speak>{escape(sentence)}</speak>")


def ssml(sentence: str, emotion: Emotion) -> str:
    """The sentence as eSpeak NG is to speak it: the melody is a pitch of its own for each word.

    >>> ssml("Yes it is.", Emotion(melody=4))[:77]
    '<speak><prosody rate="100%" range="100%"><prosody pitch="-23%">Yes</prosody> '
    """
    words = sentence.split()
    spoken = []
    for place, word in enumerate(words):
        along = place / max(1, len(words) - 1) - 0.5
        pitch = emotion.pitch + emotion.melody * along + emotion.bounce * (-1) ** place
        percent = round(SEMITONE_PERCENT * pitch)
        spoken.append(f'<prosody pitch="{max(percent, -90):+d}%">{escape(word)}</prosody>')
    rate, extent = f"{emotion.rate:.0%}", f"{emotion.range:.0%}"
    pause = f'<break time="{emotion.pause_ms:.0f}ms"/>' if emotion.pause_ms >= 1 else " "
    return f'<speak><prosody rate="{rate}" range="{extent}">{pause.join(spoken)}</prosody></speak>'


def _trimmed(speech: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without silence beyond 50 ms at either end."""
    loud = np.flatnonzero(np.abs(speech) > 0.02 * np.abs(speech).max())
    margin = SAMPLE_RATE // 20
    return speech[max(0, loud[0] - margin) : loud[-1] + margin].copy()


def _rms(samples: NDArray[np.floating[Any]]) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@contextlib.contextmanager
def _espeak() -> Iterator[tuple[str, Say]]:
    """The version of eSpeak NG, and a function that lets its process speak."""
    try:
        import espeakng_loader as wheel

        program = [sys.executable, "-I", espeak.__file__]
        command = [*program, wheel.get_library_path(), wheel.get_data_path()]
    except (ImportError, RuntimeError) as problem:
        raise InvalidInput(
            "synthetic speech needs the package espeakng-loader",
            remedy='Install it: pip install "staanet[demo]"',
        ) from problem
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us; the end of its input ends eSpeak
    ) as process:
        assert process.stdin and process.stdout
        requests, answers = process.stdin.fileno(), process.stdout

        def answer() -> dict[str, Any]:
            line = answers.readline()
            reply: dict[str, Any] = json.loads(line) if line else {"error": "eSpeak NG ended"}
            if "error" in reply:
                raise InvalidInput(str(reply["error"]), remedy=REINSTALL)
            return reply

        def say(voice: str, text: str) -> NDArray[np.float32]:
            request = json.dumps({"voice": voice, "ssml": text}).encode() + b"\n"
            with contextlib.suppress(BrokenPipeError):  # then there is no answer either
                os.write(requests, request)  # unbuffered, so that nothing is left to be flushed
            size = 2 * int(answer()["samples"])
            spoken = answers.read(size)
            if len(spoken) < size:
                raise InvalidInput("eSpeak NG ended while it spoke", remedy=REINSTALL)
            return audio.resample(
                audio.to_float(np.frombuffer(spoken, np.int16)), rate, SAMPLE_RATE
            )

        start = answer()
        rate = int(start["rate"])
        if rate <= 0:
            raise InvalidInput(
                "eSpeak NG does not start with its data", where=command[-1], remedy=REINSTALL
            )
        yield str(start["version"]), say
