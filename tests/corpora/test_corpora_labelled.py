"""Corpora that cannot be shipped, on miniature trees with their real names, labels and odd cases."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.support.speech import RATE, tone

from staanet import audio, storage
from staanet.corpora import files, load_corpus
from staanet.errors import InvalidInput


def put(root: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        storage.write_bytes(root / name, audio.encode(tone(0.1, 200, number), RATE))


EVALUATION = (
    "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\r\n\r\n"
    "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\r\n"
    "C-E2:\tNeutral;\t()\r\nC-F1:\tNeutral;\t(curious)\r\n\r\n"
    "[10.0100 - 11.3925]\tSes01F_impro01_M001\texc\t[4.0000, 4.0000, 2.5000]\r\n"
    "[12.0000 - 13.0000]\tSes01F_impro01_F002\thap\t[4.0000, 4.0000, 2.5000]\r\n"
    "[14.8872 - 18.0175]\tSes01F_impro01_F003\txxx\t[2.5000, 2.5000, 2.5000]\r\n"
    "[19.2900 - 20.7875]\tSes01F_impro01_M004\tang\t[2.5000, 3.0000, 3.5000]\r\n"
)


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_"
    put(tmp_path, *(f"{wav}{name}.wav" for name in ("F000", "M001", "F002", "F003", "F099")))
    put(tmp_path, "Session1/dialog/wav/Ses01F_impro01.wav")
    labels = tmp_path / "Session1/dialog/EmoEvaluation"
    labels.mkdir()
    (labels / "Ses01F_impro01.txt").write_bytes(EVALUATION.encode() + b"A-F1:\t\xe9motion;\r\n")
    (labels / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07")
    return tmp_path


def test_iemocap_merges_excitement_and_leaves_out_aloud(iemocap: Path) -> None:
    corpus = load_corpus(f"iemocap:{iemocap}")
    found = {u.id: (u.label, u.speaker, u.sex) for u in corpus.utterances}
    assert found == {
        "Ses01F_impro01_F000": ("neutral", "Ses01F", "female"),
        "Ses01F_impro01_M001": ("happiness", "Ses01M", "male"),
        "Ses01F_impro01_F002": ("happiness", "Ses01F", "female"),
    }
    notes = " | ".join(corpus.notes)
    assert "xxx 1" in notes
    assert "Ses01F_impro01_F099.wav" in notes and "without a label" in notes
    assert "Ses01F_impro01_M004.wav" in notes and "without audio" in notes


def test_demos_reads_both_kinds_and_leaves_neutral_out(tmp_path: Path) -> None:
    put(tmp_path, "DEMOS/NP_f_43_pau05b.wav", "DEMOS/PR_m_12_gio01.wav", "DEMOS/notes_x.wav")
    put(tmp_path, "NEU/f_43_neu01.wav")
    corpus = load_corpus(f"demos:{tmp_path}")
    found = Counter((u.label, u.speaker, u.sex) for u in corpus.utterances)
    assert found == {("fear", "f_43", "female"): 1, ("happiness", "m_12", "male"): 1}
    assert "notes_x.wav" in " ".join(corpus.notes) and "NEU" in " ".join(corpus.notes)


def test_crema_d_takes_the_sex_from_the_table_of_actors(tmp_path: Path) -> None:
    put(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_HAP_HI.wav")
    put(tmp_path, "AudioWAV/1040_ITH_SAD_X.wav", "AudioWAV/readme.wav")
    (tmp_path / "VideoDemographics.csv").write_text(
        "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n1002,21,Female,,\n"
    )
    corpus = load_corpus(f"crema_d:{tmp_path}")
    found = {u.speaker: (u.label, u.sex) for u in corpus.utterances}
    assert found == {
        "1001": ("anger", "male"),
        "1002": ("happiness", "female"),
        "1040": ("sadness", None),
    }
    assert "readme.wav" in corpus.notes[0]


def test_a_table_that_cannot_be_trusted_is_refused(iemocap: Path, tmp_path: Path) -> None:
    table = iemocap / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    table.write_bytes(b" " * (files.MAX_TABLE_BYTES + 1))
    with pytest.raises(InvalidInput, match="a label file has at most"):
        load_corpus(f"iemocap:{iemocap}")
    put(tmp_path / "c", "AudioWAV/1001_DFA_ANG_XX.wav")
    (tmp_path / "c" / "VideoDemographics.csv").write_text("ActorID,Sex\n1001," + "x" * 200_000)
    with pytest.raises(InvalidInput, match="is not CSV"):
        load_corpus(f"crema_d:{tmp_path / 'c'}")


def test_urdu_reads_label_from_folder_and_speaker_from_name(tmp_path: Path) -> None:
    put(tmp_path, "Angry/SM1_F1_A01.wav", "Sad/SF21_F2_S003.wav", "Angry/clip.wav")
    corpus = load_corpus(f"urdu:{tmp_path}")
    assert [(u.label, u.speaker, u.sex) for u in corpus.utterances] == [
        ("sadness", "SF21", "female"),
        ("anger", "SM1", "male"),
    ]
    assert "clip.wav" in corpus.notes[0]


@pytest.mark.parametrize("kind", ["crema_d", "demos", "iemocap", "urdu"])
def test_a_folder_without_clips_says_what_was_looked_for(kind: str, tmp_path: Path) -> None:
    put(tmp_path, "music/song.wav")
    with pytest.raises(InvalidInput, match="looked for files such as"):
        load_corpus(f"{kind}:{tmp_path}")
