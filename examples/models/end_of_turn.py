"""Smart Turn of pipecat-ai: has the speaker finished? Its network of 8-bit numbers has no gradient."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
from transformers import WhisperFeatureExtractor

import staanet


def build():
    """A black box of two classes."""
    folder = Path(find_spec("pipecat").origin).parent / "audio" / "turn" / "smart_turn" / "data"
    session = onnxruntime.InferenceSession(next(folder.glob("smart-turn*.onnx")))
    extract = WhisperFeatureExtractor(chunk_length=8)

    def answer(waveforms):
        last = np.pad(waveforms, ((0, 0), (128_000, 0)))[:, -128_000:]
        features = extract([*last], sampling_rate=16_000, do_normalize=True, return_tensors="np")
        complete = session.run(None, {"input_features": features["input_features"]})[0]
        return np.concatenate([1 - complete, complete], axis=1)

    labels = ["incomplete", "complete"]
    return staanet.CallableVictim(answer, labels, 16_000, name="smart_turn", probabilities=True)
