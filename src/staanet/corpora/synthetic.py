"""The synthetic corpus: rendered by eSpeak NG, resumable, verified by hashes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from staanet import audio, storage
from staanet.config import SAMPLE_RATE, SyntheticRecipe
from staanet.core import Corpus, Progress, Utterance, silent
from staanet.corpora.dimensions import CLASSIFICATION, with_dimensions
from staanet.corpora.espeak import start_espeak
from staanet.corpora.files import build_corpus, list_folder, require_folder
from staanet.corpora.prosody import (
    EMOTIONS,
    SENTENCES,
    VOICES,
    Voice,
    prosody_values,
    synthesise_clip,
)
from staanet.errors import InvalidInput

USUAL = SyntheticRecipe()

KIND, SCHEMA = "synthetic-corpus", 1
MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"
REMEDY = "Delete the folder and render it again, or choose another one"


def read_synthetic(folder: Path, task: str = CLASSIFICATION) -> Corpus:
    """Read the corpus rendered into ``folder``, or render it now; verify each file by its hash.

    Where the task is ``regression``, labels are ``pitch`` and ``rate`` as they were spoken.
    """
    is_there = (folder / MANIFEST).exists()
    corpus = _verified_corpus(folder) if is_there else render_synthetic(folder)
    return corpus if task == "classification" else spoken_numbers(corpus, folder)


def spoken_numbers(corpus: Corpus, folder: Path) -> Corpus:
    """Return synthetic speech labelled with the pitch and the rate of each clip."""
    path = folder / MANIFEST
    seed = int(_read_manifest(folder)["parameters"].get("seed", 0)) if path.exists() else 0
    return with_dimensions(
        corpus, ("pitch", "rate"), lambda u: prosody_values(u.id, str(u.label), seed)
    )


def render_synthetic(
    folder: Path,
    progress: Progress = silent,
    *,
    voices: int = USUAL.voices,
    sentences: int = USUAL.sentences,
    seed: int = 0,
) -> Corpus:
    """Render ``voices`` x 4 emotions x ``sentences`` clips at 16 kHz into ``folder``.

    An interrupted call is continued. Raises ``InvalidInput`` where the folder holds something else,
    or eSpeak NG is missing.
    """
    for name, count, choices in (("voices", voices, VOICES), ("sentences", sentences, SENTENCES)):
        if not 1 <= count <= len(choices):
            raise InvalidInput(f"{name} is {count}", remedy=f"Give 1 to {len(choices)}")
    parameters = _parameters(voices, sentences, seed)
    if (folder / MANIFEST).exists():
        _check_parameters(_read_manifest(folder)["parameters"], parameters, folder)
        return _verified_corpus(folder)
    has_begun = (folder / JOURNAL).exists()
    if not has_begun and folder.exists() and list_folder(require_folder(folder, "synthetic")):
        raise InvalidInput(
            "is not empty and holds no synthetic speech",
            where=folder,
            remedy="Choose another folder",
        )
    with storage.FolderLock(folder):
        _render(folder, progress, parameters)
    return _verified_corpus(folder)


def plan_synthetic(
    folder: Path, *, voices: int = USUAL.voices, sentences: int = USUAL.sentences
) -> Corpus:
    """Return the corpus that ``render_synthetic`` would write into ``folder``, before it is there.

    >>> len(plan_synthetic(Path("nowhere"), voices=6, sentences=2))
    48
    """
    utterances = tuple(
        _utterance(folder, name, label, voice.name, voice.sex)
        for name, voice, label, _ in _clips(VOICES[:voices], sentences)
    )
    return Corpus("synthetic", utterances, tuple(sorted(EMOTIONS)))


def _clips(voices: Sequence[Voice], sentences: int) -> Iterator[tuple[str, Voice, str, int]]:
    """Yield name, voice, emotion and number of the sentence of each clip, in the order of rendering."""
    for voice in voices:
        for label in EMOTIONS:
            for number in range(sentences):
                yield f"{voice.name}_{label}_{number:02d}", voice, label, number


def _utterance(folder: Path, name: str, label: str, speaker: str, sex: str) -> Utterance:
    path, content = folder / "wav" / f"{name}.wav", name.rpartition("_")[2]
    return Utterance(name, path, label, speaker, sex, content=content)


def _parameters(voices: int, sentences: int, seed: int) -> dict[str, Any]:
    return {
        "voices": [asdict(voice) for voice in VOICES[:voices]],
        "emotions": {name: asdict(emotion) for name, emotion in EMOTIONS.items()},
        "sentences": list(SENTENCES[:sentences]),
        "seed": seed,
        "sample_rate": SAMPLE_RATE,
    }


def _check_parameters(earlier: object, parameters: dict[str, Any], folder: Path) -> None:
    old = earlier if isinstance(earlier, dict) else {}
    differing = [name for name in parameters if old.get(name) != parameters[name]]
    if differing:
        raise InvalidInput(
            f"was rendered with other {', '.join(differing)}", where=folder, remedy=REMEDY
        )


def _render(folder: Path, progress: Progress, parameters: dict[str, Any]) -> None:
    """Render the clips that the journal does not name as done, then write the manifest."""
    journal = storage.Journal(folder / JOURNAL)
    records = journal.records()
    if records:
        _check_parameters(records[0].get("parameters"), parameters, folder)
    else:
        journal.append({"parameters": parameters})
    sha256 = {str(record.get("id")): str(record.get("sha256")) for record in records[1:]}
    voices = [Voice(**voice) for voice in parameters["voices"]]
    clips = list(_clips(voices, len(parameters["sentences"])))
    files = []
    with start_espeak() as (version, say):
        for count, (name, voice, label, number) in enumerate(clips, start=1):
            path = folder / "wav" / f"{name}.wav"
            is_done = name in sha256 and path.exists() and storage.sha256(path) == sha256[name]
            if not is_done:
                samples = synthesise_clip(
                    say, voice, label, SENTENCES[number], name, parameters["seed"]
                )
                data = audio.encode(samples, SAMPLE_RATE)
                storage.write_bytes(path, data)
                sha256[name] = hashlib.sha256(data).hexdigest()
                journal.append({"id": name, "sha256": sha256[name]})
            entry = {"id": name, "sha256": sha256[name], "label": label}
            files.append(entry | {"speaker": voice.name, "sex": voice.sex})
            progress("speaking", count, len(clips), voice.name)
    manifest = {"kind": KIND, "schema": SCHEMA, "parameters": parameters, "espeak": version}
    storage.write_json(folder / MANIFEST, {**manifest, "files": files})


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = storage.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InvalidInput("is not the manifest of a synthetic corpus", where=path, remedy=REMEDY)
    if manifest.get("schema") != SCHEMA:
        raise InvalidInput(
            f"has schema {manifest.get('schema')}; this version reads {SCHEMA}",
            where=path,
            remedy=REMEDY,
        )
    entries = manifest.get("files")
    is_complete = isinstance(entries, list) and isinstance(manifest.get("parameters"), dict)
    if not is_complete or not all(_is_entry(entry) for entry in entries or []):
        raise InvalidInput("is damaged", where=path, remedy=REMEDY)
    return manifest


def _is_entry(entry: object) -> bool:
    """Return whether all values are words, and the id cannot lead out of the folder."""
    keys = ("id", "sha256", "label", "speaker", "sex")
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in keys)
        and re.fullmatch(r"[a-z0-9_]+", entry["id"]) is not None
    )


def _verified_corpus(folder: Path) -> Corpus:
    """Return the corpus of the manifest; ``InvalidInput`` where a file differs from its hash."""
    manifest = _read_manifest(folder)
    utterances = []
    for entry in manifest["files"]:
        keys = ("id", "label", "speaker", "sex")
        utterance = _utterance(folder, *(entry[key] for key in keys))
        if not utterance.path.is_file():
            raise InvalidInput("is missing", where=utterance.path, remedy=REMEDY)
        if storage.sha256(utterance.path) != entry["sha256"]:
            raise InvalidInput(
                "differs from the manifest's sha256", where=utterance.path, remedy=REMEDY
            )
        utterances.append(utterance)
    note = f"synthetic speech by eSpeak NG {manifest.get('espeak')}"
    return build_corpus("synthetic", folder, utterances, [note], "the files of its manifest")
