"""Reasoning Gym with its real package: entries survive a file, its scorers judge, and nothing that a policy writes is
run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from ampo_plugins.gym import answers, datasets
from ampo_plugins.gym.entries import from_text, to_text
from ampo_plugins.rewards import ReasoningGym
from ampo_plugins.tasks import ReasoningGym as Task
from ampo_plugins.tasks.reasoning_gym import shares
from ampo_registry import ConfigError, DataError, Grade, GradeRequest, PluginError, RewardSpec, TaskQuestion
from ampo_registry.discovery import discover
from ampo_registry.testing import check_reward, check_task
from pydantic import ValidationError
from reasoning_gym.factory import DATASETS

from ampo_core.config.data_files import DataRead
from ampo_core.config.nodes import Place
from ampo_core.config.sft_job import SftDataConfig
from ampo_core.data.preview import check_first_rows

QUICK = (
    *(
        "basic_arithmetic",
        "binary_matrix",
        "bitwise_arithmetic",
        "chain_sum",
        "countdown",
        "family_relationships",
        "graph_color",
    ),
    *("knights_knaves", "leg_counting", "maze", "n_queens", "number_sorting", "prime_factorization"),
    *("propositional_logic", "rotate_matrix", "simple_integration", "spell_backward", "word_sorting"),
)
EXAMPLES = {"graph_color": "possible_answer", "propositional_logic": "example_answer"}
"""Where data sets that accept many answers have one that is right."""


def grade(row: dict[str, Any], text: str, **options: Any) -> Grade:
    request = GradeRequest(text, row["reward_model"]["ground_truth"], row["data_source"], extra=row)
    return ReasoningGym(**options).grade([request])[0]


def row_of(question: TaskQuestion) -> dict[str, Any]:
    truth = {"ground_truth": question.answer}
    return {"data_source": question.source, "reward_model": truth, "extra_info": dict(question.extra)}


def right_answer(row: dict[str, Any]) -> str:
    entry = from_text(row["extra_info"]["entry"])
    name = row["extra_info"]["dataset"]
    if entry["answer"] is not None:
        return entry["answer"]
    found = entry["metadata"][EXAMPLES[name]]
    return found if isinstance(found, str) else json.dumps(found)


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    """A row of each of the quick data sets."""
    data = Task(datasets=[{"name": name} for name in QUICK], questions=len(QUICK), heldout=1).make(3)  # type: ignore[arg-type]
    return {question.source.partition("/")[2]: row_of(question) for question in data.train}


@pytest.mark.parametrize("name", QUICK)
def test_a_data_sets_own_scorer_judges(made, name):
    right = grade(made[name], f"<think>\nwell\n</think>\n<answer>{right_answer(made[name])}</answer>")
    wrong = grade(made[name], "<answer>no idea 77</answer>")
    assert (right.reward, right.correct, right.formatted) == (1.0, True, True)
    assert right.numbers == {"reasoning_gym/not_scored": 0.0, f"reasoning_gym/{name}": 1.0}
    assert wrong.reward < 1.0
    assert not wrong.correct
    assert grade(made[name], "no answer").reward == 0.0


def test_the_package_keeps_its_promises_of_what_it_runs():
    """A scorer that calls eval or parse_expr, and is not known to, would run what a policy or a file says."""
    package = Path(__import__("reasoning_gym").__file__).parent
    calls = re.compile(r"(?<![\w.])(?:eval|exec)\(|parse_expr\(|sympify\(|pickle|subprocess|os\.system")
    found = {path for path in package.rglob("*.py") if calls.search(path.read_text("utf-8"))}
    scorers = {path.stem for path in found if runs_in_a_scorer(path)}
    assert scorers == {*answers.RUN, *answers.RUN_OF_METADATA}
    generators = {"codeio", "basic_arithmetic", "generators_00_49", "generators_50_99", "propositional_logic"}
    assert {path.stem for path in found} - scorers == generators


def runs_in_a_scorer(path: Path) -> bool:
    """Whether what runs text as Python is called from `score_answer`, by whatever of the same file that calls."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    called, ahead = set(), ["score_answer"]
    while ahead:
        name = ahead.pop()
        if name in functions and name not in called:
            nodes = [node for node in ast.walk(functions[name]) if isinstance(node, ast.Name | ast.Attribute)]
            ahead += [node.id if isinstance(node, ast.Name) else node.attr for node in nodes]
        called.add(name)
    return not (called - functions.keys()).isdisjoint({"eval", "exec", "parse_expr", "sympify"})


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("n_queens", "__import__('os').system('touch FILE')"),
        ("spiral_matrix", "[open('FILE', 'w')]"),
        ("binary_matrix", " (lambda: open('FILE', 'w'))()"),
        ("string_insertion", "[x for x in open('FILE', 'w')]"),
        ("countdown", "__import__('os').system('touch FILE')"),
        ("puzzle24", "open('FILE', 'w')"),
        ("simple_integration", "x.__class__.mro()"),
        ("simple_integration", "x.diff(x)"),
        ("intermediate_integration", "exec('x')"),
        ("polynomial_multiplication", "open(x)"),
        ("simple_integration", "(x) . diff"),
        ("countdown", "1+" * 6000 + "1"),
    ],
)
def test_an_answer_that_would_be_run_is_withheld(name, answer):
    assert answers.withheld(name, answer, {"answer": "1", "metadata": {}})


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("n_queens", "_ Q _ _\nQ _ _ _"),
        ("spiral_matrix", "[1, -2, 3]"),
        ("binary_matrix", "[[0, 1], [1, 0]]"),
        ("string_insertion", "['A', 'B']"),
        ("countdown", "(3 + 4) * 5/2 - 1"),
        ("simple_integration", "2*x**3/3 + sin(2.5*x) + C"),
        ("simple_integration", "2.*x + C"),
        ("chain_sum", "__import__('os')"),
    ],
)
def test_an_answer_of_the_kind_that_is_asked_for_is_not(name, answer):
    assert not answers.withheld(name, answer, {"answer": "1", "metadata": {}})


