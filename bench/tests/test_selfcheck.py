"""The bench of the self-check: a part of a corpus for each run, and a section that counts what went wrong."""

from __future__ import annotations

import argparse
from collections import Counter

from bench import selfcheck

from staanet import corpora


def trial(tmp_path, corpus, seed):
    return selfcheck.Trial(tmp_path / str(seed), corpus, selfcheck.PAIRS[0], seed, 2, 4)


def test_a_run_gets_some_utterances_of_each_speaker_and_class(tiny_corpus, tmp_path):
    spec = f"folder:{tiny_corpus}"
    whole = corpora.load_corpus(spec)
    counts = Counter((u.speaker, u.label) for u in whole.utterances)
    texts = []
    for seed in (1, 1, 2):
        path, root = trial(tmp_path, spec, seed).write_part()
        texts.append(path.read_text())
        part = corpora.load_corpus(f"folder:{path}", root=root)
        drawn = Counter((u.speaker, u.label) for u in part.utterances)
        assert drawn == {key: min(n, selfcheck.UTTERANCES) for key, n in counts.items()}
    assert texts[0] == texts[1]


def test_the_section_counts_accusations_and_missed_frauds():
    passed = {"name": "rates", "subject": "", "verdict": "pass"}
    accused = {"name": "gradients", "subject": "emo18", "verdict": "fail"}
    common = {"corpus": "emodb", "source": "emo18", "run_s": 9.0, "check_s": 1.0}
    trials = [
        common | {"seed": 0, "checks": [passed], "missed": []},
        common | {"seed": 1, "checks": [passed, accused], "missed": ["two files exchanged"]},
    ]
    options = argparse.Namespace(corpora=["emodb:/data"], runs=2, steps=60, clips=32)
    text = selfcheck.section(trials, options)
    total = 2 * len(selfcheck.FRAUDS)
    assert f"accused 1 of 2 honest runs. It missed 1 of {total} frauds." in text
    assert "10 to 10 % of the time of run and check" in text and "/data" not in text
    assert "| emodb | emo18 | 1 | 9 | 1 | gradients emo18 | none | two files exchanged |" in text
