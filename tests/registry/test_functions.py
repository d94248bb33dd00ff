"""Functions of plugin files: what a file without a hook is, and how a config finds a function by its name."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest
from ampo_registry import ComponentSpec, Grade, GradeRequest, PluginError, PluginFunction, RewardSpec
from ampo_registry.components import functions_in
from ampo_registry.discovery import discover
from ampo_registry.testing.common import check_spec_class
from pydantic import ValidationError

SCORE = "def compute_score(solution_str, ground_truth):\n    return float(solution_str == ground_truth)\n"


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    path, modules = list(sys.path), set(sys.modules)

    def write(name: str, source: str) -> Path:
        (tmp_path / name).write_text(source)
        return tmp_path / name

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


class Calling(RewardSpec):
    """A component with a function as an option."""

    type: Literal["calling"] = "calling"
    function: PluginFunction

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        score = self.function.load()
        return [self.combine(bool(score(request.text, request.answer)), True) for request in requests]

    def check_truth(self, answer: str) -> str | None:
        return None


def test_a_file_without_a_hook_brings_its_functions(file: Callable[[str, str], Path]) -> None:
    path = file("plain_score_file.py", SCORE + "def _private(): ...\nclass Helper: ...\n")
    plugins = discover([path])
    assert not plugins.broken
    assert plugins.distributions[str(path)] == "file"  # its contents are hashed, and it reaches every rank
    (found,) = plugins.catalog.files
    assert (found.module, found.own, found.plain) == ("plain_score_file", ("compute_score",), True)
    function = plugins.catalog.function("compute_score")
    assert function == plugins.catalog.function("plain_score_file.compute_score")
    assert pickle.loads(pickle.dumps(function)).load()("7", "7") == 1.0  # noqa: S301
    assert plugins.catalog.unasked == ()


def test_a_file_that_only_imports_functions_brings_them(file: Callable[[str, str], Path]) -> None:
    file("library_of_scores.py", SCORE)
    plugins = discover([file("only_imports_file.py", "from library_of_scores import compute_score\n")])
    assert not plugins.broken
    assert plugins.catalog.function("compute_score").module == "only_imports_file"
    (text,) = discover([file("idle_imports_file.py", "from library_of_scores import compute_score\n")]).idle
    assert "names none of its functions (compute_score)" in text


def test_a_plugin_may_bring_both(file: Callable[[str, str], Path]) -> None:
    hook = "from ampo_registry import hookimpl\n@hookimpl\ndef ampo_run_started(context): ...\n"
    plugins = discover([file("hook_and_score_file.py", hook + SCORE)])
    assert plugins.catalog.function("compute_score").module == "hook_and_score_file"
    assert plugins.idle == ()


def test_a_file_that_nothing_names_a_function_of_is_told(file: Callable[[str, str], Path]) -> None:
    plugins = discover([file("idle_score_file.py", SCORE)])
    (text,) = plugins.idle
    assert "idle_score_file.py does nothing here: it implements no hook" in text
    assert "(compute_score)" in text


@pytest.mark.parametrize(
    "source",
    [
        "LIMIT = 3\n",
        "from ampo_registry import hookimpl\nLIMIT = 3\n",
        "def ampo_run_started(context): ...\ndef helper(): ...\n",
        "from ampo_registry import RewardSpec\nclass Mine(RewardSpec): ...\ndef helper(): ...\n",
    ],
    ids=["nothing", "marker", "unmarked-hook", "spec-without-hook"],
)
def test_a_file_that_lacks_its_hook_stays_broken(file: Callable[[str, str], Path], source: str) -> None:
    plugins = discover([file("lacking_hook_file.py", source)])
    (broken,) = plugins.broken
    assert "implements no hook; mark its functions with @hookimpl" in broken.reason
    assert plugins.catalog.files == ()


def test_a_function_that_is_nowhere_is_told_with_the_nearest(file: Callable[[str, str], Path]) -> None:
    with pytest.raises(PluginError, match=r"in the files that `--plugin FILE\.py` names, none was"):
        discover().catalog.function("compute_score")
    plugins = discover([file("near_score_file.py", SCORE), file("torn_score_file.py", "1 / 0\n")])
    with pytest.raises(PluginError) as raised:
        plugins.catalog.function("compute_scores")
    text = str(raised.value)
    assert "no file named with --plugin has a function compute_scores; did you mean 'compute_score'?" in text
    assert "near_score_file.py: compute_score" in text
    assert "torn_score_file" in text


def test_of_several_files_one_must_be_named_unless_the_others_import_it(file: Callable[[str, str], Path]) -> None:
    first = file("first_score_file.py", SCORE)
    importing = file("importing_score_file.py", "from first_score_file import compute_score\ndef other(): ...\n")
    plugins = discover([first, importing])
    assert plugins.catalog.function("compute_score").module == "first_score_file"
    plugins = discover([first, file("second_score_file.py", SCORE)])
    text = r"say which: first_score_file\.compute_score or second_score_file\.compute_score"
    with pytest.raises(PluginError, match=text):
        plugins.catalog.function("compute_score")
    assert plugins.catalog.function("second_score_file.compute_score").module == "second_score_file"


def test_an_option_may_be_a_function(file: Callable[[str, str], Path]) -> None:
    catalog = discover([file("option_score_file.py", SCORE)]).catalog
    catalog.add(Calling, "tests", "0")
    spec: ComponentSpec = catalog.resolve("reward", {"type": "calling", "function": "compute_score"})
    assert [found.module for found in functions_in(spec)] == ["option_score_file"]
    assert spec.model_dump(mode="json")["function"] == "compute_score"
    check_spec_class(spec)
    with pytest.raises(ValidationError, match="did you mean 'compute_score'"):
        catalog.resolve("reward", {"type": "calling", "function": "compute_scor"})
    with pytest.raises(ValidationError, match="expected the name of a function, found 3"):
        catalog.resolve("reward", {"type": "calling", "function": 3})


def test_a_function_that_its_file_has_lost_is_told() -> None:
    with pytest.raises(PluginError, match=r"gone\.py brings no function compute_score"):
        PluginFunction("json", "compute_score", "gone.py").load()
