"""Published models answer as their library does; gradients reach the waveform."""

from __future__ import annotations

import pytest
import torch
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded

from staanet import corpora, pipeline, storage
from staanet.attacks import ATTACKS, craft
from staanet.config import GeneratorRecipe
from staanet.errors import InvalidInput, StaaNetError
from staanet.victims import load_victim

LABELS = ("anger", "joy", "fear")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Small models as their library saves them: on waveforms, on spectrograms, and one headless."""
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
    lib.HubertForSequenceClassification(
        lib.HubertConfig(**speech, feat_extract_norm="layer", do_stable_layer_norm=True)
    ).save_pretrained(root / "hubert_large")
    lib.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(root / "hubert_large")
    lib.WhisperForAudioClassification(
        lib.WhisperConfig(
            d_model=32,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            max_source_positions=50,
            vocab_size=8,
            pad_token_id=0,
            num_mel_bins=16,
            classifier_proj_size=16,
            num_labels=3,
        )
    ).save_pretrained(root / "whisper")
    lib.WhisperFeatureExtractor(feature_size=16, chunk_length=1).save_pretrained(root / "whisper")
    lib.ASTFeatureExtractor(max_length=64, num_mel_bins=32, sampling_rate=8000).save_pretrained(
        root / "ast_8k"
    )
    for name in ("config.json", "model.safetensors"):
        (root / "ast_8k" / name).write_bytes((root / "ast" / name).read_bytes())
    return root


def as_published(folder, x):
    """Logits of one clip ``[T]`` by the library's own road."""
    import transformers as lib

    model = lib.AutoModelForAudioClassification.from_pretrained(folder).eval()
    extractor = lib.AutoFeatureExtractor.from_pretrained(folder)
    with torch.no_grad():
        return model(**extractor(x.numpy(), sampling_rate=16_000, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("name", ["normalised", "raw", "hubert_large", "ast", "whisper"])
def test_a_published_model_answers_as_its_library_does(published, name):
    victim, x = load_victim(f"hf:{published / name}"), padded()
    logits = victim(x, LENGTHS)
    assert victim.name == name and victim.sample_rate == 16_000
    for row, n in enumerate(LENGTHS):
        assert torch.allclose(logits[row], as_published(published / name, x[row, :n]), atol=1e-5)


@pytest.mark.parametrize("name", ["normalised", "raw", "hubert_large", "ast", "whisper"])
def test_a_gradient_reaches_the_waveform_of_a_published_model(published, name):
    victim, x = load_victim(f"hf:{published / name}"), padded().requires_grad_()
    assert victim.differentiable
    victim(x, LENGTHS).square().sum().backward()
    for row, n in enumerate(LENGTHS):
        assert x.grad[row, :n].abs().sum() > 0 and not x.grad[row, n:].any()
    made = craft(ATTACKS["pgd"](steps=1), victim, [clip(0.1)])
    assert next(iter(made)).support.size > 0


@pytest.mark.parametrize("name", ["normalised", "whisper"])
def test_a_published_model_is_defended_with_its_copy_inside(published, name, tmp_path):
    spec = f"hf:{published / name}"
    made = pipeline.defend(
        load_victim(spec), ["median:3"], tmp_path / "d", context=pipeline.Context()
    )
    again = load_victim(tmp_path / "d")
    assert torch.equal(made(padded(), LENGTHS), again(padded(), LENGTHS))
    assert again.name == f"{name}+median" and again.inner.name == name


def test_a_front_end_that_has_no_differentiable_form_makes_a_black_box(published):
    victim = load_victim(f"hf:{published / 'ast_8k'}")
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
