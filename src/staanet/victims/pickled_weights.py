"""Converts ``pytorch_model.bin``, a pickle, to safetensors in a process of its own.

torch's reader of weights alone allows no other objects. The result is kept in the user's cache folder
under the hash of the pickle, so that each file is converted once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from staanet import storage
from staanet.errors import InvalidInput, printable

PICKLE, SAFE = "pytorch_model.bin", "model.safetensors"
_SCRIPT = """
import sys, torch
from safetensors.torch import save_file
weights = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
weights = weights.get("state_dict", weights) if isinstance(weights, dict) else weights
tensors = {str(k): v.detach().clone().contiguous() for k, v in weights.items()}
save_file(tensors, sys.argv[2], metadata={"format": "pt"})
"""


def cache_folder() -> Path:
    """Where converted weights lie: ``staanet`` below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "staanet" / "weights"


def safe_folder(folder: Path) -> Path:
    """A folder with the model's weights as safetensors: ``folder`` itself where it has them.

    Raises ``InvalidInput`` where the pickle holds more than weights.
    """
    if (folder / SAFE).is_file() or not (folder / PICKLE).is_file():
        return folder
    digest = storage.sha256(folder / PICKLE)
    target = cache_folder() / digest / folder.name
    if not (target / SAFE).is_file():
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            converted = Path(scratch) / SAFE
            _convert(folder / PICKLE, converted)
            converted.replace(target / SAFE)
    for path in folder.glob("*.json"):  # configuration and labels as they are now
        storage.write_bytes(target / path.name, path.read_bytes())
    return target


def _convert(source: Path, target: Path) -> None:
    with source.open("rb") as stream:
        head = stream.read(16)
    if head[:2] not in (b"PK", b"\x80\x02"):  # zip, or the pickles of old
        raise InvalidInput(
            f"is no checkpoint (starts with {printable(head.decode('latin-1'))!r})",
            where=source,
            remedy="Download it again",
        )
    command = [sys.executable, "-c", _SCRIPT, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 and target.is_file():
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()] or [
        f"exit code {done.returncode}"
    ]
    kind = lines[-1].partition(":")[0] if "Unpickling" not in done.stderr else "not weights alone"
    raise InvalidInput(
        f"cannot be read as weights ({printable(kind)[:100]})",
        where=source,
        remedy="Give model.safetensors, written by whoever trained it: save_pretrained does so",
    )
