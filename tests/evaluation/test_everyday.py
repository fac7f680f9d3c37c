"""Everyday change: figures that an independent computation from files gives again, thresholds, files."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from tests.support.speech import RATE, clip

from staanet import config, pipeline, storage
from staanet.core import Victim
from staanet.evaluation.everyday import (
    CARD_CONDITIONS,
    CONDITIONS,
    change_clip,
    measure_everyday,
    unchanged_shares,
)
from staanet.pipeline import Context, everyday
from staanet.report import tables
from staanet.report.everyday_tables import everyday_sentences, everyday_table
from staanet.transforms import parse_transform

FEW = {
    "unheard": {"softer": "gain:-6", "zeros": "silence:1000,0", "cut": "cut:0,500"},
    "device": {"clipped": "clipping:10"},
    "noise": {"voices": "babble:3", "loud noise": "noise:-10"},
    "phone": {"call": "bandpass:300,3400 + mulaw"},
}


class LevelVictim(Victim):
    """Answers by the energy of the first and the last tenth of a second."""

    architecture = "level"

    def __init__(self) -> None:
        super().__init__(name="level", labels=("quiet", "loud", "rising"), sample_rate=RATE)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, waveforms, lengths=None):
        energy = waveforms.square().mean(dim=1).sqrt()
        rise = waveforms[:, -1600:].square().mean(dim=1) - waveforms[:, :1600].square().mean(dim=1)
        return self.weight * torch.stack([0.12 - energy, energy - 0.12, 4 * rise], dim=1)


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    clips = []
    for number in range(8):
        level = 0.1 + 0.4 * rng.random()
        sound = clip(0.6, 200.0 + 90 * number, number, id=f"c{number}", speaker=f"s{number % 4}")
        samples = (sound.pcm16 * level).astype(np.int16)
        clips.append(
            type(sound)(sound.id, samples, RATE, ("quiet", "loud")[number % 2], sound.speaker)
        )
    return clips


def test_a_few_conditions_recomputed_from_files_agree_to_the_clip(clips, tmp_path):
    victim = LevelVictim().eval()
    measured = measure_everyday(victim, clips, conditions=FEW)
    by_name = {condition.name: condition for condition in measured.conditions}

    def by_hand(name: str, x: np.ndarray) -> np.ndarray:
        if name == "softer":
            return np.round(x * 10 ** (-6 / 20))
        if name == "zeros":
            return np.concatenate([np.zeros(1000), x])
        if name == "cut":
            return x[:-500]
        limit = np.sort(np.abs(x))[::-1][int(0.1 * len(x))]  # of clipping
        return np.clip(x, -limit, limit)

    for name in ("softer", "zeros", "cut", "clipped"):
        stays = []
        for item in clips:
            path = tmp_path / f"{name}-{item.id}.wav"
            soundfile.write(path, by_hand(name, item.pcm16.astype(float)).astype(np.int16), RATE)
            read, _ = soundfile.read(path, dtype="float32")
            answer = victim.labels[int(victim(torch.from_numpy(read)[None]).argmax())]
            assert by_name[name].answers[item.id] == answer, (name, item.id)
            stays.append(answer == measured.clean[item.id])
        assert by_name[name].unchanged.value == np.mean(stays)


def test_what_passes_is_decided_by_the_share_that_stays_and_by_uar(clips):
    measured = measure_everyday(LevelVictim().eval(), clips, conditions=FEW)
    by_name = {condition.name: condition for condition in measured.conditions}
    assert not by_name["loud noise"].passed and by_name["loud noise"].unchanged.value < 1
    assert by_name["loud noise"].row()["least_unchanged"] == 0.9
    assert by_name["zeros"].uar_loss.low <= by_name["zeros"].uar_loss.value
    summary = measured.summary()
    assert summary["of"] == 7 and summary["passed"] == sum(c.passed for c in measured.conditions)
    assert summary["worst"]["noise"]["unchanged"]["value"] == min(
        by_name[name].unchanged.value for name in FEW["noise"]
    )


def test_the_card_s_conditions_are_some_of_all_and_shares_of_answers(clips):
    shares = unchanged_shares(LevelVictim().eval(), clips[:3])
    assert set(shares) == set(CARD_CONDITIONS)
    assert all(0 <= share <= 1 for share in shares.values())


def test_babble_lies_so_far_below_and_is_the_same_each_time(clips):
    first, again = (change_clip("babble:10", clips[0], clips) for _ in range(2))
    assert np.array_equal(first.pcm16, again.pcm16)
    added = first.pcm16.astype(float) - clips[0].pcm16
    ratio = np.square(clips[0].pcm16.astype(float)).sum() / np.square(added).sum()
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.2)


def test_every_condition_is_a_transform_of_the_registry():
    for group in CONDITIONS.values():
        for text in group.values():
            for part in text.split(" + "):
                assert part.startswith("babble:") or not parse_transform(part).problem_at(RATE)


def test_the_stage_keeps_summary_and_answers_and_is_done_once(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("staanet.pipeline.everyday_change.CONDITIONS", FEW)
    victim = LevelVictim().eval()
    few = clips[:4]
    result = everyday(victim, few, tmp_path / "out", Context())
    assert result == json.loads((tmp_path / "out" / "everyday.json").read_text())
    lines = (tmp_path / "out" / "answers.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[0].startswith("id,as it is,")
    before = storage.sha256(tmp_path / "out" / "everyday.json")
    everyday(victim, few, tmp_path / "out", Context())
    assert storage.sha256(tmp_path / "out" / "everyday.json") == before
    assert len(everyday_table(result).rows) == result["of"]
    assert "conditions pass" in everyday_sentences(result)[0]


def test_a_run_measures_each_victim_and_its_report_shows_a_table_of_each(clips, tmp_path):
    recipe = config.load_recipe("quick", ["everyday=true"])
    stages = [stage.name for stage in pipeline.dry_run(recipe, tmp_path / "new", Context()).stages]
    assert [name for name in stages if name.startswith("everyday")] == [
        "everyday emo18",
        "everyday zhao19",
    ]
    for name in recipe.victims:
        victim = LevelVictim().eval()
        victim.name = name
        summary = measure_everyday(victim, clips[:3], conditions=FEW).summary()
        storage.write_json(tmp_path / "everyday" / name / "everyday.json", summary)
    shown = tables.everyday_tables(SimpleNamespace(folder=tmp_path))
    assert [table.key for table in shown] == ["everyday-emo18", "everyday-zhao19"]
    assert "1000 zeros" not in shown[0].to_markdown() and "FAIL" in shown[0].to_markdown()
