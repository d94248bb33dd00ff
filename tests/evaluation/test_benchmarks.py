"""The nine benchmarks as the shipped configs name them: the authors' files for the mathematical ones, made-up rows of
the same shape for those with letters. An oracle solves all of them, and an answer that is wrong none."""

import os
from pathlib import Path

import pytest

from ampo_core.config.load import load_config
from ampo_core.evaluation.evaluate import evaluate_sets, load_sets, sampling_options, set_graders
from ampo_core.grading.grader import Grader

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("AMPO_SHARED", ROOT / ".." / "shared")) / "data"
QUESTIONS = {"aime24": 30, "aime25": 30, "amc": 83, "math500": 500, "minerva": 272, "olympiad_bench": 675}
SMALL = ("aime24", "aime25", "amc")
LETTERS = ("arc_c", "gpqa_diamond", "mmlu_pro")
TAGS = "within the <answer> </answer> tags"

needs_files = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"the authors' data files are not at {DATA}; set AMPO_SHARED to the folder above data/"
)


def oracle(truth):
    return f"I know.\n<answer> {truth} </answer>"


def wrong(truth):
    return "<answer> J </answer>" if truth in "ABCDEFGHI" else "<answer> 123456789.5 </answer>"


def assert_told_apart(found):
    """Every first answer has the whole reward, and no second one is correct."""
    pairs = [group for result in found.sets for group in result.answers]
    assert {first.grade.reward for first, _ in pairs} == {1.0}
    assert not any(second.grade.correct for _, second in pairs)
    assert found.macro == 0.5


@pytest.fixture(scope="module")
def load(plugins):
    def run(name, **changes):
        """A config of configs/paper with two samples a question, its files in the folder of the authors'."""
        path = ROOT / "configs" / "paper" / name
        sets = load_config(path, [], plugins).job.evaluation.sets
        own = {f"evaluation.sets.{key}.path": str(DATA / Path(item.path).name) for key, item in sets.items()}
        own |= {f"evaluation.sets.{key}.samples": 2 for key in sets}
        own |= {f"evaluation.sets.{key}.pass_at": [] for key in sets}
        # the tests' tokenizer makes many more tokens of a text than a language model's does
        own |= {"data.max_prompt_tokens": 100_000}
        return load_config(path, {**own, **changes}, plugins).job

    return run


@pytest.fixture
def solve(prompt_tokenizer, table_engine, one_rank, plugins):
    def run(job, sets, right=oracle):
        """The evaluation of somebody who answers each question with `right` of its ground truth and then wrongly."""
        chosen = job.evaluation.model_copy(update={"sets": {name: job.evaluation.sets[name] for name in sets}})
        generous = plugins.catalog.resolve("reward", {"type": "math_verify", "workers": 2, "timeout_s": 120})
        with Grader(generous) as grader, set_graders(chosen, grader) as graders:
            loaded = load_sets(chosen, job.data, prompt_tokenizer, graders, one_rank)
            prompts = {question.prompt_token_ids: question.answer for item in loaded for question in item.questions}
            engine = table_engine({})
            engine._rollout = lambda request, sample: engine.said(
                (right, wrong)[sample](prompts[request.prompt_token_ids])
            )
            options = sampling_options(chosen, job.rollout, prompt_tokenizer)
            found = evaluate_sets(loaded, engine, graders, options, run_seed=0, step=0, ranks=one_rank)
        return loaded, found

    return run


@needs_files
@pytest.mark.process
@pytest.mark.parametrize("sets", [SMALL, pytest.param(tuple(QUESTIONS), marks=pytest.mark.slow)], ids=["small", "all"])
def test_the_mathematical_sets_are_those_of_the_authors_files(load, solve, sets):
    job = load("evaluate.yaml")
    loaded, found = solve(job, sets)
    assert {item.name: len(item.questions) for item in loaded} == {name: QUESTIONS[name] for name in sets}
    assert all(item.report.refused == () and item.report.overlong_dropped == 0 for item in loaded)
    assert all(TAGS in question.messages[0].content for item in loaded for question in item.questions)
    assert_told_apart(found)


@pytest.mark.process
@needs_files
def test_the_files_of_pass_at_k_hold_as_many_questions(load, prompt_tokenizer, one_rank):
    job = load("pass_at_k.yaml")
    with Grader(job.reward) as grader, set_graders(job.evaluation, grader) as graders:
        loaded = load_sets(job.evaluation, job.data, prompt_tokenizer, graders, one_rank)
    assert {item.name: len(item.questions) for item in loaded} == {
        name: QUESTIONS[name] for name in ("aime24", "aime25", "amc", "math500")
    }
    assert all(item.report.refused == () and item.report.overlong_dropped == 0 for item in loaded)


@pytest.mark.process
def test_letters(load, solve, write_rows, make_row):
    choices = "Which one?\nA. one\nB. two\nC. three\nD. four"
    path = write_rows([make_row(f"{i}: {choices}", letter, "letters") for i, letter in enumerate("ABCDB")])
    job = load("evaluate.yaml", **{f"evaluation.sets.{name}.path": path for name in LETTERS})
    assert {job.evaluation.sets[name].reward.type for name in LETTERS} == {"choice"}
    assert_told_apart(solve(job, LETTERS)[1])
    assert solve(job, LETTERS, lambda truth: f"so the answer is ({truth}).")[1].macro == 0.5


def test_the_configs_say_what_the_paper_measures(plugins):
    job = load_config(ROOT / "configs" / "paper" / "evaluate.yaml", [], plugins).job
    evaluation = job.evaluation
    assert {name: item.samples for name, item in evaluation.sets.items()} == {
        **dict.fromkeys(QUESTIONS, 1),
        **dict.fromkeys(LETTERS, 1),
        **dict.fromkeys(("aime24", "aime25", "amc"), 32),
    }
    assert evaluation.groups == {"in_distribution": list(QUESTIONS), "out_of_distribution": list(LETTERS)}
    assert (evaluation.temperature, evaluation.top_p, job.rollout.max_response_tokens) == (0.6, 1.0, 8192)
    sets = load_config(ROOT / "configs" / "paper" / "pass_at_k.yaml", [], plugins).job.evaluation.sets
    assert {name: item.tries()[-1] for name, item in sets.items()} == {
        "aime24": 256,
        "aime25": 256,
        "amc": 256,
        "math500": 32,
    }
    assert sets["aime24"].tries() == (1, 2, 4, 8, 16, 32, 64, 128, 256)
