"""Protocols: whoever is asked for tests, nobody is in two parts, and what cannot be is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.speech import RATE, tone
from typer.testing import CliRunner

from staanet import audio, config, pipeline, storage
from staanet.cli import app
from staanet.config import GeneratorRecipe, VictimRecipe
from staanet.core import Corpus, Utterance
from staanet.core.protocols import PARTS, folds, part_named, parts_of
from staanet.corpora import describe, load_corpus
from staanet.errors import InvalidInput

SPEAKERS = tuple(f"{n:02d}" for n in range(1, 9))


def corpus_of(parts: dict[str, str | None] | None = None, labels: str = "ab") -> Corpus:
    """Two classes, two clips of each by each of eight speakers; ``parts``: each speaker's own part."""
    own = parts or {}
    clips = tuple(
        Utterance(f"{s}{label}{n}", Path(f"{s}{label}{n}.wav"), label, s, part=own.get(s))
        for s in SPEAKERS
        for label in labels
        for n in range(2)
    )
    return Corpus("made", clips, tuple(labels))


def members(corpus: Corpus, protocol: str, seed: int = 0) -> dict[str, set[str]]:
    return {part.part: set(part.speakers) for part in corpus.split(seed, protocol)}


def refusal(corpus: Corpus, protocol: str) -> str:
    with pytest.raises(InvalidInput) as caught:
        corpus.split(0, protocol)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    return str(caught.value)


# ---------------------------------------------------------------- lists by hand


@given(st.permutations(SPEAKERS), st.integers(1, 6), st.data())
def test_named_speakers_test_and_the_rest_trains(order, tests: int, data) -> None:
    test, others = order[:tests], order[tests:]
    dev = others[: data.draw(st.integers(1, len(others) - 1))]
    protocol = f"speakers:{','.join(test)}/ {' , '.join(dev)} "
    found = members(corpus_of(), protocol)
    assert found == {"test": set(test), "dev": set(dev), "train": set(others) - set(dev)}
    assert members(corpus_of(), protocol, seed=5) == found, "the seed draws nothing"


def test_the_default_is_drawn_by_the_seed_as_before() -> None:
    corpus = corpus_of()
    assert corpus.split(3) == corpus.split(3, None) == corpus.split(3, "speakers")
    assert corpus.split(3)[0].split_hash == (
        "45e5305b4b5f2d3b418c022a7c3c3f8b220d504e82f17dfa03f7e195b42c0e27"
    ), "the runs of before go on"


def test_the_hash_is_that_of_who_is_where() -> None:
    corpus = corpus_of()
    hashes = {
        p: corpus.split(0, p)[0].split_hash
        for p in (
            "speakers",
            "speakers:01,02/03",
            "speakers:02,01/03",
            "speakers:01/02",
            "speakers:01/03",
        )
    }
    assert hashes["speakers:01,02/03"] == hashes["speakers:02,01/03"]
    assert len(set(hashes.values())) == 4
    assert len({part.split_hash for part in corpus.split(0, "speakers:01/02")}) == 1


@pytest.mark.parametrize(
    ("protocol", "said"),
    [
        ("speakers:01", "does not name test and dev speakers"),
        ("speakers:", "does not name test and dev speakers"),
        ("speakers:01/", "does not name test and dev speakers"),
        ("speakers:01/02/03", "does not name test and dev speakers"),
        ("speakers:01,02/02,03", "the speaker 02 is named for test and for dev"),
        ("speakers:01/1", "unknown speaker '1'. Did you mean '01'?"),
        ("speakers:01,02,03,04/05,06,07,08", "the train part of the protocol"),
        ("speaker", "unknown protocol 'speaker'. Did you mean 'speakers'? Known:"),
        ("paper", "unknown protocol 'paper'"),
        ("", "unknown protocol ''"),
        ("x" * 10_000, "unknown protocol 'xxx"),
        ("manifest", "gives its clips no split. Add a column 'split'"),
    ],
)
def test_what_cannot_be_is_refused(protocol: str, said: str) -> None:
    assert said in refusal(corpus_of(), protocol)


