"""DNSMOS, a network of speechmos that answers three numbers of speech quality."""

from importlib.util import find_spec
from pathlib import Path

from staanet.victims.onnx import OnnxVictim


def build():
    """A white box that answers three numbers."""
    folder = Path(find_spec("speechmos").origin).parent / "dnsmos_models"
    labels, tolerance = ["signal", "background", "overall"], [0.5, 0.5, 0.5]
    about = {"labels": labels, "tolerance": tolerance, "sample_rate": 16_000}
    return OnnxVictim(folder / "sig_bak_ovr.onnx", about=about)
