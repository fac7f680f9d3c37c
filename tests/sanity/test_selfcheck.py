"""Planted frauds are found by the check that is there for them; honest runs raise no alarm."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import RATE, clip, tone
from typer.testing import CliRunner

from staanet import audio, config, pipeline, report, sanity, storage
from staanet.attacks import PGD, Random
from staanet.cli import app
from staanet.core import Budget, Clip, Corpus, Utterance, Victim
from staanet.errors import InvalidInput
from staanet.results import adversarial_set, row_files
from staanet.results.adversarial_set import AdversarialClip, AdversarialSet
from staanet.results.run_folder import RunFolder
from staanet.sanity import Check, Probe, selfcheck
from staanet.victims import CallableVictim, load_victim

RECIPE = """
name = "tones"
corpus = "folder:{corpus}"
seed = {seed}
selfcheck = true
{keys}

[victims.emo18]
steps = 40
batch_size = 8
seconds = 0.2
evaluate_every = 20

[victims.other]
network = "emo18"
steps = 40
batch_size = 8
seconds = 0.2
evaluate_every = 20
speed = 0.2

[generator]
sources = ["emo18"]
epsilon = 0.05
steps = 60
batch_size = 8
seconds = 0.2
evaluate_every = 20

[attacks.staa]
epsilon = 0.05
max_density = 0.2

[attacks.pgd]
epsilon = 0.05
settings = {{ steps = 5 }}

[attacks.random]
epsilon = 0.05
match = "staa"

{attacks}
"""
RICH = {
    "keys": """
protocol = "speakers:s0,s1,s2,s3/s4,s5"
channels = ["gain:-6", "resample:4000"]
clip_seconds = 0.22
""",
    "attacks": """
[attacks.few]
attack = "pgd"
epsilon = 0.05
max_l0 = 1000
clips = 10
settings = { steps = 5 }

[attacks.uap]
epsilon = 0.05
match = "staa"
settings = { steps = 20, batch_size = 8, seconds = 0.2 }
""",
}
"""What a recipe may also ask for: an own split, channels, one length, few clips, a learned control."""
CLASSES = {"high": 1200.0, "mid": 500.0, "low": 200.0}


def hum(hz: float, *seed: int) -> np.ndarray:
    """A quiet wavering tone in noise, so quiet that epsilon matters; no two are alike."""
    rng = np.random.default_rng(seed)
    t = np.arange(round((0.2 + 0.04 * seed[-1]) * RATE)) / RATE
    waver = np.interp(t, np.linspace(0, 0.24, 13), rng.uniform(-0.1, 0.1, 13))
    phase = 2 * np.pi * np.cumsum(hz * 2**waver) / RATE + rng.uniform(0, 6)
    return audio.snap(0.04 * np.sin(phase) + 0.006 * rng.standard_normal(len(t)))


def honest_run(root: Path, seed: int, *, keys: str = "", attacks: str = "") -> Path:
    """Ten voices hum three notes twice; the second middle one is too high, so that some clean
    answers are errors.
    """
    for number, (label, hz) in enumerate(CLASSES.items()):
        for speaker in range(10):
            for take in range(2):
                path = root / "hums" / label / f"s{speaker}" / f"{take}.wav"
                note = CLASSES["high"] if (label, take) == ("mid", 1) else hz
                samples = hum(note, seed, number, speaker, take)
                storage.write_bytes(path, audio.encode(samples, RATE))
    recipe = root / "hums.toml"
    text = RECIPE.format(corpus=(root / "hums").as_posix(), seed=seed, keys=keys, attacks=attacks)
    recipe.write_text(text)
    pipeline.run(config.load_recipe(str(recipe)), root / "run", context=pipeline.Context())
    return root / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return honest_run(tmp_path_factory.mktemp("honest0"), 0)


@pytest.fixture
def tampered(run, tmp_path) -> Path:
    """A copy to plant a fraud in."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def judged(folder: Path, *names: str, **options: Any) -> dict[tuple[str, str], Check]:
    """The checks of these names, wired as the command wires them."""
    found = selfcheck.read(folder, **options)
    jobs = selfcheck.jobs.jobs_of(found, 12, 0)
    return {
        (n, s): selfcheck.verdicts.guarded(n, s, lambda w=w: w(lambda what: None))
        for n, s, w in jobs
        if n in names
    }


