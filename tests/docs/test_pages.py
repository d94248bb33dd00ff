"""The pages say what is there: quoted files, commands that run, targets and links that exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
WITH_COMMANDS = [name for name, text in TEXTS.items() if "ampo-run" in text]
MARKED = re.compile(
    r"<!-- (?:file: (?P<file>[^;\s]+))?(?:; )?(?:save: (?P<save>\S+))? -->\n```\w+\n(?P<text>.*?)```", re.S
)
AMPO_RUN = str(Path(sys.executable).with_name("ampo-run"))
SHOWS_ONLY = ("--check", "--plugins", "--schema", "--version", "--help", "--new-plugin")


def commands(text: str) -> list[str]:
    """The lines of all shell blocks, without comments."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", text, re.S)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def ampo_commands() -> list[tuple[str, str]]:
    return [(page, line) for page in WITH_COMMANDS for line in commands(TEXTS[page]) if line.startswith("ampo-run ")]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder like the repository's root, in which the files that pages tell one to save can be saved."""
    for name in ("configs", "plugins"):
        tmp_path.joinpath(name).symlink_to(ROOT / name)
    return tmp_path


def save_files(page: str, folder: Path) -> None:
    for found in MARKED.finditer(TEXTS[page]):
        if found["save"]:
            folder.joinpath(found["save"]).write_text(found["text"], encoding="utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("page", TEXTS)
def test_quoted_files_are_the_real_ones(page):
    for found in MARKED.finditer(TEXTS[page]):
        if found["file"]:
            assert found["text"] == (ROOT / found["file"]).read_text(encoding="utf-8"), found["file"]
    assert len(re.findall("<!-- (?:file|save):", TEXTS[page])) == len(MARKED.findall(TEXTS[page]))


def test_every_template_is_on_the_page_of_kinds():
    templates = ROOT / "ampo_core/scaffold/templates"
    shown = {found["file"] for found in MARKED.finditer(TEXTS["docs/kinds.md"])}
    whole = {str(path.relative_to(ROOT)) for pattern in ("ampo_*.py", "*.yaml") for path in templates.glob(pattern)}
    assert shown == whole


def test_readme_and_contributing_show_the_plugin():
    for page in ("README.md", "CONTRIBUTING.md"):
        assert "nearest_length.py" in [found["save"] for found in MARKED.finditer(TEXTS[page])]
        assert "ampo-run --plugin nearest_length.py --plugins nearest_length" in commands(TEXTS[page])


@pytest.mark.parametrize(("page", "command"), ampo_commands())
def test_ampo_commands_run(page, command, desk, forge):
    """As written, except that a command that would start a job, or sample, is only checked."""
    save_files(page, desk)
    arguments = shlex.split(re.sub(r" --sample \d+", "", command))[1:]
    if not any(flag in arguments for flag in SHOWS_ONLY):
        arguments.append("--check")
    done = forge.run(*arguments, folder=desk)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert "broken" not in done.stdout
    if "nearest_length" in command:
        assert "nearest_length" in done.stdout


@pytest.mark.process
def test_a_plugin_file_is_found_where_the_folder_is_on_the_path_already(desk):
    save_files("README.md", desk)
    flags = ("--plugin", "nearest_length.py", "--plugins", "nearest_length")
    done = run(desk, sys.executable, "-m", "ampo_core.cli.main", *flags)
    assert "broken" not in done.stdout + done.stderr
    assert "selector nearest_length" in done.stdout


@pytest.mark.process
def test_the_tutorials_test_passes(desk):
    save_files("CONTRIBUTING.md", desk)
    done = run(desk, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_nearest_length.py")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.process
def test_the_readmes_config_checks_without_the_plugin_as_an_error(desk):
    save_files("README.md", desk)
    done = run(desk, AMPO_RUN, "first-run.yaml", "guidance.selector=nearest_lenght")
    assert done.returncode == 2
    assert "nearest_lenght" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("page", TEXTS)
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    quoted = [
        line for line in (*commands(TEXTS[page]), *re.findall(r"`(make [^`]*)`", TEXTS[page])) if line[:5] == "make "
    ]
    for line in quoted:
        wanted = {word for word in line.split()[1:] if "=" not in word}
        assert wanted <= targets, line


@pytest.mark.parametrize("page", TEXTS)
def test_pip_commands_name_what_exists(page):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in commands(TEXTS[page]):
        if line.startswith("pip install"):
            words = shlex.split(line)[2:]
            if "-c" in words:
                assert (ROOT / words[words.index("-c") + 1]).exists()
            for extra in re.findall(r"\[(\w+)\]", line):
                assert extra in project["optional-dependencies"]


def without_code(text: str) -> str:
    return re.sub(r"```.*?```", "", text, flags=re.S)


def anchors(text: str) -> set[str]:
    """Those that a code-hosting site gives to the headings, and the site too; of equal ones the second has -1."""
    titles = [re.sub(r"\]\([^)]*\)", "", title) for title in re.findall(r"^#+ (.*)$", without_code(text), re.M)]
    slugs = [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]
    return {f"{slug}-{slugs[:n].count(slug)}" if slug in slugs[:n] else slug for n, slug in enumerate(slugs)}


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(TEXTS[page]))
    missing = []
    for file, _, anchor in (link.partition("#") for link in targets if not link.startswith("http")):
        target = (ROOT / page).parent.joinpath(file) if file else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            missing.append(f"{file}#{anchor}")
    assert not missing


@pytest.mark.parametrize("page", TEXTS)
def test_tables_have_a_head(page):
    """A row behind a blank line is no row but a text with bars."""
    lines = without_code(TEXTS[page]).splitlines()
    heads = [n for n, line in enumerate(lines) if line.startswith("|") and not lines[n - 1].startswith("|")]
    assert [lines[n] for n in heads if not re.fullmatch(r"\|[\s:|-]+\|", lines[n + 1])] == []


@pytest.mark.parametrize("page", TEXTS)
def test_yaml_blocks_are_yaml(page):
    for block in re.findall(r"```yaml\n(.*?)```", TEXTS[page], re.S):
        assert yaml.safe_load(block) is not None


def test_every_page_is_in_the_index():
    index = TEXTS["docs/index.md"]
    assert [
        page.name for page in (ROOT / "docs").glob("*.md") if f"({page.name})" not in index and page.name != "index.md"
    ] == []


def test_the_changelog_has_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in TEXTS["CHANGELOG.md"]
