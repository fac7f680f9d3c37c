"""Victims made elsewhere answer as their makers' library does, and never give a silent zero gradient."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.support.models import LinearVictim
from tests.support.speech import clip
from typer.testing import CliRunner

from staanet import corpora, pipeline, storage
from staanet.attacks import ATTACKS, craft
from staanet.attacks.gradient import margin_gradient
from staanet.cli import app
from staanet.config import GeneratorRecipe
from staanet.core import Budget, Untargeted, Victim, standardise
from staanet.errors import InvalidInput, StaaNetError
from staanet.evaluation import transfer_matrix
from staanet.victims import CallableVictim, build_victim, load_victim
from staanet.victims import export as exporting

LABELS = ("anger", "joy", "fear")
LENGTHS = torch.tensor([4000, 6001, 4000])


def padded():
    torch.manual_seed(1)
    batch = torch.zeros(len(LENGTHS), int(LENGTHS.max()))
    for row, n in enumerate(LENGTHS):
        batch[row, :n] = torch.randn(int(n)) * 0.1 + 0.02
    return batch


def crossings(x):
    """Two classes by the share of sign changes."""
    share = (np.diff(np.sign(x), axis=1) != 0).mean(axis=1)
    return np.stack([share - 0.1, 0.1 - share], axis=1)


# ---------------------------------------------------------------- any callable


def test_a_callable_never_sees_padding_and_answers_in_the_batchs_order():
    seen = []

    def mean_and_length(x):
        seen.append(x.shape)
        return np.stack([x.mean(axis=1), np.full(len(x), x.shape[1])], axis=1)

    x = padded()
    logits = CallableVictim(mean_and_length, ["a", "b"], 16_000)(x, LENGTHS)
    assert sorted(seen) == [(1, 6001), (2, 4000)]
    assert logits[:, 1].tolist() == LENGTHS.tolist()
    assert logits[0, 0] == pytest.approx(float(x[0, :4000].mean()), abs=1e-6)


def test_probabilities_become_logits_whose_softmax_they_are():
    victim = CallableVictim(
        lambda x: np.tile([0.7, 0.2, 0.1], (len(x), 1)), LABELS, 16_000, probabilities=True
    )
    assert torch.allclose(torch.softmax(victim(padded()), 1)[0], torch.tensor([0.7, 0.2, 0.1]))
    certain = CallableVictim(
        lambda x: [[1.0, 0.0]] * len(x), ["a", "b"], 16_000, probabilities=True
    )
    assert torch.isfinite(certain(padded())).all()


@pytest.mark.parametrize(
    ("answer", "probabilities", "word"),
    [
        (lambda x: np.zeros((len(x), 2)), False, "[3, 3]"),
        (lambda x: np.zeros(3), False, "[3, 3]"),
        (lambda x: np.full((len(x), 3), np.nan), False, "non-finite"),
        (lambda x: np.full((len(x), 3), 2.0), True, "sums to 6"),
        (lambda x: np.tile([1.5, -0.5, 0.0], (len(x), 1)), True, "-0.5"),
    ],
)
def test_an_answer_that_cannot_be_right_is_refused(answer, probabilities, word):
    victim = CallableVictim(answer, LABELS, 16_000, probabilities=probabilities)
    with pytest.raises(InvalidInput) as error:
        victim(padded())
    assert word in str(error.value)


def test_a_black_box_raises_where_a_gradient_is_asked_for_and_only_there():
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000)
    x = padded().requires_grad_()
    assert not victim.differentiable and Victim.differentiable
    with torch.no_grad():
        assert victim(x).shape == (3, 2)
    with pytest.raises(StaaNetError) as error:
        victim(x)
    assert "black box" in str(error.value) and "random" in str(error.value)
    with pytest.raises(StaaNetError):
        craft(ATTACKS["pgd"](budget=Budget(epsilon=0.01)), victim, [clip()])
    with pytest.raises(StaaNetError):
        margin_gradient(victim, padded(), Untargeted(0), None)


def test_a_callable_is_attacked_at_random_and_judged_like_any_victim(linear):
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000, name="zero crossings")
    clips = [clip(0.1, 200.0 + 50 * n, seed=n, label="hum", speaker=f"s{n % 3}") for n in range(4)]
    made = craft(ATTACKS["random"](budget=Budget(epsilon=0.03, max_density=0.2)), victim, clips)
    matrix = transfer_matrix([made], [victim, linear])
    cell = matrix.cell("random", "zero crossings", "zero crossings")
    assert cell["count"] == 4 and 0 <= cell["fooling_rate"]["value"] <= 1
    answers = [matrix.rows[0]["clean_prediction"], matrix.rows[0]["adversarial_prediction"]]
    assert {*answers} <= {"hiss", "hum"}


def test_a_clip_below_its_minimum_and_saving_it_are_refused(tmp_path):
    victim = CallableVictim(crossings, ["hiss", "hum"], 16_000, minimum_samples=500)
    with pytest.raises(InvalidInput) as error:
        victim(torch.zeros(1, 499))
    assert "499" in str(error.value) and "500" in str(error.value)
    with pytest.raises(InvalidInput):
        victim.save_pretrained(tmp_path / "v")
    assert not (tmp_path / "v").exists()


# ---------------------------------------------------------------- ONNX


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Both networks as ONNX files, with the victims that they were made from."""
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    root, made = tmp_path_factory.mktemp("onnx"), {}
    for name in ("emo18", "zhao19"):
        torch.manual_seed(0)
        victim = build_victim(name, LABELS)
        with torch.no_grad():
            victim(torch.randn(4, 8000))  # BatchNorm has seen something
        victim.requires_grad_(False).eval()
        assert exporting.export_onnx(victim, root / f"{name}.onnx") < 1e-4
        made[name] = victim, root / f"{name}.onnx"
    return made


