"""`make docs-site` makes a site of all pages, in which every link leads somewhere and nothing comes from a network."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|img|link|iframe|source|embed|object)\b[^>]*?\b(?:src|href|data|srcset)=\"([^\"]*)\"")
LOADED_BY_CSS = re.compile(r"@import[^;]*|url\(([^)]*)\)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, by the Makefile's own command, in another folder."""
    (command,) = re.findall(r"^\t\$\(BIN\)/python (-m sphinx.*)$", (ROOT / "Makefile").read_text(), re.M)
    folder = tmp_path_factory.mktemp("docs")
    command = command.replace("build/", f"{folder}/")
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "site"


@pytest.mark.process
def test_the_site_has_all_pages_links_nowhere_and_loads_nothing(site):
    texts = {path: path.read_text("utf-8") for path in site.rglob("*.html")}
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    missing = [page for page in pages if site / page.relative_to(ROOT).with_suffix(".html") not in texts]
    assert missing == []

    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    broken = []
    for path, text in texts.items():
        for link in set(re.findall(r'\b(?:href|src)="([^"]*)"', text)):
            if not re.match(r"https?:|mailto:|data:", link):
                file, _, anchor = unquote(link).partition("#")
                target = (path.parent / file.partition("?")[0]).resolve() if file else path
                if not target.exists() or (anchor and anchor not in ids.get(target, {anchor})):
                    broken.append((str(path.relative_to(site)), link))
    assert broken == []

    loaded = {link for text in texts.values() for link in LOADED.findall(text)}
    styled = {url for path in site.rglob("*.css") for url in LOADED_BY_CSS.findall(path.read_text("utf-8"))}
    assert loaded
    assert [link for link in loaded | styled if re.match(r"\W*(?:https?:)?//", link)] == []


@pytest.mark.process
def test_the_site_finds_words_files_and_definitions(site):
    assert "docs/loop" in (site / "searchindex.js").read_text("utf-8")
    loop = (site / "docs/loop.html").read_text("utf-8")
    (line,) = set(re.findall(r'href="\.\./source/ampo_core/train\.py\.html#L-(\d+)"><code[^>]*>.*?train_step', loop))
    assert "def train_step(" in (ROOT / "ampo_core/train.py").read_text("utf-8").splitlines()[int(line) - 1]
    sidebar = (site / "docs/index.html").read_text("utf-8")
    assert re.findall(r'class="caption-text">([^<]+)<', sidebar)[:3] == ["Start", "Bring yours", "Write a plugin"]
