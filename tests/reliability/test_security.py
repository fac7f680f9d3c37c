"""What is never done: unpickle, call out, write elsewhere, obey a name."""

from __future__ import annotations

import os
import pickle
import re
import socket
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.support import audit_hook
from tests.support.report_runs import ATTACKS, RATE, make_run, voice

from staanet import report, storage

DRAWN = True
"""What pictures are called is text as well."""
PAYLOADS = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe src=//evil.example>",
    "<object data=//evil.example>",
    "<embed src=//evil.example>",
    "<link rel=stylesheet href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<base href=//evil.example>",
    "<form action=//evil.example>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<audio src=//evil.example autoplay>",
    "<body onload=alert(1)>",
    "<style>@import '//evil.example'</style>",
    "<a href=javascript:alert(1)>x</a>",
    "<math><mtext></table>",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "</title>",
    "</style>",
    "</td></tr></table>",
    "</textarea>",
    "<plaintext>",
    '"',
    "'",
    "`",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "{{7*7}}",
    "{% include '/etc/passwd' %}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "&lt;script&gt;",
    "&#60;script&#62;",
    "\u202eabc",
    "\u2066abc\u2069",
    "\x1b[31mred",
    "a\x00b",
    "=cmd|' /C calc'!A0",
    "$\\input{/etc/passwd}$",
    "\u2028alert(1)",
)


class Tags(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: set[tuple[str, frozenset[str]]] = set()
        self.places: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.seen.add((tag, frozenset(name for name, _ in attrs)))
        self.places += [
            value or "" for name, value in attrs if name in ("src", "href", "action", "data")
        ]


def test_there_are_fifty_payloads() -> None:
    assert len(set(PAYLOADS)) == len(PAYLOADS) == 50


def test_fifty_payloads_in_every_field_are_text(tmp_path: Path) -> None:
    from dataclasses import replace

    from staanet.core import Clip

    everything = " ".join(PAYLOADS)
    quarters = tuple(" ".join(PAYLOADS[n::4]) for n in range(4))

    def page(folder: str, word: str, labels: tuple[str, ...], flags: tuple[str, ...]) -> str:
        clips = [Clip(f"c{i}", voice(i), RATE, labels[i % 4], f"{word} {i // 4}") for i in range(8)]
        made = replace(ATTACKS[0], title=word, white_box=1.0)
        run = make_run(
            tmp_path / folder,
            clips,
            targets=("emo18",),
            attacks=[made, ATTACKS[3]],
            labels=labels,
            flags=flags,
        )
        card = storage.read_card(run, "run")
        card |= {
            "command": word,
            "recipe": word,
            "commit": word,
            "machine": word,
            "seconds": {word: 1.0},
        }
        card["corpus"] |= {"notes": list(flags), "name": word}
        storage.write_json(run / "card.json", card)
        storage.write_card(
            run / "generators" / "emo18", {"kind": "generator", "network": word, "source": word}
        )
        return Path(report.build(run, clips=1)).read_text(encoding="utf-8")

    plain = page("plain", "word", ("a", "b", "c", "d"), ("flag",) * 50)
    hostile = page("hostile", everything, quarters, PAYLOADS)
    assert Tags(hostile).seen == Tags(plain).seen, (
        "no tag and no attribute that a plain page has not"
    )
    policy = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')
    assert policy.search(hostile)[1].startswith("default-src 'none'")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", hostile)
    assert "evil.example" in hostile
    assert not any(
        "evil" in place or place.startswith("javascript") for place in Tags(hostile).places
    )


# ---------------------------------------------------------------- the audit hook itself


def as_the_product(tmp_path: Path, code: str) -> None:
    """Run code as if it stood in the package."""
    place = tmp_path / "src" / "staanet" / "x.py"
    exec(compile(code, str(place), "exec"), {"os": os, "pickle": pickle, "socket": socket})


@pytest.mark.parametrize(
    "code",
    [
        "pickle.loads(pickle.dumps(os.path.join))",
        "socket.socket().connect(('192.0.2.1', 9))",
        "socket.getaddrinfo('evil.example', 80)",
        "open('/staanet-was-here', 'w')",
        "os.open('/staanet-was-here', os.O_WRONLY | os.O_CREAT)",
        "os.mkdir('/staanet-was-here')",
        "os.rename('/staanet-was-here', '/staanet-was-there')",
    ],
)
def test_what_is_forbidden_is_stopped(tmp_path: Path, code: str) -> None:
    with pytest.raises(audit_hook.Forbidden):
        as_the_product(tmp_path, code)
    assert not Path("/staanet-was-here").exists()


@pytest.mark.parametrize(
    "code",
    [
        "open('/dev/null', 'w').close()",
        "open('/etc/passwd').close()",
        "socket.getaddrinfo('localhost', 80)",
    ],
)
def test_what_is_allowed_is_not(tmp_path: Path, code: str) -> None:
    as_the_product(tmp_path, code)
    assert not list(tmp_path.iterdir())


def test_tests_themselves_may_unpickle() -> None:
    assert pickle.loads(pickle.dumps(os.path.join)) is os.path.join
