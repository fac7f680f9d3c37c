"""Shards of an attack and of an evaluation, merged, are the unsharded run, file by file."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch

from conftest import RATE, tone
from staanet import audio, results, storage
from staanet.errors import InvalidInput
from staanet.generator import save_generator
from staanet.shards import Shard, listing
from staanet.victims import build_victim
from staanet.warm_start import mirror_of
from test_cli import staanet

TIMED = {results.TIMES, ".lock"}


def hashes(folder):
    """The sha256 of each file but those that hold times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Seven clips and a broken one, two untrained victims, and a mirror of the first."""
    root = tmp_path_factory.mktemp("shards")
    for number in range(7):
        samples = tone(0.2 + 0.01 * number, 200 + 90 * number, number)
        storage.write_bytes(root / "clips" / f"c{number}.wav", audio.encode(samples, RATE))
    (root / "clips" / "broken.wav").write_bytes(b"RIFF")
    torch.manual_seed(0)
    for name in ("emo18", "zhao19"):
        victim = build_victim(name, ("high", "low", "none")).eval()
        victim.save_pretrained(root / name)
        if name == "emo18":
            sha256 = storage.read_card(root / name, "victim")["sha256"]
            save_generator(
                mirror_of(victim, 0.1), root / "g", source="emo18", source_folder="../emo18",
                source_sha256=sha256, epsilon=0.05, max_density=0.1,
            )  # fmt: skip
    for folder, options in {"whole": (), **{f"s{i}": ("--shard", f"{i}/3") for i in (1, 2, 3)}}.items():
        done = staanet("attack", "clips", "--generator", "g", "--out", folder, *options, cwd=root)
        assert done.returncode in (0, 4), done.stderr
    return root


def test_a_part_is_every_nth_and_all_parts_are_all():
    parts = [Shard(number, 4).part(range(10)) for number in range(1, 5)]
    assert sorted(n for part in parts for n in part) == list(range(10))
    assert [len(part) for part in parts] == [3, 3, 2, 2]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/1000000", "-1/2", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InvalidInput, match="--shard 3/16"):
        Shard.parse(text)


def test_a_listing_is_of_ids_in_order():
    assert listing(["a", "b"]) == listing(["a", "b"]) != listing(["b", "a"])
    assert listing(["ab"]) != listing(["a", "b"])


def test_merged_shards_of_an_attack_are_the_whole_attack(world, tmp_path):
    done = staanet("merge", "s3", "s1", "s2", "--out", tmp_path / "merged", cwd=world)
    assert done.returncode == 4 and "7 clips of 3 shards" in done.stdout, done.stderr
    assert "broken" in done.stderr  # put aside by one shard, and so by the whole
    assert hashes(tmp_path / "merged") == hashes(world / "whole")
    assert len(hashes(world / "whole")) == 7 * 2 + 3
    again = staanet("merge", "s3", "s1", "s2", "--out", tmp_path / "merged", cwd=world)
    assert again.returncode == 4 and hashes(tmp_path / "merged") == hashes(world / "whole")


def test_a_finished_shard_is_skipped_and_not_taken_for_another(world):
    done = staanet("attack", "clips", "--generator", "g", "--out", "s1", "--shard", "1/3", cwd=world)
    assert done.returncode == 4 and "answers changed" in done.stdout, done.stderr
    done = staanet("attack", "clips", "--generator", "g", "--out", "s1", "--shard", "2/3", cwd=world)
    assert done.returncode == 3 and "was made with shard" in done.stderr


def test_merged_shards_of_an_evaluation_are_the_whole_evaluation(world, tmp_path):
    def evaluated(out, *options):
        done = staanet(
            "evaluate", "whole", "--target", "emo18", "--target", "zhao19", "--channel", "mulaw",
            "--out", tmp_path / out, *options, cwd=world,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    evaluated("all")
    for number in range(1, 10):  # two shards more than clips
        evaluated(f"e{number}", "--shard", f"{number}/9")
    done = staanet(
        "merge", *(tmp_path / f"e{n}" for n in range(9, 0, -1)), "--out", tmp_path / "merged",
        cwd=world,
    )  # fmt: skip
    assert done.returncode == 0 and "after channel" in done.stdout, done.stderr
    assert hashes(tmp_path / "merged") == hashes(tmp_path / "all")


def refused(world, *shards, out="m"):
    done = staanet("merge", *shards, "--out", out, cwd=world)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_gaps_overlaps_and_other_things_are_refused(world, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(world / "s1", copy)
    assert "1 are missing: 2. Make them: staanet attack ... --shard 2/3" in refused(
        world, "s1", "s3", out=tmp_path / "m"
    )
    assert "is shard 1/3, and so is s1" in refused(
        world, "s1", copy, "s2", "s3", out=tmp_path / "m"
    )
    assert "is no shard" in refused(world, "whole", "s1", out=tmp_path / "m")
    assert "is one of the shards" in refused(world, "s1", "s2", "s3", out="s2")
    assert not (tmp_path / "m" / "card.json").exists()


@pytest.mark.parametrize("options, said", [
    (("--epsilon", "0.02"), "epsilon"), (("--seed", "5"), "seed"), (("--attack", "random"), "title"),
])  # fmt: skip
def test_shards_of_other_settings_are_refused(world, tmp_path, options, said):
    done = staanet("attack", "clips", "--generator", "g", "--out", tmp_path / "s2", "--shard", "2/3",
                   *options, cwd=world)  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    message = refused(world, "s1", tmp_path / "s2", "s3", out=tmp_path / "m")
    assert said in message and "Make that shard again" in message


def test_shards_of_another_list_of_clips_are_refused(world, tmp_path):
    shutil.copytree(world / "clips", tmp_path / "clips")
    storage.write_bytes(tmp_path / "clips" / "c9.wav", audio.encode(tone(0.3, 500), RATE))
    done = staanet("attack", tmp_path / "clips", "--generator", "g", "--out", tmp_path / "s2",
                   "--shard", "2/3", cwd=world)  # fmt: skip
    assert done.returncode in (0, 4), done.stderr
    assert "its list of clips is" in refused(world, "s1", tmp_path / "s2", "s3", out=tmp_path / "m")


def test_a_changed_file_of_a_shard_is_found(world, tmp_path):
    shutil.copytree(world / "s1", tmp_path / "s1")
    path = sorted((tmp_path / "s1" / "adversarial").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[60] ^= 0x40
    path.write_bytes(bytes(data))
    assert "metadata.csv says" in refused(world, tmp_path / "s1", "s2", "s3", out=tmp_path / "m")


def test_an_unfinished_or_single_shard_is_told(world, tmp_path):
    shutil.copytree(world / "s1", tmp_path / "s1")
    (tmp_path / "s1" / "card.json").unlink()
    assert "no card.json" in refused(world, tmp_path / "s1", "s2", "s3", out=tmp_path / "m")
    done = staanet("evaluate", "s1", "--target", "emo18", "--out", tmp_path / "r", cwd=world)
    assert done.returncode == 3 and "staanet merge" in done.stderr


def test_a_killed_attack_goes_on_only_with_the_same_settings_and_clips(world, tmp_path):
    whole = ("attack", "clips", "--generator", "g", "--out", tmp_path / "o")
    assert staanet(*whole, cwd=world).returncode == 4
    card = json.loads((tmp_path / "o" / "card.json").read_text())
    inputs = {k: v for k, v in card["inputs"].items() if k != "clips"}
    (tmp_path / "o" / "card.json").unlink()
    journal = storage.Journal(tmp_path / "o" / "journal.jsonl")
    journal.append({"inputs": inputs})
    row = results.read_rows(tmp_path / "o")[0]
    journal.append({**row, "sha256": "00" * 32, "l0": "-1"})  # as of a clip that is another now
    journal.append({**row, "id": "gone", "sha256": "00" * 32})
    other = staanet(*whole, "--epsilon", "0.01", cwd=world)
    assert other.returncode == 3 and "unfinished set of other settings" in other.stderr
    assert staanet(*whole, cwd=world).returncode == 4
    assert hashes(tmp_path / "o") == hashes(world / "whole")
