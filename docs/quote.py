"""Put the files that pages quote into them anew: `make docs`.

A quoted file is a code block behind `<!-- file: path/in/the/repository -->`; a test compares the two.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUOTED = re.compile(r"(<!-- file: (?P<file>[^;\s]+)[^>]*-->\n```\w+\n)(?P<text>.*?)(```)", re.S)


def quoted(text: str) -> str:
    """`text` with the present contents of the files that it quotes."""
    return QUOTED.sub(lambda found: found[1] + (ROOT / found["file"]).read_text("utf-8") + found[4], text)


if __name__ == "__main__":
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        before = page.read_text("utf-8")
        if (after := quoted(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page}")
