"""Checks what an installation can do: codecs, channels, speech synthesis, networks, recipes, shipped models.

Each function returns what it saw and raises where something does not work.
"""

from __future__ import annotations

from typing import Any

from staanet.errors import StaaNetError


def _tone() -> Any:
    import numpy as np

    time = np.arange(16_000) / 16_000
    return (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)


def codec_round_trip(codec: str) -> str:
    """Writes a tone and reads it back; raises ``StaaNetError`` where a bit changed."""
    import io

    import numpy as np
    import soundfile

    from staanet import audio

    tone = _tone()
    data = audio.encode(tone, 16_000, codec)
    back, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    if rate != 16_000 or not np.array_equal(back, tone):
        raise StaaNetError("what was read back is not what was written")
    return f"read back to the bit, libsndfile {soundfile.__libsndfile_version__}"


def channel_round_trip(channel: str) -> str:
    """Sends a tone through a channel; raises ``StaaNetError`` where it does not come back."""
    import numpy as np

    from staanet.transforms import parse_transform, transform_samples

    tone = _tone()
    received = transform_samples(parse_transform(channel), tone, 16_000)
    likeness = float(np.corrcoef(tone.astype(float), received.astype(float))[0, 1])
    if received.shape != tone.shape or not likeness > 0.8:
        raise StaaNetError(f"a tone comes back at a correlation of {likeness:.2f}")
    return f"a tone comes back at a correlation of {likeness:.3f}"


def speech() -> str:
    """Speaks a sentence with eSpeak NG."""
    from staanet.corpora.espeak import speak

    version, samples = speak("Is this installation sound?")
    return f"eSpeak NG {version} spoke for {len(samples) / 16_000:.1f} s"


def self_supervised() -> str:
    """Runs a small wav2vec2; raises ``StaaNetError`` for an answer that is not finite."""
    import torch

    from staanet.victims import build_victim

    with torch.random.fork_rng(devices=[]):
        victim = build_victim("wav2vec2", ("a", "b"), config="tiny").eval()
    with torch.inference_mode():
        logits = victim(torch.randn(1, 8_000))
    if not bool(torch.isfinite(logits).all()):
        raise StaaNetError("a wav2vec2 answers with what is not a number")
    return "a small wav2vec2 answers"


IDENTITY = bytes.fromhex(
    "08083a2f0a100a017812017922084964656e746974791201675a0b0a017812060a04080112006"
    "20b0a017912060a040801120042040a00100d"
)
"""An ONNX model of one node, y = x, as bytes, so that it can be run where only the runtime is."""


def onnx() -> str:
    """Runs a model of one node; raises ``StaaNetError`` for a wrong answer."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(IDENTITY, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": np.array(3, np.float32)})
    if float(answer) != 3:
        raise StaaNetError(f"a model that returns its input made {float(answer)} of 3")
    return f"a model runs; {', '.join(onnxruntime.get_available_providers())}"


def recipes() -> str:
    """Loads every shipped recipe."""
    from staanet import config

    shipped = config.shipped_recipes()
    for name in shipped:
        config.load_recipe(name)
    if not shipped:
        raise StaaNetError("no recipe came with the package")
    return ", ".join(shipped)


def models() -> str:
    """Runs every shipped victim on a tone; names those that need an extra."""
    import torch

    from staanet import audio
    from staanet.storage import pretrained
    from staanet.victims import load_victim, missing_extra

    specs = {name: f"{pretrained.SCHEME}:{name}" for name in pretrained.names("victims")}
    unavailable = {name: why.extra for name, spec in specs.items() if (why := missing_extra(spec))}
    tone = torch.from_numpy(audio.to_float(_tone()))[None]
    for name in specs.keys() - unavailable:
        with torch.inference_mode():
            if not bool(torch.isfinite(load_victim(specs[name])(tone)).all()):
                raise StaaNetError(f"{name} answers with what is not a number")
    names = ", ".join(sorted(specs.keys() - unavailable)) + " answer"
    return names + "".join(f"; {name} waits for the extra {e}" for name, e in unavailable.items())
