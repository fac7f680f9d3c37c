"""Ten thousand mutants, and structures that no mutant finds: each is refused in words, or read as what it is."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support import fuzz
from tests.support.forks import Fault, shim, tree
from tests.support.models import LinearVictim
from tests.support.speech import RATE, tone

from staanet import audio, config, pipeline, storage
from staanet.audio.containers import CONTAINERS
from staanet.audio.containers.declared import Declared
from staanet.audio.decoding import Decoder
from staanet.config import AttackRecipe
from staanet.core import Clip
from staanet.core.victim import check_victim_card
from staanet.corpora.folder import read_folder
from staanet.corpora.manifest import COLUMNS
from staanet.errors import InvalidInput, StaaNetError

SLOW = {"storage": 600, "checkpoint": 600, "safetensors": 600, "metadata": 600}
COUNT = {
    **dict.fromkeys(fuzz.KINDS, 1_267),
    **{k: 600 for k in SLOW if k in fuzz.KINDS},
    "recipe": 600,
}


def test_there_are_ten_thousand_mutants() -> None:
    assert sum(COUNT.values()) >= 10_000


@pytest.mark.parametrize("kind", sorted(fuzz.KINDS))
def test_mutants_are_refused_in_words_or_read_as_what_they_are(kind: str) -> None:
    tally = fuzz.fuzz(range(COUNT[kind]), 2, [kind])
    assert not tally.findings, "\n".join(tally.findings[:5])
    assert tally.refused[kind] + tally.read[kind] == COUNT[kind]
    assert tally.refused[kind] > COUNT[kind] // 3


FOUND = {
    "recipe": (
        21503,
        298123,
        395633,
        451443,
        456833,
        506443,
        583243,
        601123,
        626633,
        676803,
        695183,
        727263,
        791323,
        810073,
        832553,
        864813,
        890263,
        894633,
        910703,
        923613,
        931683,
        962893,
        976273,
        980483,
    )
}
"""Mutants of seed 0 that a run of a million found: names of 5000 characters, shown whole."""


@pytest.mark.parametrize("kind", FOUND)
def test_what_a_million_mutants_found_is_mended(kind: str) -> None:
    tally = fuzz.Tally()
    names = list(fuzz.KINDS)
    for number in FOUND[kind]:
        assert names[number % len(names)] == kind
        tally += fuzz.fuzz([number], 0)
    # which of them are refused depends on the recipes that they are made of, and those change
    assert not tally.findings and (tally.refused + tally.read)[kind] == len(FOUND[kind])


def test_the_fuzzer_finds_a_planted_fault(monkeypatch) -> None:
    monkeypatch.setitem(CONTAINERS, "WAV", lambda *_: Declared())
    monkeypatch.setattr(
        Decoder, "_mono", lambda self, blocks, *_: (block[:, 0].clip(-1, 1) for block in blocks)
    )
    assert any("without a word" in line for line in fuzz.fuzz(range(300), 0, ["audio"]).findings)


# ---------------------------------------------------------------- structures

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
LIGHT = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
words = st.sampled_from(
    ["joy", "fear", " joy ", "Joy", "3", "", "=1", "\x1b[31m", "\u202e", "x" * 300]
) | st.text(max_size=8)


@LIGHT
@given(
    header=st.lists(st.sampled_from([a for n in COLUMNS.values() for a in n]) | words, max_size=6),
    rows=st.lists(st.lists(words, max_size=6), max_size=6),
)
def test_any_manifest_is_a_corpus_or_refused(tmp_path: Path, header, rows) -> None:
    from staanet.results.row_files import csv_text

    path = tmp_path / "list.csv"
    text = "\n".join(
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [header, *rows]
    )
    storage.write_text(path, text)
    assert csv_text(["a"], [])
    try:
        corpus = read_folder(path)
    except InvalidInput as problem:
        assert str(problem).isprintable() and "list.csv" in str(problem)
    else:
        assert all(
            u.label and u.label.isprintable() and u.speaker.isprintable() for u in corpus.utterances
        )


RECIPE = config.to_tree(config.load_recipe("quick"))


def paths(tree: dict, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in tree.items():
        found += [
            (*before, key),
            *(paths(value, (*before, key)) if isinstance(value, dict) else []),
        ]
    return found


@LIGHT
@given(where=st.sampled_from(paths(RECIPE)), value=anything)
def test_any_value_anywhere_in_a_recipe_is_right_or_refused_by_its_key(where, value) -> None:
    tree = json.loads(json.dumps(RECIPE))
    branch = tree
    for key in where[:-1]:
        branch = branch[key]
    branch[where[-1]] = value
    try:
        recipe = config.parse_recipe(tree, where="recipe.toml")
    except StaaNetError as problem:
        assert str(problem).isprintable() and "recipe.toml" in str(problem)
    else:
        assert config.parse_recipe(config.to_tree(recipe)) == recipe


@pytest.mark.parametrize(
    "key, value",
    [
        ("seed", True),
        ("seed", "1"),
        ("seed", 1e3),
        ("victims.emo18.steps", 10**20),
        ("victims.emo18.steps", "12"),
        ("victims.emo18.seconds", 1e300),
        ("victims.emo18.seconds", 1e-300),
        ("clip_seconds", 1e12),
        ("perceptual", "yes"),
        ("generator.sources", []),
        ("generator.sources", ["emo18", "emo18"]),
    ],
)
def test_a_recipe_never_guesses_what_a_value_means(key: str, value: object) -> None:
    tree = json.loads(json.dumps(RECIPE))
    *tables, last = key.split(".")
    branch = tree
    for name in tables:
        branch = branch[name]
    branch[last] = value
    with pytest.raises(StaaNetError) as caught:
        config.parse_recipe(tree)
    assert last in str(caught.value)


@LIGHT
@given(key=st.sampled_from(["name", "labels", "sample_rate", "kind", "schema"]), value=anything)
def test_any_card_of_a_victim_is_right_or_refused(tmp_path: Path, key, value) -> None:
    card = {"kind": "victim", "schema": 1, "name": "v", "labels": ["a", "b"], "sample_rate": RATE}
    (tmp_path / "card.json").write_text(json.dumps({**card, key: value}))
    try:
        read = storage.read_card(tmp_path, "victim")
        check_victim_card(read, tmp_path)
    except InvalidInput as problem:
        assert str(problem).isprintable()
    else:
        assert len(set(read["labels"])) >= 2 and 1000 <= read["sample_rate"] <= 192_000


@LIGHT
@given(labels=st.lists(words, min_size=1, max_size=6))
def test_any_set_of_labels_becomes_words_that_differ_by_more_than_case(
    tmp_path: Path, labels
) -> None:
    rows = [{"file": f"{n}.wav", "label": label, "speaker": "s"} for n, label in enumerate(labels)]
    path = tmp_path / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    try:
        found = read_folder(path).labels
    except InvalidInput as problem:
        assert "label" in str(problem) and str(problem).isprintable()
    else:
        assert len({label.casefold() for label in found}) == len(found)
        assert all(label == label.strip() and label.isprintable() for label in found)


# ---------------------------------------------------------------- a folder that is worked on, killed, damaged


def attack_folder(victim: LinearVictim, clips: list[Clip], out: Path) -> None:
    plan = pipeline.plan_attack(
        "random", AttackRecipe(max_density=0.1), victim, context=pipeline.Context()
    )
    context = pipeline.Context(quarantine=pipeline.Quarantine())
    with storage.FolderLock(out):
        pipeline.attack(plan, clips, out, context=context)


@cache
def import_what_an_attack_imports() -> None:
    """Lets every forked child start with the modules that an attack loads: 1.7 s each else."""
    with tempfile.TemporaryDirectory() as folder:
        attack_folder(
            LinearVictim(torch.ones(800)), [Clip("c", tone(0.05, 300), RATE)], Path(folder)
        )


class AttackFolder(RuleBasedStateMachine):
    """Add clips, be killed at any write, resume, damage a file, start a second time: what is finished is
    always what an uninterrupted attack makes, and a finished set is never taken for that of other clips."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        weight = torch.randn(800, generator=torch.Generator().manual_seed(0))
        self.victim, self.clips, self.round = LinearVictim(weight), [], 0
        self.finished_with: int | None = None

    @property
    def out(self) -> Path:
        return self.root / f"out{self.round}"

    def attack(self, out: Path, fault: Fault | None = None) -> int:
        """The attack in a forked child; its exit code, minus 9 where it was killed."""
        import_what_an_attack_imports()
        child = os.fork()
        if child == 0:
            code = 99
            try:
                time.perf_counter = lambda: 0.0
                shim(os.open(os.devnull, os.O_WRONLY), fault)
                attack_folder(self.victim, self.clips, out)
                code = 0
            except StaaNetError as problem:
                code = problem.exit_code
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @rule(seed=st.integers(0, 99))
    @precondition(lambda self: len(self.clips) < 4)
    def add(self, seed: int) -> None:
        self.clips.append(Clip(f"c{len(self.clips)}", tone(0.05, 300, seed), RATE))

    @rule(nth=st.integers(1, 40), after=st.booleans())
    @precondition(lambda self: self.clips)
    def kill(self, nth: int, after: bool) -> None:
        allowed = {0, -signal.SIGKILL} | (
            {3} if self.finished_with not in (None, len(self.clips)) else set()
        )
        assert self.attack(self.out, Fault(nth, after=after)) in allowed
        if self.finished_with is None and (self.out / "card.json").exists():
            self.finished_with = len(self.clips)

    @rule()
    @precondition(lambda self: self.clips)
    def resume(self) -> None:
        other = self.finished_with not in (None, len(self.clips))
        assert self.attack(self.out) == (3 if other else 0), "other clips are another experiment"
        if other:
            self.round, self.finished_with = self.round + 1, None
            return
        assert self.attack(self.root / "whole") == 0
        assert tree(self.out) == tree(self.root / "whole")
        shutil.rmtree(self.root / "whole")
        self.finished_with = len(self.clips)

    @rule(draw=st.randoms(use_true_random=False))
    @precondition(lambda self: (self.out / "unfinished.json").exists() and not self.finished_with)
    def corrupt(self, draw: random.Random) -> None:
        made = sorted(self.out.rglob("*.wav"))
        if made:
            path = draw.choice(made)
            data = bytearray(path.read_bytes())
            data[draw.randrange(len(data))] ^= 1
            path.write_bytes(data if draw.random() < 0.5 else data[: len(data) // 2])

    @invariant()
    def nothing_finished_is_torn(self) -> None:
        if (self.out / "card.json").exists():
            storage.read_card(self.out, "adversarial")

    def teardown(self) -> None:
        shutil.rmtree(self.root)


AttackFolder.TestCase.settings = settings(
    max_examples=15, stateful_step_count=12, deadline=None, derandomize=True
)
TestAttackFolder = AttackFolder.TestCase


def test_the_encoded_original_is_among_the_mutants_parents() -> None:
    assert fuzz.originals("audio")[0][:4] == b"RIFF" and len(fuzz.originals("recipe")) >= 5
    assert audio.read_audio  # the parents are read by the same function as everything