def test_what_is_withheld_or_makes_the_scorer_raise_is_wrong_and_counted(made, tmp_path):
    hostile = grade(made["countdown"], f"<answer>open('{tmp_path / 'FILE'}', 'w')</answer>")
    assert (hostile.reward, hostile.status, hostile.numbers["reasoning_gym/not_scored"]) == (0.0, "ok", 1.0)
    assert "runs answers as Python" in hostile.detail
    assert not (tmp_path / "FILE").exists()
    raised = grade(made["prime_factorization"], "<answer>two</answer>")
    assert (raised.reward, raised.numbers["reasoning_gym/not_scored"]) == (0.0, 1.0)
    assert "the scorer of prime_factorization raised ValueError" in raised.detail


@pytest.mark.parametrize(
    ("name", "answer", "metadata"),
    [
        ("number_sorting", "open('FILE', 'w')", {}),
        ("bitwise_arithmetic", "0x1", {"problem": "open('FILE', 'w').write('x')"}),
        ("bitwise_arithmetic", "0x1", {"problem": "(0x1 + 0x2).bit_length()"}),
        ("simple_integration", "x", {"integrand": "open('FILE', 'w')", "variable": "x"}),
    ],
    ids=["answer", "problem", "attribute", "integrand"],
)
def test_an_entry_whose_own_parts_would_be_run_is_refused(name, answer, metadata, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry = {"question": "q", "answer": answer, "metadata": metadata}
    info = {"dataset": name, "options": "{}", "entry": to_text(entry)}
    with pytest.raises(PluginError, match=f"holds what the scorer of {name} would run"):
        grade({"reward_model": {"ground_truth": "x"}, "data_source": "", "extra_info": info}, "<answer>[]</answer>")
    assert not (tmp_path / "FILE").exists()


def test_scores_between_right_and_wrong(made):
    sorting = made["countdown"]
    part = grade(sorting, "<answer>1 + 1</answer>")
    assert (part.reward, part.correct) == (0.05, False)
    assert grade(sorting, "<answer>1 + 1</answer>", partial=False, format_weight=0.1).reward == pytest.approx(0.1)
    assert grade(sorting, "<answer>1 + 1</answer>", correct_from=0.05).correct
    assert ReasoningGym().earns(True) is None
    assert ReasoningGym(partial=False, format_weight=0.1).earns(True) == (0.9, 1.0)


def test_where_the_answer_stands(made):
    row = made["chain_sum"]
    answer = right_answer(row)
    assert grade(row, f"\\boxed{{{answer}}}").correct
    assert not grade(row, f"\\boxed{{{answer}}}", untagged="wrong").correct
    assert not grade(row, answer).correct
    assert grade(row, answer, untagged="whole").correct
    assert not grade(row, f"<think><answer>{answer}</answer></think> so").correct


@pytest.mark.parametrize(
    "value",
    [
        (1, 2.5, None, True, "ü"),
        {"a": (1, (2,)), 3: {4, 5}, (1, 2): frozenset("ab")},
        {"$tuple": 1},
        [{"$set": [1]}, {}],
        {},
    ],
    ids=["tuple", "keys-and-sets", "tag-as-key", "tag-in-list", "empty"],
)
def test_an_entry_is_the_same_when_it_is_read_again(value):
    entry = {"question": "q", "answer": "a", "metadata": {"value": value}}
    again = from_text(json.dumps(json.loads(to_text(entry))))
    assert again == entry
    assert repr(again) == repr(entry) or isinstance(value, dict)


def test_what_a_file_cannot_keep_is_told():
    entry = {"question": "q", "answer": "a", "metadata": {"steps": [1, 2j]}}
    with pytest.raises(
        TypeError, match=r"entry\.metadata\.steps\[1\] is a builtins\.complex, which a file cannot keep"
    ):
        to_text(entry)
    with pytest.raises(ValueError, match="an entry is a mapping with question"):
        from_text("[]")


def test_rows_of_others_are_told():
    with pytest.raises(
        PluginError, match=r"the row lacks extra_info\.dataset, options or entry: files for this reward"
    ):
        grade({"reward_model": {"ground_truth": "7"}, "data_source": "gsm8k"}, "<answer>7</answer>")


def test_rows_of_others_are_refused_before_a_run(tmp_path, made):
    file = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "q"}]
    both = {"type": "sum", "parts": [{"reward": "exact"}, {"reward": "reasoning_gym"}]}

    def look(row: dict[str, Any], judge: RewardSpec) -> list[str]:
        file.write_text(json.dumps({"prompt": messages, **row}) + "\n", "utf-8")
        read = DataRead(("data", "train", 0), str(file), SftDataConfig(train=[str(file)]), reward=judge)
        return check_first_rows([(Place("c.yaml", 3), read)])

    other = {"reward_model": {"ground_truth": "7"}, "data_source": "gsm8k"}
    for judge, part in ((ReasoningGym(), ""), (discover().catalog.resolve("reward", both), "reasoning_gym: ")):
        assert look(made["chain_sum"], judge) == []
        with pytest.raises(
            ConfigError, match=f"row 1: reward .* cannot judge it: {part}the row lacks extra_info"
        ) as said:
            look(other, judge)
        assert "c.yaml:3: data.train.0: " in str(said.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("game_of_life_halting", "{}", "is left out: its scorer accepts whatever is not empty"),
        ("composite", "{}", "there is no data set 'composite'"),
        ("chain_sum", '{"max_term": 3}', "chain_sum has no option max_term"),
        ("chain_sum", "[]", "extra_info.options of chain_sum must be a mapping; found []"),
        ("chain_sum", "{", "extra_info.options of chain_sum cannot be read"),
    ],
    ids=["refused", "composite", "option", "no-mapping", "no-json"],
)
def test_a_rows_data_set_and_options_are_those_that_a_task_could_have(name, options, said):
    entry = {"question": "q", "answer": "1", "metadata": {}}
    info = {"dataset": name, "options": options, "entry": to_text(entry)}
    with pytest.raises(PluginError) as raised:
        grade({"reward_model": {"ground_truth": "1"}, "data_source": "", "extra_info": info}, "<answer>1</answer>")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("chain_sums", "there is no data set 'chain_sums'; did you mean 'chain_sum'?; Reasoning Gym has"),
        (
            [{"name": "chain_sum", "options": {"max_term": 3}}],
            "has no option max_term; did you mean 'max_terms'?; its options are",
        ),
        ([{"name": "chain_sum", "options": {"max_terms": 0}}], "chain_sum refuses its options: AssertionError"),
        ([{"name": "chain_sum", "options": {"seed": 1}}], "chain_sum: seed is set by the task"),
        ([{"name": "chain_sum"}, {"name": "chain_sum"}], "chain_sum stands there twice"),
        ("game_of_life_halting", "is left out: its scorer accepts whatever is not empty"),
        ("composite", "there is no data set 'composite'; Reasoning Gym has"),
    ],
    ids=["name", "option", "value", "seed", "twice", "broken", "composite"],
)
def test_data_sets_that_are_not_there_are_refused_before_a_run(value, said):
    with pytest.raises(ValidationError) as raised:
        Task(datasets=value)
    assert said in raised.value.errors()[0]["msg"]


