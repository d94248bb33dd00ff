"""Sections and figures as one HTML page that needs no network and allows none.

Texts are escaped where they become HTML; data for the page's script lies in a block that no text can end. The page's
policy lets its own two scripts run, by their hashes, and nothing be loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ampo_core.report.figures import COLOURS, DASHES, Figure
from ampo_core.report.library import plotting_library, script_hash

MOST_STICKY = 6
"""Switches that stay in sight on a phone; more would cover it."""
ASSETS = Path(__file__).with_name("assets")
DARK = ("#58A6E8", "#F28A45", "#34C79B", "#E3A0C8", "#9AD4F7", "#F2B84B", "#E6E9EE")
"""The series' colours on a dark page, in the order of COLOURS: the same hues, lighter."""
_DASH_LENGTHS = dict(zip(DASHES, ("", "7 4", "7 3 2 3", "2 3"), strict=True))


@dataclass(frozen=True, slots=True)
class Group:
    """Figures of a section under a heading of their own, behind a click unless they are `shown` at once."""

    title: str
    figures: Sequence[Figure]
    shown: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: `html` is trusted, made by the functions of html.py."""

    id: str
    title: str
    html: str = ""
    figures: Sequence[Figure] = ()
    groups: Sequence[Group] = ()
    after: str = ""
    folded: bool = False

    @property
    def all_figures(self) -> list[Figure]:
        """Its own figures and those of its groups."""
        return [*self.figures, *(figure for group in self.groups for figure in group.figures)]


@dataclass(frozen=True, slots=True)
class Page:
    """What `render` needs. `legend` are the names of runs that figures draw together, by their order."""

    title: str
    subtitle: str
    head: str
    sections: Sequence[Section]
    legend: Sequence[str] = ()
    hidden: Sequence[int] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def render(page: Page) -> str:
    """The page as HTML."""
    style, script, library = _asset("report.css"), _asset("report.js"), plotting_library()
    figures = [figure for section in page.sections for figure in section.all_figures]
    data = {
        "figures": [figure.as_json() for figure in figures],
        "rows": list(page.rows),
        "hidden": list(page.hidden),
        **page.extra,
    }
    return _filled(
        "report.html",
        policy=_policy(script_hash(script.encode()), library.hash),
        title=escape(page.title),
        style=f"{_palette()}\n{style}",
        subtitle=escape(page.subtitle),
        head=page.head,
        links="".join(f'<a href="#{section.id}">{escape(section.title)}</a>' for section in page.sections),
        legend=_legend(page.legend),
        sections="".join(map(_section, page.sections)),
        version=escape(library.version),
        data=script_safe(data),
        library=library.packed,
        script=script,
    )


def plain_page(title: str, body: str) -> str:
    """A page without figures and scripts; `body` is trusted."""
    return _filled("plain.html", title=escape(title), body=body)


def script_safe(value: object) -> str:
    """JSON that can stand inside a <script> block, whatever its texts say. Raises ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: only the scripts with these hashes run, and nothing is fetched."""
    allowed = " ".join(f"'{script}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _filled(template: str, **parts: str) -> str:
    """A template of assets/ with its places filled as they are."""
    return Template(_asset(template)).substitute(parts)


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _palette() -> str:
    light, dark = ("".join(f"--s{i}:{value};" for i, value in enumerate(colours)) for colours in (COLOURS, DARK))
    return (
        f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f":root[data-theme=dark]{{{dark}}}"
    )


def _legend(names: Sequence[str]) -> str:
    """A switch for each run, with the line that it is drawn with."""
    if not names:
        return ""
    chips = "".join(
        f'<button type="button" class="chip" data-run="{order}" aria-pressed="true">{_swatch(order)}{escape(name)}'
        "</button>"
        for order, name in enumerate(names)
        if len(names) > 1
    )
    kind = "legend" + (" still" if len(names) == 1 else " many" if len(names) > MOST_STICKY else "")
    raw = '<label class="raw"><input type="checkbox" id="raw" checked> show every step</label>'
    return f'<div class="{kind}" role="group" aria-label="Runs in the figures">{chips}{raw}</div>'


def _swatch(order: int) -> str:
    dash = _DASH_LENGTHS[DASHES[order % len(DASHES)]]
    return (
        f'<svg width="26" height="8" aria-hidden="true"><line x1="0" y1="4" x2="26" y2="4" stroke-width="3" '
        f'stroke-dasharray="{dash}" style="stroke:var(--s{order % len(COLOURS)})"/></svg>'
    )


def _grid(shown: Sequence[Figure]) -> str:
    figures = "".join(
        f"<figure{' class=wide' if figure.wide else ''}><figcaption><strong>{escape(figure.title)}</strong>"
        f"<span>{escape(figure.caption)}</span></figcaption>"
        f'<div class="plot" data-figure="{escape(figure.id)}" role="img" aria-label="{escape(figure.title)}: '
        f'{escape(figure.caption)}"></div></figure>'
        for figure in shown
    )
    return f'<div class="grid">{figures}</div>' if figures else ""


def _section(section: Section) -> str:
    groups = "".join(
        f"<details class=group{' open' if group.shown else ''}><summary>{escape(group.title)}</summary>"
        f"{_grid(group.figures)}</details>"
        for group in section.groups
    )
    inner = section.html + _grid(section.figures) + groups + section.after
    title = escape(section.title)
    if section.folded:
        inner = f"<details><summary>{title}</summary>{inner}</details>"
        return f'<section id="{section.id}" aria-label="{title}">{inner}</section>\n'
    heading = f'<h2 id="{section.id}-title">{title}</h2>'
    return f'<section id="{section.id}" aria-labelledby="{section.id}-title">{heading}{inner}</section>\n'
