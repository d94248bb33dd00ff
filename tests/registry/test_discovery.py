"""Discovery: what is broken, duplicate or misspelt is named, and silences nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ampo_registry import PluginError
from ampo_registry.discovery import HOOKS, Plugins, discover
from ampo_registry.hooks import __dict__ as declared
from ampo_registry.requirements import own_version

SELECTOR = '''
from typing import Literal
from ampo_registry import ComponentSpec, ScoringSelectorSpec, hookimpl

class Mine(ScoringSelectorSpec):
    """Mine."""
    type: Literal["NAME"] = "NAME"

    def score(self, requests, context):
        return [[0.0 for _ in r.candidates] for r in requests]

@hookimpl
def ampo_specs() -> list[type[ComponentSpec]]:
    return [Mine]
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Put a distribution with one module and one entry point on sys.path."""
    before = set(sys.modules)

    def write(distribution: str, source: str, version: str = "1.0", module: str = "", entry: str = "") -> None:
        folder = tmp_path / distribution
        module = module or distribution.replace("-", "_")
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "entry_points.txt").write_text(f"[ampo]\n{entry or module} = {module}\n")
        (folder / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(folder))

    yield write
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def _reasons(plugins: Plugins) -> str:
    return "\n".join(map(str, plugins.broken))


def test_builtins_come_in_through_entry_points() -> None:
    plugins = discover()
    assert plugins.distributions["ampo-rl"]
    assert {source.distribution for source in plugins.loaded} >= {"ampo-rl"}
    assert plugins.catalog.entry("selector", "length").distribution == "ampo-rl"


def test_third_party_plugin_is_found(install: Callable[..., None]) -> None:
    install("their-plugin", SELECTOR.replace("NAME", "theirs"), version="2.1")
    entry = discover().catalog.entry("selector", "theirs")
    assert (entry.distribution, entry.version, entry.plugin) == ("their-plugin", "2.1", "their_plugin")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package\n", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def broken(:\n", "SyntaxError"),
        ("class Stop(BaseException): ...\nraise Stop('now')\n", "Stop: now"),
    ],
)
def test_plugin_that_raises_on_import_is_recorded(install: Callable[..., None], source: str, reason: str) -> None:
    install("bad-plugin", source, version="0.3")
    install("good-plugin", SELECTOR.replace("NAME", "good"))
    plugins = discover()
    [broken] = plugins.broken
    assert (broken.name, broken.distribution, broken.version) == ("bad_plugin", "bad-plugin", "0.3")
    assert reason in broken.reason
    assert "bad_plugin.py:" in broken.where
    assert "good" in plugins.catalog.names("selector")


@pytest.mark.parametrize(
    ("source", "requires", "said"),
    [
        (
            "",
            "ampo-rl>=9.1",
            f"asks for ampo-rl>=9.1, and ampo-rl {own_version()} is installed: install a version of old-plugin ",
        ),
        (
            "",
            "ampo-rl<0.2",
            f"asks for ampo-rl<0.2, and ampo-rl {own_version()} is installed: install a version of old-plugin ",
        ),
        (
            "from ampo_registry import SelectrSpec\n",
            "",
            f"; did you mean 'SelectorSpec'? ampo-rl {own_version()} does not have it; its ",
        ),
        ("import no_such_package\n", "no-such>=2; extra == 'x'", "; install what brings no_such_package"),
        ("import no_such_package\n", "no-such>=2", "; install 'no-such>=2'"),
        (None, "", "; the module of old-plugin is gone: install it again, or uninstall it"),
    ],
    ids=["newer", "older", "gone", "package", "asked", "moved"],
)
def test_what_to_do_about_a_broken_one_is_said(
    install: Callable[..., None], tmp_path: Path, source: str | None, requires: str, said: str
) -> None:
    install("old-plugin", source or "")
    if source is None:
        (tmp_path / "old-plugin" / "old_plugin.py").unlink()
    metadata = f"Name: old-plugin\nVersion: 1.0\nRequires-Dist: {requires}\nRequires-Dist: pluggy\n"
    (tmp_path / "old-plugin" / "old_plugin-1.0.dist-info" / "METADATA").write_text(metadata if requires else "")
    [broken] = discover().broken
    assert said in broken.reason