@pytest.mark.parametrize("part", PARTS)
def test_a_class_that_a_part_lacks_is_named(part: str) -> None:
    kept = tuple(
        u
        for u in corpus_of().utterances
        if u.label == "a" or {"01": "test", "02": "dev"}.get(u.speaker, "train") != part
    )
    message = refusal(Corpus("made", kept, ("a", "b")), "speakers:01/02")
    assert f"class 'b' has 0 {part} clips in the protocol 'speakers:01/02'" in message


# ---------------------------------------------------------------- a manifest's own split


def test_a_manifest_splits_as_it_says() -> None:
    own = dict.fromkeys(SPEAKERS, "train") | {"03": "dev", "05": "test", "06": "test"}
    found = members(corpus_of(own), "manifest")
    assert found["test"] == {"05", "06"} and found["dev"] == {"03"} and len(found["train"]) == 5
    assert corpus_of(own).protocols[1] == "manifest"


def test_a_speaker_in_two_parts_is_named() -> None:
    corpus = corpus_of(dict.fromkeys(SPEAKERS, "train") | {"03": "dev", "05": "test"})
    moved = Utterance("zz", Path("zz.wav"), "a", "03", part="test")
    message = refusal(Corpus("made", (*corpus.utterances, moved), ("a", "b")), "manifest")
    assert "the speaker 03 is in dev and in test" in message and "one part" in message


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"01": None}, "4 clips have the split ''"),
        ({"01": "fold1"}, "4 clips have the split 'fold1'"),
        ({"02": "train"}, "the dev part of the protocol 'manifest' has no speakers"),
    ],
)
def test_a_manifest_that_does_not_split_is_refused(own: dict, said: str) -> None:
    usual = dict.fromkeys(SPEAKERS, "train") | {"02": "dev", "03": "test"}
    assert said in refusal(corpus_of({**usual, **own}), "manifest")


@given(st.text(max_size=12))
def test_a_name_of_a_part_is_stable(text: str) -> None:
    assert part_named(part_named(text)) == part_named(text)


# ---------------------------------------------------------------- folds


@given(st.lists(st.integers(1, 3), min_size=3, max_size=6))
def test_each_group_tests_once_and_is_dev_once(sizes: list[int]) -> None:
    groups = {str(n): [f"{n}.{i}" for i in range(size)] for n, size in enumerate(sizes)}
    made = folds(groups)
    everyone = {s for group in groups.values() for s in group}
    for part in ("test", "dev"):
        held = [{s for s, p in fold.items() if p == part} for fold in made.values()]
        assert set.union(*held) == everyone and sum(map(len, held)) == len(everyone)
    clips = [(speaker, None) for speaker in sorted(everyone)]
    for name, fold in made.items():
        parts = parts_of("one", clips, {"one": (fold,)})
        assert parts["test"] == set(groups[name]) and set.union(*parts.values()) == everyone


# ---------------------------------------------------------------- IEMOCAP


@pytest.fixture(scope="module")
def iemocap(tmp_path_factory) -> Path:
    """Five sessions, two speakers each, two clips of each of the four classes."""
    root = tmp_path_factory.mktemp("iemocap")
    for session in range(1, 6):
        dialog, lines = f"Ses0{session}F_impro01", []
        for sex in "FM":
            for number, label in enumerate(("ang", "hap", "neu", "sad", "exc", "xxx")):
                name = f"{dialog}_{sex}{number:03d}"
                lines.append(f"[1.0 - 2.0]\t{name}\t{label}\t[2.5, 2.5, 2.5]")
                samples = tone(0.3, 200 + 100 * number, seed=100 * session + 10 * number + ord(sex))
                path = root / f"Session{session}/sentences/wav/{dialog}/{name}.wav"
                storage.write_bytes(path, audio.encode(samples, RATE))
        table = root / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"
        table.parent.mkdir(parents=True)
        table.write_text("\n".join(lines))
    return root