def failing(checks: dict[tuple[str, str], Check]) -> set[str]:
    return {name for (name, _), check in checks.items() if check.verdict == "fail"}


def evaluate_again(folder: Path) -> None:
    """What a fraudster does after tampering, so that tables and files agree."""
    victims = [load_victim(place) for place in sorted((folder / "victims").iterdir())]
    sets = sorted(p for p in (folder / "adversarial").iterdir())
    pipeline.evaluate(sets, victims, folder / "results", context=pipeline.Context())


def remake(
    folder: Path, name: str, change: Callable[[AdversarialClip, np.random.Generator], np.ndarray]
) -> None:
    """A set with other changes, its table measured and its results computed anew."""
    place, rng = folder / "adversarial" / name, np.random.default_rng(1)
    made = AdversarialSet.load(place)
    pairs = []
    for pair in list(made):
        moved = np.clip(pair.clean.pcm16 + change(pair, rng), -32768, 32767).astype(np.int16)
        pairs.append(replace(pair, adversarial=moved))
    adversarial_set.write_set(
        place, [adversarial_set.write_clip(place, pair) for pair in pairs], made.card
    )
    evaluate_again(folder)


# ---------------------------------------------------------------- honest runs


def told(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "selfcheck.json").read_text())


def alarms(folder: Path) -> list[dict[str, Any]]:
    return [one for one in told(folder)["checks"] if one["verdict"] in ("fail", "warn")]


def test_an_honest_run_raises_no_alarm_and_every_check_was_made(run):
    assert alarms(run) == [] and told(run)["failed"] == 0
    checks = {one["name"] for one in told(run)["checks"] if one["verdict"] == "pass"}
    assert checks == {
        "known_optimum",
        "eval_mode",
        "deterministic",
        "logits",
        "gradients",
        "clean_accuracy",
        "planted_example",
        "more_steps",
        "larger_epsilon",
        "huge_epsilon",
        "white_box_wins",
        "disk",
        "predictions",
        "beats_control",
        "direction",
        "clean_audio",
        "split",
        "white_box_marks",
        "rates",
    }


def test_a_richer_recipe_is_understood(tmp_path):
    run = honest_run(tmp_path, 1, **RICH)
    found = {one["name"] for one in alarms(run)}
    assert found <= {"beats_control"}, "a generator of 60 steps need not beat a learned vector"
    verdicts = {(one["name"], one["subject"]): one for one in told(run)["checks"]}
    assert verdicts["predictions", "few__emo18"]["figures"]["count"] == 10 * 2 * 2
    assert verdicts["predictions", "staa__emo18"]["figures"]["count"] == 24 * 2 * 2
    assert verdicts["rates", ""]["figures"]["count"] == 6 * 5 * 2, "of the files as they are"
    assert "uap" in verdicts["beats_control", "staa__emo18"]["figures"]
    assert not {("beats_control", "uap__emo18"), ("direction", "uap__emo18")} & verdicts.keys()

    recipe = run / "recipe.toml"
    rich = recipe.read_text()
    recipe.write_text(rich.replace('protocol = "speakers:s0,s1,s2,s3/s4,s5"\n', ""))
    assert failing(judged(run, "split", "clean_audio")) == {"split"}
    recipe.write_text(rich.replace("clip_seconds = 0.22\n", ""))
    assert failing(judged(run, "split", "clean_audio")) == {"clean_audio"}

    card = json.loads((run / "vectors" / "uap__emo18" / "card.json").read_text())
    card["inputs"]["split"], card["source_sha256"] = "0" * 64, "1" * 64
    storage.write_card(run / "vectors" / "uap__emo18", card)
    found = judged(run, "split", "white_box_marks")
    assert "the vector uap__emo18 names the split 000000000000" in found["split", ""].explanation
    assert "the vector uap__emo18 was trained on" in found["white_box_marks", ""].explanation


