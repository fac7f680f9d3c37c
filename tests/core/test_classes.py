"""Speakers and sex as classes: who is where, what is never in two parts, and every stage after it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.speech import RATE, real_speech, tone
from typer.testing import CliRunner

from staanet import audio, config, pipeline, report, storage
from staanet.cli import app
from staanet.core import Corpus, Utterance
from staanet.core.protocols import PARTS
from staanet.corpora import describe, load_corpus, with_classes
from staanet.errors import InvalidInput
from staanet.sanity import held_out, selfcheck
from staanet.sanity.loaded_run import load_run

TEXTS = ("a01", "a02", "a04", "b01", "b02")
SPEAKERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "13": "female",
}


def emodb_tree(root: Path, seconds: float = 0.25) -> Path:
    """Six speakers say five texts in two emotions, each with a voice (a tone) of their own."""
    for number, speaker in enumerate(SPEAKERS):
        for place, text in enumerate(TEXTS):
            for letter in "WN":
                hz = 150 * 1.5**number + 10 * place
                samples = tone(seconds, hz, 100 * number + 10 * place + ord(letter), level=0.05)
                path = root / "wav" / f"{speaker}{text}{letter}a.wav"
                storage.write_bytes(path, audio.encode(samples, RATE))
    return root


@pytest.fixture(scope="module")
def emodb(tmp_path_factory) -> Path:
    return emodb_tree(tmp_path_factory.mktemp("emodb"))


def made_of(said: dict[str, list[str]], *, known: bool = True) -> Corpus:
    """A corpus in which each speaker says these contents, once each."""
    clips = tuple(
        Utterance(
            f"{who}-{what}", Path(f"{who}-{what}.wav"), "joy", who, content=what if known else None
        )
        for who, contents in sorted(said.items())
        for what in contents
    )
    return Corpus("made", clips, ("joy",))


def staanet(*words: object) -> tuple[int, str, str]:
    made = CliRunner().invoke(app, [str(word) for word in words])
    return made.exit_code, made.stdout, made.stderr


# ---------------------------------------------------------------- who is where


def test_speakers_share_every_part_and_no_sentence_is_in_two(emodb: Path) -> None:
    corpus = load_corpus(f"emodb:{emodb}", classes="speaker")
    assert corpus.labels == tuple(f"speaker_{name}" for name in SPEAKERS)
    assert corpus.name == "emodb by speaker"
    for seed in range(20):
        parts = corpus.split(seed)
        assert sum(len(part) for part in parts) == len(corpus) == 60
        for part in parts:
            assert {u.label for u in part.utterances} == set(corpus.labels)
        for one, other in combinations(parts, 2):
            assert not set(one.contents) & set(other.contents)
        assert len({part.split_hash for part in parts}) == 1
    assert corpus.split(3) == corpus.split(3, "contents")
    assert len({corpus.split(seed)[0].split_hash for seed in range(20)}) > 5


def test_sex_keeps_speakers_apart_as_emotions_do(emodb: Path) -> None:
    own = load_corpus(f"emodb:{emodb}")
    corpus = load_corpus(f"emodb:{emodb}", classes="sex")
    assert corpus.labels == ("female", "male") and corpus.name != own.name
    for seed in range(10):
        parts = corpus.split(seed)
        for part in parts:
            assert {SPEAKERS[speaker] for speaker in part.speakers} == {"female", "male"}
        for one, other in combinations(parts, 2):
            assert not set(one.speakers) & set(other.speakers)


def test_own_labels_are_as_they_are(emodb: Path) -> None:
    assert load_corpus(f"emodb:{emodb}", classes="label") == load_corpus(f"emodb:{emodb}")


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcdefgh"), st.sets(st.integers(0, 6), min_size=3), min_size=2
    ),
    st.booleans(),
    st.integers(0, 3),
)
def test_what_is_said_by_one_alone_or_not_known_is_split_in_each_speaker(
    said: dict[str, set[int]], shared: bool, seed: int
) -> None:
    """Whoever says what: each speaker in each part, or (where sentences are shared so that it cannot
    be) a refusal that names one."""
    texts = {who: [f"{n}" if shared else f"{who}{n}" for n in what] for who, what in said.items()}
    corpus = with_classes(made_of(texts), "speaker")
    try:
        parts = corpus.split(seed)
    except InvalidInput as refused:
        assert shared and "-disjoint split tried" in str(refused)
        return
    assert all({u.label for u in part.utterances} == set(said) for part in parts)
    for one, other in combinations(parts, 2):
        assert not set(one.contents) & set(other.contents)


def test_unknown_contents_are_told_and_parts_of_a_file_stay_together() -> None:
    corpus = made_of({"a": ["1", "2", "3", "4"], "b": ["1", "2", "3", "4"]}, known=False)
    halves = tuple(
        replace(u, id=f"{u.id}-{half}", start_s=float(half), end_s=half + 1.0)
        for u in corpus.utterances
        for half in range(2)
    )
    by = with_classes(replace(corpus, utterances=halves), "speaker")
    assert any("the content of 16 clips is unknown" in note for note in by.notes)
    for one, other in combinations(by.split(0), 2):
        assert not {u.path for u in one.utterances} & {u.path for u in other.utterances}


def test_speakers_with_little_to_say_or_no_name_are_left_out_aloud() -> None:
    texts = [f"t{n}" for n in range(5)]
    corpus = made_of({"a": texts, "b": texts, "few": ["t1", "t2"], "unknown": texts})
    by = with_classes(corpus, "speaker")
    assert by.labels == ("a", "b") and len(by) == 10
    assert any(note.startswith("5 files left out, of unknown speaker") for note in by.notes)
    assert any("2 files left out, of a speaker with fewer than 3 contents" in n for n in by.notes)


@pytest.mark.parametrize(
    "classes, said",
    [
        ("sex", "has 0 classes by sex"),
        ("speakers", "Did you mean 'speaker'"),
        ("", "unknown classes"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(classes: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        with_classes(made_of({"a": ["1", "2", "3"], "b": ["1", "2", "3"]}), classes)


@pytest.mark.parametrize(
    "protocol, said",
    [
        ("speakers", "keeps speakers apart, but they are the classes"),
        ("speakers:03/08", "contents:TEST"),
        ("contentz", "Did you mean 'contents'"),
        ("contents:a01", "does not name test and dev contents"),
        ("contents:a01/a07", "unknown content 'a07'"),
        ("contents:a01/a01", "the content a01 is named for test and for dev"),
        ("manifest", "gives its clips no split"),
    ],
)
def test_a_protocol_for_speakers_as_classes_is_of_contents(
    protocol: str, said: str, emodb: Path
) -> None:
    corpus = load_corpus(f"emodb:{emodb}", classes="speaker")
    with pytest.raises(InvalidInput, match=said):
        corpus.split(0, protocol)
    train, dev, test = corpus.split(0, "contents:a01,b02/a04")
    assert (train.contents, dev.contents, test.contents) == (
        ("a02", "b01"),
        ("a04",),
        ("a01", "b02"),
    )


def test_a_manifest_tells_contents_and_keeps_its_own_split(tmp_path: Path) -> None:
    for name in ("x", "y"):
        for n in range(3):
            path = tmp_path / f"{name}{n}.wav"
            storage.write_bytes(path, audio.encode(tone(0.2, 200 + 50 * n, n), RATE))
    rows = [f"{s}{n}.wav,joy,{s},{n},{PARTS[n]}" for s in "xy" for n in range(3)]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["file,label,speaker,sentence,split", *rows]))
    corpus = load_corpus(f"folder:{table}", classes="speaker")
    assert corpus.contents == ("0", "1", "2") and "manifest" in corpus.protocols
    assert [part.contents for part in corpus.split(0, "manifest")] == [("0",), ("1",), ("2",)]
    storage.write_bytes(tmp_path / "y9.wav", audio.encode(tone(0.2, 400, 9), RATE))
    rows.append("y9.wav,joy,y,0,test")
    table.write_text("\n".join(["file,label,speaker,sentence,split", *rows]))
    with pytest.raises(InvalidInput, match="the content 0 is in train and in test"):
        load_corpus(f"folder:{table}", classes="speaker").split(0, "manifest")


def test_real_speakers_of_emodb_and_ravdess() -> None:
    corpus = load_corpus(f"emodb:{real_speech('emodb')}", classes="speaker")
    assert len(corpus) == 535 and len(corpus.labels) == 10 and len(corpus.contents) == 10
    for seed in range(10):
        assert all(
            {u.label for u in p.utterances} == set(corpus.labels) for p in corpus.split(seed)
        )
    two = load_corpus(f"ravdess:{real_speech('ravdess')}", classes="speaker")
    assert two.contents == ("01-01", "01-02", "02-01", "02-02")
    assert sorted(len(part) for part in two.split(0)) == [30, 30, 60]


# ---------------------------------------------------------------- the commands


def test_the_corpus_command_tells_classes_and_contents(emodb: Path, tmp_path: Path) -> None:
    out = emodb / "m.csv"
    code, told, _ = staanet(
        "corpus", f"emodb:{emodb}", "--classes", "speaker", "--out", out, "--json"
    )
    described = json.loads(told)
    assert code == 0 and set(described["classes"]) == {f"speaker_{s}" for s in SPEAKERS}
    assert described["protocol"] == "contents" and described["problems"] == []
    held = [set(part["contents"]) for part in described["split"].values()]
    assert set().union(*held) == set(TEXTS) and sum(map(len, held)) == len(TEXTS)
    with out.open(newline="") as file:
        assert {row["content"] for row in csv.DictReader(file)} == set(TEXTS)
    again = load_corpus(f"folder:{out}", classes="speaker")
    assert again.split(0)[0].contents == tuple(described["split"]["train"]["contents"])
    code, text, _ = staanet("corpus", f"emodb:{emodb}", "--classes", "speaker")
    assert code == 0 and "protocol  contents" in text and "clips of contents" in text
    code, _, said = staanet("corpus", f"emodb:{emodb}", "--classes", "emotions")
    assert code == 3 and "unknown classes 'emotions'" in said


def test_the_same_audio_in_two_contents_is_a_problem(tmp_path: Path) -> None:
    root = emodb_tree(tmp_path)
    corpus = load_corpus(f"emodb:{root}", classes="speaker")
    train, _, test = (part.utterances for part in corpus.split(0))
    same = next(u for u in test if u.speaker == train[0].speaker)
    storage.write_bytes(same.path, train[0].path.read_bytes())
    problems = describe(load_corpus(f"emodb:{root}", classes="speaker"))["problems"]
    assert len(problems) == 1 and "in the parts test, train" in problems[0][1]


RECIPE = """
name = "voices"
corpus = "emodb:{corpus}"
classes = "{classes}"