def test_the_paper_trains_on_three_sessions(iemocap: Path) -> None:
    corpus = load_corpus(f"iemocap:{iemocap}")
    train, dev, test = corpus.split(7, "paper")
    assert train.speakers == tuple(f"Ses0{n}{sex}" for n in (1, 2, 3) for sex in "FM")
    assert dev.speakers == ("Ses04F", "Ses04M") and test.speakers == ("Ses05F", "Ses05M")
    assert len(train) == 30 and len(dev) == len(test) == 10
    by_hand = corpus.split(0, "speakers:Ses05F,Ses05M/Ses04F,Ses04M")
    assert by_hand[2] == test and corpus.split(0, "loso:5")[2] == test


def test_each_session_tests_once(iemocap: Path) -> None:
    corpus = load_corpus(f"iemocap:{iemocap}")
    tested = [corpus.split(0, f"loso:{n}")[2].speakers for n in range(1, 6)]
    assert tested == [(f"Ses0{n}F", f"Ses0{n}M") for n in range(1, 6)]
    assert [corpus.split(seed, "sessions")[2].speakers for seed in range(6)] == [*tested, tested[0]]
    assert corpus.split(0, "loso:1")[1].speakers == ("Ses05F", "Ses05M")
    message = refusal(corpus, "loso:6")
    assert "unknown protocol 'loso:6'. Did you mean 'loso:" in message and "paper" in message


def test_a_part_of_iemocap_has_no_paper_protocol(iemocap: Path, tmp_path: Path) -> None:
    for session in (1, 2, 3, 5):
        (tmp_path / f"Session{session}").symlink_to(iemocap / f"Session{session}")
    corpus = load_corpus(f"iemocap:{tmp_path}")
    assert "the dev part of the protocol 'paper' has no speakers" in refusal(corpus, "paper")
    assert corpus.split(0, "loso:5")[1].speakers == ("Ses03F", "Ses03M")
    assert "unknown protocol 'loso:4'" in refusal(corpus, "loso:4")


# ---------------------------------------------------------------- commands, cards and recipes


def staanet(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_the_corpus_command_shows_the_protocol_and_writes_it(iemocap: Path, tmp_path: Path) -> None:
    code, out, _ = staanet("corpus", f"iemocap:{iemocap}", "--protocol", "paper")
    assert code == 0 and "protocol  paper (also paper, sessions, loso:1" in out
    assert "test      10 clips of speakers Ses05F, Ses05M" in out
    code, out, _ = staanet("corpus", f"iemocap:{iemocap}")
    assert "protocol  speakers (also paper" in out
    path = tmp_path / "m.csv"
    code, out, _ = staanet(
        "corpus", f"iemocap:{iemocap}", "--protocol", "loso:2", "--out", path, "--json"
    )
    told = json.loads(out)
    assert told["protocol"] == "loso:2" and told["split"]["test"]["speakers"] == [
        "Ses02F",
        "Ses02M",
    ]
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["speaker"][:5] for r in rows if r["split"] == "test"} == {"Ses02"}
    code, _, said = staanet("corpus", f"iemocap:{iemocap}", "--protocol", "papre")
    assert code == 3 and "Did you mean 'paper'?" in said


def test_a_written_manifest_is_split_as_it_was(iemocap: Path) -> None:
    corpus = load_corpus(f"iemocap:{iemocap}")
    path = iemocap / "written.csv"
    staanet("corpus", f"iemocap:{iemocap}", "--protocol", "loso:3", "--out", path)
    again = load_corpus(f"folder:{path}")
    for ours, theirs in zip(corpus.split(0, "loso:3"), again.split(0, "manifest"), strict=True):
        assert ours.speakers == theirs.speakers and len(ours) == len(theirs)
    assert describe(again, protocol="manifest")["protocol"] == "manifest"


def test_a_written_manifest_names_its_parts_of_files_from_where_it_is(
    tmp_path: Path, monkeypatch
) -> None:
    storage.write_bytes(tmp_path / "in" / "a.wav", audio.encode(tone(2, 200), RATE))
    (tmp_path / "in" / "m.csv").write_text("file,start,end,label\na.wav,0.5,1,joy\na.wav,1,,rage\n")
    monkeypatch.chdir(tmp_path)
    code, _, said = staanet("corpus", "folder:in/m.csv", "--out", "in/again.csv")
    assert code == 0, said
    one, two = load_corpus("folder:in/m.csv"), load_corpus("folder:in/again.csv")
    assert one.utterances == two.utterances and {u.end_s for u in two.utterances} == {1.0, None}