# ---------------------------------------------------------------- frauds in the files


def test_a_mask_shuffled_in_time_is_found_even_where_tables_and_results_agree(tampered):
    for name in ("staa__emo18", "pgd__emo18"):
        remake(tampered, name, lambda pair, rng: rng.permutation(pair.delta))
        checks = judged(tampered, "direction", "disk", "predictions", "rates")
        assert checks["direction", name].verdict == "fail"
        assert "noise" in checks["direction", name].explanation
        assert failing(checks) == {"direction"}


def test_randomised_signs_are_found_even_where_tables_and_results_agree(tampered):
    for name in ("staa__emo18", "pgd__emo18"):
        remake(tampered, name, lambda pair, rng: rng.choice([-1, 1], len(pair.delta)) * pair.delta)
        checks = judged(tampered, "direction", "disk", "predictions", "rates")
        assert checks["direction", name].verdict == "fail" and failing(checks) == {"direction"}


def test_labels_shifted_by_one_row_are_found(tampered):
    for place in sorted((tampered / "adversarial").iterdir()):
        rows = adversarial_set.read_rows(place)
        labels = [row["label"] for row in rows]
        moved = [row | {"label": label} for row, label in zip(rows, labels[-1:] + labels[:-1])]
        storage.write_text(
            place / "metadata.csv", row_files.csv_text(adversarial_set.COLUMNS, moved)
        )
    table = tampered / "results" / "results.parquet"
    assert failing(judged(tampered, "disk", "clean_audio")) == {"disk", "clean_audio"}
    evaluate_again(tampered)  # now the results repeat the wrong labels
    checks = judged(tampered, "disk", "clean_audio")
    assert failing(checks) == {"clean_audio"} and table.exists()
    assert "label is" in checks["clean_audio", ""].explanation


def test_exchanged_adversarial_files_are_found(tampered):
    folder = tampered / "adversarial" / "staa__emo18" / "adversarial"
    a, b = sorted(folder.glob("*0.wav"))[:2]
    assert a.stat().st_size == b.stat().st_size, "their lengths do not give them away"
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    checks = judged(tampered, "disk")
    assert checks["disk", "staa__emo18"].verdict == "fail"
    assert checks["disk", "pgd__emo18"].verdict == "pass"


def test_clean_and_adversarial_files_exchanged_are_found(tampered):
    place = tampered / "adversarial" / "pgd__emo18"
    for path in sorted((place / "adversarial").iterdir()):
        other = place / "clean" / path.name
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
    assert failing(judged(tampered, "clean_audio", "predictions")) == {"clean_audio", "predictions"}


def copy_victim(folder: Path, nudge: float = 0.0) -> None:
    """The source under another name, evaluated as if it were a stranger."""
    victim = load_victim(folder / "victims" / "emo18")
    victim.name = "stranger"
    with torch.no_grad():
        next(victim.parameters()).mul_(1 + nudge)
    card = storage.read_card(folder / "victims" / "emo18", "victim")
    victim.save_pretrained(folder / "victims" / "stranger", inputs=card["inputs"])
    evaluate_again(folder)


@pytest.mark.parametrize("nudge", [0.0, 1e-7])
def test_a_source_among_the_targets_under_another_name_is_found(tampered, nudge):
    copy_victim(tampered, nudge)
    check = judged(tampered, "white_box_marks")["white_box_marks", ""]
    assert check.verdict == "fail" and "on stranger" in check.explanation


