"""``Stage``: fills one folder, and decides whether it is done, begun, or belongs to other inputs.

A stage closes its folder with ``card.json``, which names everything that went in. A folder whose card
names the same inputs is done and is skipped. A folder made from other inputs stops the command. So a
killed run goes on where it stopped, and no stage quietly reuses the work of another experiment.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from staanet import storage
from staanet.errors import InvalidInput, printable
from staanet.nn import distributed

State = Literal["done", "begun", "to do", "to check"]
"""``to check``: the folder holds work, which counts if the stages before it come out the same."""
Inputs = Mapping[str, Any]
ANOTHER = {
    "clips": "other clips",
    "content": "other audio, labels or speakers",
    "generator": "another generator",
    "matched": "another set to match",
    "source": "another source model",
    "sources": "other source models",
    "split": "another split of the corpus",
    "target": "another target model",
    "vector": "another universal vector",
    "victim": "another victim",
}
"""The meaning of a differing hash, in words, by the name of the input."""
LONGEST_VALUE = 300
"""Characters of a value that an error message shows."""


class Digest(str):
    """A hash among the inputs of a stage that can say in words what differs."""

    def save(self, folder: Path) -> None:
        """Records what a hash of ``folder``'s inputs covers."""

    def explain(self, folder: Path) -> str:
        """The difference to the inputs that the folder was made from, as ``from other clips``."""
        raise TypeError(f"{type(self).__name__} does not implement explain")


class NotReady(Exception):
    """An input of a stage is not known before an earlier stage is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A folder, its inputs, and the function that fills it."""

    name: str
    folder: Path
    kind: str
    """Of its card."""
    inputs: Callable[[], Inputs] | None
    """Gives all that decides the content of the folder. A value that is itself a function is only
    computed to be compared with a finished card. Raises ``NotReady`` before an earlier stage is done.
    ``None``: the stage is done anew each time."""
    work: Callable[[Inputs], object]
    """Fills the folder; called with the inputs as JSON reads them back, those that are functions left
    out."""
    size: Callable[[], str] = str
    """Gives how much work it is, in words, for the dry run."""
    marker: str = ""
    """For a stage that always runs again: the file below its folder that shows an earlier run."""
    is_run: bool = False
    """Whether the folder is that of a whole run, whose journal stays."""

    def state(self) -> State:
        """Whether the folder is done, begun or empty, without doing any work.

        Raises ``InvalidInput`` if it belongs to other inputs.
        """
        if self.inputs is None:
            is_there = bool(self.marker) and (self.folder / self.marker).is_file()
            return "done" if is_there else "to do"
        if not self.has_work():
            return "to do"
        try:
            inputs = self.inputs()
        except NotReady:
            return "to check"
        return folder_state(self.folder, self.kind, inputs)

    def has_work(self) -> bool:
        """Whether the folder holds finished or unfinished work of any inputs."""
        return any((self.folder / name).exists() for name in (storage.CARD, storage.UNFINISHED))

    def perform(self) -> object:
        """Does the work unless it is done; returns what ``work`` returns, or ``None`` if it was done.

        Raises ``InvalidInput`` if the folder belongs to other inputs.
        """
        if self.inputs is None:
            return self.work({})
        inputs = self.inputs()
        if folder_state(self.folder, self.kind, inputs) == "done":
            self._tidy()
            return None
        if distributed.is_first():
            mark_begun(self.folder, inputs)
        result = self.work(normal(known_inputs(inputs)))
        if distributed.is_first():
            self._tidy()
        return result

    def _tidy(self) -> None:
        if self.is_run:
            storage.remove(self.folder / storage.UNFINISHED)
        else:
            discard_leftovers(self.folder)


@dataclass(frozen=True, slots=True)
class StageTimer:
    """Notes in a journal how long each stage worked."""

    journal: storage.Journal

    @classmethod
    def of(cls, run: Path) -> StageTimer:
        """That of the run in a folder."""
        return cls(storage.Journal(run / "journal.jsonl"))

    def note(self, stage: str, seconds: float) -> None:
        self.journal.append({"stage": stage, "seconds": round(seconds, 3)})

    def seconds(self) -> dict[str, float]:
        """The longest time that each stage took: when it was done rather than skipped."""
        longest: dict[str, float] = {}
        for row in self.journal.records():
            name = str(row["stage"])
            longest[name] = max(longest.get(name, 0.0), float(row["seconds"]))
        return longest


