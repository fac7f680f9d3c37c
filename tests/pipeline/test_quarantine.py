"""Clips that are put aside: each once, in an order of their own, beside whatever the file held before."""

import json
import time

from staanet import storage
from staanet.errors import UnusableClip
from staanet.pipeline import Quarantine


def aside(*names: str) -> Quarantine:
    made = Quarantine()
    for name in names:
        made.add(name, UnusableClip("not audio (0 bytes)", where=f"{name}.wav"))
    return made


def test_each_is_told_once_and_in_order(tmp_path):
    made = aside("b", "a", "b")
    assert [row["id"] for row in made.rows] == ["b", "a"]
    assert [row["id"] for row in made.in_order()] == ["a", "b"]
    made.save(tmp_path)
    aside("c", "a").save(tmp_path)
    made.save(tmp_path)
    assert [row["id"] for row in storage.Journal(tmp_path / "quarantine.jsonl")] == ["a", "b", "c"]


def test_rows_of_another_hand_are_left_as_they_are(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    path.write_text('{"id": ["a"], "file": null}\n{}\n')
    aside("a").save(tmp_path)
    lines = path.read_text().splitlines()
    assert lines[:2] == ['{"id": ["a"], "file": null}', "{}"]
    assert json.loads(lines[2]) == {"id": "a", "file": "a.wav", "reason": "not audio (0 bytes)"}


def test_many_take_time_by_their_number():
    """Ten times as many take about ten times as long, not a hundred times."""

    def seconds(count: int) -> float:
        begun = time.thread_time()
        assert len(aside(*map(str, range(count))).rows) == count
        return time.thread_time() - begun

    seconds(1000)
    assert seconds(40_000) < 20 * seconds(4_000) + 0.5