def test_a_mark_on_another_model_is_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    for cell in summary["cells"]:
        cell["white_box"] = True
    storage.write_json(path, summary)
    assert failing(judged(tampered, "white_box_marks")) == {"white_box_marks"}


def test_clean_errors_counted_as_fooled_are_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    frame = pandas.read_parquet(tampered / "results" / "results.parquet")
    assert (frame.label != frame.clean_prediction).any(), "the run has clean errors"
    for cell in summary["cells"]:
        own = frame[(frame.attack == cell["attack"]) & (frame.target == cell["target"])]
        cell["fooling_rate"]["value"] = float((own.adversarial_prediction != own.label).mean())
    storage.write_json(path, summary)
    check = judged(tampered, "rates")["rates", ""]
    assert check.verdict == "fail" and "fooling_rate" in check.explanation


def test_attack_success_that_counts_clean_errors_is_found(tampered):
    path = tampered / "results" / "summary.json"
    summary = json.loads(path.read_text())
    frame = pandas.read_parquet(tampered / "results" / "results.parquet")
    for cell in summary["cells"]:
        own = frame[(frame.attack == cell["attack"]) & (frame.target == cell["target"])]
        wrong = (own.adversarial_prediction != own.label).mean()
        cell["attack_success_rate"] |= {"value": float(wrong), "count": len(own)}
    storage.write_json(path, summary)
    assert failing(judged(tampered, "rates")) == {"rates"}


def test_invented_predictions_are_found(tampered):
    path = tampered / "results" / "results.parquet"
    frame = pandas.read_parquet(path)
    frame["adversarial_prediction"] = "low"
    frame.to_parquet(path, index=False)
    assert "predictions" in failing(judged(tampered, "predictions"))


def test_a_weak_set_relabelled_as_a_strong_attack_is_found(tampered):
    place = tampered / "adversarial" / "random__emo18"
    card = json.loads((place / "card.json").read_text())
    (place / "card.json").write_text(json.dumps(card | {"algorithm": "pgd", "title": "PGD"}))
    assert judged(tampered, "direction")["direction", "random__emo18"].verdict == "fail"


def test_another_split_in_a_card_is_found(tampered):
    path = tampered / "generators" / "emo18" / "card.json"
    card = json.loads(path.read_text())
    card["inputs"]["split"] = "0" * 64
    path.write_text(json.dumps(card))
    check = judged(tampered, "split")["split", ""]
    assert check.verdict == "fail" and "generator emo18" in check.explanation


def test_a_missing_file_is_a_failure_and_not_a_crash(tampered):
    next((tampered / "adversarial" / "staa__emo18" / "adversarial").iterdir()).unlink()
    checks = judged(tampered, "disk")
    assert checks["disk", "staa__emo18"].verdict == "fail"
    assert "could not be carried out" in checks["disk", "staa__emo18"].explanation


def test_without_its_corpus_a_run_says_what_could_not_be_checked(tampered, tmp_path):
    recipe = tampered / "recipe.toml"
    spec = config.load_recipe(str(recipe)).corpus
    moved = tmp_path / "elsewhere"
    shutil.copytree(spec.removeprefix("folder:"), moved)
    recipe.write_text(recipe.read_text().replace(spec, f"folder:{tmp_path / 'gone'}"))
    for check in judged(tampered, "split", "clean_audio").values():
        assert check.verdict == "skipped" and "--corpus" in check.remedy
    for check in judged(tampered, "clean_audio", corpus=f"folder:{moved}").values():
        assert check.verdict == "pass"


# ---------------------------------------------------------------- fraudulent victims


class Wrapped(Victim):
    """A victim that hands on to an honest one."""

    architecture = "wrapped"

    def __init__(self, inner: Victim) -> None:
        super().__init__(name=inner.name, labels=inner.labels, sample_rate=inner.sample_rate)
        self.inner, self.minimum_samples = inner, inner.minimum_samples
        self.eval()

    def forward(self, waveforms, lengths=None):
        return self.inner(waveforms, lengths)


