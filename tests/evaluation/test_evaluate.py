"""evaluate_sets: samples, seeds, metrics, predictions. The verifier is the real one."""

import math
from collections import OrderedDict, deque
from dataclasses import replace

import pytest
from ampo_registry import DataError, Grade

from ampo_core.config.evaluate_job import EvaluateDataConfig
from ampo_core.distributed.ranks import Ranks
from ampo_core.evaluation.evaluate import evaluate_sets, load_sets, sampling_options, set_graders
from ampo_core.grading.grader import Grader

pytestmark = pytest.mark.process

ANSWERS = {
    "1 + 1": ["<answer> 2 </answer>", "<answer> 3 </answer>", "2 ...", "<answer>2</answer>"],
    "2 + 2": ["no", "<answer> 5 </answer>", "", "5"],
    "3 + 3": ["<answer> 6 </answer>"],
}


@pytest.fixture(scope="module")
def grader(plugins):
    reward = plugins.catalog.resolve("reward", {"type": "math_verify", "workers": 1, "timeout_s": 30})
    with Grader(reward) as grader:
        yield grader


@pytest.fixture
def sums(write_rows, make_row):
    pairs = [("1 + 1", "2"), ("2 + 2", "4"), ("1 + 1", "2"), ("3 + 3", "6")]
    return write_rows([make_row(question, answer) for question, answer in pairs])


@pytest.fixture
def evaluate(evaluation_config, grader, prompt_tokenizer, table_engine, one_rank):
    def run(sets, *, run_seed=0, step=0, ranks=one_rank, done=None, **options):
        config = evaluation_config(sets, **options)
        engine = table_engine(ANSWERS)
        with set_graders(config, grader) as graders:
            loaded = load_sets(config, EvaluateDataConfig(), prompt_tokenizer, graders, one_rank)
            rollout = type("Spec", (), {"max_response_tokens": 64})
            sampling = sampling_options(config, rollout, prompt_tokenizer)
            found = evaluate_sets(
                loaded,
                engine,
                graders,
                sampling,
                run_seed=run_seed,
                step=step,
                ranks=ranks,
                groups=config.groups,
                done=done,
            )
        return found, engine

    return run


def test_metrics_of_a_set(evaluate, sums):
    evaluation, engine = evaluate({"sums": {"path": sums, "samples": 4, "pass_at": [1, 2]}})
    metrics = evaluation.metrics()
    shares = [0.75, 0.0, 1.0]  # "2 ..." counts as 2, truncated
    assert metrics["eval/sums/avg@4"] == pytest.approx(sum(shares) / 3)
    assert metrics["eval/sums/pass@1"] == pytest.approx(sum(shares) / 3)
    assert metrics["eval/sums/pass@2"] == pytest.approx((1.0 + 0.0 + 1.0) / 3)
    lengths = [len(ANSWERS[q][i % len(ANSWERS[q])]) for q in ANSWERS for i in range(4)]
    assert metrics["eval/sums/length_mean"] == pytest.approx(sum(lengths) / 12)
    assert metrics["eval/sums/truncated"] == pytest.approx(1 / 12)
    assert metrics["eval/sums/entropy"] == pytest.approx(0.5)
    assert (metrics["eval/sums/timeouts"], metrics["eval/sums/errors"]) == (0, 0)
    assert metrics["eval/macro/avg"] == metrics["eval/sums/avg@4"]
    assert all(math.isfinite(value) for value in metrics.values())
    assert not engine.awake


def test_repeated_rows_are_one_question_with_samples_of_its_own(evaluate, sums):
    evaluation, engine = evaluate({"sums": {"path": sums, "samples": 5}})
    assert len(evaluation.sets[0].questions) == 3
    seeds = [seed for request in engine.requests for seed in request.seeds]
    assert len(seeds) == len(set(seeds)) == 15


def test_seeds_depend_on_run_step_set_and_question_alone(evaluate, sums):
    def seeds(sets, **where):
        return [request.seeds for request in evaluate(sets, **where)[1].requests]

    base = seeds({"a": {"path": sums, "samples": 2}})
    assert seeds({"a": {"path": sums, "samples": 2}}) == base
    assert seeds({"a": {"path": sums, "samples": 3}})[0][:2] == base[0]
    assert seeds({"a": {"path": sums, "samples": 2, "limit": 1}}) == base[:1]
    assert seeds({"b": {"path": sums, "samples": 2}}) != base
    assert seeds({"a": {"path": sums, "samples": 2}}, step=1) != base
    assert seeds({"a": {"path": sums, "samples": 2}}, run_seed=1) != base


def test_macro_counts_sets_not_questions(evaluate, sums, write_rows, make_row):
    easy = write_rows([make_row("3 + 3", "6")], "easy.jsonl")
    hard = write_rows([make_row("2 + 2", "4"), make_row("2 + 2", "4", system="x")], "hard.jsonl")
    metrics = evaluate({"easy": {"path": easy}, "hard": {"path": hard}})[0].metrics()
    assert metrics["eval/macro/avg"] == 0.5


