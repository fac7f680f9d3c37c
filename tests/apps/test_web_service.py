"""What the page's button does, without the page: models, clips, controls, and the words of the answer."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support import speech
from tests.support.models import LinearVictim

from staanet import audio, storage
from staanet.apps.web import Limits, page_html, read_library, serve
from staanet.apps.web.example_voices import EXAMPLES
from staanet.apps.web.fooling import Answer, FoolingService, Outcome, Request
from staanet.apps.web.models import shipped_folders
from staanet.core import Budget, Clip
from staanet.errors import InvalidInput, StaaNetError, UnusableClip
from staanet.pipeline.control import control_hits
from staanet.results.adversarial_set import AdversarialClip
from staanet.victims import build_victim


def test_a_library_pairs_generators_with_the_weights_that_they_know(run_folder: Path) -> None:
    library = read_library([run_folder])
    assert list(library.victims) == ["emo18", "zhao19"]
    assert list(library.generators) == ["emo18"]
    assert len(library.examples) == 4 and all(path.is_file() for path in library.examples.values())


def test_two_runs_keep_their_victims_apart(run_folder: Path) -> None:
    library = read_library([run_folder, run_folder])
    assert list(library.victims) == ["emo18", "zhao19", "emo18 of tiny", "zhao19 of tiny"]


def test_a_generator_of_other_weights_is_not_offered(run_folder: Path, tmp_path: Path) -> None:
    victim = build_victim("emo18", ("high", "low"))
    victim.save_pretrained(tmp_path / "run" / "victims" / "emo18")
    (tmp_path / "run" / "generators").symlink_to(run_folder / "generators")
    assert not read_library([tmp_path / "run"]).generators


def test_victims_whose_package_is_not_installed_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    library = read_library(shipped_folders())
    assert list(library.victims) == ["emo18", "zhao19"] == sorted(library.generators)
    assert "staanet[ssl]" in str(library.left_out["wav2vec2_tiny"])


def test_no_run_and_no_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        read_library([tmp_path / "missing"])
    with pytest.raises(InvalidInput, match="no victim to attack"):
        serve(read_library([tmp_path]), port=0)


@pytest.fixture
def service(run_folder: Path, tmp_path: Path) -> FoolingService:
    return FoolingService(
        read_library([run_folder]), tmp_path, device="cpu", limits=Limits(seconds=2.0)
    )


def fool(service: FoolingService, path: Path | None, request: Request) -> Outcome:
    """What the button does."""
    return service.fool(service.load_clip(path, request.source), request)


def _stored(folder: Path, seconds: float = 0.5, kind: str = "WAV") -> Path:
    path = folder / "mine"
    storage.write_bytes(path, audio.encode(speech.tone(seconds, 250.0), speech.RATE, kind))
    return path


@pytest.mark.parametrize("attack", ["staa", "pgd", "random"])
@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_the_file_to_take_home_keeps_the_budget(
    service: FoolingService, tmp_path: Path, attack: str, kind: str
) -> None:
    request = Request(
        source="emo18", targets=["emo18", "zhao19"], attack=attack, level_db=-30, density=0.05
    )
    outcome = fool(service, _stored(tmp_path, kind=kind), request)
    clean, rate = audio.read_int16(outcome.files["clean"])
    adversarial, _ = audio.read_int16(outcome.files["adversarial"])
    assert rate == speech.RATE and np.array_equal(clean, speech.tone(0.5, 250.0))
    budget = Budget(epsilon="-30 dB", max_density=0.05)
    assert budget.violations(clean, adversarial, rate) == []
    assert [answer.victim for answer in outcome.answers] == ["emo18", "zhao19"]
    for answer in outcome.answers:  # the victims are asked about these very files
        with torch.inference_mode():
            x = torch.from_numpy(audio.to_float(np.stack([clean, adversarial])))
            with_eot = service.victim(answer.victim)(x).softmax(dim=1)
        assert np.allclose([answer.before, answer.after], with_eot.numpy(), atol=1e-5)


def test_a_defence_is_asked_beside_the_plain_victims(
    service: FoolingService, tmp_path: Path
) -> None:
    request = Request(source="emo18", targets=["emo18"], attack="random", defence="median")
    outcome = fool(service, _stored(tmp_path), request)
    plain, behind = outcome.answers
    assert (plain.victim, behind.victim) == ("emo18", "emo18+median")
    assert not np.allclose(plain.after, behind.after)


def test_what_is_no_clip_is_told_without_where_it_lies(
    service: FoolingService, tmp_path: Path
) -> None:
    request = Request(source="emo18", targets=["emo18"])
    bad = {"zip": b"PK\3\4" + bytes(99), "mp3": b"\xff\xfb\x90\0" + bytes(999), "empty": b""}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnusableClip) as error:
            fool(service, tmp_path / name, request)
        assert str(tmp_path) not in str(error.value)
    with pytest.raises(UnusableClip) as error:
        fool(service, _stored(tmp_path, seconds=3.0), request)
    assert str(tmp_path) not in str(error.value) and "2" in str(error.value)
    with pytest.raises(InvalidInput, match="no clip yet"):
        fool(service, None, request)
    with pytest.raises(InvalidInput, match="not a clip of this page"):
        fool(service, Path("/etc/passwd"), request)
    with pytest.raises(InvalidInput, match="unknown attack 'sparse_rs'"):
        fool(service, _stored(tmp_path), Request(source="emo18", targets=[], attack="sparse_rs"))


def test_staa_is_offered_where_a_generator_knows_the_source(service: FoolingService) -> None:
    assert "staa" in service.attacks("emo18") and "staa" not in service.attacks("zhao19")
    with pytest.raises(StaaNetError, match="unknown victim"):
        service.victim("emo19")


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_the_formats_of_the_command_line_are_accepted(
    service: FoolingService, tmp_path: Path, kind: str
) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "clip", speech.tone(0.5, 250.0), speech.RATE, format=kind)
    try:
        expected = audio.load_samples(tmp_path / "clip", speech.RATE)
    except UnusableClip as error:  # a format that no command reads: the page says the same
        with pytest.raises(UnusableClip, match=re.escape(error.what)):
            service.load_clip(tmp_path / "clip", "emo18")
        return
    assert np.array_equal(service.load_clip(tmp_path / "clip", "emo18").pcm16, expected)


def test_the_control_changes_as_many_samples_at_the_same_level(service: FoolingService) -> None:
    """A victim that listens to the first sample alone: a draw changes it where it draws it."""
    clean = Clip("a", np.full(100, 1000, np.int16), 16_000)
    changed = clean.pcm16.copy()
    changed[:50] += np.int16(100)
    pair = AdversarialClip(clean, changed, 0.1, 1)
    seen: list[torch.Tensor] = []

    class Recorder(LinearVictim):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
            seen.append(x)
            return super().forward(x, lengths)

    victim = Recorder(torch.ones(100))
    victim.name = "recorder"
    hits = control_hits(pair, victim, [victim], draws=7)
    noise = [x for x in seen if not torch.equal(x, seen[0])]
    deltas = {int((32768 * (x - clean.waveform)).abs().max().round()) for x in noise}
    assert len({tuple(x.flatten().tolist()) for x in noise}) == 7 and deltas == {100}
    assert all(int((x != clean.waveform).sum()) == 50 for x in noise)
    assert hits == {"recorder": 0}
    pair = AdversarialClip(clean, clean.pcm16, 0.1, 1)
    assert control_hits(pair, victim, [victim]) == {"recorder": 0}


def test_the_sentence_sets_noise_beside_the_attack() -> None:
    before, after = (0.9, 0.1), (0.2, 0.8)
    pair = AdversarialClip(
        Clip("a", np.full(1000, 1000, np.int16), 16_000), np.full(1000, 1010, np.int16), 0.1, 1
    )
    request = Request(source="a", targets=[])

    def sentence(*hits: int) -> str:
        answers = [Answer(f"v{i}", ("x", "y"), before, after, hit) for i, hit in enumerate(hits)]
        outcome = Outcome(pair=pair, answers=answers, files={}, gain_db=0, request=request)
        return page_html.sentence_html(outcome)

    assert "Fooled: <b>v0</b>. Random signs" in sentence(0)
    assert "fooled none of them in 5 draws" in sentence(0)
    assert "level fooled v0 in 2 of 5 draws" in sentence(2, 0) and "Noise fools" not in sentence(
        2, 0
    )
    assert "<b>Noise fools v1 as well</b>" in sentence(2, 4)
    assert "v0 in 2 of 5 and v1 in 4 of 5 draws" in sentence(2, 4)


def test_each_example_is_spoken_and_written_into_the_page(service: FoolingService) -> None:
    pytest.importorskip("espeakng_loader", reason="extra demo: pip install 'staanet[demo]'")
    service.limits = Limits()
    for title in EXAMPLES:
        path = service.write_example(title)
        assert path.is_relative_to(service.folder) and len(service.load_clip(path, "emo18").pcm16)
    title = next(iter(service.library.examples))
    assert service.load_clip(service.write_example(title), "emo18")
    with pytest.raises(InvalidInput, match="unknown example"):
        service.write_example("no such voice")


def test_names_are_text_on_the_page() -> None:
    hostile = '<img src=x onerror="alert(1)">\u202e'
    html = page_html.answers_html([Answer(hostile, (hostile, "b"), (0.9, 0.1), (0.2, 0.8))])
    assert "<img" not in html and "\u202e" not in html and "&lt;img src=x" in html
    assert "&lt;b&gt;" in page_html.problem_html(InvalidInput("<b>", remedy="Try another"))


def test_an_answer_behind_a_defence_says_that_the_attack_did_not_know_it(
    service: FoolingService, tmp_path: Path
) -> None:
    request = Request(source="emo18", targets=["emo18"], attack="random", defence="median")
    outcome = fool(service, _stored(tmp_path), request)
    assert "did not know of the defence, median." in page_html.sentence_html(outcome)
    outcome = fool(service, _stored(tmp_path), replace(request, defence=None))
    assert "defence" not in page_html.sentence_html(outcome)


def test_a_shipped_generator_of_several_victims_serves_each_of_them():
    library = read_library(shipped_folders())
    assert {"emo18", "zhao19"} <= set(library.generators) and "wav2vec2_tiny" in library.victims


def test_a_model_given_by_name_comes_first_beside_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\nimport staanet\n\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    layers = [nn.Conv1d(1, 2, 80, stride=40), nn.AdaptiveMaxPool1d(1), nn.Flatten()]\n"
        "    return nn.Sequential(nn.Unflatten(1, (1, -1)), *layers), ['high', 'low'], 8_000\n\n"
        "def box():\n"
        "    answer = lambda x: [[abs(row).mean(), 0.05] for row in x]\n"
        "    return staanet.CallableVictim(answer, ['loud', 'quiet'], 16_000, name='box')\n"
    )
    specs = [f"python:{tmp_path / 'mine.py'}:build", f"python:{tmp_path / 'mine.py'}:box"]
    library = read_library(shipped_folders(), specs)
    white, black, *shipped = library.victims
    assert library.requested == (white, black) and black == "box" and "emo18" in shipped
    service = FoolingService(library, tmp_path, device="cpu", limits=Limits(seconds=2.0))
    assert service.first_source() == white and service.first_targets(white) == [white]
    assert service.first_targets(black) == [black, *shipped[:2]]
    assert service.attacks(white) == ["pgd", "mi_fgsm", "fgsm", "random"]
    assert service.attacks(black) == ["random"]
    clip = Clip("clip", speech.tone(0.5, 250.0), 8_000)
    outcome = service.fool(clip, Request(source=white, targets=[white], attack="fgsm"))
    assert outcome.answers[0].labels == ("high", "low")


def test_a_model_that_answers_with_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import staanet\n\ndef build():\n"
        "    return staanet.CallableVictim(lambda x: abs(x).mean(axis=1, keepdims=True), ['arousal'],"
        " 16_000, tolerance=[0.1])\n"
    )
    with pytest.raises(InvalidInput, match="answers with numbers"):
        read_library(shipped_folders(), [f"python:{tmp_path / 'mine.py'}:build"])
