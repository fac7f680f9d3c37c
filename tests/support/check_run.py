"""Checks a finished run from outside: every reported figure against the files, the page for requests.

Used after a whole recipe has run: ``python tests/check_run.py runs/quick``.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas
import soundfile

from staanet.core import Budget


def main(run: Path) -> None:
    clips = 0
    for folder in sorted((run / "adversarial").iterdir()):
        budget = json.loads((folder / "card.json").read_text())["budget"]
        for row in pandas.read_csv(folder / "metadata.csv").itertuples():
            clean, rate = soundfile.read(folder / row.original_file_name, dtype="int16")
            delta = soundfile.read(folder / row.file_name, dtype="int16")[0].astype(int) - clean
            assert row.l0 == np.count_nonzero(delta), (folder, row.id, "l0")
            assert row.linf == np.abs(delta).max(initial=0) / 32768, (folder, row.id, "linf")
            largest = Budget(epsilon=budget["epsilon"]).for_clip(clean, rate).epsilon_lsb
            assert row.linf <= largest / 32768, (folder, row.id, "epsilon")
            if budget["max_density"] is not None:
                assert row.l0 <= budget["max_density"] * len(clean), (folder, row.id, "density")
            clips += 1
    summary = json.loads((run / "results" / "summary.json").read_text())
    frame = pandas.read_parquet(run / "results" / "results.parquet")
    for cell in summary["cells"]:
        own = frame
        for key in ("attack", "source", "target", "channel"):
            own = own[own[key] == cell[key]] if key in own else own
        fooled = (own.clean_prediction != own.adversarial_prediction).mean()
        assert abs(fooled - cell["fooling_rate"]["value"]) < 1e-9, cell["attack"]
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    outside = re.findall(r'(?:src|href)="(?!data:|#)[^"]*"|url\((?!["\']?(?:data:|#))', page)
    assert not outside, f"the page asks for {outside[:3]}"
    print(f"{run}: {clips} of {clips} clips are what the tables say; the page asks for nothing")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