def test_sampling_follows_the_evaluation_block(evaluate, sums, prompt_tokenizer):
    _, engine = evaluate({"a": {"path": sums}}, temperature=0.3, top_p=0.9)
    assert (engine.options[0].temperature, engine.options[0].top_p) == (0.3, 0.9)
    assert engine.options[0].max_response_tokens == 64
    assert engine.options[0].stop_token_ids == prompt_tokenizer.stop_token_ids
    _, engine = evaluate({"a": {"path": sums}}, max_response_tokens=7)
    assert engine.options[0].max_response_tokens == 7


def test_groups_are_means_over_some_of_the_sets(evaluate, sums, write_rows, make_row):
    easy = write_rows([make_row("3 + 3", "6")], "easy.jsonl")
    sets = {"easy": {"path": easy}, "sums": {"path": sums, "samples": 4}}
    metrics = evaluate(sets, groups={"both": ["sums", "easy"], "one": ["easy"]})[0].metrics()
    assert metrics["eval/both/avg"] == metrics["eval/macro/avg"] == pytest.approx((1.0 + 1.75 / 3) / 2)
    assert metrics["eval/one/avg"] == 1.0


def test_greedy_answers_have_no_entropy(evaluate, sums):
    found = []
    evaluation, engine = evaluate({"a": {"path": sums}}, temperature=0.0, done=found.append)
    assert engine.options[0].temperature == 0.0
    assert "eval/a/entropy" not in evaluation.metrics()
    assert {prediction["logprob"] for prediction in found[0].predictions(lambda _: None)} == {None}


def test_large_sets_are_sampled_in_parts_with_the_same_result(evaluate, sums, monkeypatch):
    whole, _ = evaluate({"a": {"path": sums, "samples": 4}})
    monkeypatch.setattr("ampo_core.evaluation.evaluate.SAMPLES_AT_ONCE", 9)
    parts, engine = evaluate({"a": {"path": sums, "samples": 4}})
    assert len(engine.options) == 2
    assert parts == whole


def test_the_error_rate_of_an_evaluation_is_its_own(evaluate, sums, grader, monkeypatch):
    before = grader.state_dict()
    evaluate({"a": {"path": sums, "samples": 4}})
    assert grader.state_dict() == before
    monkeypatch.setattr(grader, "_window", deque([(1000, 10)]))  # one more would end training
    broken = [Grade(0.0, False, False, "timeout")] * 10
    monkeypatch.setattr(Grader, "_graded", lambda self, requests, rows, tries: [broken[0] for _ in requests])
    monkeypatch.setattr(grader, "_cache", OrderedDict())
    evaluation, _ = evaluate({"a": {"path": sums, "samples": 2}})  # 5 different answers without a verdict
    assert evaluation.metrics()["eval/a/timeouts"] > 0
    assert grader.state_dict() == {"window": [[1000, 10]]}


def test_predictions_keep_every_sample(evaluate, sums):
    found = []
    evaluation, _ = evaluate({"sums": {"path": sums, "samples": 4}}, done=found.append)
    assert all(answer.text == "" for group in evaluation.sets[0].answers for answer in group)
    predictions = list(found[0].predictions(lambda _: None))
    assert len(predictions) == 12
    first = predictions[1]
    assert first["text"] == "<answer> 3 </answer>"
    assert (first["set"], first["sample"], first["answer"]) == ("sums", 1, "2")
    assert (first["correct"], first["formatted"], first["status"]) == (False, True, "ok")
    assert first["reward"] == pytest.approx(0.1)
    assert first["logprob"] == -0.5 * first["tokens"]
    assert predictions[2]["finish_reason"] == "length"
    assert len({prediction["uid"] for prediction in predictions}) == 3


def test_the_graders_counts_stay_those_of_training(evaluate, sums, grader):
    evaluate({"sums": {"path": sums, "samples": 4}})
    assert grader.take_counts().graded == 0


def test_equal_rewards_share_workers(evaluation_config, grader, sums):
    own = {"type": "math_verify", "workers": 1, "format_weight": 0.2}
    config = evaluation_config(
        {
            name: {"path": sums, "reward": reward}
            for name, reward in [("a", None), ("b", own), ("c", own), ("d", {**own, "format_weight": 0.3})]
        }
    )
    with set_graders(config, grader) as graders:
        assert graders["a"] is grader
        assert graders["b"] is graders["c"]
        assert len({id(found) for found in graders.values()}) == 3


def test_a_set_without_questions_is_an_error(evaluate, sums):
    with pytest.raises(DataError, match="no question is left"):
        evaluate({"a": {"path": sums, "where": {"data_source": "aime"}}})


def test_ranks_do_their_share_of_the_questions(evaluate, sums, one_rank, monkeypatch):
    whole, _ = evaluate({"a": {"path": sums, "samples": 4}})
    shards = {}

    def gather(self, shard, total):
        return list(shard) if self.world_size == 1 else shards.setdefault(self.rank, list(shard))

    monkeypatch.setattr(Ranks, "gather", gather)
    for rank in (0, 1):
        evaluate({"a": {"path": sums, "samples": 4}}, ranks=Ranks(rank, 2, one_rank.device))
    merged = [shards[0][0], shards[1][0], shards[0][1]]
    assert tuple(tuple(replace(answer, text="") for answer in group) for group in merged) == whole.sets[0].answers
