"""Shards of an attack and of an evaluation, merged, are the unsharded run, file by file."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from tests.support.commands import staanet
from tests.support.folders import hashes
from tests.support.speech import RATE, tone

from staanet import audio, corpora, pipeline, storage
from staanet.config import AttackRecipe
from staanet.errors import InvalidInput
from staanet.evaluation import perceptual
from staanet.evaluation.perceptual import Score
from staanet.generators.registry import save_generator
from staanet.generators.warm_start import backward_net_from
from staanet.results import adversarial_set
from staanet.storage.shards import Shard, hash_ids
from staanet.victims import build_victim, load_victim

WINDOW_S = 30.0  # the command's own


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Seven clips and a broken one, two untrained victims, a mirror of the first, and its attack."""
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
                backward_net_from(victim, 0.1),
                root / "g",
                source="emo18",
                source_folder="../emo18",
                source_sha256=sha256,
                epsilon=0.05,
                max_density=0.1,
            )
    attacked(root, root / "whole")
    for number in (1, 2, 3):
        attacked(root, root / f"s{number}", shard=Shard(number, 3))
    return root


def attacked(root, out, clips="clips", shard=None, seed=0, **recipe):
    """What ``staanet attack`` does, in this process."""
    victim, context = load_victim(root / "emo18"), pipeline.Context(seed=seed)
    corpus = corpora.unlabelled_corpus([root / clips])
    settings = {"attack": "staa", "epsilon": 0.05, "max_density": 0.1, **recipe}
    plan = pipeline.plan_attack(
        settings["attack"], AttackRecipe(**settings), victim, generator=root / "g", context=context
    )
    if shard is not None:
        plan = pipeline.shard_plan(plan, shard, corpus, WINDOW_S)
        corpus = replace(corpus, utterances=tuple(shard.part(corpus.utterances)))
    source = pipeline.ReadingClips(corpus, victim, context, WINDOW_S)
    made = pipeline.attack(plan, source, out, context=context)
    context.quarantine.save(out)
    return made


def merged(out, *shards):
    return pipeline.merge(shards, out, context=pipeline.Context(quarantine=pipeline.Quarantine()))


def test_a_part_is_every_nth_and_all_parts_are_all():
    parts = [Shard(number, 4).part(range(10)) for number in range(1, 5)]
    assert sorted(n for part in parts for n in part) == list(range(10))
    assert [len(part) for part in parts] == [3, 3, 2, 2]


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "1", "1/0", "a/b", "1/1000000", "-1/2", "1/2/3", ""]
)
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InvalidInput, match="--shard 3/16"):
        Shard.parse(text)


def test_a_listing_is_of_ids_in_order():
    assert hash_ids(["a", "b"]) == hash_ids(["a", "b"]) != hash_ids(["b", "a"])
    assert hash_ids(["ab"]) != hash_ids(["a", "b"])


def test_merged_shards_of_an_attack_are_the_whole_attack(world, tmp_path):
    done = staanet(
        "attack",
        world / "clips",
        "--generator",
        "g",
        "--out",
        tmp_path / "s2",
        "--shard",
        "2/3",
        cwd=world,
    )
    assert done.returncode in (0, 4) and "answers changed" in done.stdout, done.stderr
    assert hashes(tmp_path / "s2") == hashes(world / "s2")
    done = staanet("merge", "s3", "s1", tmp_path / "s2", "--out", tmp_path / "m", cwd=world)
    assert done.returncode == 4 and "7 clips of 3 shards" in done.stdout, done.stderr
    assert "broken" in done.stderr  # put aside by one shard, and so by the whole
    assert hashes(tmp_path / "m") == hashes(world / "whole")
    assert len(hashes(world / "whole")) == 7 * 2 + 3
    assert len(merged(tmp_path / "m", world / "s1", world / "s2", world / "s3")) == 7  # once more
    assert hashes(tmp_path / "m") == hashes(world / "whole")


def test_a_finished_shard_is_skipped_and_not_taken_for_another(world):
    before = hashes(world / "s1")
    attacked(world, world / "s1", shard=Shard(1, 3))
    assert hashes(world / "s1") == before
    with pytest.raises(InvalidInput, match="was made with"):
        attacked(world, world / "s1", shard=Shard(2, 3))
    with pytest.raises(InvalidInput, match="was made from other data: new since"):
        attacked(world, world / "s1")


def test_merged_shards_of_an_evaluation_are_the_whole_evaluation(world, tmp_path, monkeypatch):
    targets = [load_victim(world / name) for name in ("emo18", "zhao19")]
    scores = {"pesq_wb": Score(2.5), "stoi": Score(None, "too short (0.2 s)")}
    monkeypatch.setattr(perceptual, "panel", lambda *pair: scores)

    def judged(out, shard=None):
        return pipeline.evaluate(
            [world / "whole"],
            targets,
            out,
            channels=["mulaw"],
            perceptual=True,
            shard=shard,
            context=pipeline.Context(),
        )

    judged(tmp_path / "all")
    parts = [tmp_path / f"e{number}" for number in range(1, 10)]  # two shards more than clips
    for number, part in enumerate(parts, start=1):
        judged(part, Shard(number, 9))
    merged(tmp_path / "m", *reversed(parts))
    assert hashes(tmp_path / "m") == hashes(tmp_path / "all")
    with pytest.raises(InvalidInput, match=r"1 of 9 shards is missing \(number 9\)"):
        merged(tmp_path / "n", *parts[:-1])
    summary = storage.read_json(parts[0] / "summary.json")
    summary["shard"]["sha256"] = {"emo18": "other weights"}
    storage.write_json(parts[0] / "summary.json", summary)
    with pytest.raises(InvalidInput, match="weights of targets"):
        merged(tmp_path / "n", *parts)


