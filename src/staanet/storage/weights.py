"""Weights as safetensors beside a card that holds their sha256; pickles are never opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from staanet.errors import InvalidInput, first_names, printable
from staanet.storage.cards import CARD, read_card, write_card
from staanet.storage.files import open_regular, write_bytes
from staanet.storage.strict_json import parse_json

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
SEALED, SEALED_KEYS = "settings", ("labels", "sample_rate", "tolerance")
"""Key of the metadata of the weights, and the keys of the card that it repeats."""

_MAX_HEADER_BYTES = 100 * 10**6


def save_model(
    folder: Path | str, *, kind: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]
) -> str:
    """Write ``model.safetensors`` and then ``card.json`` with its sha256, which is returned.

    A writer killed between the two leaves a folder that ``load_model`` refuses.
    """
    data = serialise(tensors, _sealed_settings(card))
    write_bytes(Path(folder) / WEIGHTS, data)
    digest = hashlib.sha256(data).hexdigest()
    write_card(folder, {**card, "kind": kind, "sha256": digest})
    return digest


def load_model(folder: Path | str, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and card, as ``save_model`` wrote them.

    Raises ``InvalidInput`` where the card is unfit (see ``read_card``), the weights are not
    safetensors, or their sha256 is not the card's.
    """
    card = read_card(folder, kind)
    path = Path(folder) / WEIGHTS
    data, header = read_safetensors(path)
    if hashlib.sha256(data).hexdigest() != card.get("sha256"):
        raise InvalidInput(
            f"sha256 differs from {CARD}: the weights were changed or the folder is half written",
            where=path,
            remedy="Copy the folder again, or train again",
        )
    sealed = (header.get("__metadata__") or {}).get(SEALED)
    if sealed is not None and sealed != (_sealed_settings(card) or {}).get(SEALED):
        raise InvalidInput(
            f"its {' or '.join(SEALED_KEYS)} in {CARD} are not those that the weights were saved with",
            where=folder,
            remedy="Copy the folder again, or train again",
        )
    return deserialise(data, path), card


def _sealed_settings(card: Mapping[str, Any]) -> dict[str, str] | None:
    """What the hash of the weights covers of a card, as metadata of the file; ``format`` is for readers
    of the library transformers."""
    settings = {key: card[key] for key in SEALED_KEYS if key in card}
    return {"format": "pt", SEALED: json.dumps(settings)} if settings else None


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], folder: Path | str) -> None:
    """Load ``tensors`` into ``module``, every key in its shape and kind of number, or raise ``InvalidInput``.

    A weight that is no finite number is none either: of answers that are NaN the first class is the
    largest, whatever is asked, so that nothing would ever seem to fool such a network.
    """
    expected = module.state_dict()
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - tensors.keys())]
    wrong += [
        f"{printable(name)} is unexpected" for name in sorted(tensors.keys() - expected.keys())
    ]
    wrong += [
        f"{name} is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ] + [
        f"{name} holds {str(tensors[name].dtype)[6:]}, not {str(expected[name].dtype)[6:]}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].is_floating_point() != expected[name].is_floating_point()
        or tensors[name].is_complex() != expected[name].is_complex()
    ]
    if wrong:
        raise InvalidInput(
            f"the weights do not fit the network: {first_names(wrong)}",
            where=Path(folder) / WEIGHTS,
            remedy="Load them with the class and settings that wrote them",
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InvalidInput(
                f"{printable(name)} holds {int((~tensor.isfinite()).sum())} values that are no finite number",
                where=Path(folder) / WEIGHTS,
                remedy="Train again",
            )
    module.load_state_dict(dict(tensors), strict=True)


def serialise(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Returns ``tensors`` as the bytes of a safetensors file."""
    from safetensors.torch import save

    # a clone each, as safetensors refuses tensors that share memory
    whole = {n: t.detach().to("cpu").clone().contiguous() for n, t in tensors.items()}
    data = save(whole, metadata)
    return _sort_metadata(data) if metadata and len(metadata) > 1 else data


def _sort_metadata(data: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes it in any order, and
    equal models are to have equal hashes."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def read_safetensors(path: Path) -> tuple[bytes, dict[str, Any]]:
    """A safetensors file and its header; ``InvalidInput`` where it is not one at first sight, before
    more of it is read."""
    with open_regular(path) as (stream, size):
        header = _safetensors_header(stream, size, path)
        stream.seek(0)
        return stream.read(size), header


def _safetensors_header(stream: BufferedReader, size: int, path: Path) -> dict[str, Any]:
    def refuse(what: str) -> NoReturn:
        remedy = "Copy the file again; only safetensors are read, pickles never"
        raise InvalidInput(what, where=path, remedy=remedy)

    start = stream.read(12)
    if not start:
        refuse("empty (0 bytes)")
    if start[8:9] != b"{":
        shown = printable(start.decode("ascii", "backslashreplace"))
        refuse(f"not a safetensors file (starts with '{shown}')")
    length = int.from_bytes(start[:8], "little")
    if length > min(size - 8, _MAX_HEADER_BYTES):
        refuse(f"its header claims {length} bytes, the file holds {size}: cut or damaged")
    stream.seek(8)
    header: dict[str, Any] = parse_json(stream.read(length), path)
    ends = [_end_of(entry) for name, entry in header.items() if name != "__metadata__"]
    if (due := 8 + length + max(ends, default=0)) != size:
        refuse(f"its header describes {due} bytes, the file holds {size}: cut or damaged")
    return header


def _end_of(entry: object) -> int:
    """Where a tensor ends that a header places there; 0 for what places none, which safetensors refuses."""
    match entry:
        case {"data_offsets": [int(), int() as end]}:
            return end
    return 0


def deserialise(data: bytes, path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a safetensors file; ``InvalidInput`` where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput(
            f"damaged safetensors file ({printable(str(error))[:200]})",
            where=path,
            remedy="Copy the file again",
        ) from error
