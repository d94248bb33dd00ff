"""The `sft` job on a tiny model: real data, real DeepSpeed, a few steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ampo_plugins.tasks.labelled_arithmetic import LabelledArithmetic
from ampo_registry import DataError

from ampo_core.config.layouts import ColumnsConfig
from ampo_core.config.sft_job import SftDataConfig, SftTrainingConfig
from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.jobs.sft import batches, part_dropout, run
from ampo_core.jobs.sft_data import Examples, load_examples
from ampo_core.learner.packing import TokenPair

pytestmark = pytest.mark.process

CONVERSATIONS = [
    [
        {"role": "user", "content": f"{start}A+{plus}?"},
        {"role": "assistant", "content": f"<answer> {start + plus} </answer>"},
    ]
    for start in range(10, 30)
    for plus in (1, 2)
]


def rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def start_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    LabelledArithmetic().write_start_model(folder, 0)
    return folder


@pytest.fixture(scope="module")
def tokenizer(start_model: Path) -> PromptTokenizer:
    return load_tokenizer(ModelConfig(path=str(start_model)))


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    return rows(tmp_path / "sft.jsonl", [{"messages": conversation} for conversation in CONVERSATIONS])


@pytest.fixture
def job(tmp_path: Path, start_model: Path, messages: Path, environment_of: Callable[..., Any]) -> Callable[..., Any]:
    """(name, overrides) -> what `run` returns for 12 steps on all conversations."""
    config = tmp_path / "sft.yaml"
    config.write_text(
        "job: sft\n"
        f"run: {{name: tuned, dir: {tmp_path}}}\n"
        f"model: {{path: {start_model}, dtype: float32, gradient_checkpointing: false}}\n"
        f"data: {{train: [{messages}], format: messages, max_tokens: 20}}\n"
        "training: {epochs: 3, batch: 5, accumulation: 2, learning_rate: 0.01, tokens_per_microbatch: 64}\n"
        "deepspeed: {zero_stage: 0}\n"
        "resources: {threads: 1}\n"
    )
    return lambda **overrides: run(*environment_of(config, overrides))


def metrics_of(policy: Path) -> list[dict[str, float]]:
    lines = (policy.parents[2] / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    state: dict[str, torch.Tensor] = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    return state


def test_loss_falls_and_the_final_policy_loads(job: Callable[..., Path]) -> None:
    from transformers import AutoTokenizer

    policy = job()
    assert policy.name == "policy"
    metrics = metrics_of(policy)
    assert [line["step"] for line in metrics] == list(range(1, 13))
    assert metrics[0]["policy/loss"] > 3.0
    assert metrics[-1]["policy/loss"] < 0.5 * metrics[0]["policy/loss"]
    assert metrics[0]["policy/learning_rate"] <= 0.01
    assert metrics[-1]["policy/learning_rate"] < 0.001
    assert (policy.parents[2] / "done").exists()
    assert json.loads((policy.parents[2] / "manifest.json").read_text())["questions"]["train"]["count"] == 40
    assert weights_of(policy).keys()
    assert AutoTokenizer.from_pretrained(policy).chat_template


def test_a_learning_rate_that_destroys_the_model_is_said_first_in_the_report(job: Callable[..., Path]) -> None:
    policy = job(**{"training.learning_rate": 10.0})
    assert metrics_of(policy)[-1]["policy/loss"] > 1 + metrics_of(policy)[0]["policy/loss"]
    page = (policy.parents[2] / "report.html").read_text()
    assert re.search(r"steps \d to 12: the loss is [\d.]+ nats a token, above 4\.\d\d at the start; look at", page)


def test_the_first_loss_is_the_mean_over_answer_tokens_only(job: Callable[..., Path], start_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(start_model)
    model = AutoModelForCausalLM.from_pretrained(start_model)
    total, tokens = 0.0, 0
    for user, assistant in CONVERSATIONS:
        prompt = tokenizer(f"<user>{user['content']}<assistant>")["input_ids"]
        answer = tokenizer(assistant["content"] + "<end>")["input_ids"]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total -= float(logits.log_softmax(-1)[range(len(answer)), answer].sum().detach())
        tokens += len(answer)
    policy = job(**{"training.batch": len(CONVERSATIONS), "training.accumulation": 1, "training.steps": 1})
    assert metrics_of(policy)[0]["policy/loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_micro_batches_do_not_change_the_training(job: Callable[..., Path]) -> None:
    options = {"training.steps": 2, "training.batch": 10, "training.accumulation": 1, "training.learning_rate": 1e-3}
    one = weights_of(job(**options, **{"run.name": "one", "training.tokens_per_microbatch": 4096}))
    many = weights_of(job(**options, **{"run.name": "many", "training.tokens_per_microbatch": 20}))
    for name in one:
        torch.testing.assert_close(
            one[name], many[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_lora_trains_adapters_and_merges_them(job: Callable[..., Path], start_model: Path) -> None:
    policy = job(**{"model.lora": {"rank": 4, "alpha": 8}})
    before, after = weights_of(start_model), weights_of(policy)
    assert before.keys() == after.keys()
    assert torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    assert torch.equal(before["model.norm.weight"], after["model.norm.weight"])
    projection = "model.layers.0.self_attn.q_proj.weight"
    change = after[projection] - before[projection]
    assert 1 <= int(torch.linalg.matrix_rank(change, atol=1e-5)) <= 4
    assert metrics_of(policy)[-1]["policy/loss"] < metrics_of(policy)[0]["policy/loss"]


def test_the_same_seed_gives_the_same_weights(job: Callable[..., Path]) -> None:
    options = {"training.steps": 2}
    one, two, other = (
        weights_of(job(**options, **{"run.name": name, "run.seed": seed}))
        for name, seed in (("one", 0), ("two", 0), ("other", 1))
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_second_job_runs_in_the_same_process(job: Callable[..., Path]) -> None:
    assert job(**{"run.name": "first", "training.steps": 1}) != job(**{"run.name": "second", "training.steps": 1})


def pool_row(answers: list[tuple[str, str]] | None, key: str = "target_lst") -> dict[str, Any]:
    targets = answers and [{"role": "assistant", "content": text, "source": name} for name, text in answers]
    return {
        "data_source": "toy",
        "prompt": [{"role": "user", "content": "37A+5?"}],
        "reward_model": {"ground_truth": "42", "style": "rule"},
        key: targets,
    }


def test_a_pool_gives_every_pair_of_question_and_answer(tmp_path: Path, tokenizer: PromptTokenizer) -> None:
    found = [
        pool_row([("one", "<answer> 42 </answer>"), ("two", "A+5=42;<answer> 42 </answer>")]),
        pool_row(None),
        pool_row([("only", "<answer> 42 </answer>")], key="target"),
    ]
    data = SftDataConfig(train=[str(rows(tmp_path / "pool.jsonl", found))])
    examples = load_examples(data, tokenizer)
    texts = [tokenizer.decode(pair.response_token_ids) for pair in examples.pairs]
    assert texts == ["<answer> 42 </answer>", "A+5=42;<answer> 42 </answer>", "<answer> 42 </answer>"]
    assert {tokenizer.tokenizer.decode(pair.prompt_token_ids) for pair in examples.pairs} == {"<user>37A+5?<assistant>"}
    assert all(pair.response_token_ids[-1] == tokenizer.end_token_id for pair in examples.pairs)


def test_rows_of_other_layouts_need_a_teachers_answer_and_no_ground_truth(
    tmp_path: Path, tokenizer: PromptTokenizer
) -> None:
    path = rows(tmp_path / "a.jsonl", [{"instruction": "37A+5?", "output": "<answer> 42 </answer>"}])
    columns = ColumnsConfig(prompt="instruction", target="output")
    (pair,) = load_examples(SftDataConfig(train=[str(path)], columns=columns), tokenizer).pairs
    assert tokenizer.tokenizer.decode(pair.prompt_token_ids) == "<user>37A+5?<assistant>"
    assert tokenizer.decode(pair.response_token_ids) == "<answer> 42 </answer>"


def test_the_system_prompt_of_a_conversation_is_kept_dropped_or_another(
    tmp_path: Path, tokenizer: PromptTokenizer
) -> None:
    turns = [("system", "A"), ("user", "37A+5?"), ("assistant", "<answer> 42 </answer>")]
    messages = [{"role": role, "content": content} for role, content in turns]

    def prompt(said: str, found: list[dict[str, str]]) -> str:
        path = str(rows(tmp_path / "a.jsonl", [{"messages": found}]))
        data = SftDataConfig(train=[path], format="messages", system_prompt=said)
        return str(tokenizer.tokenizer.decode(load_examples(data, tokenizer).pairs[0].prompt_token_ids))

    assert prompt("drop", messages) == "<user>37A+5?<assistant>"
    for said in ("keep", "Another one."):  # the model of these tests knows no system prompt
        with pytest.raises(DataError, match="the chat template refuses a prompt with the roles system, user"):
            prompt(said, messages)
    with pytest.raises(DataError, match=r"row 1: with data\.system_prompt: drop nothing is left before the answer"):
        prompt("drop", [messages[0], messages[2]])


def test_answers_with_control_tokens_are_counted(tmp_path: Path, tokenizer: PromptTokenizer) -> None:
    found = [pool_row([("one", "<answer> 42 </answer><end>\n"), ("two", "A<user>5=42;<answer> 42 </answer>")])]
    examples = load_examples(SftDataConfig(train=[str(rows(tmp_path / "pool.jsonl", found))]), tokenizer)
    assert any("answers with the text of a control token inside: 1 (<user>)" in line for line in examples.lines())
    assert [pair.response_token_ids.count(tokenizer.end_token_id) for pair in examples.pairs] == [1, 1]


@pytest.mark.parametrize("form", ["pool", "messages"])
def test_an_example_beyond_the_models_positions_is_named(tmp_path: Path, tokenizer: PromptTokenizer, form: Any) -> None:
    answers = [("short", "<answer> 42 </answer>"), ("long", "A+5=42;" * 9 + "<answer> 42 </answer>")]
    found = [
        pool_row(answers[:1]),
        {**pool_row(answers), "data_source": "other", "prompt": [{"role": "user", "content": "A"}]},
    ]
    if form == "messages":
        found = [{"messages": [*row["prompt"], row["target_lst"][-1]]} for row in found]
    path = str(rows(tmp_path / "pool.jsonl", found))
    data, told = SftDataConfig(train=[path], format=form), []
    with pytest.raises(DataError, match=r"pool\.jsonl, row 2: the example has \d+ tokens and the model 40 positions"):
        load_examples(data, tokenizer, positions=40)
    whole = load_examples(data, tokenizer, positions=400, watch=lambda *seen: told.append(seen))
    assert len(whole.pairs) == (3 if form == "pool" else 2)
    assert told[-1] == ("the answers" if form == "pool" else path, 2, 2)


def test_examples_are_told_apart_by_their_tokens_and_where_the_answer_begins() -> None:
    pairs = [TokenPair((1, 2), (3,)), TokenPair((1,), (2, 3)), TokenPair((1, 2), (4,)), TokenPair((1, 2), (3,))]
    uids = list(Examples(tuple(pairs), 0).uids())
    assert len(set(uids)) == 3
    assert uids[0] == uids[3]


def test_overlong_examples_are_left_out_and_counted(tmp_path: Path, tokenizer: PromptTokenizer) -> None:
    found = [pool_row([("short", "<answer> 42 </answer>"), ("long", "A+5=42;" * 9 + "<answer> 42 </answer>")])]
    path = str(rows(tmp_path / "pool.jsonl", found))
    examples = load_examples(SftDataConfig(train=[path], max_tokens=40), tokenizer)
    assert (len(examples.pairs), examples.overlong) == (1, 1)
    with pytest.raises(DataError, match=r"all 2 examples exceed data.max_tokens = 10"):
        load_examples(SftDataConfig(train=[path], max_tokens=10, format="pool"), tokenizer)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "row 1: messages must be a list"),
        ({"messages": [{"role": "user", "content": "a"}]}, "row 1: messages must be a list"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "the last turn is of 'user'"),
        ({"messages": [{"role": "user", "content": 3}, {"role": "assistant", "content": "b"}]}, "found the turn"),
    ],
)
def test_a_malformed_conversation_is_named(
    row: dict[str, Any], message: str, tmp_path: Path, tokenizer: PromptTokenizer
) -> None:
    path = rows(tmp_path / "bad.jsonl", [row])
    with pytest.raises(DataError, match=message):
        load_examples(SftDataConfig(train=[str(path)], format="messages"), tokenizer)


@pytest.mark.parametrize(("steps", "expected"), [(None, 8), (5, 5), (100, 8)])
def test_epochs_or_steps_decide_whichever_comes_first(steps: int | None, expected: int) -> None:
    training = SftTrainingConfig(epochs=3, batch=2, accumulation=4, steps=steps)
    pairs = [TokenPair((1,), (i,)) for i in range(20)]
    taken = batches(pairs, training, seed=0)
    assert len(taken) == expected
    assert [len(batch) for batch in taken] == ([8] * 7 + [4])[:expected]
    flat = [pair for batch in taken for pair in batch]
    assert sorted(pair.response_token_ids for pair in flat[:20]) == [(i,) for i in range(20)]


def test_dropout_differs_between_ranks_and_goes_on_from_the_run_s_seed_on_the_first() -> None:
    def drawn(rank: int) -> list[float]:
        torch.manual_seed(7)
        torch.rand(3)
        part_dropout(7, rank)
        return list(torch.rand(4).tolist())

    first = drawn(0)
    torch.manual_seed(7)
    torch.rand(3)
    assert first == torch.rand(4).tolist()
    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(rank)) for rank in range(4)}) == 4
