"""An audit of a model that only answers, and of one with gradients, through the real command."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace

import pytest
from tests.support.audit_facts import SMALL_AUDIT, row, sure
from tests.support.audit_facts import audit_facts as facts
from tests.support.commands import staanet
from tests.support.onnx_files import make_black_box
from tests.support.speech import RATE, tone

from staanet import audio, pipeline, storage, training
from staanet.config import AuditRecipe
from staanet.corpora import load_corpus
from staanet.errors import InvalidInput
from staanet.report.audit_pages import audit_markdown, audit_page
from staanet.report.audit_verdict import audit_outcome, audit_verdict
from staanet.victims import build_victim, load_victim
from staanet.victims.export import export_onnx

QUICK = [
    "--surrogate",
    "zhao19",
    "--surrogate-steps",
    4,
    "--generator-steps",
    2,
    "--clips",
    4,
    "--query-clips",
    1,
    "--queries",
    5,
    "--epsilon",
    "0.02,0.05",
    "--density",
    "0.3",
    "--channel",
    "mulaw",
    "--defence",
    "median:3",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tones by six speakers, a victim that tells them apart, and its export."""
    pytest.importorskip("onnxruntime", reason="extra onnx")
    root = tmp_path_factory.mktemp("audit")
    for number, (label, hz) in enumerate((("high", 1500.0), ("low", 200.0))):
        for s in range(6):
            for take in range(2):
                storage.write_bytes(
                    root / "tones" / label / f"s{s}" / f"{take}.wav",
                    audio.encode(
                        tone(0.3, hz * (1 + 0.02 * s), 100 * number + 10 * s + take), RATE
                    ),
                )
    training.seed_weights(0)
    victim = build_victim("zhao19", ("high", "low")).requires_grad_(False).eval()
    victim.save_pretrained(root / "victim")
    export_onnx(victim, root / "zhao19.onnx")
    make_black_box(root / "zhao19.onnx")
    return root


@pytest.fixture(scope="module")
def audited(world):
    done = staanet(
        "audit",
        "--victim",
        f"onnx:{world / 'zhao19.onnx'}",
        "--corpus",
        f"folder:{world / 'tones'}",
        "--out",
        "audit",
        *QUICK,
        cwd=world,
    )
    assert done.returncode == 0, done.stderr
    world.joinpath("said.txt").write_text(done.stdout)
    return world / "audit"


def test_a_black_box_is_audited_by_transfer_and_by_queries(audited):
    told = json.loads((audited / "audit.json").read_text())
    assert set(told["attackers"]) == {"noise", "transfer", "queries"}
    assert not told["victim"]["gradients"] and told["passed"] is None
    assert [s["name"] for s in told["sources"]] == ["surrogate-zhao19"]
    plain = [c for c in told["cells"] if c["channel"] == "pcm16"]
    assert len(plain) == 4 * 2 + 1  # four attacks at two budgets, and the questions
    assert told["worst"]["fooling_rate"] == max(c["fooling_rate"] for c in plain)
    assert {b["epsilon"] for b in told["budgets"]} == {0.02, 0.05}
    assert told["everyday"]["of"] > 50 and told["everyday"]["clips"] == 4
    assert [c["channel"] for c in told["channels"]] == ["mulaw"]
    (defence,) = told["defences"]
    assert defence["defence"] == "median:3" and defence["crafted_on"] == "surrogate-zhao19"
    assert defence["adaptive"]["source"] == "surrogate-zhao19+median"


def test_the_surrogate_has_met_no_test_speaker(audited, world):
    from staanet import corpora

    corpus = corpora.load_corpus(f"folder:{world / 'tones'}")
    card = json.loads((audited / "surrogates" / "surrogate-zhao19" / "card.json").read_text())
    assert card["inputs"]["split"] == corpus.split(0)[2].split_hash


def test_the_verdict_is_on_the_screen_in_markdown_and_on_the_page(audited, world):
    told = json.loads((audited / "audit.json").read_text())
    said, page = (world / "said.txt").read_text(), (audited / "audit.html").read_text()
    assert all(sentence in said for sentence in told["verdict"])
    assert "Content-Security-Policy" in page and not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "# Audit of zhao19" in (audited / "audit.md").read_text()
    assert any("staanet evaluate" in line for line in told["commands"])
    assert any("staanet audit" in line for line in told["commands"])