def test_a_plugin_of_this_contract_is_taken(install: Callable[..., None], tmp_path: Path) -> None:
    install("new-plugin", SELECTOR.replace("NAME", "fresh"))
    info = tmp_path / "new-plugin" / "new_plugin-1.0.dist-info"
    (info / "METADATA").write_text("Name: new-plugin\nVersion: 1.0\nRequires-Dist: ampo_rl>=0.2\n")
    plugins = discover()
    assert plugins.broken == ()
    assert plugins.catalog.entry("selector", "fresh").distribution == "new-plugin"


def test_an_interruption_is_not_kept_from_the_user(install: Callable[..., None]) -> None:
    install("slow-plugin", "from ampo_registry.faults import Signalled\nraise Signalled\n")
    with pytest.raises(KeyboardInterrupt):
        discover()


def test_a_keyboard_interrupt_of_its_own_makes_a_plugin_broken(install: Callable[..., None]) -> None:
    install("rude-plugin", "raise KeyboardInterrupt\n")
    install("late-plugin", SELECTOR.replace("return [Mine]", "raise KeyboardInterrupt"))
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        assert [broken.reason for broken in discover().broken] == [
            "ampo_specs failed: KeyboardInterrupt",
            "cannot be imported: KeyboardInterrupt",
        ]
    finally:
        signal.signal(signal.SIGINT, before)


def test_misspelt_hook_is_named_with_the_nearest(install: Callable[..., None]) -> None:
    install("typo-plugin", SELECTOR.replace("def ampo_specs", "def ampo_spec").replace("NAME", "typo"))
    install("good-plugin", SELECTOR.replace("NAME", "good"))
    plugins = discover()
    [broken] = plugins.broken
    assert "typo_plugin of typo-plugin 1.0: unknown hook 'ampo_spec'; did you mean 'ampo_specs'?" in str(broken)
    assert "good" in plugins.catalog.names("selector")
    assert "typo" not in plugins.catalog.names("selector")


def test_forgotten_marker_is_reported(install: Callable[..., None]) -> None:
    install("shy-plugin", SELECTOR.replace("@hookimpl", "").replace("NAME", "shy"))
    assert "implements no hook; mark its functions with @hookimpl" in _reasons(discover())


def test_hook_with_an_unknown_argument_is_reported(install: Callable[..., None]) -> None:
    source = "from ampo_registry import hookimpl\n@hookimpl\ndef ampo_run_started(contxt): ...\n"
    install("arg-plugin", source)
    reasons = _reasons(discover())
    assert "arg-plugin" in reasons
    assert "contxt" in reasons


def test_specs_hook_that_raises_is_reported(install: Callable[..., None]) -> None:
    install("late-plugin", SELECTOR.replace("return [Mine]", "raise RuntimeError('no specs today')"))
    install("good-plugin", SELECTOR.replace("NAME", "good"))
    plugins = discover()
    assert "ampo_specs failed: RuntimeError: no specs today" in _reasons(plugins)
    assert "good" in plugins.catalog.names("selector")


def test_bad_spec_is_named_and_its_neighbours_stay(install: Callable[..., None]) -> None:
    source = SELECTOR.replace("NAME", "fine").replace("[Mine]", "[Bad, Mine, 3]")
    source = source.replace("@hookimpl", "class Bad(ScoringSelectorSpec):\n    '''Bad.'''\n\n@hookimpl")
    install("mixed-plugin", source)
    plugins = discover()
    reasons = _reasons(plugins)
    assert "mixed_plugin of mixed-plugin 1.0: Bad has no name" in reasons
    assert "3 is not a spec class" in reasons
    assert "fine" in plugins.catalog.names("selector")


