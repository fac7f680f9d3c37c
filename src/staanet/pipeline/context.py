"""``Context``: the settings and services that all stages of one command share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from staanet.core import Corpus, Progress, silent
from staanet.pipeline.corpus_content import CorpusContent
from staanet.pipeline.quarantine import Quarantine


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Shared settings of all stages of one command: randomness, split, machine, and reporting.

    >>> context = Context(seed=1)
    >>> context.device, context.strict
    ('cpu', False)
    """

    seed: int = 0
    """Of the split, of training and of every attack."""
    protocol: str | None = None
    """How the corpus is split (``staanet.core.splits``). ``None``: speakers drawn by the seed."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``cuda:N``."""
    quarantine: Quarantine = field(default_factory=Quarantine)
    """Collects the clips that cannot be used."""
    progress: Progress = silent
    workers: int = 1
    """Processes that perform the stages of a run; each has its part of the threads."""
    label_map: Mapping[str, str] = field(default_factory=dict)
    """Which label of a model stands for which label of the clips, beside well-known words."""

    @property
    def strict(self) -> bool:
        """Whether the first clip that cannot be used stops the command."""
        return self.quarantine.strict

    def for_worker(self) -> Context:
        """The same settings for another process: nothing in quarantine, no progress, one worker."""
        quarantine = Quarantine(self.strict)
        return replace(self, quarantine=quarantine, progress=silent, workers=1)

    def split(self, corpus: Corpus) -> tuple[Corpus, Corpus, Corpus]:
        """The train, dev and test part of a corpus, by this seed and protocol."""
        return corpus.split(self.seed, self.protocol)

    def split_inputs(self, corpus: Corpus) -> dict[str, object]:
        """The card's entries on corpus, split and content; the default protocol is left out.

        The settings come first: they are named before the split that they lead to.
        """
        parts = self.split(corpus)
        protocol = {} if self.protocol is None else {"protocol": self.protocol}
        return {
            "corpus": corpus.name,
            "seed": self.seed,
            **protocol,
            "content": CorpusContent.of(parts),
            "split": parts[0].split_hash,
        }
