"""Self-supervised victims: padding changes nothing, gradients flow, folders need no network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.speech import clip
from tests.support.waveforms import LENGTHS, padded

from staanet import corpora, pipeline, storage, training
from staanet.attacks import logits_of
from staanet.config import VictimRecipe
from staanet.core import standardise
from staanet.errors import InvalidInput, UnusableClip
from staanet.victims import build_victim, hub, load_victim, self_supervised

transformers = pytest.importorskip("transformers", reason="the extra ssl is not installed")

NAMES = ["hubert", "wav2vec2", "wavlm"]
LABELS = ("anger", "joy", "fear")


def tiny(name, labels=LABELS):
    training.seed_weights(0)
    return build_victim(name, labels, config="tiny").requires_grad_(False).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A saved victim of each kind, which is at the same time a model of transformers."""
    root = tmp_path_factory.mktemp("ssl")
    for name in NAMES:
        tiny(name).save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_gives_what_single_clips_give(name):
    victim, batch = tiny(name), padded()
    together = victim(batch, LENGTHS)
    for row, n in enumerate(LENGTHS):
        assert torch.allclose(together[row], victim(batch[row : row + 1, :n])[0], atol=1e-6)


@pytest.mark.parametrize("training_mode", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_clip_and_no_padding(name, training_mode):
    victim, x = tiny(name).train(training_mode), padded().requires_grad_()
    victim(2 * x, LENGTHS).square().sum().backward()  # 2 x: an input with a history of its own
    for row, n in enumerate(LENGTHS):
        assert x.grad[row, :n].abs().sum() > 0 and not x.grad[row, n:].any()


@pytest.mark.parametrize("name", NAMES)
def test_chance_acts_in_training_only_and_comes_from_the_victim(name):
    victim, x = tiny(name), padded()
    assert torch.equal(victim(x), victim(x))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    before = {key: value.clone() for key, value in victim.state_dict().items()}
    first = victim.train()(x)
    assert not torch.equal(first, victim(x))
    victim.load_state_dict(before)
    assert torch.equal(first, victim(x))  # so a resumed training goes on exactly
    assert torch.equal(state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_victim_is_the_same_function_and_says_where_it_comes_from(name, folders):
    again = load_victim(folders / name)
    x = padded()
    assert torch.equal(tiny(name)(x, LENGTHS), again(x, LENGTHS))
    assert again.labels == LABELS and not again.training
    assert not any(p.requires_grad for p in again.parameters())
    card = storage.read_card(folders / name, "victim")
    assert card["settings"]["initialisation"] == "trained from scratch"


@pytest.mark.parametrize("name", NAMES)
def test_its_folder_is_a_model_of_transformers(name, folders):
    model = transformers.AutoModelForAudioClassification.from_pretrained(folders / name).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folders / name)
    x = padded()[1]
    with torch.no_grad():
        theirs = model(**extractor(x.numpy(), sampling_rate=16_000, return_tensors="pt")).logits
    assert torch.allclose(theirs, load_victim(folders / name)(x[None]), atol=1e-4)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("name", NAMES)
def test_fine_tuning_keeps_the_body_and_freezes_the_feature_encoder(name, folders):
    victim = build_victim(name, ("a", "b"), pretrained=str(folders / name))
    assert victim.initialisation == f"fine-tuned from {name}"
    assert victim(padded()).shape == (3, 2)
    old, new = load_victim(folders / name).network.base_model, victim.network.base_model
    for key, value in old.state_dict().items():
        assert torch.equal(value, new.state_dict()[key]), key
    victim.train()(padded()).logsumexp(dim=1).sum().backward()
    assert all(p.grad is None for p in new.feature_extractor.parameters())
    assert victim.network.classifier.weight.grad.abs().sum() > 0
    assert any(p.grad is not None for p in new.encoder.parameters())


def test_from_scratch_the_feature_encoder_learns_too():
    victim = build_victim("wav2vec2", LABELS, config="tiny").train()
    victim(padded()).logsumexp(dim=1).sum().backward()
    encoder = victim.network.base_model.feature_extractor
    assert all(p.grad is not None for p in encoder.parameters())


def test_the_published_shape_takes_clips_from_400_samples_and_masks_only_long_ones():
    config = {**self_supervised.CONFIGS["tiny"], "mask_time_prob": 0.5, "layerdrop": 0.5}
    for key in ("conv_dim", "conv_kernel", "conv_stride"):
        config.pop(key)
    victim = self_supervised.Wav2Vec2(LABELS, config={**config, "conv_dim": [16] * 7}).train()
    assert victim.minimum_samples == 400
    assert victim(torch.randn(2, 400)).shape == (2, 3)  # shorter than one mask of SpecAugment
    assert victim(torch.randn(2, 8000)).shape == (2, 3)
    with pytest.raises(InvalidInput) as error:
        victim(torch.randn(2, 399))
    assert "399" in str(error.value) and "400" in str(error.value)


def test_silence_gives_finite_logits_and_a_finite_gradient():
    x = torch.zeros(1, 4000, requires_grad=True)
    logits = tiny("wavlm")(x)
    logits.sum().backward()
    assert torch.isfinite(logits).all() and torch.isfinite(x.grad).all()


def test_weights_that_cannot_be_fetched_are_named_with_the_way_out(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co'")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", unreachable)
    with pytest.raises(InvalidInput) as error:
        build_victim("hubert", LABELS)
    said = str(error.value)
    assert "facebook/hubert-base-ls960" in said and "folder" in said and "couldn't connect" in said


@pytest.mark.parametrize("name", ["./none", "/no/such/folder", "a/b/c", ""])
def test_a_folder_that_is_not_there_is_not_looked_up_on_the_hub(name):
    with pytest.raises(InvalidInput) as error:
        hub.read_config(name)
    assert "no such folder" in str(error.value)


def test_another_models_weights_are_refused(folders):
    with pytest.raises(InvalidInput) as error:
        build_victim("hubert", LABELS, pretrained=str(folders / "wavlm"))
    assert "'wavlm'" in str(error.value) and "'hubert'" in str(error.value)


def copied(folder, target, *, without):
    """The library's part of a victim folder, without the tensors whose names hold ``without``."""
    target.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if without not in k}
    save_file(kept, target / "model.safetensors", {"format": "pt"})
    return target


def test_a_checkpoint_with_a_part_missing_is_refused_not_filled_at_random(folders, tmp_path):
    partial = copied(folders / "hubert", tmp_path / "p", without="layers.1.attention")
    with pytest.raises(InvalidInput) as error:
        build_victim("hubert", LABELS, pretrained=str(partial))
    assert "layers.1.attention" in str(error.value)
    headless = copied(folders / "hubert", tmp_path / "h", without="classifier")
    build_victim("hubert", LABELS, pretrained=str(headless))  # a new head is what training is for
    with pytest.raises(InvalidInput) as error:
        load_victim(f"hf:{headless}")
    assert "classifier" in str(error.value)


class Code:
    """What a pickle of a hostile model runs when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


def test_a_pickle_that_holds_code_is_refused_and_runs_nothing(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pickled = copied(folders / "hubert", tmp_path / "p", without="classifier")
    (pickled / "model.safetensors").unlink()
    tensors = {**tiny("hubert").network.state_dict(), "code": Code(tmp_path / "ran")}
    torch.save(tensors, pickled / "pytorch_model.bin")
    with pytest.raises(InvalidInput) as error:
        build_victim("hubert", LABELS, pretrained=str(pickled))
    assert "pytorch_model.bin" in str(error.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "wrong", [{"hidden_size": -1}, {"conv_dim": "x"}, {"num_hidden_layers": 3}]
)
def test_a_card_that_describes_no_network_is_refused(folders, tmp_path, wrong):
    victim = load_victim(folders / "wav2vec2")
    settings = victim.settings()
    settings["config"].update(wrong)
    storage.save_model(
        tmp_path,
        kind="victim",
        tensors=victim.weights.state_dict(),
        card={
            "architecture": "wav2vec2",
            "name": "w",
            "labels": list(LABELS),
            "sample_rate": 16_000,
            "settings": settings,
        },
    )
    with pytest.raises(InvalidInput):
        load_victim(tmp_path)


@pytest.mark.parametrize(
    "options", [{"config": "tinny"}, {"config": "tiny", "pretrained": "facebook/x"}]
)
def test_a_choice_that_makes_no_sense_is_explained(options):
    with pytest.raises(InvalidInput) as error:
        build_victim("wavlm", LABELS, **options)
    assert "tiny" in str(error.value)


class StoppedError(Exception):
    pass


def test_a_stopped_training_resumes_bit_for_bit_and_the_card_tells_the_recipe(
    tiny_corpus, tmp_path
):
    corpus = corpora.load_corpus(f"folder:{tiny_corpus}")
    recipe = VictimRecipe(
        network="hubert", config="tiny", steps=3, batch_size=2, seconds=0.1, evaluate_every=1
    )

    def stop(what, done, total, figures):
        if what.startswith("train") and done == 2:
            raise StoppedError

    whole = pipeline.train_victim(
        corpus, "h", tmp_path / "whole", recipe=recipe, context=pipeline.Context()
    )
    with pytest.raises(StoppedError):
        pipeline.train_victim(
            corpus, "h", tmp_path / "half", recipe=recipe, context=pipeline.Context(progress=stop)
        )
    resumed = pipeline.train_victim(
        corpus, "h", tmp_path / "half", recipe=recipe, context=pipeline.Context()
    )
    for (key, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    card = storage.read_card(tmp_path / "half", "victim")
    assert card["inputs"]["recipe"]["config"] == "tiny"
    assert card["inputs"]["recipe"]["learning_rate"] == 1e-3
    assert "trained from scratch" in (tmp_path / "half" / "card.json").read_text()


def test_standardisation_is_the_librarys_normalisation():
    x = padded()[:1, :4000]
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    theirs = extractor(x[0].numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    assert torch.allclose(standardise(x), theirs, atol=1e-3)


def test_a_clip_that_is_too_short_is_put_aside_by_name(folders):
    with pytest.raises(UnusableClip) as error:
        logits_of(load_victim(folders / "hubert"), [clip(0.01, id="short")])
    assert "short" in str(error.value) and "hubert" in str(error.value)
