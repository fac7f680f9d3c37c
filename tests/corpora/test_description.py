"""What a corpus holds, found by reading every file once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from tests.support.corpora import emodb_tree, write_wav

from staanet import audio
from staanet.corpora import describe, description_text, load_corpus


def test_describe_counts_and_collects_problems(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    write_wav(root / "wav" / "03a02Fa.wav", 1000, rate=8_000, channels=2)
    (root / "wav" / "03a02Na.wav").write_bytes(b"RIFF")
    (root / "wav" / "03a02Ta.wav").write_bytes(audio.encode(np.zeros(400, np.int16), 16_000))
    for name, twin in (("03a03Fa", "03a01Fa"), ("03a04Wa", "03a01Fa"), ("08a03Wa", "16a01Wa")):
        shutil.copy(root / "wav" / f"{twin}.wav", root / "wav" / f"{name}.wav")
    seen: list[int] = []
    corpus = load_corpus(f"emodb:{root}")
    described = describe(corpus, 0, progress=lambda what, done, total, figures: seen.append(done))
    assert seen == list(range(1, len(corpus) + 1))
    assert described["clips"] == 76 and described["classes"]["happiness"] == 12
    assert described["speakers"]["03"] == {"clips": 12, "sex": "male"}
    assert described["formats"] == {"16000 Hz, 1 channel": 74, "8000 Hz, 2 channels": 1}
    assert described["seconds"]["min"] == 0.025 and described["seconds"]["max"] == 0.05
    assert sum(part["clips"] for part in described["split"].values()) == 76
    problems = {Path(file).stem: reason for file, reason in described["problems"]}
    assert "not audio" in problems["03a02Na"] and "silence" in problems["03a02Ta"]
    assert "under the labels anger, happiness" in problems["03a01Fa"]
    together = any({"08", "16"} <= set(part["speakers"]) for part in described["split"].values())
    assert ("08a03Wa" in problems) is not together
    assert any("2 channels averaged" in note for note in described["notes"])
    json.dumps(described, allow_nan=False)
    assert "problem   " in description_text(described)


def test_describe_survives_a_corpus_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "joy").mkdir()
    (tmp_path / "joy" / "a.wav").write_bytes(b"")
    described = describe(load_corpus(f"folder:{tmp_path}"))
    assert described["seconds"] == {"min": None, "median": None, "max": None, "total": 0.0}
    assert described["split"] == {} and "none could be read" in description_text(described)
