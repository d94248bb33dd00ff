"""The command line: exit codes, what is printed where, and that nothing heavy is imported."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from ampo_registry import Message, TaskQuestion, discovery

from ampo_core.cli import main as cli
from ampo_core.data.contract_files import write_questions
from tests.forge import Forge

CONFIG = """\
job: train
model: {path: model, dtype: float32}
data: {train: [train.parquet], max_prompt_tokens: 16}
rollout: {type: transformers, group_size: 4, max_response_tokens: 32}
training: {questions_per_batch: 4, questions_per_minibatch: 2, tokens_per_microbatch: 64}
deepspeed: {zero_stage: 0}
"""
HEAVY = ("torch", "deepspeed", "vllm", "transformers", "math_verify", "matplotlib")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a config that could run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("c.yaml").write_text(CONFIG)
    write_questions(Path("train.parquet"), [TaskQuestion((Message("user", "1 + 1"),), "2", "sums")], "train", "math")
    Path("model").mkdir()
    Path("model/config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def run(forge: Forge) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`ampo-run` as a process of its own."""
    return forge.run


def test_check_prints_a_config_that_runs_again_and_warns_on_stderr(folder, capsys):
    assert cli.main(["c.yaml", "resources.hostfile=train.parquet", "--check", "run.seed=3"]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["run"]["seed"] == 3
    assert err == "warning: command line: resources.hostfile: with resources.nodes = 1 nothing reads this\n"
    Path("again.yaml").write_text(out)
    assert cli.main(["again.yaml", "--check"]) == 0
    assert capsys.readouterr().out == out


def test_a_real_run_of_what_cannot_start_exits_2_with_the_words_of_the_check(folder, run):
    result = run("c.yaml", "resources.nodes=2", "model.path=./none")
    assert result.returncode == 2
    assert "command line: resources.nodes: 2 nodes need resources.hostfile" in result.stderr
    assert "command line: model.path: there is no model folder ./none" in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which config?"),
        (("none.yaml",), "cannot read none.yaml: No such file"),
        (("c.yaml", "training.stepz=1"), "command line: training.stepz: no such key; did you mean steps?"),
        (("training.steps=1",), "the config comes first"),
        (("c.yaml", "guidance.replacements=5"), "more than the 4 rollouts of a group"),
        (("c.yaml", "guidance.threshold=0.95"), "so τ must be more than 0.1, at most 0.9"),
        (("c.yaml", "training.questions_per_minibatch=3"), "3 does not divide questions_per_batch = 4"),
        (("c.yaml", "guidance.selector=mine"), "no selector is named 'mine'"),
        (("--report", "runs/a"), "there is no folder runs/a"),
        (("--out", "a.html"), "--out says where --report writes"),
        (("--plugins", "lenght"), "no component is named 'lenght'; did you mean length?"),
        (("c.yaml", "--plugin", "none.py"), "none.py"),
    ],
)
def test_wrong_input_exits_2_without_a_traceback(folder, capsys, arguments, said):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert not Path("runs").exists()


def test_an_unknown_argument_exits_2(folder, run):
    result = run("c.yaml", "--chekc")
    assert result.returncode == 2
    assert "--chekc" in result.stderr


def test_the_folder_of_another_run_is_refused_before_anything_starts(folder, capsys):
    Path("runs/run").mkdir(parents=True)
    Path("runs/run/config.yaml").touch()
    assert cli.main(["c.yaml"]) == 2
    assert "runs/run holds an unfinished run: runs/run/manifest.json cannot be read" in capsys.readouterr().err
    Path("runs/run/manifest.json").write_text('{"job": "sft"}')
    assert cli.main(["c.yaml"]) == 2
    assert "holds an unfinished run of a sft job, and this is a train job" in capsys.readouterr().err


def test_a_broken_plugin_matters_only_to_a_config_that_needs_it(folder, run):
    Path("broken_for_cli_test.py").write_text("import nothing_of_that_name\n")
    needed = run("c.yaml", "--check", "--plugin", "broken_for_cli_test.py", "guidance.selector=mine")
    assert needed.returncode == 2
    assert "broken_for_cli_test" in needed.stderr
    assert "nothing_of_that_name" in needed.stderr
    assert "Traceback" not in needed.stderr
    unused = run("c.yaml", "--check", "--plugin", "broken_for_cli_test.py")
    assert unused.returncode == 0
    assert "warning: broken plugin, not used here: broken_for_cli_test of broken_for_cli_test.py" in unused.stderr
    listed = run("--plugins", "--plugin", "broken_for_cli_test.py")
    assert listed.returncode == 2
    assert "broken broken_for_cli_test" in listed.stdout
    assert "; install what brings nothing_of_that_name" in listed.stdout
    named = run("--plugins", "length", "--plugin", "broken_for_cli_test.py")
    assert named.returncode == 0
    assert "broken" not in named.stdout


