"""``python -m bench pictures RUN``: the README's two pictures, of a run's report and of one fooled clip."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pandas
import soundfile
from PIL import Image
from tests.support import headless

from staanet.report import clip_pictures
from staanet.storage import write_bytes

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
WIDTH = 1000  # of a stored picture, in pixels
WINDOW = (1280, 800)  # of the browser


def main(arguments: Sequence[str]) -> None:
    """Writes ``report.png`` and ``fooled_clip.png`` of the run in ``arguments[0]``."""
    run = Path(arguments[0])
    write_bytes(FIGURES / "report.png", shrink(first_screen(run / "report" / "index.html")))
    write_bytes(FIGURES / "fooled_clip.png", shrink(fooled_clip(run)))


def first_screen(page_file: Path) -> bytes:
    """Returns what a browser shows of a page before anyone scrolls, as PNG."""
    target = page_file.with_name("first_screen.png")
    with headless.browser() as browser:
        page = browser.page()
        page.size(*WINDOW)
        page.open(page_file.resolve().as_uri())
        page.screenshot(target)
    data = target.read_bytes()
    target.unlink()
    return data


def fooled_clip(run: Path, attack: str = "staa") -> bytes:
    """Returns the picture of the first clip that ``attack`` fooled on its own source, as PNG."""
    rows = pandas.read_parquet(run / "results" / "results.parquet")
    white_box = rows[(rows.attack == attack) & (rows.source == rows.target)]
    fooled = white_box[white_box.clean_prediction != white_box.adversarial_prediction].iloc[0]
    folder = run / "adversarial" / f"{attack}__{fooled.source}"
    table = pandas.read_csv(folder / "metadata.csv").set_index("id").loc[fooled.id]
    clean, rate = soundfile.read(folder / table.original_file_name, dtype="int16")
    adversarial, _ = soundfile.read(folder / table.file_name, dtype="int16")
    return clip_pictures.waveform_picture(clean, adversarial, rate)


def shrink(png: bytes) -> bytes:
    """Returns a picture at most ``WIDTH`` pixels wide, in at most 128 colours."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    height = round(picture.height * min(1, WIDTH / picture.width))
    small = picture.resize((min(WIDTH, picture.width), height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.quantize(128, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()