class Softmax(Wrapped):
    def forward(self, waveforms, lengths=None):
        return super().forward(waveforms, lengths).softmax(dim=1)


class Noisy(Wrapped):
    def forward(self, waveforms, lengths=None):
        logits = super().forward(waveforms, lengths)
        return logits + logits.std() * torch.randn_like(logits)


class Quantised(Wrapped):
    """Rounds its input to eight bits: right answers, and a gradient of zero."""

    def forward(self, waveforms, lengths=None):
        return super().forward(torch.round(waveforms * 128) / 128, lengths)


class Straight(Wrapped):
    """Rounds, and passes on a gradient as if it did not."""

    def forward(self, waveforms, lengths=None):
        rounded = torch.round(waveforms * 128) / 128
        return super().forward(waveforms + (rounded - waveforms).detach(), lengths)


class Detached(Wrapped):
    def forward(self, waveforms, lengths=None):
        return super().forward(waveforms.detach(), lengths)


class Broken(Wrapped):
    """A square root at 0: right answers, and a gradient that is NaN."""

    def forward(self, waveforms, lengths=None):
        zero = torch.sqrt((waveforms - waveforms).sum(dim=1, keepdim=True))
        return super().forward(waveforms + zero, lengths)


class Training(Wrapped):
    """Never leaves training mode."""

    def eval(self):
        return self.train()


class Denying(Wrapped):
    """Trains while it answers, and says that it does not."""

    def forward(self, waveforms, lengths=None):
        self.inner.train()
        logits = super().forward(waveforms, lengths)
        self.inner.eval()
        return logits


@pytest.mark.parametrize(
    "fraud, check",
    [
        (Softmax, "logits"),
        (Noisy, "deterministic"),
        (Quantised, "gradients"),
        (Straight, "gradients"),
        (Detached, "gradients"),
        (Broken, "gradients"),
        (Training, "eval_mode"),
        (Denying, "eval_mode"),
    ],
)
def test_a_fraudulent_victim_is_found(run, fraud, check):
    names = ("logits", "deterministic", "gradients", "eval_mode")
    victims = {"emo18": fraud(load_victim(run / "victims" / "emo18"))}
    checks = judged(run, *names, victims=victims)
    assert checks[check, "emo18"].verdict == "fail", checks[check, "emo18"]
    assert checks[check, "emo18"].remedy
    assert all(checks[name, "other"].verdict == "pass" for name in names)


def test_a_masked_gradient_loses_to_black_box_and_to_more_of_everything(run):
    """Carlini et al.: attacks that should fail less and do not tell of a masked gradient."""
    made = next(iter(selfcheck.read(run).sets.values()))
    clips = [made.pair(clip_id).clean for clip_id in list(made.rows)]
    probe = Probe(Masked(load_victim(run / "victims" / "emo18")), clips, epsilon=0.03)
    assert sanity.huge_epsilon(probe).verdict == "fail"


class Masked(Wrapped):
    """A gradient that leads uphill."""

    def forward(self, waveforms, lengths=None):
        return super().forward(2 * waveforms.detach() - waveforms, lengths)


def test_a_black_box_skips_gradients_and_says_why():
    loud = CallableVictim(
        lambda x: np.stack([np.abs(x).mean(axis=1), np.full(len(x), 0.1)], axis=1), ["a", "b"], RATE
    )
    probe = Probe(loud, [clip(seed=i) for i in range(8)])
    for check in (
        sanity.gradients(loud, probe.clips),
        sanity.more_steps(probe),
        sanity.larger_epsilon(probe),
        sanity.huge_epsilon(probe),
        sanity.white_box_wins(probe),
    ):
        assert check.verdict == "skipped" and "black box" in check.explanation
    assert sanity.deterministic(loud, probe.clips).verdict == "pass"


# ---------------------------------------------------------------- the laws behind the checks