def test_data_sets_that_come_out_differently_in_each_process_are_told():
    ((option, text),) = Task(datasets=({"name": "codeio"}, {"name": "chain_sum"})).warnings()  # type: ignore[arg-type]
    assert option == "datasets"
    assert "codeio: its questions differ from process to process" in text
    assert not Task(datasets="chain_sum").warnings()  # type: ignore[arg-type]


def test_too_few_different_questions_are_told():
    with pytest.raises(DataError, match=r"coin_flip: \d+ different questions among 8100, not the 400 that are wanted"):
        Task(datasets="coin_flip", questions=400, heldout=1).make(0)  # type: ignore[arg-type]


def test_shares_add_up():
    assert shares(10, [1.0, 1.0, 1.0]) in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    assert shares(1000, [3.0, 1.0]) == [750, 250]
    assert sum(shares(7, [0.1, 0.7, 0.3])) == 7


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(datasets.importlib.util, "find_spec", lambda name: None)
    spec = Task(datasets="anything_goes_unchecked")  # type: ignore[arg-type]
    for component in (spec, ReasoningGym()):
        assert component.unavailable() == "the package reasoning_gym is not installed: pip install 'ampo-rl[gym]'"
    with pytest.raises(ConfigError, match="reward reasoning_gym: the package reasoning_gym is not installed"):
        ReasoningGym().build(None)  # type: ignore[arg-type]


