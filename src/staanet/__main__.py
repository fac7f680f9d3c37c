"""``staanet`` and ``python -m staanet`` are the command line."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script; Ctrl-C may come while the command line is still imported."""
    try:
        from staanet.cli import entry
    except KeyboardInterrupt:
        sys.stderr.write("staanet: stopped\n")
        sys.exit(130)
    entry()


if __name__ == "__main__":
    main()