@pytest.mark.parametrize("name", ["emo18", "zhao19"])
def test_an_exported_victim_gives_the_same_logits_at_every_length(exported, name):
    victim, path = exported[name]
    again = load_victim(f"onnx:{path}")
    assert (again.labels, again.sample_rate, again.name) == (LABELS, 16_000, name)
    assert again.minimum_samples == victim.minimum_samples
    for time in (victim.minimum_samples, 5000, 16_001):
        x = torch.randn(2, time) * 0.1 + 0.05
        assert torch.allclose(again(x), victim(x), atol=1e-5)
    assert torch.allclose(again(padded(), LENGTHS), victim(padded(), LENGTHS), atol=1e-5)
    with pytest.raises(StaaNetError):
        again(padded().requires_grad_())


def test_an_export_that_differs_is_not_written(exported, monkeypatch, tmp_path):
    victim, _ = exported["zhao19"]
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(StaaNetError) as error:
        exporting.export_onnx(victim, tmp_path / "v.onnx")
    assert "differs" in str(error.value) and not list(tmp_path.iterdir())


def test_a_victim_that_cannot_be_exported_is_named(exported, tmp_path):
    with pytest.raises(InvalidInput) as error:
        exporting.export_onnx(LinearVictim(torch.ones(10)), tmp_path / "v.onnx")
    assert "linear" in str(error.value) and "emo18" in str(error.value)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("sample_rate = 16000", ""), "sample_rate"),
        (("sample_rate = 16000", "sample_rate = 0"), "sample_rate is 0"),
        (("sample_rate", "samplerate"), "rate"),
        (('"joy"', '"anger"'), "labels"),
        (('input = "waveforms"', 'input = "speech"'), "'speech'"),
        (("labels = [", "labels = "), "TOML"),
    ],
)
def test_a_card_that_does_not_fit_is_explained(exported, tmp_path, change, word):
    _, path = exported["zhao19"]
    (tmp_path / "v.onnx").write_bytes(path.read_bytes())
    card = path.with_name("zhao19.onnx.toml").read_text()
    assert change[0] in card
    (tmp_path / "v.onnx.toml").write_text(card.replace(*change))
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'v.onnx'}")
    assert word in str(error.value)


def test_files_that_are_missing_or_no_model_are_explained(exported, tmp_path):
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'none.onnx'}")
    assert "no such file" in str(error.value)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'text.onnx'}")
    assert "text.onnx.toml" in str(error.value)
    (tmp_path / "text.onnx.toml").write_text('sample_rate = 16000\nlabels = ["a", "b"]\n')
    with pytest.raises(InvalidInput) as error:
        load_victim(f"onnx:{tmp_path / 'text.onnx'}")
    assert "onnxruntime" in str(error.value)


