"""The documentation as a site: `make docs-site` writes it to build/site, without a network.

The pages are the Markdown files as they lie in the repository, which is why its root is Sphinx' source folder. What
they link to besides pages (code, configs, folders) becomes a page of the site too (`sources.py`).
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "AMPO"
author = "The AMPO authors"
project_copyright = author
html_title = "AMPO"
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "plugins/examples/*/README.md"]
exclude_patterns = [".venv", ".git", "build", "dist", "runs", "**/node_modules"]
extensions = ["myst_parser", "sources"]
suppress_warnings = ["toc.not_included"]  # a test holds docs/index.md to naming every page
nitpicky = True

# anchors as a code-hosting site makes them
myst_heading_anchors = 6
myst_linkify_fuzzy_links = False
highlight_language = "text"

html_theme = "furo"
html_static_path = [str(HERE / "site.css")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
