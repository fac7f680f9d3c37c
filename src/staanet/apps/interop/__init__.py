"""Bridges to ART, Foolbox, audformat and TensorBoard.

Each library has a file, which is imported by itself, so that no library is needed for another.
"""

from __future__ import annotations
