"""A cell of the bench of strength: the better of two losses counts, and times choose the comparison."""

from __future__ import annotations

from bench import strength

from staanet.victims import Emo18


def row(number, fooled):
    return {
        "clip": str(number),
        "speaker": str(number % 4),
        "density": 0.2,
        "level": -30.0,
        "attack": ["FGSM", "FGSM", "PGD 4", "1 pass"],
        "seconds": [0.1, 0.1, 0.5, 0.11],
        "snr_db": [30.0] * 4,
        "fooled": {"emo18": fooled, "other": [not hit for hit in fooled]},
    }


def test_the_better_loss_counts_and_ours_is_compared_with_equal_time():
    rows = [row(n, [n % 2 == 0, n % 4 != 0, True, True]) for n in range(8)]
    cell = strength.cell(rows, "emodb", Emo18(["a", "b"]), (0.2, -30.0))
    assert cell["own"] == {"FGSM": 0.75, "PGD 4": 1.0, "1 pass": 1.0}
    assert cell["fooled"]["other"]["FGSM"] == 0.25  # of the loss that fools the source
    difference = cell["differences"]["1 pass, equal time"]
    assert (difference["against"], difference["value"]) == ("FGSM", 0.25)
    assert cell["differences"]["1 pass, more time"]["against"] == "PGD 4"
    table = strength.summary([cell])
    assert "| 1 pass, equal time | 1 | 1 | 1 | 0 | +25.0 points |" in table
    assert "100 (+25 [" in strength.white_box([cell])