def test_the_commands_of_repeat_run_as_printed(audited, world):
    told = json.loads((audited / "audit.json").read_text())
    page = html.unescape((audited / "audit.html").read_text())
    for number, line in enumerate(told["commands"]):
        assert f"<code>{line}</code>" in page
        done = staanet(*shlex.split(line)[1:], cwd=world)
        assert done.returncode == 0, (number, done.stderr)
    again = json.loads((world / "check" / "summary.json").read_text())
    plain = next(cell for cell in again["cells"] if cell["channel"] == "pcm16")
    assert plain["fooling_rate"]["value"] == told["worst"]["fooling_rate"]


def test_the_page_shows_figures_and_clips_of_the_worst_attack(audited):
    told = json.loads((audited / "audit.json").read_text())
    page = (audited / "audit.html").read_text()
    assert {cell["attacker"] for cell in told["cells"]} == {"noise", "transfer", "queries"}
    assert page.count("<audio ") >= 4 and page.count('class="chart"') >= 2
    assert told["worst"]["title"] in html.unescape(page)


def test_a_finished_audit_is_told_again_without_work_and_its_code_is_the_limit(audited, world):
    before = {p: p.stat().st_mtime_ns for p in audited.rglob("model.safetensors")}
    given = [
        "audit",
        "--victim",
        f"onnx:{world / 'zhao19.onnx'}",
        "--corpus",
        f"folder:{world / 'tones'}",
        "--out",
        "audit",
        *QUICK,
    ]
    done = staanet(*given, "--fail-above", 1.0, "--json", cwd=world)
    assert done.returncode == 0 and json.loads(done.stdout)["passed"] is True
    strict = staanet(*given, "--fail-above", 0.0, cwd=world)
    facts = json.loads((audited / "audit.json").read_text())
    rows = [*facts["attackers"].values(), facts["worst"], *facts["cells"]]
    if any(row["low"] is not None and row["low"] > 0 for row in rows):
        code, begins = 1, "FAILED"
    elif all(row["high"] is not None and row["high"] <= 0 for row in rows):
        code, begins = 0, "Passed"
    else:
        code, begins = 7, "Inconclusive"
    assert strict.returncode == code and strict.stdout.startswith(begins), strict.stderr
    assert before == {p: p.stat().st_mtime_ns for p in audited.rglob("model.safetensors")}
    other = staanet(*given, "--seed", 1, cwd=world)
    assert other.returncode == 3 and "with seed = 0, now it is 1" in other.stderr


