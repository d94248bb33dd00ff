"""A Sphinx extension: the files and folders that pages name are pages of the site as well.

- A link to a file of the repository leads to that file, highlighted; a link to a folder to the list of its files.
- A pointer such as `ampo_core/train.py:train_step` leads to the line of the definition.
- Each heading of docs/index.md is a part of the sidebar, and the pages that are linked under it are its entries.
"""

import ast
import html
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
POINTER = re.compile(r"([\w/.-]+\.(?:py|yaml|toml|sh))(?::([\w.]+))?")
FRONT = """<!doctype html>
<meta charset="utf-8"><meta http-equiv="refresh" content="0; url=docs/index.html"><title>AMPO</title>
<a href="docs/index.html">AMPO documentation</a>
"""
SIDEBARS: dict[int, Callable[..., str]] = {}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown", ".sh": "bash", ".json": "json"}


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect; pages are read anew in each build, so nothing is kept between builds."""
    named: set[Path] = set()
    app.connect("source-read", toctrees)
    app.connect("doctree-read", lambda app, doctree: link(app, doctree, named), priority=100)
    app.connect("html-collect-pages", lambda app: pages(app, named))
    app.connect("html-page-context", share_sidebar, priority=100)
    app.connect("build-finished", lambda app, fault: (Path(app.outdir) / "index.html").write_text(FRONT, "utf-8"))
    return {"parallel_read_safe": False}


def toctrees(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Append to each part of docs/index.md a toctree of the pages that it links to."""
    if docname != "docs/index":
        return
    head, *parts = re.split(r"^(?=## )", source[0], flags=re.M)
    for part in parts:
        caption = part.splitlines()[0].removeprefix("## ")
        links = re.findall(r"\[([^\]]+)\]\(([\w./-]+\.md)\)", part)
        entries = "\n".join(f"{text} </docs/{page}>".replace("/docs/../", "/") for text, page in links)
        head += f"{part}\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n\n"
    source[0] = head


def link(app: Sphinx, doctree: nodes.document, named: set[Path]) -> None:
    """Turn links to files and folders, and pointers into the code, into links to their pages."""
    for node in list(doctree.findall(addnodes.download_reference)):
        path = (ROOT / app.env.relfn2path(node["reftarget"], app.env.docname)[0]).resolve()
        if path.suffix in LANGUAGES:
            replace(app, node, path, "", named)
    for node in list(doctree.findall(addnodes.pending_xref)):
        path = ROOT.joinpath(app.env.docname).parent.joinpath(node["reftarget"]).resolve()
        if not node.get("refdomain") and path.is_dir():  # what leads to a page has a domain
            replace(app, node, path, "", named)
    for node in list(doctree.findall(nodes.literal)):
        found = POINTER.fullmatch(node.astext())
        linked = isinstance(node.parent, nodes.reference | addnodes.pending_xref)
        if found and not linked and ROOT.joinpath(found[1]).is_file():
            replace(app, node, ROOT / found[1], f"#L-{line(ROOT / found[1], found[2])}" if found[2] else "", named)


def replace(app: Sphinx, node: nodes.Element, path: Path, anchor: str, named: set[Path]) -> None:
    """Put a link to the page of `path` in the place of `node`, or around it if it is text."""
    named.add(path)
    uri = app.builder.get_relative_uri(app.env.docname, page_of(path)) + anchor
    inner = [node.deepcopy()] if isinstance(node, nodes.literal) else [child.deepcopy() for child in node.children]
    node.parent.replace(node, nodes.reference("", "", *inner, refuri=uri, internal=False))


def page_of(path: Path) -> str:
    """The name of the page of a file or folder of the repository."""
    relative = path.relative_to(ROOT).as_posix()
    return f"source/{relative}/index" if path.is_dir() else f"source/{relative}"


@cache
def definitions(path: Path) -> dict[str, int]:
    """The lines of functions, classes and module variables of a file; of a class also of methods and fields."""
    found: dict[str, int] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found[prefix + node.name] = node.lineno
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[prefix + node.target.id] = node.lineno
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found[prefix + node.targets[0].id] = node.lineno
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(path.read_text("utf-8")).body, "")
    return found


def line(path: Path, name: str) -> int:
    """The line on which `name` is defined; 1 where it comes from elsewhere (a field of a base class, say)."""
    return definitions(path).get(name, 1)


def pages(app: Sphinx, named: set[Path]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of all files and folders that were named, and of the files of those folders."""
    files = {path for path in named if path.is_file()}
    for folder in sorted(named - files):
        inside = [path for path in sorted(folder.rglob("*")) if path.suffix in LANGUAGES]
        files.update(inside)
        here = page_of(folder)
        items = [
            f'<li><a href="{app.builder.get_relative_uri(here, page_of(path))}">{path.relative_to(folder)}</a></li>'
            for path in inside
        ]
        yield page(here, folder, f'<ul class="files">{"".join(items)}</ul>')
    for path in sorted(files):
        highlighter = app.builder.highlighter  # type: ignore[attr-defined]
        code = highlighter.highlight_block(path.read_text("utf-8"), LANGUAGES[path.suffix], lineanchors="L")
        yield page(page_of(path), path, code)


def share_sidebar(app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Pages of files that lie equally deep have the same sidebar, which takes most of the time of such a page: it is
    made once."""
    if name.startswith("source/"):
        context["toctree"] = SIDEBARS.setdefault(name.count("/"), cache(context["toctree"]))


def page(name: str, path: Path, body: str) -> tuple[str, dict[str, Any], str]:
    """One page in the site's frame."""
    title = path.relative_to(ROOT).as_posix()
    return name, {"title": title, "body": f"<h1>{html.escape(title)}</h1>{body}"}, "page.html"