def test_the_known_optimum_is_found_by_pgd_and_not_by_noise():
    assert sanity.finds_known_optimum(lambda budget: PGD(budget=budget)).verdict == "pass"
    assert sanity.finds_known_optimum(lambda budget: Random(budget=budget)).verdict == "fail"
    assert (
        sanity.finds_known_optimum(
            lambda budget: PGD(budget=Budget(epsilon=1.1 * budget.epsilon))
        ).verdict
        == "fail"
    )  # one that cheats on epsilon


def test_p_worse_is_a_fair_coin_on_the_clips_where_two_attacks_differ():
    both, neither = np.array([True] * 20), np.array([False] * 20)
    assert sanity.p_worse(both, both) == sanity.p_worse(neither, both) == 1.0
    assert sanity.p_worse(both[:7], neither[:7]) == 0.5**7 < sanity.ALPHA
    assert sanity.p_worse(both[:6], neither[:6]) == 0.5**6 > sanity.ALPHA


def test_one_more_draw_of_noise_is_rarely_called_an_attack():
    rng = np.random.default_rng(0)
    p = [sanity.p_one_more_draw(rng.normal(size=12), rng.normal(size=(12, 8))) for _ in range(400)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert sanity.p_one_more_draw(rng.normal(size=12) - 2, rng.normal(size=(12, 8))) < 1e-4


def test_clean_accuracy_is_held_against_the_best_constant_answer():
    labels = ["joy"] * 6 + ["fear"] * 6
    speakers = [f"s{i % 3}" for i in range(12)]

    def verdict(answers: Sequence[str]) -> str:
        return sanity.clean_accuracy("v", labels, answers, speakers).verdict

    assert verdict(labels) == "pass"
    assert verdict(["joy"] * 12) == "fail"
    assert verdict(["joy"] * 6 + ["fear"] * 2 + ["joy"] * 4) == "warn"


def test_a_rate_is_counted_by_its_definition():
    rows = [
        {"label": "a", "clean_prediction": before, "adversarial_prediction": after, "target": "v"}
        for before, after in (("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"))
    ]
    found = selfcheck.counted(rows, {"v": {"labels": ["a", "b"]}})
    assert found["fooling_rate"] == (0.5, 4)  # one left the label, one came to it
    assert found["attack_success_rate"] == (0.5, 2)  # of two right ones, one was lost
    assert found["accuracy_before"] == found["accuracy_after"] == (0.5, 4)


def test_a_planted_example_is_counted(linear: LinearVictim):
    w = audio.snap(0.3 * linear.weight.sign().numpy())
    clips = [Clip("up", w, RATE), Clip("down", -w, RATE)]
    assert selfcheck.planted_example(linear, clips).verdict == "pass"
    assert selfcheck.planted_example(linear, clips[:1] * 3).verdict == "skipped"


# ---------------------------------------------------------------- copies across a split


def noise(seed: int, seconds: float = 0.5) -> np.ndarray:
    return audio.snap(0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)))


def parts(tmp_path: Path, train: np.ndarray, test: np.ndarray) -> list[Corpus]:
    made = []
    for part, extra in (("train", train), ("test", test)):
        rows = []
        own = [noise(i + 10 * (part == "test")) for i in range(4)]
        for number, samples in enumerate([*own, extra]):
            path = tmp_path / f"{part}{number}.wav"
            storage.write_bytes(path, audio.encode(samples, RATE))
            rows.append(Utterance(path.stem, path, "a", part))
        made.append(Corpus("c", tuple(rows), ("a",), part=part))
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.copy(),
        lambda x: (x // 3).astype(np.int16),
        lambda x: -x // 2,
        lambda x: np.roll(x, 400),
        lambda x: x[500:].copy(),
        lambda x: (x + np.random.default_rng(0).normal(0, 0.1 * x.std(), len(x))).astype(np.int16),
    ],
    ids=["equal", "quieter", "upside down", "later", "trimmed", "noisy"],
)
def test_one_recording_in_two_parts_is_found(tmp_path, change):
    samples = tone(0.5, 300.0, seed=3) // 2 + noise(99)
    found = selfcheck.shared_recordings(parts(tmp_path, samples, change(samples)))
    assert len(found) == 1 and "train4 in train and test4 in test" in found[0]