@pytest.mark.parametrize("shape", [["batch", "time"], [1, "time"], ["batch", 1, "time"], [1, 4000]])
def test_other_shapes_of_input_and_a_standardising_card_are_served(tmp_path, shape):
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    helper, kinds = onnx.helper, onnx.TensorProto
    axis = len(shape) - 1
    axes = helper.make_tensor("axes", kinds.INT64, [1], [axis])
    steps = [
        helper.make_node("ReduceMax", ["x", "axes"], ["top"], keepdims=int(axis == 1)),
        helper.make_node("ReduceMin", ["x", "axes"], ["low"], keepdims=int(axis == 1)),
        helper.make_node("Concat", ["top", "low"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        steps,
        "range",
        [helper.make_tensor_value_info("x", kinds.FLOAT, shape)],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [shape[0], 2])],
        [axes],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path / "range.onnx"
    path.write_bytes(model.SerializeToString())
    card = 'sample_rate = 8000\nlabels = ["a", "b"]\ninput = "x"\nstandardise = true\n'
    (tmp_path / "range.onnx.toml").write_text(card)
    victim, x = load_victim(f"onnx:{path}"), padded()[:, :4000]
    z = standardise(x)
    assert torch.allclose(victim(x), torch.stack([z.amax(1), z.amin(1)], 1), atol=1e-5)
    if shape == [1, 4000]:
        with pytest.raises(InvalidInput) as error:
            victim(padded())
        assert "4000" in str(error.value) and "6001" in str(error.value)


def test_the_command_exports_and_evaluates_what_it_exported(exported, tmp_path):
    victim, _ = exported["zhao19"]
    victim.save_pretrained(tmp_path / "v")
    out = tmp_path / "z.onnx"
    done = CliRunner().invoke(app, ["export", str(tmp_path / "v"), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["difference"] < 1e-4 and out.is_file()
    made = craft(ATTACKS["random"](), victim, [clip(0.1, label="joy", speaker="s", id="one")])
    made.save(tmp_path / "set")
    done = CliRunner().invoke(
        app,
        [
            "evaluate",
            str(tmp_path / "set"),
            "--target",
            f"onnx:{out}",
            "--out",
            str(tmp_path / "r"),
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["cells"][0]["target"] == "z"


def test_the_command_says_what_cannot_be_exported(tmp_path):
    done = CliRunner().invoke(app, ["export", str(tmp_path / "none"), "--out", "x.onnx"])
    assert done.exit_code == 3


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Small models as their library saves them: two on waveforms, two on spectrograms, a headless."""
    lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
    root = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_labels": 3,
    }
    speech = {
        **sizes,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "id2label": dict(enumerate(LABELS)),
    }
    config = lib.Wav2Vec2Config(**speech)
    lib.Wav2Vec2ForSequenceClassification(config).save_pretrained(root / "normalised")
    lib.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(root / "normalised")
    lib.Wav2Vec2Model(config).save_pretrained(root / "headless")
    lib.Wav2Vec2FeatureExtractor().save_pretrained(root / "headless")
    lib.SEWForSequenceClassification(
        lib.SEWConfig(
            **speech,
            squeeze_factor=1,
            conv_kernel=config.conv_kernel,
            conv_stride=config.conv_stride,
        )
    ).save_pretrained(root / "raw")
    lib.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(root / "raw")
    lib.ASTForAudioClassification(
        lib.ASTConfig(**sizes, max_length=64, num_mel_bins=32)
    ).save_pretrained(root / "ast")
    lib.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(root / "ast")
    return root


def as_published(folder, x):
    """Logits of one clip ``[T]`` by the library's own road."""
    import transformers as lib

    model = lib.AutoModelForAudioClassification.from_pretrained(folder).eval()
    extractor = lib.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        return model(**extractor(x.numpy(), sampling_rate=16_000, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("name", ["normalised", "raw", "ast"])
def test_a_published_model_answers_as_its_library_does(published, name):
    victim, x = load_victim(f"hf:{published / name}"), padded()
    logits = victim(x, LENGTHS)
    assert victim.name == name and victim.sample_rate == 16_000
    for row, n in enumerate(LENGTHS):
        assert torch.allclose(logits[row], as_published(published / name, x[row, :n]), atol=1e-5)


@pytest.mark.parametrize("name", ["normalised", "raw"])
def test_a_gradient_reaches_the_waveform_of_a_published_model(published, name):
    victim, x = load_victim(f"hf:{published / name}"), padded().requires_grad_()
    assert victim.differentiable
    victim(x, LENGTHS).square().sum().backward()
    for row, n in enumerate(LENGTHS):
        assert x.grad[row, :n].abs().sum() > 0 and not x.grad[row, n:].any()
    made = craft(ATTACKS["pgd"](steps=1), victim, [clip(0.1)])
    assert next(iter(made)).support.size > 0


@pytest.mark.parametrize("name", ["normalised", "ast"])
def test_a_published_model_is_defended_with_its_copy_inside(published, name, tmp_path):
    spec = f"hf:{published / name}"
    made = pipeline.defend(
        load_victim(spec), ["median:3"], tmp_path / "d", context=pipeline.Context()
    )
    again = load_victim(tmp_path / "d")
    assert torch.equal(made(padded(), LENGTHS), again(padded(), LENGTHS))
    assert again.name == f"{name}+median" and again.inner.name == name


def test_a_spectrogram_model_is_a_black_box(published):
    victim = load_victim(f"hf:{published / 'ast'}")
    with pytest.raises(StaaNetError) as error:
        victim(padded().requires_grad_())
    assert "black box" in str(error.value)


def test_a_model_without_a_trained_head_and_a_short_clip_are_refused(published):
    with pytest.raises(InvalidInput) as error:
        load_victim(f"hf:{published / 'headless'}")
    assert "classifier" in str(error.value)
    with pytest.raises(InvalidInput) as error:
        load_victim(f"hf:{published / 'raw'}")(torch.zeros(1, 399))
    assert "400" in str(error.value)


def test_a_generator_finds_its_published_source_again(published, tiny_corpus, tmp_path):
    spec = f"hf:{published / 'normalised'}"
    pipeline.train_generator(
        corpora.load_corpus(f"folder:{tiny_corpus}"),
        load_victim(spec),
        tmp_path / "g",
        recipe=GeneratorRecipe(network="compact", steps=1, batch_size=1, seconds=0.1),
        context=pipeline.Context(),
    )
    assert pipeline.source_of(tmp_path / "g").name == "normalised"
    card = storage.read_json(tmp_path / "g" / "card.json")
    storage.write_json(tmp_path / "g" / "card.json", {**card, "source_sha256": "0"})
    with pytest.raises(InvalidInput) as error:
        pipeline.source_of(tmp_path / "g")
    assert "trained again" in str(error.value)
