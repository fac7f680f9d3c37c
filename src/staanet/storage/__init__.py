"""Storage: atomic files, journal, folder lock, and models with cards.

The public names of the modules are here: ``storage.write_json``, ``storage.Journal``, ``storage.load_model``.
"""

from staanet.storage.cards import CARD, SCHEMA, build_from_card, holds, read_card, write_card
from staanet.storage.checkpoints import discard_checkpoints, latest_checkpoint, save_checkpoint
from staanet.storage.files import (
    FileWriter,
    copy,
    make_folder,
    read_bytes,
    remove,
    sha256,
    write_bytes,
    write_text,
)
from staanet.storage.foreign import LOCK, PAGE_MARK, UNFINISHED, refuse_foreign
from staanet.storage.journal import Journal
from staanet.storage.lock import CLIP_TABLES, FolderLock
from staanet.storage.machine import describe_machine
from staanet.storage.strict_json import read_json, write_json
from staanet.storage.weights import WEIGHTS, fill_module, load_model, save_model

__all__ = [
    "CARD",
    "LOCK",
    "SCHEMA",
    "CLIP_TABLES",
    "PAGE_MARK",
    "UNFINISHED",
    "WEIGHTS",
    "FileWriter",
    "FolderLock",
    "Journal",
    "build_from_card",
    "copy",
    "discard_checkpoints",
    "fill_module",
    "holds",
    "latest_checkpoint",
    "load_model",
    "describe_machine",
    "make_folder",
    "read_bytes",
    "read_card",
    "read_json",
    "refuse_foreign",
    "remove",
    "save_checkpoint",
    "save_model",
    "sha256",
    "write_bytes",
    "write_card",
    "write_json",
    "write_text",
]