def test_an_observer_is_listed_and_how_it_is_turned_off(folder, capsys):
    Path("seeing_for_cli_test.py").write_text(
        "from ampo_registry import hookimpl\n\n\n@hookimpl\ndef ampo_run_started(): ...\n"
    )
    line = "observer seeing_for_cli_test of seeing_for_cli_test.py file: ampo_run_started; off with observers: "
    for named in ((), ("seeing_for_cli_test",), ("observer",)):
        assert cli.main(["--plugins", *named, "--plugin", "seeing_for_cli_test.py"]) == 0
        assert f"{line}{{seeing_for_cli_test: false}}\n" in capsys.readouterr().out


PLUGIN = '''
from typing import Literal
from ampo_registry import ComponentSpec, TriggerSpec, hookimpl

class Never(TriggerSpec):
    """Never fires."""
    type: Literal["never"] = "never"
    level: int = 3

    def fires(self, group, context):
        return False

@hookimpl
def ampo_specs():
    return [Never]
'''


def test_a_plugin_from_a_file_is_listed_described_and_used(folder, run):
    Path("never_for_cli_test.py").write_text(PLUGIN)
    listed = run("--plugins", "--plugin", "never_for_cli_test.py").stdout
    assert "never" in listed
    assert "Never fires." in listed
    one = run("--plugins", "never", "--plugin", "never_for_cli_test.py").stdout
    assert all(word in one for word in ("level", "a whole number", "3", "trigger"))
    checked = run("c.yaml", "guidance.trigger=never", "--check", "--plugin", "never_for_cli_test.py")
    assert yaml.safe_load(checked.stdout)["guidance"]["trigger"] == {"type": "never", "level": 3}
    schema = json.loads(run("--schema", "--plugin", "never_for_cli_test.py").stdout)
    assert "never" in schema["$defs"]["component-trigger"]["anyOf"][0]["enum"]


