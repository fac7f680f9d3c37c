"""Corpora whose labels are numbers: columns of a manifest, IEMOCAP, MSP-Podcast, synthetic speech."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.corpora.test_readers import EVALUATION, MSP_LABELS
from tests.support.corpora import put, refusal, write, write_parquet

from staanet.core import Corpus, Utterance
from staanet.corpora import describe, description_text, load_corpus, plan_synthetic
from staanet.corpora.synthetic import spoken_numbers

ROWS = "".join(f"{s}{n}.wav,{s},{n},{n / 2},{7 - n}\n" for s in "abcdef" for n in range(2))
TABLE = f"file,speaker,act,EmoVal,mos\n{ROWS}"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    put(tmp_path, *(f"{s}{n}.wav" for s in "abcdef" for n in range(2)))
    return write(tmp_path / "list.csv", TABLE)


def regression(path: Path | str, **options: object) -> Corpus:
    spec = path if isinstance(path, str) else f"folder:{path}"
    return load_corpus(spec, task="regression", **options)


def test_columns_of_numbers_are_found_by_usual_names(table: Path) -> None:
    corpus = regression(table)
    assert corpus.labels == ("arousal", "valence") and corpus.name == "folder by numbers"
    assert corpus.task == "regression" and corpus.class_labels == ()
    assert corpus.utterances[1].label == "arousal=1 valence=0.5"
    assert not any("fewer than" in warning for warning in corpus.warnings)
    train, dev, test = corpus.split(seed=0)
    assert len(train) == 8 and len(dev) == len(test) == 2 and test.task == "regression"


def test_any_column_may_be_named_and_others_are_then_left_alone(table: Path) -> None:
    corpus = regression(table, columns={"quality": "mos"})
    assert corpus.labels == ("quality",) and corpus.utterances[0].label == "quality=7"
    assert "has no column 'arousal'" in refusal(
        write(table.parent / "x.csv", "file,speaker,mos\na0.wav,a,1\n"), task="regression"
    )
    assert "unknown column 'nothing'" in refusal(table, task="regression", columns={"q": "nothing"})
    assert "cannot be the name of a number" in refusal(
        table, task="regression", columns={"two words": "mos"}
    )


def test_a_row_without_a_number_is_put_aside(table: Path) -> None:
    write(table, TABLE + "e9.wav,e,high,1,1\nf9.wav,f,,1,1\nf8.wav,f,inf,1,1\n")
    corpus = regression(table)
    assert len(corpus) == 12 and len(corpus.put_aside) == 3
    assert corpus.put_aside[0][1] == "the arousal is 'high', no number"


def test_json_and_parquet_hold_numbers_too(table: Path) -> None:
    rows = [{"wav": f"{s}0.wav", "spk": s, "valence": 1.5} for s in "abc"]
    other = {"wav": "d0.wav", "spk": "d", "arousal": 2}
    path = write(table.parent / "list.json", json.dumps([*rows, other]))
    corpus = regression(path)
    assert corpus.labels == ("valence",) and len(corpus) == 3 and len(corpus.put_aside) == 1
    path = write_parquet(table.parent / "list.parquet", file=["a0.wav"], arousal=[1.25])
    assert regression(path).utterances[0].label == "arousal=1.25"


def test_numbers_are_described(table: Path) -> None:
    described = describe(regression(table))
    assert described["classes"] == {}
    assert described["numbers"]["arousal"] == {"min": 0, "mean": 0.5, "max": 1, "deviation": 0.5}
    text = description_text(described)
    assert "number    arousal from 0 to 1, mean 0.5, deviation 0.5" in text


def test_iemocap_gives_the_means_of_its_raters_also_where_they_do_not_agree(tmp_path: Path) -> None:
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_"
    put(tmp_path, *(f"{wav}{name}.wav" for name in ("F000", "F003")))
    write(tmp_path / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt", EVALUATION)
    corpus = regression(f"iemocap:{tmp_path}")
    assert corpus.labels == ("arousal", "dominance", "valence") and len(corpus) == 2
    assert corpus.utterances[0].label == "arousal=2.5 dominance=2.5 valence=2.5"
    assert "loso:1" in corpus.protocols
    assert len(load_corpus(f"iemocap:{tmp_path}")) == 1  # F003 has no class


def test_msp_podcast_gives_its_consensus(tmp_path: Path) -> None:
    write(tmp_path / "Labels/labels_consensus.csv", MSP_LABELS.replace("H,5.0", "H,none"))
    put(tmp_path, *(f"Audios/MSP-PODCAST_{n}.wav" for n in ("0001_0008", "0001_0033", "0002_0039")))
    corpus = regression(f"msp_podcast:{tmp_path}")
    assert [u.label for u in corpus.utterances] == [
        "arousal=2.2 dominance=3 valence=4",
        "arousal=4.2 dominance=4 valence=4",  # of no class
    ]
    assert len(corpus.put_aside) == 1


def test_synthetic_speech_knows_its_pitch_and_rate(tmp_path: Path) -> None:
    corpus = spoken_numbers(plan_synthetic(tmp_path, voices=6, sentences=2), tmp_path)
    assert corpus.labels == ("pitch", "rate") and corpus.classes == "dimensions"
    numbers = {u.id: u.label or "" for u in corpus.utterances}
    rate = {id: float(label.partition("rate=")[2]) for id, label in numbers.items()}
    assert rate["f2_anger_00"] > 1.1 > 0.9 > rate["f2_sadness_00"]


def test_what_has_no_numbers_says_so(tmp_path: Path) -> None:
    put(tmp_path, "joy/s/a.wav", "wav/03a01Fa.wav")
    assert "'emodb' has classes and no numbers" in refusal(f"emodb:{tmp_path}", task="regression")
    assert "no manifest, whose columns could be numbers" in refusal(tmp_path, task="regression")
    for options in ({"classes": "sex"}, {"label_map": {"a": "b"}}):
        assert "the task is regression" in refusal(tmp_path, task="regression", **options)
    assert "unknown task" in refusal(tmp_path, task="counting")


def test_a_split_of_numbers_needs_no_class_in_each_part() -> None:
    clips = tuple(Utterance(str(n), Path(str(n)), f"x={n}", f"s{n}") for n in range(5))
    corpus = Corpus("n", clips, ("x",), classes="dimensions")
    assert {len(part) for part in corpus.split(0)} == {1, 3}
    assert {len(part) for part in corpus.split(0, "fold:1/5")} == {1, 3}