def test_shards_of_an_evaluation_by_command(world, tmp_path):
    for number in (1, 2):
        done = staanet(
            "evaluate",
            "whole",
            "--target",
            "zhao19",
            "--out",
            tmp_path / f"e{number}",
            "--shard",
            f"{number}/2",
            cwd=world,
        )
        assert done.returncode == 0, done.stderr
    done = staanet("merge", tmp_path / "e1", tmp_path / "e2", "--out", tmp_path / "m", cwd=world)
    assert done.returncode == 0 and "fools zhao19" in done.stdout, done.stderr
    assert storage.read_json(tmp_path / "m" / "summary.json")["cells"][0]["count"] == 7


def test_gaps_overlaps_and_other_things_are_refused(world, tmp_path):
    one, two, three = (world / f"s{number}" for number in (1, 2, 3))
    copy = tmp_path / "copy"
    shutil.copytree(one, copy)
    for shards, said in {
        (one, three): "Make each missing shard, such as: staanet attack ... --shard 2/3",
        (one, copy, two, three): "is shard 1/3, and so is",
        (world / "whole", one): "is no shard",
    }.items():
        with pytest.raises(InvalidInput) as error:
            merged(tmp_path / "m", *shards)
        assert said in str(error.value)
    with pytest.raises(InvalidInput, match="is one of the shards"):
        merged(two, one, two, three)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "other, said",
    [({"epsilon": 0.02}, "epsilon"), ({"seed": 5}, "seed"), ({"attack": "random"}, "random")],
)
def test_shards_of_other_settings_are_refused(world, tmp_path, other, said):
    attacked(world, tmp_path / "s2", shard=Shard(2, 3), **other)
    with pytest.raises(InvalidInput) as error:
        merged(tmp_path / "m", world / "s1", tmp_path / "s2", world / "s3")
    assert said in str(error.value) and "Make that shard again" in str(error.value)


def test_shards_of_another_list_of_clips_are_refused(world, tmp_path):
    shutil.copytree(world / "clips", tmp_path / "clips")
    storage.write_bytes(tmp_path / "clips" / "c9.wav", audio.encode(tone(0.3, 500), RATE))
    attacked(world, tmp_path / "s2", tmp_path / "clips", shard=Shard(2, 3))
    with pytest.raises(InvalidInput, match="its list of clips is"):
        merged(tmp_path / "m", world / "s1", tmp_path / "s2", world / "s3")


def test_a_changed_file_of_a_shard_is_found(world, tmp_path):
    shutil.copytree(world / "s1", tmp_path / "s1")
    path = sorted((tmp_path / "s1" / "adversarial").iterdir())[0]
    data = bytearray(path.read_bytes())
    data[61] ^= 0x40
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidInput, match=r"metadata\.csv says"):
        merged(tmp_path / "m", tmp_path / "s1", world / "s2", world / "s3")


def test_an_unfinished_or_single_shard_is_told(world, tmp_path):
    shutil.copytree(world / "s1", tmp_path / "s1")
    (tmp_path / "s1" / "card.json").unlink()
    with pytest.raises(InvalidInput, match=r"no card\.json"):
        merged(tmp_path / "m", tmp_path / "s1", world / "s2", world / "s3")
    with pytest.raises(InvalidInput, match="Merge the shards first"):
        pipeline.evaluate(
            [world / "s1"],
            [load_victim(world / "emo18")],
            tmp_path / "r",
            context=pipeline.Context(),
        )


def test_a_killed_attack_goes_on_only_with_the_same_settings_and_clips(world, tmp_path):
    shutil.copytree(world / "whole", tmp_path / "o")
    card = storage.read_card(tmp_path / "o", "adversarial")
    row = adversarial_set.read_rows(tmp_path / "o")[0]
    (tmp_path / "o" / "card.json").unlink()
    begun = {k: v for k, v in card["inputs"].items() if k != "clips"}
    storage.write_json(tmp_path / "o" / "unfinished.json", begun)
    journal = storage.Journal(tmp_path / "o" / "journal.jsonl")
    journal.append({**row, "sha256": "00" * 32, "l0": "-1"})  # as of a clip that is another now
    journal.append({**row, "id": "gone", "sha256": "00" * 32})
    with pytest.raises(InvalidInput, match="was begun with recipe"):
        attacked(world, tmp_path / "o", epsilon=0.01)
    attacked(world, tmp_path / "o")
    assert hashes(tmp_path / "o") == hashes(world / "whole")
