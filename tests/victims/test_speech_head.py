"""Published models of speech emotion whose head, front end or weights the library does not read by itself."""

from __future__ import annotations

import json

import pytest
import torch
from tests.support.waveforms import LENGTHS, padded

from staanet import pipeline
from staanet.errors import InvalidInput
from staanet.generators.warm_start import warm_start_member
from staanet.victims import load_victim
from staanet.victims.blueprint import blueprint, build_from_blueprint

lib = pytest.importorskip("transformers", reason="the extra ssl is not installed")
from staanet.victims import pickled_weights  # noqa: E402
from staanet.victims.speech_head import speech_classifier  # noqa: E402

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "id2label": {0: "angry", 1: "happy", 2: "sad"},
}


def published(folder, model_type="wav2vec2", extractor=True, **settings):
    """A model with the head of its authors, and by hand what it answers."""
    torch.manual_seed(0)
    config = lib.AutoConfig.for_model(model_type, **{**SIZES, **settings})
    network = speech_classifier(model_type)(config).eval()
    network.save_pretrained(folder)
    if extractor:
        lib.Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(folder)
    return network


def by_hand(network, x, pool):
    with torch.no_grad():
        hidden = getattr(network, network.base_model_prefix)(x).last_hidden_state
        head = network.classifier
        return head.out_proj(torch.tanh(head.dense(pool(hidden))))


def test_a_generator_that_contains_it_begins_as_its_gradient(tmp_path):
    published(tmp_path / "m")
    victim = load_victim(f"hf:{tmp_path / 'm'}")
    generator = warm_start_member(victim, density=None, epsilon=0.01, iterations=1)
    again = build_from_blueprint(blueprint(victim))
    again.load_state_dict(generator.classifier.state_dict())
    assert torch.allclose(again(padded(), LENGTHS), victim(padded(), LENGTHS), atol=1e-6)


@pytest.mark.parametrize(
    "model_type, pooling, pool",
    [
        ("wav2vec2", None, lambda h: h.mean(1)),
        ("hubert", "sum", lambda h: h.sum(1)),
        ("wavlm", "max", lambda h: h.amax(1)),
    ],
)
def test_the_three_layer_head_answers_and_gives_a_gradient(tmp_path, model_type, pooling, pool):
    settings = {"pooling_mode": pooling} if pooling else {}
    network = published(tmp_path / "m", model_type, **settings)
    victim, x = load_victim(f"hf:{tmp_path / 'm'}"), padded().requires_grad_()
    logits = victim(x, LENGTHS)
    assert victim.labels == ("angry", "happy", "sad") and victim.differentiable
    assert torch.allclose(logits[1], by_hand(network, x[1:2, : LENGTHS[1]], pool)[0], atol=1e-5)
    logits.sum().backward()
    assert x.grad.abs().sum() > 0
    made = pipeline.defend(victim, ["median:3"], tmp_path / "d", context=pipeline.Context())
    assert torch.equal(made(padded()), load_victim(tmp_path / "d")(padded()))


@pytest.mark.parametrize(
    "model_type, norm, normalised",
    [("wav2vec2", "group", True), ("wavlm", "group", False), ("wavlm", "layer", True)],
)
def test_a_folder_without_a_front_end_gets_its_family_s_and_says_so(
    tmp_path, model_type, norm, normalised
):
    published(tmp_path / "m", model_type, extractor=False, feat_extract_norm=norm)
    victim = load_victim(f"hf:{tmp_path / 'm'}")
    assert victim.normalised == normalised
    assert "no preprocessor_config.json" in victim.notes[0] and model_type in victim.notes[0]


def test_a_missing_weight_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    published(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    del weights["wav2vec2.encoder.layer_norm.bias"]
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match="wav2vec2.encoder.layer_norm.bias"):
        load_victim(f"hf:{tmp_path / 'm'}")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "pooling_mode": "first"}))
    with pytest.raises(InvalidInput, match="pools by 'first'"):
        load_victim(f"hf:{tmp_path / 'm'}")


class Harmful:
    def __reduce__(self):
        import os

        return os.system, ("touch harmed",)


def test_a_pickle_is_converted_once_apart_and_only_if_it_holds_weights_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "m"
    network = published(folder)
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    before = sorted(path.name for path in folder.iterdir())
    victim = load_victim(f"hf:{folder}")
    assert victim.name == "m" and sorted(path.name for path in folder.iterdir()) == before
    expected = by_hand(network, padded()[:, :4000], lambda h: h.mean(1))
    assert torch.allclose(victim(padded()[:, :4000]), expected, atol=1e-5)
    monkeypatch.setattr(pickled_weights, "_convert", None)
    assert load_victim(f"hf:{folder}").sha256 == victim.sha256
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for content in (b"<html>", b""):
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(InvalidInput, match="is no checkpoint"):
            load_victim(f"hf:{folder}")
    torch.save({"weight": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidInput, match="not weights alone") as error:
        load_victim(f"hf:{folder}")
    assert not (tmp_path / "harmed").exists() and "weights_only" not in str(error.value)


@pytest.mark.parametrize("names", [("arousal", "dominance", "valence"), ("LABEL_0",)])
def test_a_regression_head_answers_with_numbers_and_is_kept_with_its_tolerance(tmp_path, names):
    settings = {"id2label": dict(enumerate(names)), "problem_type": "regression"}
    network = published(tmp_path / "m", **settings)
    victim, x = load_victim(f"hf:{tmp_path / 'm'}"), padded()[:1, : LENGTHS[0]]
    assert victim.task == "regression" and victim.labels == names
    assert torch.allclose(victim(x), by_hand(network, x, lambda h: h.mean(1)), atol=1e-5)
    assert "more than 0.05" in victim.notes[-1]
    victim.tolerance = (0.2,) * len(names)
    victim.save_pretrained(tmp_path / "copy")
    assert load_victim(tmp_path / "copy").tolerance == victim.tolerance
