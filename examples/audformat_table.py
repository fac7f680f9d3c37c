"""An adversarial set as a table of audformat.

python examples/audformat_table.py runs/quick/adversarial/staa__emo18   (pip install 'staanet[audformat]')
"""

from __future__ import annotations

import sys

import audformat

from staanet.apps.interop.audformat import write_table


def main(folder: str) -> None:
    """Print the mean density and SNR of each label."""
    write_table(folder)
    table = audformat.Database.load(folder)["adversarial"].get()
    print(table.groupby("label", observed=True)[["density", "snr_db"]].mean())


if __name__ == "__main__":
    main(sys.argv[1])
