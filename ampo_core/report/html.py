"""Pieces of HTML. Whatever text goes in comes out escaped; what these functions return is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape


def slug(text: str) -> str:
    """`text` as an id: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-").lower()


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values as a list; empty without any."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """(label, number, remark) as large numbers."""
    cells = "".join(
        f'<div class="tile"><span class="label">{escape(label)}</span><span class="number">{escape(number)}</span>'
        f'<span class="remark">{escape(remark)}</span></div>'
        for label, number, remark in items
    )
    return f'<div class="tiles">{cells}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "", left: int = 1) -> str:
    """A table that scrolls in its box; the first `left` columns are text, the others numbers."""
    if not rows:
        return ""
    kinds = ["" if i < left else ' class="number"' for i in range(len(head))]
    top = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{escape(cell)}</th>' if i == 0 else f"<td{kinds[i]}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    said = f'<p class="caption">{escape(caption)}</p>' if caption else ""
    return (
        f'{said}<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption or head[0])}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def paragraph(text: str) -> str:
    """A sentence; an empty one is left out."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def warned(said: str, lines: Sequence[str]) -> str:
    """What a reader must know before all else; empty without any."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warning" role="note"><strong>{escape(said)}:</strong><ul>{items}</ul></div>' if lines else ""


def picture(file: str, what: str) -> str:
    """A picture beside the page, and what it shows."""
    return f'<p><img src="{escape(file)}" alt="{escape(what)}"></p>'


def block(text: str) -> str:
    """Text as it stands, in a box that scrolls."""
    return f'<pre class="scroll" tabindex="0">{escape(text)}</pre>'


def folded(title: str, html: str) -> str:
    """Something that opens on a click."""
    return f"<details><summary>{escape(title)}</summary>{html}</details>" if html else ""