def test_two_plugins_with_one_name_are_both_named(install: Callable[..., None]) -> None:
    install("first-plugin", SELECTOR.replace("NAME", "same"))
    install("second-plugin", SELECTOR.replace("NAME", "same"), version="4.0")
    plugins = discover()
    with pytest.raises(PluginError, match="is claimed by") as caught:
        plugins.catalog.resolve("selector", "same")
    assert "first-plugin 1.0" in str(caught.value)
    assert "second-plugin 4.0" in str(caught.value)
    assert len(plugins.broken) == 1
    assert plugins.catalog.resolve("selector", "length")


def test_builtin_cannot_be_replaced_silently(install: Callable[..., None]) -> None:
    install("second-random", SELECTOR.replace("NAME", "random"))
    plugins = discover()
    assert {"ampo-rl", "second-random"} <= plugins.distributions.keys(), _reasons(plugins)
    with pytest.raises(PluginError, match=r"claimed by .*second-random"):
        plugins.catalog.resolve("selector", "random")


def test_unknown_name_lists_broken_plugins(install: Callable[..., None]) -> None:
    install("bad-plugin", "import no_such_package\n")
    with pytest.raises(PluginError) as caught:
        discover().catalog.resolve("selector", "lenght")
    text = str(caught.value)
    assert "did you mean 'length'?" in text
    assert "allowed: comprehension, length, random" in text
    assert "bad_plugin of bad-plugin 1.0: cannot be imported: ModuleNotFoundError" in text


def test_malformed_entry_point_is_reported(install: Callable[..., None], tmp_path: Path) -> None:
    install("odd-plugin", "")
    (tmp_path / "odd-plugin" / "odd_plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[ampo]\nodd = not a module\n"
    )
    assert "'not a module' is not of the form module or module:object" in _reasons(discover())


def test_unreadable_entry_points_file_is_reported(install: Callable[..., None], tmp_path: Path) -> None:
    install("torn-plugin", "")
    (tmp_path / "torn-plugin" / "torn_plugin-1.0.dist-info" / "entry_points.txt").write_text("no section\n")
    plugins = discover()
    assert "unreadable entry_points.txt" in _reasons(plugins)
    assert plugins.catalog.resolve("selector", "length")


def test_distribution_found_twice_counts_once(install: Callable[..., None], tmp_path: Path) -> None:
    install("twice-plugin", SELECTOR.replace("NAME", "once"))
    old = tmp_path / "old" / "twice_plugin-0.9.dist-info"
    old.mkdir(parents=True)
    (old / "entry_points.txt").write_text("[ampo]\ntwice_plugin = twice_plugin\n")
    sys.path.append(str(tmp_path / "old"))
    try:
        plugins = discover()
    finally:
        sys.path.remove(str(tmp_path / "old"))
    assert plugins.broken == ()
    assert plugins.catalog.entry("selector", "once").version == "1.0"