def test_a_model_with_gradients_is_attacked_through_them_too(world):
    done = staanet(
        "audit",
        "--victim",
        "victim",
        "--corpus",
        f"folder:{world / 'tones'}",
        "--source",
        "victim",
        "--out",
        "white",
        *QUICK,
        "--epsilon",
        "0.05",
        "--query-clips",
        0,
        "--json",
        cwd=world,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    # the source is the victim under another name: what is crafted on it is white box, not transfer
    assert set(told["attackers"]) == {"noise", "white_box"}
    assert {s["name"]: s["white_box"] for s in told["sources"]} == {
        "source-zhao19": False,
        "zhao19": True,
    }
    assert any("may have met the test speakers" in flag for flag in told["flags"])
    assert {c["source"] for c in told["cells"] if c["white_box"]} == {"source-zhao19", "zhao19"}


@pytest.mark.parametrize(
    "given, said",
    [
        (["--fail-above", 30], "fail_above: input should be less than or equal to 1 (got 30.0)"),
        (["--channel", "mp4"], "mp4"),
        (["--defence", "medium:3"], "Did you mean 'median'"),
        (["--epsilon", "0.1,x"], "--epsilon"),
        (["--epsilon", "0.1,0.1"], "twice"),
        (["--source", "onnx:zhao19.onnx"], "no gradients"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(world, given, said):
    done = staanet(
        "audit",
        "--victim",
        "victim",
        "--corpus",
        f"folder:{world / 'tones'}",
        "--out",
        "no",
        *given,
        cwd=world,
    )
    assert done.returncode == 3 and said in done.stderr and "Traceback" not in done.stderr
    assert not (world / "no" / "surrogates").exists()


def test_a_recipe_names_each_value_once():
    with pytest.raises(InvalidInput, match="densities names a value twice"):
        AuditRecipe(densities=(0.1, 0.1))


def test_a_defence_is_measured_by_the_attackers_whom_it_met():
    """Questions fooled all, but nobody asked through the defence: it halves nothing of that."""
    told = facts(1.0, 0.1, 0.4, 0.3)
    told["attackers"] = {"transfer": row(0.6), "queries": row(1.0, count=2)}
    said = " ".join(audit_verdict(told))
    assert "halve the 60.0 % of these attackers, to 40.0 %" in said
    assert "No attack with queries was tried against a defence." in said


def test_a_model_that_nothing_changes_is_said_to_be_one_in_words_that_fit():
    told = facts(0.0, 0.0, 0.0, None)
    told["attackers"] = {"transfer": row(0.0)}
    told["channels"] = [{**row(0.0), "channel": "mulaw"}]
    told["defences"][0]["static"] = row(0.0)
    text = " ".join(audit_verdict(told))
    assert "No attack that was tried changes an answer: 0.0 % of" in text
    assert "After the channel mulaw, no attack that was tried changes an answer." in text
    assert "No defence was needed against these attackers, because no attack succeeded." in text
    assert not any(
        words in text for words in ("The worst attack changes", "helped against", "Noise alone")
    )


def test_one_speaker_gives_no_interval():
    told = facts(0.5, 0.1, 0.4, None)
    told["corpus"] |= {"speakers": 1}
    text = " ".join(audit_verdict(told))
    assert (
        "clips by 1 speaker." in text
        and "by one speaker. An attack that was not tried may be stronger" in text
    )
    assert "No interval can be given from" in text and "1 test speakers" not in text


@pytest.mark.parametrize(
    "worst, noise, adaptive, limit, begins, holds, lacks",
    [
        (0.8, 0.1, 0.7, 0.3, "FAILED", "lowers but does not halve", "Noise alone"),
        (0.2, 0.15, 0.05, 0.3, "Passed", "halves the 20.0 % of these attackers", "FAILED"),
        (
            0.2,
            0.15,
            0.05,
            None,
            "Without an attack",
            "Noise alone reaches more than half",
            "Passed",
        ),
        (0.8, 0.1, 0.8, 0.3, "FAILED", "No defence helped", "halves"),
        (0.8, 0.6, 0.7, 0.3, "FAILED: noise of the same budget", "without an attack", "Passed"),
    ],
)
def test_words_follow_the_figures(worst, noise, adaptive, limit, begins, holds, lacks):
    told = sure(facts(worst, noise, adaptive, limit))
    said = audit_verdict(told)
    assert said[0].startswith(begins) and holds in " ".join(said) and lacks not in " ".join(said)
    told["verdict"] = said
    page = audit_page(told)
    assert "<img" not in page and "&lt;img" in page
    assert "t\\|\\<b\\>" in audit_markdown(told)


@pytest.mark.parametrize(
    "rate, width, flags, outcome, holds",
    [
        (1.0, None, [], "inconclusive", "more than one speaker"),  # one clip, no interval
        (0.4, 0.2, [], "inconclusive", "About 36 clips of similarly varied speakers would decide"),
        (0.4, 0.05, [], "failed", "The whole interval is above"),
        (0.2, 0.2, [], "inconclusive", "Its interval contains the limit"),
        (0.2, 0.05, [], "passed", "No interval reaches above the limit of 30.0 %"),
        (0.2, 0.05, ["its gradient is zero"], "not established", "its gradient is zero"),
    ],
)
def test_a_verdict_needs_evidence(rate, width, flags, outcome, holds):
    told = facts(rate, 0.1, rate, 0.3)
    told = told if width is None else sure(told, width)
    told["victim"]["flags"] = flags
    assert audit_outcome(told) == outcome
    first = audit_verdict(told)[0]
    assert first.lower().startswith(outcome) and holds in first


@pytest.mark.parametrize(
    "has_met, sentence",
    [
        (None, "It is unknown whether the model was trained on these {}."),
        (True, "It was trained on some of these clips{}. The UAR is therefore too high."),
        (False, "It was not trained on these {}."),
    ],
)
def test_the_verdict_says_whether_the_test_speakers_were_in_training(has_met, sentence):
    told = facts(0.4, 0.1, 0.4, None)
    told["victim"]["has_met_test_speakers"] = has_met
    assert sentence.format(" or speakers" if has_met else "speakers") in audit_verdict(told)[0]
    told["corpus"]["classes"] = "speaker"  # each speaker is known, what it says need not be
    assert sentence.format("" if has_met else "clips") in audit_verdict(told)[0]


def test_a_doubtful_model_is_called_so_without_a_limit():
    told = facts(0.4, 0.1, 0.4, None)
    assert audit_outcome(told) is None
    told["victim"]["flags"] = ["v: answers 6 of 8 clips otherwise when asked twice"]
    assert audit_outcome(told) == "not established"
    assert audit_verdict(told)[0].startswith("Not established: v: answers 6 of 8 clips otherwise")


def everyday_summary(passed):
    def shown(kind, value):
        return {
            "name": f"worst of {kind}",
            "kind": kind,
            "unchanged": {"value": value, "low": 0.1, "high": 0.9, "count": 9, "clusters": 3},
            "uar_loss": {"value": 0.1, "low": 0.0, "high": 0.2, "count": 9, "clusters": 3},
            "least_unchanged": 0.9,
            "passed": False,
            "seconds": 1.0,
        }

    rows = [shown("unheard", 0.8), shown("noise", 0.2)]
    return {
        "victim": "v",
        "clips": 9,
        "most_uar_loss": 0.05,
        "passed": passed,
        "of": 10,
        "worst": {row["kind"]: row for row in rows},
        "conditions": rows,
    }


def test_the_verdict_tells_quality_everyday_change_levels_help_and_certainty_in_this_order():
    told = sure(facts(0.5, 0.1, 0.4, None))
    told["everyday"] = everyday_summary(6)
    told["cells"] = [
        row(0.2, snr_db=42.0),
        row(0.9, snr_db=15.0),
        row(1.0, snr_db=9.0, control=True),
    ]
    said = audit_verdict(told)
    text = "\n".join(said)
    order = [
        "reaches a UAR",
        "6 of 10 conditions pass",
        "people do not hear (mean SNR of at least 30 dB), an attacker changes 20.0 %",
        "people hear (mean SNR below 30 dB), an attacker changes 90.0 %",
        "of the defences" if "of the defences" in text else "defence",
        "clustered by speaker",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "with worst of noise, 20.0 % of 9 answers" in text
    assert "worst of noise" in audit_markdown(told | {"verdict": said})


@pytest.mark.parametrize("passed, outcome", [(8, "failed"), (9, "passed")])
def test_everyday_change_alone_decides_where_only_it_has_a_limit(passed, outcome):
    told = facts(0.5, 0.1, 0.4, None)
    told |= {"everyday": everyday_summary(passed), "fail_below_everyday": 0.9}
    assert audit_outcome(told) == outcome
    assert audit_verdict(told)[0].lower().startswith(outcome)


def test_a_model_of_another_sample_rate_meets_surrogates_of_that_rate(world, tmp_path):
    training.seed_weights(0)
    victim = build_victim("zhao19", ("high", "low"), sample_rate=8000)
    recipe = replace(
        SMALL_AUDIT, epsilons=("-20 dB",), query_clips=0, surrogates=("zhao19",), defences=()
    )
    corpus = load_corpus(f"folder:{world / 'tones'}")
    victim.requires_grad_(False).eval()
    facts = pipeline.audit(victim, corpus, tmp_path, recipe=recipe, context=pipeline.Context())
    assert {cell["source"] for cell in facts["cells"]} == {"surrogate-zhao19", "zhao19"}
    surrogate = load_victim(tmp_path / "surrogates" / "surrogate-zhao19")
    assert surrogate.sample_rate == 8000
