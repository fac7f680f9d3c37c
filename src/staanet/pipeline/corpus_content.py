"""Hashes of the data behind a training or a run: audio, labels and speakers of all parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from staanet import storage
from staanet.core import Corpus
from staanet.pipeline.stage import Digest
from staanet.results import row_files
from staanet.results.clip_tables import (
    COLUMNS,
    Row,
    content_of,
    corpus_rows,
    describe_row_changes,
    folders_with_table,
    read_listing,
)


class CorpusContent(Digest):
    """The hash of the audio, labels and speakers of the parts of a corpus."""

    rows: Callable[[], Iterator[Row]]

    @classmethod
    def of(cls, parts: Sequence[Corpus]) -> CorpusContent:
        """That of train, dev and test. Each file is read once in a process."""
        content = cls(content_of(corpus_rows(parts)))
        content.rows = lambda: corpus_rows(parts)
        return content

    @property
    def listing(self) -> str:
        """Name of the table of the clips."""
        return storage.CLIP_TABLES.replace("*", self[-12:])

    def save(self, folder: Path) -> None:
        """Writes a row per clip, unless the folder or one of the two above has that table already."""
        if not any((parent / self.listing).exists() for parent in folders_with_table(folder)):
            table = row_files.csv_text(COLUMNS, [dict(row) for row in self.rows()])
            storage.write_text(folder / self.listing, table)

    def explain(self, folder: Path) -> str:
        """Which clips differ from those that the folder was made from."""
        before = read_listing(folder)
        if not before:
            return "from other audio, labels or speakers"
        return describe_row_changes(before, {row["id"]: row for row in self.rows()})