@pytest.fixture
def plugin_file(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    path, modules = list(sys.path), set(sys.modules)

    def write(name: str, source: str) -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
        return tmp_path / name

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def test_plugin_file_is_loaded(plugin_file: Callable[[str, str], Path]) -> None:
    path = plugin_file("my_selector_file.py", SELECTOR.replace("NAME", "from_file"))
    plugins = discover([path])
    entry = plugins.catalog.entry("selector", "from_file")
    assert (entry.plugin, entry.distribution) == ("my_selector_file", str(path))
    assert "from_file" in discover([path]).catalog.names("selector")


def test_broken_plugin_file_is_recorded_and_leaves_no_trace(plugin_file: Callable[[str, str], Path]) -> None:
    path = plugin_file("my_broken_file.py", "raise SystemExit\n")
    plugins = discover([path])
    assert "my_broken_file" in _reasons(plugins)
    assert str(path.parent) not in sys.path


def test_plugin_file_from_a_folder_on_the_path(plugin_file: Callable[[str, str], Path]) -> None:
    good = plugin_file("my_good_file.py", SELECTOR.replace("NAME", "from_file"))
    bad = plugin_file("my_bad_file.py", "1 / 0")
    sys.path.insert(0, str(good.parent))
    plugins = discover([good, bad])
    assert "from_file" in plugins.catalog.names("selector")
    assert "my_bad_file" in _reasons(plugins)
    assert sys.path.count(str(good.parent)) == 1


def test_packages_are_found_by_their_folders_names_and_may_import_their_own_modules(
    plugin_file: Callable[[str, str], Path],
) -> None:
    packages = []
    for name in ("one", "two"):
        plugin_file(f"my_{name}_package/choice.py", SELECTOR.replace("NAME", name))
        packages.append(plugin_file(f"my_{name}_package/__init__.py", "from .choice import *\n"))
    plugins = discover(packages)
    assert not plugins.broken
    assert plugins.catalog.entry("selector", "two").plugin == "my_two_package"
    assert {"one", "two"} <= set(plugins.catalog.names("selector"))


def test_plugin_file_must_exist() -> None:
    with pytest.raises(PluginError, match=r"--plugin nowhere\.py: no such Python file"):
        discover(["nowhere.py"])


def test_plugin_file_must_not_hide_a_module(plugin_file: Callable[[str, str], Path]) -> None:
    plugins = discover([plugin_file("json.py", SELECTOR.replace("NAME", "from_file"))])
    assert "a module named 'json' exists already; rename the file" in _reasons(plugins)


@pytest.mark.process
def test_reward_of_a_plugin_file_reaches_a_spawned_worker(plugin_file: Callable[[str, str], Path]) -> None:
    source = textwrap.dedent('''
        from typing import Literal
        from ampo_registry import RewardSpec, hookimpl

        class Equal(RewardSpec):
            """Equal text."""
            type: Literal["equal_text"] = "equal_text"

            def grade(self, requests):
                return [self.combine(r.text == r.answer, True) for r in requests]

            def check_truth(self, answer):
                return None if answer else "empty"

        @hookimpl
        def ampo_specs():
            return [Equal]
    ''')
    path = plugin_file("my_reward_file.py", source)
    code = f"""
import multiprocessing
from ampo_registry import GradeRequest
from ampo_registry.discovery import discover
if __name__ == "__main__":
    spec = discover([{str(path)!r}]).catalog.resolve("reward", "equal_text")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(spec.grade, [[GradeRequest("a", "a")]])[0][0].correct)
"""
    script = path.with_name("run_it.py")
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


OBSERVER = """
from ampo_registry import hookimpl
seen = []

@hookimpl
def ampo_run_started(context):
    seen.append(context)
    RAISE
"""


def test_observer_that_raises_is_reported_once_and_silences_nobody(install: Callable[..., None]) -> None:
    install("calm-observer", OBSERVER.replace("RAISE", ""))
    install("wild-observer", OBSERVER.replace("RAISE", "raise SystemExit('stop everything')"))
    plugins = discover()
    reports: list[str] = []
    plugins.report = reports.append
    for _ in range(3):
        plugins.notify("ampo_run_started", context="the run")
    assert sys.modules["calm_observer"].seen == ["the run"] * 3
    assert sys.modules["wild_observer"].seen == ["the run"] * 3
    [report] = reports
    assert "ampo_run_started" in report
    assert "wild_observer of wild-observer 1.0: SystemExit: stop everything" in report


def test_observer_error_goes_to_stderr_by_default(
    install: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    install("wild-observer", OBSERVER.replace("RAISE", "raise ValueError('no')"))
    discover().notify("ampo_run_started", context=None)
    assert "ValueError: no" in capsys.readouterr().err


def test_hook_names_are_those_declared() -> None:
    assert set(HOOKS) == {name for name in declared if name.startswith("ampo_")}


@pytest.mark.process
def test_registry_and_discovery_import_no_torch() -> None:
    code = (
        "import sys, ampo_registry, ampo_registry.testing\n"
        "from ampo_registry.discovery import discover\n"
        "plugins = discover()\n"
        "assert plugins.catalog.names('rollout'), plugins.broken\n"
        "print([m for m in ('torch', 'transformers', 'deepspeed', 'numpy', 'ampo_core') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