def test_two_recordings_are_not_taken_for_one(tmp_path):
    assert selfcheck.shared_recordings(parts(tmp_path, noise(98), noise(99))) == []


# ---------------------------------------------------------------- command and report


def test_the_command_names_a_failure_leaves_with_1_and_the_report_shows_it(tampered):
    copy_victim(tampered)
    # an honest evaluation knows a copy only by its name
    result = CliRunner().invoke(app, ["selfcheck", str(tampered), "--clips", "2", "--json"])
    assert result.exit_code == 1, result.output
    found = json.loads(result.stdout)
    assert " rows of results" in found["checked"] == told(tampered)["checked"]
    assert not re.search(r"\b1 [a-z]+s\b", found["checked"]), "one is no plural"
    assert [one["name"] for one in found["checks"] if one["verdict"] == "fail"] == [
        "white_box_marks"
    ]
    assert RunFolder.read(tampered).selfcheck.stale is False
    page = report.build(tampered).read_text(encoding="utf-8")
    first_screen = page[: page.index('<dl class="brief">')]
    assert "self-check failed: white box marks" in first_screen
    assert "Self-check: is this evaluation honest?" in page
    evaluate_again(tampered)
    summary = tampered / "results" / "summary.json"
    summary.write_text(summary.read_text() + "\n")
    assert RunFolder.read(tampered).selfcheck.stale is True


def test_the_command_shows_a_table_and_leaves_with_0(tampered):
    result = CliRunner().invoke(app, ["selfcheck", str(tampered), "--clips", "2"])
    assert result.exit_code == 0, result.output
    assert "0 of" in result.stdout and "known_optimum" in result.stdout
    assert "looked at: " in result.stdout
    assert "skipped" in result.stdout  # two clips tell nothing of attacks


def test_help_tells_of_the_exit_code():
    told = CliRunner().invoke(app, ["selfcheck", "--help"]).stdout
    assert "Exit code 1 when a check fails" in " ".join(told.split())


def test_what_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="no finished run"):
        selfcheck.selfcheck(tmp_path)
    result = CliRunner().invoke(app, ["selfcheck", str(tmp_path / "missing")])
    assert result.exit_code == 3 and not (tmp_path / "missing").exists()


def test_a_checked_run_is_not_checked_again_until_its_results_change(tampered):
    assert selfcheck.is_current(tampered, 0) and not selfcheck.is_current(tampered, 1)
    summary = tampered / "results" / "summary.json"
    summary.write_text(summary.read_text() + "\n")
    assert not selfcheck.is_current(tampered, 0)


def test_changes_so_large_that_noise_misleads_are_not_judged_by_their_direction():
    """A margin that falls below 0 whatever the signs: the check says that it cannot tell."""
    rng = np.random.default_rng(0)
    own, draws = -rng.random((8, 1)), -5 + rng.random((8, 4))
    margins = {"set": own, "flipped": own - 1, "resigned": draws, "shuffled": draws}
    check = sanity.changes._judged_direction("loud", margins, "sparsefool")
    assert check.verdict == "skipped" and "whatever their signs" in check.explanation
    margins |= {"resigned": 5 + rng.random((8, 4))}
    assert sanity.changes._judged_direction("loud", margins, "sparsefool").verdict == "pass"
    margins |= {"shuffled": 0.5 + own + rng.normal(size=(8, 4)) * 0.1, "set": own + 0.5}
    assert sanity.changes._judged_direction("noise", margins, "sparsefool").verdict == "fail"
