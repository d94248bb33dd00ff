"""Prompts, per-source and macro averages of the released evaluation scripts.

Deliberate differences:
- Repeated rows: there each row is a question of its own (`sample_count` 2 for aime, and the row average 0.8 counts
  it twice); here a set holds distinct questions, and only the mean over sets is reported beside the sets' own.
- There "The final answer is \\boxed{...}" is appended to a tagged response before verification; here the tagged
  content itself is verified. The verdicts are the same; lengths are taken from the file.
- Templates other than the model's own are no feature: the model's chat template with `data.system_prompt`.
- There each list of pass@k ends with an entry for k > n; here k > n is refused with the config.
- There pass@k is rounded to four decimals.
- mmlu: "the answer is B" without tags is wrong there (their verifier wants a box); the reward `choice` accepts it.
"""

import json
from pathlib import Path

import pytest
from ampo_registry import SamplingOptions

from ampo_core.config.evaluate_job import EvaluateDataConfig
from ampo_core.data.questions import load_questions
from ampo_core.evaluation.compare import compare
from ampo_core.evaluation.evaluate import evaluate_sets, load_sets, set_graders
from ampo_core.grading.grader import Grader
from ampo_core.report.scores import MACRO

pytestmark = pytest.mark.process

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "eval_scripts.json").read_text())
OWN = next(case for case in GOLDEN["cases"] if case.get("template") == "own")
PASS = next(case for case in GOLDEN["cases"] if case["script"] == "eval_pass_k")
SYSTEM = OWN["prompt0"].split("system\n")[1].split("<|im_end|>")[0]
SOURCES = ("aime", "math", "amc", "mmlu")
LENGTHS = {
    "Q1": OWN["summary"]["data_source_results"]["aime"]["avg_response_tokens"],
    "Q2": OWN["summary"]["data_source_results"]["math"]["avg_response_tokens"],
    "Q3": OWN["summary"]["data_source_results"]["amc"]["avg_response_tokens"],
    "Q4": OWN["summary"]["data_source_results"]["mmlu"]["avg_response_tokens"],
}


@pytest.fixture
def run_case(plugins, evaluation_config, write_rows, table_engine, prompt_tokenizer, one_rank):
    def run(case, pass_at):
        path = write_rows(GOLDEN["rows"])
        sets = {
            source: {
                "path": path,
                "where": {"data_source": source},
                "samples": case["sampling"]["n"],
                "pass_at": pass_at,
                "reward": "choice" if source == "mmlu" else None,
            }
            for source in SOURCES
        }
        config = evaluation_config(sets)
        engine = table_engine(GOLDEN["canned"], {name: int(tokens) for name, tokens in LENGTHS.items()})
        reward = plugins.catalog.resolve("reward", {"type": "math_verify", "workers": 1, "timeout_s": 30})
        with Grader(reward) as grader, set_graders(config, grader) as graders:
            assert graders["mmlu"] is not grader
            loaded = load_sets(config, EvaluateDataConfig(system_prompt=SYSTEM), prompt_tokenizer, graders, one_rank)
            options = SamplingOptions(0.6, 1.0, 8192, prompt_tokenizer.stop_token_ids)
            return evaluate_sets(loaded, engine, graders, options, run_seed=0, step=0, ranks=one_rank)

    return run


def test_prompts_are_those_of_the_own_template(prompt_tokenizer, write_rows):
    loaded = load_questions(
        [write_rows(GOLDEN["rows"])],
        prompt_tokenizer,
        max_prompt_tokens=1024,
        overlong_prompts="drop",
        system_prompt=SYSTEM,
        check_truths=None,
    )
    assert prompt_tokenizer.tokenizer.decode(loaded.questions[0].prompt_token_ids) == OWN["prompt0"]


def test_per_source_and_macro_averages(run_case):
    evaluation = run_case(OWN, [])
    metrics = evaluation.metrics()
    for source, expected in OWN["summary"]["data_source_results"].items():
        assert metrics[f"eval/{source}/avg@1"] == expected["accuracy"]
        assert metrics[f"eval/{source}/length_mean"] == expected["avg_response_tokens"]
    assert metrics["eval/macro/avg"] == OWN["summary"]["overall_avg_accuracy_by_source"]
    macro = next(row for row in compare({"m": evaluation}, "m", 0).rows if row.set == MACRO)
    assert macro.average.value == OWN["summary"]["overall_avg_accuracy_by_source"]
    assert macro.measured["length_mean"] == OWN["summary"]["overall_avg_tokens_by_source"]
    assert [len(result.questions) for result in evaluation.sets] == [1, 1, 1, 1]


def test_pass_at_k_by_source(run_case):
    tries = [1, 2, 4, 8]
    evaluation = run_case(PASS, tries)
    metrics = evaluation.metrics()
    assert metrics["eval/mmlu/pass@1"] == 1.0
    assert PASS["summary"]["mmlu"]["pass_at_1"] == 0.5
    for source in SOURCES[:3]:
        expected = PASS["summary"][source]["pass_at_k_results"]
        found = [round(metrics[f"eval/{source}/pass@{k}"], 4) for k in tries]
        assert found == expected[: len(tries)]
        assert metrics[f"eval/{source}/avg@8"] == PASS["summary"][source]["pass_at_1"]
    macro = next(row for row in compare({"m": evaluation}, "m", 0).rows if row.set == MACRO)
    assert macro.pass_at[8].value == PASS["summary"]["overall_pass_at_8_by_source"]
