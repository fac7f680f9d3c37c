"""Benches are tested on the tiny corpora of the package's tests."""

from __future__ import annotations

from tests.conftest import tiny_corpus

__all__ = ["tiny_corpus"]