VICTIM = VictimRecipe(steps=2, batch_size=4, seconds=0.2, evaluate_every=2)
GENERATOR = GeneratorRecipe(steps=2, batch_size=4, seconds=0.2, evaluate_every=2)


def test_cards_tell_the_protocol_and_another_one_stops(iemocap: Path, tmp_path: Path) -> None:
    corpus = load_corpus(f"iemocap:{iemocap}")
    folder = tmp_path / "v"
    victim = pipeline.train_victim(
        corpus, "zhao19", folder, recipe=VICTIM, context=pipeline.Context(protocol="paper")
    )
    card = storage.read_card(folder, "victim")["inputs"]
    assert card["protocol"] == "paper" and card["split"] == corpus.split(0, "paper")[0].split_hash
    pipeline.train_victim(
        corpus, "zhao19", folder, recipe=VICTIM, context=pipeline.Context(protocol="paper")
    )
    with pytest.raises(InvalidInput, match="was made from another split"):
        pipeline.train_victim(corpus, "zhao19", folder, recipe=VICTIM, context=pipeline.Context())
    generator = tmp_path / "g"
    pipeline.train_generator(
        corpus, victim, generator, recipe=GENERATOR, context=pipeline.Context(protocol="paper")
    )
    assert storage.read_card(generator, "generator")["inputs"]["protocol"] == "paper"
    out = tmp_path / "random"
    code, _, said = staanet(
        "attack",
        f"iemocap:{iemocap}",
        "--attack",
        "random",
        "--source",
        folder,
        "--out",
        out,
        "--protocol",
        "loso:2",
        "--max-density",
        "0.1",
    )
    assert code == 0, said
    with (out / "metadata.csv").open(newline="") as file:
        assert {row["speaker"] for row in csv.DictReader(file)} == {"Ses02F", "Ses02M"}
    options = ("--attack", "random", "--source", folder, "--protocol", "paper")
    code, _, said = staanet("attack", iemocap, *options, "--out", tmp_path / "o")
    assert code == 3 and "--protocol is for a corpus, and files have none" in said


def test_cards_of_the_default_say_nothing_of_a_protocol(tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = load_corpus(f"folder:{tiny_corpus}")
    pipeline.train_victim(
        corpus, "zhao19", tmp_path / "v", recipe=VICTIM, context=pipeline.Context()
    )
    assert "protocol" not in storage.read_card(tmp_path / "v", "victim")["inputs"]


def test_a_recipe_names_its_protocol_and_none_is_not_written() -> None:
    assert "protocol" not in config.to_toml(config.load_recipe("quick"))
    recipe = config.load_recipe("quick", ["protocol=loso:2"])
    assert recipe.protocol == "loso:2" and config.to_tree(recipe)["protocol"] == "loso:2"
    with pytest.raises(InvalidInput, match="Did you mean 'protocol'"):
        config.load_recipe("quick", ["protocl=paper"])


def test_a_run_by_a_protocol_holds_it_and_a_wrong_one_writes_nothing(
    iemocap: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = ["run", tiny_recipe, "--out", out, "--set", f"corpus=iemocap:{iemocap}"]
    words += [
        f"--set=victims.{name}.{key}=2"
        for name in ("emo18", "zhao19")
        for key in ("steps", "evaluate_every")
    ]
    code, _, said = staanet(*words, "--set", "protocol=papr")
    assert code == 3 and "Did you mean 'paper'?" in said and not out.exists()
    code, _, said = staanet(*words, "--set", "protocol=paper")
    assert code == 0, said
    card = storage.read_card(out, "run")["corpus"]
    assert card["protocol"] == "paper" and card["split"]["test"]["speakers"] == ["Ses05F", "Ses05M"]
    page = (out / "report" / "index.html").read_text(encoding="utf-8")
    assert "Corpus and split, protocol paper" in page
    code, _, said = staanet(*words, "--set", "protocol=loso:1")
    assert code == 3 and "with protocol = 'paper', now it is" in said
