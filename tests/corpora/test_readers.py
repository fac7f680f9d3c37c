"""Readers of published corpora, on tiny trees with their real names, labels and odd cases."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from tests.support.corpora import (
    EMODB_CLASSES,
    emodb_tree,
    ids_are_sorted_and_unique,
    put,
    refusal,
    speakers_are_apart,
    write,
    write_wav,
)
from tests.support.speech import real_speech

from staanet.corpora import describe, files, load_corpus
from staanet.errors import InvalidInput


def test_emodb_reads_names_from_its_root_and_its_wav_folder(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    (root / "erkennung.txt").write_text("03a01Fa 95,00")
    corpus = load_corpus(f"emodb:{root}")
    assert corpus == load_corpus(f"emodb:{root / 'wav'}")
    assert corpus.labels == EMODB_CLASSES and len(corpus) == 70 and not corpus.notes
    clip = next(u for u in corpus.utterances if u.id == "08a01Wa")
    assert (clip.label, clip.speaker, clip.sex) == ("anger", "08", "female")
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)


def test_the_order_of_a_folder_does_not_matter(tmp_path: Path) -> None:
    one = load_corpus(f"emodb:{emodb_tree(tmp_path / 'one')}")
    two = load_corpus(f"emodb:{emodb_tree(tmp_path / 'two', random.Random(1))}")
    assert [u.id for u in one.utterances] == [u.id for u in two.utterances]
    assert one.split(3)[0].split_hash == two.split(3)[0].split_hash


def test_other_names_become_a_note(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    for name in ("notes.wav", "03a01Xa.wav", "._03a01Fa.wav", "٠٣a01Fa.wav"):
        write_wav(root / "wav" / name)
    write_wav(root / "wav" / "03a01Fa.WAV")
    corpus = load_corpus(f"emodb:{root}")
    assert len(corpus) == 70
    assert any(note.startswith("3 files left out, not named as an EMO-DB") for note in corpus.notes)
    assert any("same name" in note for note in corpus.notes)


def test_real_emodb_is_complete() -> None:
    corpus = load_corpus(f"emodb:{real_speech('emodb')}")
    assert len(corpus) == 535 and len(corpus.speakers) == 10 and not corpus.notes
    counts = Counter(u.label for u in corpus.utterances)
    assert [counts[label] for label in EMODB_CLASSES] == [127, 81, 46, 69, 71, 79, 62]
    speakers_are_apart(corpus)


def test_ravdess_reads_speech_that_is_audio_alone(tmp_path: Path) -> None:
    for actor in range(1, 7):
        for emotion in range(1, 9):
            name = f"03-01-0{emotion}-01-01-01-{actor:02d}.wav"
            write_wav(
                tmp_path / f"Actor_{actor:02d}" / name, seed=10 * actor + emotion, rate=48_000
            )
    write_wav(tmp_path / "Actor_01" / "03-02-01-01-01-01-01.wav")
    write_wav(tmp_path / "Actor_01" / "01-01-01-01-01-01-01.wav")
    write_wav(tmp_path / "Actor_01" / "03-01-09-01-01-01-01.wav")
    write_wav(tmp_path / "elsewhere" / "03-01-01-01-01-01-01.wav")
    corpus = load_corpus(f"ravdess:{tmp_path}")
    assert len(corpus) == 48 and len(corpus.labels) == 8
    assert {u.speaker: u.sex for u in corpus.utterances}["05"] == "male"
    assert {u.speaker: u.sex for u in corpus.utterances}["06"] == "female"
    assert "2 files left out, song or video" in " ".join(corpus.notes)
    assert "1 file left out, not named as a RAVDESS" in " ".join(corpus.notes)
    ids_are_sorted_and_unique(corpus)
    speakers_are_apart(corpus)
    assert len(load_corpus(f"ravdess:{tmp_path / 'Actor_02'}")) == 8


def test_real_ravdess_says_its_rate_and_its_stereo_files() -> None:
    corpus = load_corpus(f"ravdess:{real_speech('ravdess')}")
    described = describe(corpus)
    assert described["clips"] == 120 and len(described["speakers"]) == 2
    assert described["formats"] == {"48000 Hz, 1 channel": 118, "48000 Hz, 2 channels": 2}
    assert any("2 channels averaged to mono" in note for note in described["notes"])
    assert any("2 speakers cannot be split" in note for note in described["notes"])
    assert not described["problems"] and not described["split"]
    clip = corpus.load(corpus.utterances[0], 16_000)
    assert clip.sample_rate == 16_000 and 2.5 * 16_000 < len(clip.pcm16) < 6 * 16_000


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


def test_a_table_that_cannot_be_trusted_is_refused(
    iemocap: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = iemocap / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    monkeypatch.setattr(files, "MAX_TABLE_BYTES", table.stat().st_size - 1)
    with pytest.raises(InvalidInput, match="a label file has at most"):
        load_corpus(f"iemocap:{iemocap}")
    monkeypatch.undo()
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


@pytest.mark.parametrize("kind", ["crema_d", "demos", "iemocap", "savee", "tess", "urdu"])
def test_a_folder_without_clips_says_what_was_looked_for(kind: str, tmp_path: Path) -> None:
    put(tmp_path, "music/song.wav")
    with pytest.raises(InvalidInput, match="looked for files such as"):
        load_corpus(f"{kind}:{tmp_path}")


# ---------------------------------------------------------------- TESS, SAVEE


def test_tess_reads_actress_word_and_emotion_from_the_name(tmp_path: Path) -> None:
    put(tmp_path, "OAF_angry/OAF_back_angry.wav", "OAF_neutral/OA_bite_neutral.wav")
    put(tmp_path, "YAF_pleasant_surprised/YAF_young_ps.wav", "YAF_sad/YAF_young_hungry.wav")
    corpus = load_corpus(f"tess:{tmp_path}")
    assert [(u.label, u.speaker, u.sex, u.content) for u in corpus.utterances] == [
        ("anger", "OAF", "female", "back"),
        ("neutral", "OAF", "female", "bite"),
        ("surprise", "YAF", "female", "young"),
    ]
    assert "YAF_young_hungry.wav" in corpus.notes[0]
    assert len(load_corpus(f"tess:{tmp_path / 'OAF_angry'}")) == 1


@pytest.mark.parametrize("form", ["AudioData/{0}/{1}.wav", "ALL/{0}_{1}.wav"])
def test_savee_reads_speaker_emotion_and_sentence(form: str, tmp_path: Path) -> None:
    clips = [("DC", "a01"), ("KL", "a01"), ("KL", "sa15"), ("JE", "su02"), ("XX", "a01")]
    put(tmp_path, *(form.format(*clip) for clip in clips), form.format("DC", "b01"))
    corpus = load_corpus(f"savee:{tmp_path}")
    assert [(u.id, u.label, u.speaker, u.content) for u in corpus.utterances] == [
        ("DC_a01", "anger", "DC", "01"),
        ("JE_su02", "surprise", "JE", "02"),
        ("KL_a01", "anger", "KL", "01"),
        ("KL_sa15", "sadness", "KL", "sa15"),
    ]
    assert "b01" in corpus.notes[0] and corpus == load_corpus(f"savee:{next(tmp_path.iterdir())}")


# ---------------------------------------------------------------- MELD, MSP-Podcast

MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime\n"
)


def meld_rows(*rows: tuple[str, str, str, int]) -> str:
    return MELD_HEADER + "".join(
        f'{n},"{words}, really?",{speaker},{emotion},positive,0,{utterance},8,21,"00:16","00:21"\n'
        for n, (words, speaker, emotion, utterance) in enumerate(rows, start=1)
    )


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    train = [("Hi", "Joey", "joy", 0), ("No", "Monica", "anger", 1), ("Oh", "A Waiter", "fear", 2)]
    write(tmp_path / "train" / "train_sent_emo.csv", meld_rows(*train))
    write(tmp_path / "dev_sent_emo.csv", meld_rows(("So", "Joey", "neutral", 0)))
    write(
        tmp_path / "test_sent_emo.csv",
        b"\xef\xbb\xbf" + meld_rows(("It\x92s", "Ross", "sadness", 0)).encode("latin-1"),
    )
    put(tmp_path, "train/train_splits/dia0_utt0.mp4", "train/train_splits/dia0_utt1.mp4")
    put(tmp_path, "train/train_splits/dia0_utt1.wav", "dev_splits_complete/dia0_utt0.wav")
    put(tmp_path, "output_repeated_splits_test/dia0_utt0.flac")
    return tmp_path


def test_meld_joins_tables_and_sound(meld: Path) -> None:
    corpus = load_corpus(f"meld:{meld}")
    assert corpus.name == "meld" and [
        (u.path.name, u.label, u.speaker, u.sex, u.part) for u in corpus.utterances
    ] == [
        ("dia0_utt0.wav", "neutral", "Joey", "male", "dev"),
        ("dia0_utt0.flac", "sadness", "Ross", "male", "test"),
        ("dia0_utt0.mp4", "happiness", "Joey", "male", "train"),
        ("dia0_utt1.wav", "anger", "Monica", "female", "train"),
    ]
    assert corpus.utterances[3].content == "No, really?"
    assert "1 file left out, labelled but without sound: train/dia0_utt2" in corpus.notes
    with pytest.raises(InvalidInput, match="the speaker Joey is in train and in dev"):
        corpus.split(0, "manifest")


def test_meld_without_its_columns_or_tables_is_refused(meld: Path, tmp_path: Path) -> None:
    write(meld / "dev_sent_emo.csv", "Speaker,Emotion\nJoey,joy\n")
    assert "dev_sent_emo.csv: has no column 'Dialogue_ID'" in refusal(f"meld:{meld}")
    assert "train_sent_emo.csv" in refusal(f"meld:{meld / 'dev_splits_complete'}")


MSP_LABELS = """FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
MSP-PODCAST_0001_0008.wav,N,2.2,4.0,3.0,127,Male,Train
MSP-PODCAST_0001_0019.wav,A,5.2,2.0,5.0,Unknown,Female,Train
MSP-PODCAST_0001_0033.wav,X,4.2,4.0,4.0,127,Male,Train
MSP-PODCAST_0002_0039.wav,H,5.0,6.0,5.0,32,Female,Development
MSP-PODCAST_0003_0043.wav,U,5.0,6.0,5.0,33,Unknown,Test1
MSP-PODCAST_0003_0044.wav,S,3.0,2.0,3.0,33,Unknown,Test1
MSP-PODCAST_0004_0003.wav,C,3.0,2.0,3.0,Unknown,Unknown,Test2
"""


@pytest.mark.parametrize(
    ("labels", "audio"), [("labels_consensus", "Audios"), ("labels_concensus", "Audio")]
)
def test_msp_podcast_joins_its_table_and_sound(labels: str, audio: str, tmp_path: Path) -> None:
    write(tmp_path / "Labels" / f"{labels}.csv", MSP_LABELS)
    names = ("0001_0008", "0001_0019", "0001_0033", "0002_0039", "0003_0043", "0004_0003")
    put(tmp_path, *(f"{audio}/MSP-PODCAST_{name}.wav" for name in names))
    corpus = load_corpus(f"msp_podcast:{tmp_path}")
    assert corpus.name == "msp_podcast" and [
        (u.label, u.speaker, u.sex, u.part) for u in corpus.utterances
    ] == [
        ("neutral", "127", "male", "train"),
        ("anger", "podcast_0001", "female", "train"),
        ("happiness", "32", "female", "dev"),
        ("surprise", "33", None, "test"),
    ]
    notes = " | ".join(corpus.notes)
    assert "2 files left out: Test2 1, no agreement 1" in notes
    unknown = "clips of unknown speakers, those of one podcast taken as one speaker: 1"
    assert unknown in corpus.warnings
    assert "without sound: MSP-PODCAST_0003_0044.wav" in notes


def test_msp_podcast_without_its_table_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "Audios/MSP-PODCAST_0001_0008.wav")
    assert "Labels/labels_consensus.csv" in refusal(f"msp_podcast:{tmp_path}")
    write(tmp_path / "Labels/labels_consensus.csv", "FileName,EmoClass\n")
    assert "has no column 'SpkrID'" in refusal(f"msp_podcast:{tmp_path}")
