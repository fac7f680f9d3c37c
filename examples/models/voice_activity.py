"""silero-vad: its TorchScript network answers one frame at a time; the mean over a clip is the answer."""

from importlib.util import find_spec
from pathlib import Path

import torch

import staanet


def build():
    """A white box of two classes."""
    file = Path(find_spec("silero_vad").origin).parent / "data" / "silero_vad.jit"
    network = torch.jit.load(file)

    def speech(x):
        network.reset_states()
        frames = [network(f, 16_000) for f in x.split(512, dim=1) if f.shape[1] == 512]
        share = torch.stack(frames).mean(dim=0)
        return torch.cat([1 - share, share], dim=1)

    settings = {"name": "silero_vad", "probabilities": True}
    victim = staanet.TorchVictim(speech, ["silence", "speech"], 16_000, **settings)
    victim.minimum_samples = 512
    return victim
