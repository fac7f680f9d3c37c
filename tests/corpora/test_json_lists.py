"""JSON lists: of objects, and of named entries as EmoBox and SpeechBrain write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.corpora import put, refusal, write

from staanet.corpora import describe, load_corpus
from staanet.errors import InvalidInput

EMOBOX = {
    "cafe-08-P-2-1": {
        "wav": "downloads/cafe/08-P-2-1.wav",
        "length": 3.5,
        "emo": "p",
        "dataset": "cafe",
        "channel": 1,
    },
    "cafe-08-D-2-5": {"wav": "downloads/cafe/08-D-2-5.wav", "length": 4.1, "emo": "d"},
}
SPEECHBRAIN = {
    "Ses01F_impro01_F000": {"wav": "{data_root}/a.wav", "length": 1.9, "emo": "neu"},
    "Ses01F_impro01_F001": {"wav": "$data_folder/b.wav", "length": 1.4, "emo": "ang"},
}


def test_a_list_of_emobox_is_read_from_the_root_of_its_audio(tmp_path: Path) -> None:
    put(tmp_path, *(entry["wav"] for entry in EMOBOX.values()))
    path = write(tmp_path / "data" / "cafe" / "fold_1" / "test.json", json.dumps(EMOBOX, indent=4))
    corpus = load_corpus(f"folder:{path}", root=tmp_path, label_map={"p": "fear", "d": "disgust"})
    assert [(u.label, u.path.name, u.row) for u in corpus.utterances] == [
        ("disgust", "08-D-2-5.wav", f"{path}:2"),
        ("fear", "08-P-2-1.wav", f"{path}:1"),
    ]
    assert not describe(corpus)["problems"]


def test_a_list_of_speechbrain_names_its_root(tmp_path: Path) -> None:
    put(tmp_path / "audio", "a.wav", "b.wav")
    path = write(tmp_path / "train.json", json.dumps(SPEECHBRAIN))
    corpus = load_corpus(f"folder:{path}", root=tmp_path / "audio")
    assert [u.path.is_file() for u in corpus.utterances] == [True, True]


def test_a_list_of_objects_is_its_lines(tmp_path: Path) -> None:
    rows = [{"file": f"{n}.wav", "label": "joy", "speaker": n} for n in range(3)]
    path = write(tmp_path / "m.json", json.dumps(rows))
    lines = write(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows)))
    ids = [[u.id for u in load_corpus(f"folder:{p}").utterances] for p in (path, lines)]
    assert ids[0] == ids[1] == ["0", "1", "2"]


def test_entries_that_are_none_are_put_aside(tmp_path: Path) -> None:
    text = (
        '[{"file": "a.wav", "label": "joy"}, 7, {"file": "b.wav"}, {"file": "c.wav", "label": "x"}]'
    )
    corpus = load_corpus(f"folder:{write(tmp_path / 'm.json', text)}")
    assert [u.id for u in corpus.utterances] == ["a", "c"]
    assert [reason for _, reason in corpus.put_aside] == [
        "is not a JSON object",
        "has no column 'label'",
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is no JSON list of entries"),
        ("3", "is no JSON list of entries"),
        ('"text"', "is no JSON list of entries"),
        ("[]", "holds no rows"),
        ("{}", "holds no rows"),
        ('[{"file": "a.wav", "label": "joy"}', "m.json:2: is not JSON"),
        ('[{"file": "a.wav", "label": "joy"},]', "m.json:2: is not JSON"),
        ('[{"file": "a.wav", "label": "joy"}] x', "more follows its end"),
        ('{"a": {"file": "a.wav", "label": "j"}, "a": {}}', "the entry 'a' stands twice"),
        ('{"a" {}}', "':' are due"),
        ("{3: {}}", "is not JSON"),
        ("[" * 100_000, "m.json:1: is not JSON"),
        ('[{"file": "a.wav", "label": "joy", "label": "x"}]', "a key stands twice"),
    ],
)
def test_a_document_that_is_no_list_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "m.json", text))
    assert reason in message and "m.json" in message and len(message) < 900


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), max_size=4),
    share=st.floats(0, 1),
)
def test_a_damaged_list_is_refused_or_read(flips: list, share: float, tmp_path: Path) -> None:
    data = bytearray(json.dumps(EMOBOX | {"x": [1, {"a": None}]}).encode())
    for where, content in flips:
        at = int(where * len(data))
        data[at : at + len(content)] = content
    path = write(
        tmp_path / "m.json", bytes(data if share > 0.3 else data[: int(share * len(data))])
    )
    try:
        corpus = load_corpus(f"folder:{path}")
    except InvalidInput as error:
        assert "m.json" in str(error) and "\n" not in str(error)
    else:
        assert len({u.id for u in corpus.utterances}) == len(corpus)
