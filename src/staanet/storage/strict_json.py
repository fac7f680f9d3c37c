"""Strict JSON: no duplicate keys, no NaN, and no numbers out of range."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from staanet.errors import InvalidInput, printable
from staanet.storage.files import read_bytes, write_bytes

_MAX_DIGITS = 30


def write_json(path: Path | str, obj: Any) -> None:
    """``write_bytes`` as JSON that is the same for equal content and has no NaN or infinity."""
    text = json.dumps(obj, allow_nan=False, sort_keys=True, indent=2)
    write_bytes(path, f"{text}\n".encode("ascii"))


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, refusing what parsers disagree about.

    Raises ``InvalidInput`` where the file is missing, not UTF-8 (a byte order mark is accepted),
    not JSON, nested too deeply, or holds a key twice, NaN, infinity or a number beyond use.
    """
    return parse_json(read_bytes(path), path)


def parse_json(data: bytes, where: object) -> Any:
    """Returns the content of JSON text; raises as ``read_json``, naming ``where``."""

    def refuse(what: str) -> NoReturn:
        raise InvalidInput(what, where=where, remedy="Mend the file, or write it again")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            refuse(f"holds the key '{printable(twice)[:40]}' twice")
        return content

    def integer(text: str) -> int:
        if len(text) > _MAX_DIGITS:
            refuse(f"holds a number of {len(text)} digits")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            refuse(f"holds {text[:40]}, which is no finite number")
        return value

    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=real,
            parse_constant=lambda name: refuse(f"holds {name}, which is not JSON"),
        )
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"not UTF-8 (byte {error.start})", where=where, remedy="Save as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"not JSON ({error.msg} at line {error.lineno}, column {error.colno})",
            where=where,
            remedy="Mend the file, or write it again",
        ) from error
    except RecursionError:
        refuse("nested too deeply")
