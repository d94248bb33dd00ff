"""Make a working tree's plugins known to Python without an installation.

    python distribution.py FOLDER      # then put FOLDER, the root, registry/ and plugins/ on PYTHONPATH

Discovery reads entry points of installed distributions: FOLDER gets the metadata that an installation would write.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def write_metadata(folder: Path) -> Path:
    """Write NAME-VERSION.dist-info with the entry points of pyproject.toml into `folder`; returns it.

    In that folder's name a dash ends NAME, so those in the name are written as underscores.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    lines = [f"Name: {project['name']}", f"Version: {project['version']}"]
    (metadata / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n", "utf-8")
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    texts = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups.items()]
    (metadata / "entry_points.txt").write_text("\n".join(texts), "utf-8")
    return metadata


if __name__ == "__main__":
    write_metadata(Path(sys.argv[1])) if len(sys.argv) == 2 else sys.exit(__doc__)