def walk(stages: Iterable[Stage], timer: StageTimer | None = None) -> dict[str, object]:
    """Performs each stage in turn; returns the results by name.

    ``stages`` may be a generator that looks at the results of earlier stages.
    """
    results = {}
    for stage in stages:
        begin = time.perf_counter()
        results[stage.name] = stage.perform()
        if timer is not None:
            timer.note(stage.name, time.perf_counter() - begin)
    return results


def folder_state(folder: Path, kind: str, inputs: Inputs) -> State:
    """Whether a folder is done, begun or empty.

    Args:
        folder: Where a stage writes.
        kind: Of its card.
        inputs: What it is to be made from. Functions among the values are called if there is a card.

    Returns:
        ``done``, ``begun`` or ``to do``.

    Raises:
        InvalidInput: If the folder is finished or begun with other inputs.
    """
    if (folder / storage.CARD).exists():
        before = storage.read_card(folder, kind).get("inputs")
        complete = {key: value() if callable(value) else value for key, value in inputs.items()}
        require_same_inputs(before, complete, folder, "was made")
        return "done"
    if (folder / storage.UNFINISHED).exists():
        before = storage.read_json(folder / storage.UNFINISHED)
        require_same_inputs(before, known_inputs(inputs), folder, "was begun")
        return "begun"
    return "to do"


def mark_begun(folder: Path, inputs: Inputs) -> None:
    """Records the inputs of a folder until its card holds them."""
    if not (folder / storage.UNFINISHED).exists():
        for value in inputs.values():
            if isinstance(value, Digest):
                value.save(folder)
        storage.write_json(folder / storage.UNFINISHED, normal(known_inputs(inputs)))


def discard_leftovers(folder: Path) -> None:
    """Removes what only an unfinished stage needs, once its card is written."""
    storage.discard_checkpoints(folder / "checkpoint")
    for name in ("journal.jsonl", storage.UNFINISHED):
        storage.remove(folder / name)


def require_same_inputs(before: object, now: Inputs, folder: Path, verb: str = "was made") -> None:
    """Compares the recorded inputs of a folder with the present ones.

    Raises ``InvalidInput`` that names the first difference in words. Keys that ``now`` lacks do not
    count: later versions may note more.
    """
    earlier = before if isinstance(before, Mapping) else {}
    difference = ""
    for key, value in now.items():
        if isinstance(value, Digest) and earlier.get(key) != value:
            difference = value.explain(folder)
        difference = difference or describe_difference(earlier, normal({key: value}))
        if difference:
            break
    if difference:
        raise InvalidInput(
            f"{verb} {difference}",
            where=folder,
            remedy="Choose another --out, or delete that folder",
        )


def describe_difference(before: Inputs, now: Inputs) -> str:
    """The first difference between two inputs, in words; empty if there is none.

    >>> describe_difference({"recipe": {"steps": 2}}, {"recipe": {"steps": 3}})
    'with recipe.steps = 2, now it is 3'
    >>> describe_difference({"source": "ab" * 32}, {"source": "cd" * 32})
    'from another source model'
    """
    for key, value in now.items():
        old = before.get(key)
        if old == value:
            continue
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in ANOTHER:
            names = {**value, **old}
            inner = describe_difference(
                {f"{key}.{name}": old.get(name) for name in names},
                {f"{key}.{name}": value.get(name) for name in names},
            )
            if inner:
                return inner
            continue
        if key in ANOTHER:
            return f"from {ANOTHER[key]}"
        return f"with {key} = {_brief(old)}, now it is {_brief(value)}"
    return ""


def _brief(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) < LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def known_inputs(inputs: Inputs) -> dict[str, Any]:
    """The inputs without those that are functions."""
    return {key: value for key, value in inputs.items() if not callable(value)}


def normal(inputs: Inputs) -> dict[str, Any]:
    """Inputs as JSON reads them back, for comparison."""
    read_back: dict[str, Any] = json.loads(json.dumps(inputs))
    return read_back
