"""mkdocs hook: formulas between ``$$`` lines become drawings in the colour of the text.

matplotlib typesets them, so that the site needs no script and no fonts from outside. The source of each
formula is its description for people who do not see it.
"""

from __future__ import annotations

import html
import io
import re
from typing import Any

FORMULA = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.M | re.S)
SIZE = 12.0
"""Points of the letters."""


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces each formula of a page."""
    numbers = iter(range(1, 1000))
    return FORMULA.sub(lambda found: drawn(found[1], f"f{next(numbers)}"), markdown)


def drawn(formula: str, prefix: str) -> str:
    """One formula as SVG inside a block; ``prefix`` keeps its ids apart from those of others."""
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import math_to_image

    lines = []
    for number, line in enumerate(formula.splitlines()):
        out = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "staanet", "mathtext.fontset": "cm"}):
            math_to_image(f"${line}$", out, prop=FontProperties(size=SIZE), format="svg")
        svg = out.getvalue().decode()
        svg = svg[svg.index("<svg") :]
        points = float(re.findall(r'width="([\d.]+)pt"', svg)[0])
        svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-{number}-", svg)
        svg = re.sub(r'\s(?:width|height)="[^"]*pt"', "", svg, count=2)
        svg = svg.replace("<svg", f'<svg style="width:{points * 4 / 3:.0f}px"', 1)
        svg = re.sub(r'<path d="[^"]*"\s*style="fill: #ffffff[^>]*>', "", svg)
        lines.append(re.sub(r"\n\s*", " ", svg).strip())
    label = html.escape(" ".join(formula.split()), quote=True)
    return f'<div class="formula" role="math" aria-label="{label}">{"".join(lines)}</div>'