[victims.emo18]
steps = 30
batch_size = 8
seconds = 0.2
evaluate_every = 15

[generator]
sources = ["emo18"]
steps = 4
batch_size = 4
seconds = 0.2
evaluate_every = 2

[attacks.staa]
max_density = 0.2

[attacks.random]
match = "staa"
"""


@pytest.fixture(scope="module")
def run(emodb: Path, tmp_path_factory) -> Path:
    """A finished run on speakers as classes."""
    root = tmp_path_factory.mktemp("voices")
    (root / "voices.toml").write_text(RECIPE.format(corpus=emodb, classes="speaker"))
    pipeline.run(
        config.load_recipe(str(root / "voices.toml")), root / "run", context=pipeline.Context()
    )
    return root / "run"


def test_every_stage_works_with_other_classes(run: Path) -> None:
    card = storage.read_card(run, "run")["corpus"]
    assert card["classes"] == "speaker" and card["name"] == "emodb by speaker"
    victim = storage.read_card(run / "victims" / "emo18", "victim")
    assert victim["labels"] == card["labels"] and victim["inputs"]["corpus"] == card["name"]
    checks = {
        c.name: c for c in selfcheck.selfcheck(run, clips=4) if c.name in ("split", "clean_audio")
    }
    assert {check.verdict for check in checks.values()} == {"pass"}, checks
    page = report.build(run).read_text(encoding="utf-8")
    assert "emotion" not in page.replace("Speech Emotion Recognition", "").lower()
    assert "more than one part" not in page
    assert "contents" in page


def test_the_self_check_finds_a_sentence_in_two_parts(run, tmp_path: Path, monkeypatch) -> None:
    found = load_run(run)
    assert found.corpus is not None and found.corpus.classes == "speaker"
    train, dev, test = found.corpus.split(0)
    leaking = replace(test, utterances=(*test.utterances, train.utterances[0]))
    monkeypatch.setattr(Corpus, "split", lambda self, seed, protocol: (train, dev, leaking))
    monkeypatch.setattr(held_out, "shared_recordings", lambda parts, progress: [])
    check = held_out.split(found, lambda what: None)
    unit = train.unit(train.utterances[0])
    assert (
        check.verdict == "fail" and f"the content {unit} is in train and test" in check.explanation
    )


def test_a_folder_made_for_other_classes_stops(run, emodb: Path) -> None:
    code, _, said = staanet(
        "train-victim", f"emodb:{emodb}", "emo18", "--out", run / "victims" / "emo18", "--steps", 2
    )
    assert code == 3 and "was made with corpus = 'emodb by speaker', now it is 'emodb'" in said


def test_attack_takes_the_test_part_of_these_classes(run, emodb: Path, tmp_path: Path) -> None:
    code, _, said = staanet(
        "attack",
        f"emodb:{emodb}",
        "--classes",
        "speaker",
        "--attack",
        "random",
        "--max-density",
        0.1,
        "--source",
        run / "victims" / "emo18",
        "--out",
        tmp_path / "out",
    )
    assert code == 0, said
    with (tmp_path / "out" / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    test = load_corpus(f"emodb:{emodb}", classes="speaker").split(0)[2]
    assert {(r["id"], r["label"]) for r in rows} == {(u.id, u.label) for u in test.utterances}
    code, _, said = staanet(
        "attack",
        emodb / "wav",
        "--classes",
        "speaker",
        "--source",
        run / "victims" / "emo18",
        "--attack",
        "random",
        "--out",
        tmp_path / "other",
    )
    assert code == 3 and "--classes is for a corpus, and files have none" in said
