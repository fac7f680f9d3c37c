"""Models of the transformers library, from a local folder or the Hugging Face hub.

Only safetensors are read, and no code is run that comes with a model; ``pickled_weights.py`` converts
what else lies in a folder. A model with a part missing is refused, because the library would fill in random weights and go on.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from staanet.errors import InvalidInput, first_names, needs_extra, printable
from staanet.victims.external import refuse_pointers
from staanet.victims.pickled_weights import safe_folder

NORMALISED = {"wav2vec2": True, "hubert": True, "sew": True, "wavlm": False}
"""Whether the published base model of a family takes clips of zero mean and unit deviation; the large
ones, which normalise over layers, all do."""
TRAINING_ONLY = "masked_spec_embed"
"""A weight that no answer depends on; many published checkpoints lack it."""


def library() -> Any:
    """The transformers module; raises ``MissingExtra`` where it is not installed."""
    with needs_extra("transformers", "ssl"):
        import transformers
    return transformers


def read_config(name: str) -> Any:
    """The configuration of a model by its hub name or folder."""
    with _clear_errors(name):
        return library().AutoConfig.from_pretrained(_check_name(name), trust_remote_code=False)


def read_extractor(name: str) -> Any:
    """The feature extractor beside a model."""
    with _clear_errors(name):
        return library().AutoFeatureExtractor.from_pretrained(
            _check_name(name), trust_remote_code=False
        )


def default_extractor(config: Any) -> tuple[Any, str]:
    """The published feature extractor of a model's family, and a note that it was taken.

    Raises ``InvalidInput`` where the family has none that is known here.
    """
    kind = config.model_type
    if kind == "whisper":
        extractor = library().WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    elif kind == "audio-spectrogram-transformer":
        sizes = {"max_length": config.max_length, "num_mel_bins": config.num_mel_bins}
        extractor = library().ASTFeatureExtractor(**sizes)
    elif kind in NORMALISED:
        is_normalised = NORMALISED[kind] or config.feat_extract_norm == "layer"
        extractor = library().Wav2Vec2FeatureExtractor(do_normalize=is_normalised)
    else:
        raise InvalidInput(
            f"holds no preprocessor_config.json, and '{kind}' has no usual one",
            where=config.name_or_path,
            remedy="Copy preprocessor_config.json from where the model was published",
        )
    scaled = getattr(extractor, "do_normalize", False)
    return extractor, (
        f"its folder holds no preprocessor_config.json: that of {kind} as published is taken "
        f"({extractor.sampling_rate} Hz, {'normalised' if scaled else 'not normalised'})"
    )


def read_model(model: Any, name: str, *, config: Any, may_lack: tuple[str, ...] = ()) -> Any:
    """A model in 32 bit with the weights of ``name``, random in the layers of ``may_lack`` only.

    Raises ``InvalidInput`` where the weights cannot be loaded, or do not fill the network.
    """
    with _clear_errors(name):
        network, report = model.from_pretrained(
            _check_name(name),
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    missing_extra = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    allowed = {*may_lack, TRAINING_ONLY}
    wrong = sorted(key for key in missing_extra if allowed.isdisjoint(key.split(".")))
    if wrong:
        raise InvalidInput(
            f"has no fitting weights for {first_names(wrong, 3)} of {type(network).__name__}",
            where=name,
            remedy="Give a checkpoint of this very kind of model",
        )
    return network


def build_untrained(config: Mapping[str, Any]) -> Any:
    """An audio classifier of this configuration, with random weights."""
    kind = library().AutoModelForAudioClassification
    return kind.from_config(library().AutoConfig.for_model(**config), trust_remote_code=False)


def mel_filter_bank(**settings: Any) -> NDArray[np.float64]:
    """The library's mel filters ``[bins, M]``; a filter narrower than a bin is zero in its networks too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        filters: NDArray[np.float64] = library().audio_utils.mel_filter_bank(**settings)
    return filters


def model_files(network: Any, extractor: Any) -> dict[str, bytes]:
    """A model and its feature extractor as the files that the library reads again, by name."""
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder, safe_serialization=True)
        extractor.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def allow_input_gradients(network: Any) -> None:
    """Allow ``train()`` with an input that needs a gradient.

    The library's waveform encoders mark their input as needing a gradient, and torch refuses that for a
    tensor with a history. The mark serves gradient checkpointing alone.
    """
    for module in network.modules():
        if isinstance(getattr(module, "_requires_grad", None), bool):
            module._requires_grad = False


def _check_name(name: str) -> str:
    """``name``, where it is the folder of a model or can be a name on the hub; else ``InvalidInput``."""
    remedy = "Give a folder with config.json and model.safetensors, or a name on huggingface.co"
    folder = Path(name).expanduser()
    if name and folder.exists():
        if not (folder / "config.json").is_file():
            raise InvalidInput("holds no config.json", where=name, remedy=remedy)
        return str(safe_folder(folder))
    if not name or name[0] in "./~\\" or name.count("/") > 1 or "\0" in name:
        raise InvalidInput("no such folder", where=name, remedy=remedy)
    return name


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Turns the library's errors into one line with a remedy, and silences its messages."""
    messages = library().utils.logging
    hub = logging.getLogger("huggingface_hub")
    verbosity, hub_level, bars = (
        messages.get_verbosity(),
        hub.level,
        messages.is_progress_bar_enabled(),
    )
    messages.set_verbosity_error()
    hub.setLevel(logging.CRITICAL)
    if Path(name).exists():  # a download keeps its progress bar
        messages.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="At least one mel filter")
            yield
    except InvalidInput:
        raise
    except Exception as problem:
        if Path(name).is_dir():
            refuse_pointers(*sorted(Path(name).iterdir()))
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise InvalidInput(
            f"cannot be loaded ({printable(reason)[:240]})",
            where=name,
            remedy="Without a connection, copy the model's config.json, preprocessor_config.json and "
            "model.safetensors (no pickle) into a folder, and pass that folder in place of the name",
        ) from problem
    finally:
        messages.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if bars:
            messages.enable_progress_bar()