def test_a_kind_lists_its_components(run):
    shown = run("--plugins", "trigger").stdout
    assert "adaptive" in shown
    assert "always" in shown
    assert "comprehension" not in shown


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("--plugins",), ("--schema",), ("c.yaml", "--check")]
)
def test_nothing_heavy_is_imported(folder, arguments):
    code = (
        "import sys\nfrom ampo_core.cli.main import main\n"
        f"try:\n    code = main({list(arguments)!r})\nexcept SystemExit as end:\n    code = end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code, file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stderr.splitlines()[-1] == "[] 0"
    assert result.stdout


@pytest.mark.process
def test_a_shipped_config_checks_as_a_process():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "ampo_core.cli.main", "configs/paper/qwen2.5-7b.yaml", "--check"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert yaml.safe_load(result.stdout)["run"]["name"] == "ampo-qwen2.5-7b"
    assert ("vLLM is not installed" in result.stderr) == (find_spec("vllm") is None)


@pytest.mark.process
@pytest.mark.parametrize(
    ("error", "code", "said", "traceback"),
    [
        ("RunError('the disk is full')", 1, "ampo-run: the run failed\nthe disk is full", False),
        ("DataError('row 3 has no answer')", 2, "ampo-run: error\nrow 3 has no answer", False),
        ("KeyboardInterrupt()", 3, "ampo-run: interrupted; nothing was written", False),
        ("ZeroDivisionError('oops')", 1, "this is a fault of AMPO or of a plugin", True),
    ],
)
def test_exit_codes_of_a_job(folder, error, code, said, traceback):
    program = (
        "import sys\nfrom ampo_core.cli import main as cli\nfrom ampo_registry.errors import *\n"
        f"def run_job(job, environment):\n    raise {error}\n"
        "cli.run_job = run_job\nsys.exit(cli.main(['c.yaml']))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == code
    assert said in result.stderr
    assert ("Traceback" in result.stderr) == traceback


def test_a_job_gets_the_resolved_config(folder, monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "run_job", lambda job, environment: seen.append((job, environment)))
    assert cli.main(["c.yaml", "run.seed=5", "run.name=x", "--trust-remote-code"]) == 0
    [(job, environment)] = seen
    assert job.run.seed == 5
    assert environment.config["run"]["name"] == "x"
    assert yaml.safe_load(environment.yaml) == environment.config
    context = environment.build_context(run_dir=Path("runs/x"), rank=1, world_size=2)
    assert (context.seed, context.run_name, context.rank, context.trust_remote_code) == (5, "x", 1, True)


def test_interruption_tells_what_is_on_disk(folder, monkeypatch, capsys):
    def interrupted(job, environment):
        Path("runs/run/checkpoints/step-000050").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_job", interrupted)
    assert cli.main(["c.yaml"]) == 3
    assert "the last checkpoint is runs/run/checkpoints/step-000050" in capsys.readouterr().err


@pytest.mark.process
@pytest.mark.parametrize(("asked", "first"), [("--schema", "{"), ("--plugins comprehension", "selector comprehension")])
def test_output_may_be_cut_short(folder, asked, first):
    command = f"{sys.executable} -m ampo_core.cli.main {asked} | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith(first)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_a_broken_pipe_of_another_process_is_no_lack_of_a_reader(folder, monkeypatch, capsys):
    def broken(*_):
        try:
            raise BrokenPipeError("a worker's")
        except BrokenPipeError:
            raise RuntimeError("the worker is gone")  # noqa: B904

    monkeypatch.setattr(cli, "run_job", broken)
    assert cli.main(["c.yaml"]) == 1
    assert "RuntimeError: the worker is gone" in capsys.readouterr().err


def ascii_screen(monkeypatch):
    """From here on an ASCII stdout and stderr; gives what they show."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])

    def shown():
        for stream in streams:
            stream.flush()
        return tuple(stream.buffer.getvalue().decode("ascii") for stream in streams)

    return shown


def test_an_ascii_screen_escapes_what_it_cannot_show(folder, monkeypatch):
    screen = ascii_screen(monkeypatch)
    arguments = ["c.yaml", "data.system_prompt=Löse π \N{FOX FACE}", "resources.hostfile=train.parquet"]
    assert cli.main([*arguments, "--check"]) == 0
    assert yaml.safe_load(screen()[0])["data"]["system_prompt"] == "Löse π \N{FOX FACE}"
    assert cli.main([*arguments, "run.näme=ü"]) == 2
    assert r"run.n\xe4me: no such key" in screen()[1]


@pytest.mark.parametrize(
    "arguments", [["--schema"], ["--plugins"], ["--plugins", "shaping"], ["c.yaml", "guidance.threshold=1"]]
)
def test_an_ascii_screen_ends_nothing(folder, monkeypatch, arguments):
    screen = ascii_screen(monkeypatch)
    assert cli.main(arguments) in (0, 2)
    assert "Traceback" not in "".join(screen())


def test_a_plugin_that_brings_a_heavy_library_is_named_and_help_loads_none(folder, monkeypatch, capsys):
    monkeypatch.setattr(discovery, "HEAVY", ("heavy_for_cli_test",))
    Path("heavy_for_cli_test.py").touch()
    Path("slow_for_cli_test.py").write_text("import heavy_for_cli_test\n" + PLUGIN)
    for arguments in (["c.yaml", "--check"], ["--plugins"]):
        for name in ("heavy_for_cli_test", "slow_for_cli_test"):
            sys.modules.pop(name, None)
        assert cli.main([*arguments, "--plugin", "slow_for_cli_test.py"]) == 0
        said = "warning: plugin slow_for_cli_test of slow_for_cli_test.py file imports heavy_for_cli_test when it is"
        assert said in capsys.readouterr().err
    monkeypatch.setattr(cli, "discover", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0


def test_a_plain_file_brings_functions_and_is_told_where_nothing_names_one(folder, capsys):
    Path("score_for_cli_test.py").write_text("def compute_score(solution_str, ground_truth):\n    return 1.0\n")
    use = ("reward.type=function", "reward.function=compute_score", "reward.style=verl")
    plugin = ("--plugin", "score_for_cli_test.py")
    assert cli.main(["c.yaml", *use, "--check", *plugin]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out)["reward"]["function"] == "compute_score"
    assert "does nothing here" not in err
    assert cli.main(["c.yaml", "--check", *plugin]) == 0
    assert "plugin score_for_cli_test.py does nothing here: it implements no hook" in capsys.readouterr().err
    assert cli.main(["c.yaml", *use, "reward.function=compute_scores", "--check", *plugin]) == 2
    assert "reward.function: no file named with --plugin has a function compute_scores" in capsys.readouterr().err
    for name in ("score_for_cli_test", "compute_score"):
        assert cli.main(["--plugins", name, *plugin]) == 0
        assert "functions of score_for_cli_test.py: compute_score; reward: {type: function" in capsys.readouterr().out


@pytest.mark.parametrize(
    "pair", [("--sample", "1"), ("--schema",), ("--report", "runs/a"), ("--new-plugin", "loss", "x")]
)
def test_one_thing_is_asked_for_at_a_time(folder, capsys, pair):
    with pytest.raises(SystemExit) as end:
        cli.main(["c.yaml", "--check", *pair])
    assert end.value.code == 2
    assert f"argument {pair[0]}: not allowed with argument --check" in capsys.readouterr().err
