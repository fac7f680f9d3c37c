"""Completion of words with a colon in bash, which splits them there."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping

VARIABLE = "_STAANET_COMPLETE"
"""The environment variable by which a shell asks for completions."""


def is_split_by_bash(environment: Mapping[str, str]) -> bool:
    """Tells whether bash asks for completions of words that it has split at a colon."""
    is_bash = environment.get(VARIABLE) == "complete_bash"
    return is_bash and ":" in environment.get("COMP_WORDS", "").split("\n")


def join_words(words: list[str], current: int) -> tuple[list[str], int, str]:
    """Joins words around each colon.

    Args:
        words: As bash split them.
        current: The index of the word that is completed.

    Returns:
        The words, the index of the completed word, and what stands before the last colon of that
        word, the colon included: bash keeps it.

    >>> join_words(["staanet", "attack", "--source", "shipped", ":", "em"], 5)
    (['staanet', 'attack', '--source', 'shipped:em'], 3, 'shipped:')
    """
    joined: list[str] = []
    for word in words[: current + 1]:
        if len(joined) > 1 and (word == ":" or joined[-1].endswith(":")):
            joined[-1] += word
        else:
            joined.append(word)
    before, colon, _ = joined[-1].rpartition(":")
    return joined, len(joined) - 1, before + colon


def complete(app: Callable[[], object]) -> None:
    """Prints the completions of a word that bash has split, without the part that bash keeps."""
    words, current, prefix = join_words(
        os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    )
    os.environ |= {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(current)}
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        app()
    for line in out.getvalue().splitlines():
        print(line.removeprefix(prefix))
