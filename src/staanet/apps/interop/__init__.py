"""staanet beside the tools that people already use: ART, Foolbox, audformat, TensorBoard.

A file per library, each imported by itself, so that none of the libraries is needed for the others.
"""

from __future__ import annotations