def test_they_keep_the_contracts():
    parts = [{"name": "chain_sum", "weight": 3}, {"name": "leg_counting", "options": {"max_animals": 5}}]
    check_task(Task(datasets=parts, questions=12, heldout=3), teacher_answers=False)  # type: ignore[arg-type]
    check_reward(ReasoningGym())
    check_reward(ReasoningGym(partial=False, format_weight=0.1))


@pytest.mark.process
def test_from_prepare_to_two_steps_of_training(tmp_path, tiny_model, forge, golden_tokenizer):
    """The files that `prepare` writes, what the reward says of them, and a run that trains on them, with a
    function of a person's own beside."""
    parts = [{"name": "chain_sum", "weight": 3, "options": {"max_terms": 3}}, {"name": "knights_knaves"}]
    task = {"type": "reasoning_gym", "datasets": parts, "questions": 8, "heldout": 2, "system_prompt": None}
    reward = {"type": "reasoning_gym", "workers": 1}
    prepare = {"job": "prepare", "run": {"name": "prepare"}, "task": task, "reward": reward, "out": "data"}
    (tmp_path / "prepare.yaml").write_text(yaml.safe_dump(prepare))
    done = forge.run("prepare.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(tmp_path / "data/train.parquet").to_pylist()
    assert (
        sorted(row["data_source"] for row in rows)
        == ["reasoning_gym/chain_sum"] * 6 + ["reasoning_gym/knights_knaves"] * 2
    )
    for row in rows:
        assert grade(row, f"<answer>{right_answer(row)}</answer>").correct
        assert not grade(row, "<answer>no idea 77</answer>").correct
    (tmp_path / "length_of_response.py").write_text(
        "def length(completions, extra_info, **kwargs):\n"
        "    return [0.0 if completions[0][0]['content'] else 0.1 for info in extra_info if info['entry']]\n"
    )
    function = {"type": "function", "function": "length", "style": "trl"}
    parts_of_reward = [{"reward": "reasoning_gym"}, {"reward": function, "weight": 0.1, "name": "length"}]
    train = {
        "job": "train",
        "run": {"name": "train"},
        "model": {"path": str(tiny_model), "dtype": "float32", "gradient_checkpointing": False},
        "data": {"train": ["data/train.parquet"], "max_prompt_tokens": 480},
        "rollout": {"type": "transformers", "group_size": 2, "max_response_tokens": 4},
        "reward": {"type": "sum", "workers": 1, "parts": parts_of_reward},
        "guidance": None,
        "evaluation": {"every": 2, "sets": {"sums": {"path": "data/heldout/chain_sum.parquet", "samples": 1}}},
        "training": {
            **{"steps": 2, "questions_per_batch": 2, "questions_per_minibatch": 2, "tokens_per_microbatch": 1024},
            "learning_rate": 1e-3,
        },
        "deepspeed": {"zero_stage": 0},
        "checkpoint": {"every": None},
        "resources": {"threads": 1},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(train))
    done = forge.run("train.yaml", "--plugin", "length_of_response.py", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in (tmp_path / "runs/train/metrics.jsonl").read_text("utf-8").splitlines()]
    assert [line["reasoning_gym/not_scored"] for line in lines if "reward/mean" in line] == [0.0, 0.0]
    assert all(line["verifier/errors"] == 0.0 and "sum/length" in line for line in lines if "reward/mean" in line)
    assert lines[-1]["eval/sums/reasoning_gym/chain_sum"] == 0.0
    manifest = json.loads((tmp_path / "runs/train/manifest.json").read_text("utf-8"))
    assert "length_of_response.py" in manifest["plugins"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(DATASETS) - {"composite", *datasets.REFUSED}))
def test_every_data_set_of_the_package(name):
    """Entries are the same when they are read again, the own answer scores 1 and is not withheld (the task checks it),
    and nonsense is wrong."""
    data = Task(datasets=name, questions=2, heldout=1).make(1)  # type: ignore[arg-type]
    for question in data.train:
        row = row_of(question)
        assert grade(row, "<answer>no idea 77</answer>").reward < 1.0
        if question.scored_answer is not None:
            assert grade(row, f"<answer>{question.scored_answer}</answer>").correct
