"""The corrected trajectory token by token, and the scorer against a plain forward of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import Grade, Guidance, Message, Question, RewardSpec
from ampo_registry.discovery import discover

from ampo_core.config.tree import DeepSpeedConfig, GuidanceConfig, ModelConfig, OptimizerConfig
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.learner.learner import Learner
from ampo_core.learner.logprobs import token_logprobs
from ampo_core.loop.scoring import (
    CorrectedTrajectory,
    PolicyScorer,
    answer_tokens,
    corrected_trajectory,
    scored_answer,
    scoring_notes,
)

pytestmark = pytest.mark.process

Golden = Callable[[str], dict[str, Any]]


def test_the_corrected_trajectory_and_the_tokens_scored(golden: Golden, golden_tokenizer: Any) -> None:
    data = golden("corrected_trajectory")
    tokenizer = PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer"))
    unscored = []
    for case in data["cases"]:
        trajectory = corrected_trajectory(case["response"], case["ground_truth"])
        if case["gt_mask_sum"] == 0:
            assert trajectory is None
            unscored.append(case["response"])
            continue
        assert trajectory is not None
        assert data["prompt"] + trajectory.text + golden_tokenizer.eos_token == case["text"]
        _, truth = answer_tokens(tokenizer, trajectory)
        assert golden_tokenizer.convert_ids_to_tokens(truth) == case["gt_tokens"]
        assert len(truth) == case["gt_mask_sum"]
    assert len(unscored) == 2  # no tag; two of them


def test_a_token_without_a_character_of_its_own_is_no_part_of_the_truth() -> None:
    class Offsets:
        """Two characters before, two of the truth, and a token between them that covers none."""

        def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
            return [10, 11, 12, 13], [(0, 2), (3, 3), (2, 4), (4, 5)]

    found = answer_tokens(Offsets(), CorrectedTrajectory("abcd", 2, 4))  # type: ignore[arg-type]
    assert found == ([10, 11], [12])


def test_temperature_log_probs_and_entropy(golden: Golden) -> None:
    for case in golden("entropy")["cases"]:
        logits, targets = torch.tensor(case["logits"]).flatten(0, 1), torch.tensor(case["logprob_of"]).flatten()
        found, entropies = token_logprobs(
            logits, targets, torch.eye(logits.shape[1]), None, temperature=case["temperature"], entropy=True
        )
        torch.testing.assert_close(found, torch.tensor(case["logprob"]).flatten(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(entropies, torch.tensor(case["entropy"]).flatten(), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ModelConfig:
    return ModelConfig(path=str(tiny_model), dtype="float32", gradient_checkpointing=False)


def learner_of(model: ModelConfig, tokens: int = 400) -> Learner:
    return Learner(
        model,
        OptimizerConfig(tokens_per_microbatch=tokens),
        DeepSpeedConfig(zero_stage=0),
        join_ranks(),
    )


def question_of(tokenizer: PromptTokenizer, text: str, answer: str) -> Question:
    messages = (Message("user", text),)
    return Question(text, messages, tuple(tokenizer.prompt_ids(messages)), answer, "")


def guidance_of(text: str) -> Guidance:
    return Guidance("A", text, (1,), Grade(1.0, True, True))


def test_scores_are_those_of_a_plain_forward_whatever_the_batch(model: ModelConfig) -> None:
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(model)
    questions = [question_of(tokenizer, "x + y", "7"), question_of(tokenizer, "a longer question of x", r"\frac{1}{2}")]
    texts = ["so <answer> 8 </answer>", "step step step <answer>\n9", "tA tB tC <answer>1</answer> rest"]
    items = [(q, guidance_of(text)) for q in questions for text in texts]
    plain = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    for tokens in (64, 4096):
        learner = learner_of(model, tokens)
        scores = PolicyScorer(learner, tokenizer).answer_logprobs(items)
        learner.close()
        for (question, guidance), score in zip(items, scores, strict=True):
            trajectory = corrected_trajectory(guidance.text, question.answer)
            assert trajectory is not None
            before, truth = answer_tokens(tokenizer, trajectory)
            ids = torch.tensor([[*question.prompt_token_ids, *before, *truth]])
            with torch.no_grad():
                log_probs = plain(ids).logits.log_softmax(-1)[0]
            wanted = [float(log_probs[-len(truth) - 1 + i, token]) for i, token in enumerate(truth)]
            assert score == pytest.approx(wanted, abs=1e-5)


def test_a_scored_answer_is_scored_in_the_place_of_what_is_verified(model: ModelConfig) -> None:
    tokenizer = load_tokenizer(model)
    learner = learner_of(model)
    truth = question_of(tokenizer, "x + y", "7")
    constraint = replace(truth, answer='{"target": 7}')
    guidance = guidance_of("so <answer> 8 </answer>")
    expected = PolicyScorer(learner, tokenizer).answer_logprobs([(truth, guidance)])
    scorer = PolicyScorer(learner, tokenizer, truth_is_answer=False)
    assert scorer.answer_logprobs([(replace(constraint, scored_answer="7"), guidance)]) == expected
    assert scorer.answer_logprobs([(constraint, guidance)]) == [[]]
    assert scorer.take_counts() == (1, 1)
    learner.close()


def test_questions_without_an_answer_to_score_are_said_before_a_run() -> None:
    class Constraint(RewardSpec):
        """A truth that is no answer."""

        type: Literal["constraint"] = "constraint"
        truth_is_answer: ClassVar[bool] = False

    plain = Question("u", (), (1,), "truth", "")
    own = replace(plain, scored_answer="own")
    assert [scored_answer(q, known) for q in (plain, own) for known in (True, False)] == ["truth", None, "own", "own"]
    block = GuidanceConfig.model_validate({"selector": "comprehension"}, context={"catalog": discover().catalog})
    assert scoring_notes(block, Constraint(), [own, own]) == ()
    assert scoring_notes(block, MathVerify(), [plain]) == ()
    (some,) = scoring_notes(block, Constraint(), [own, plain])
    assert "selector comprehension: 1 of 2 training questions have no answer to score: ground truths of reward" in some
    assert "reward_model.scored_answer" in some
    (all_of_them,) = scoring_notes(block, Constraint(), [plain, plain])
    assert "none of the 2 training questions has an answer to score" in all_of_them
    by_length = GuidanceConfig.model_validate({"selector": "length"}, context={"catalog": discover().catalog})
    assert scoring_notes(by_length, Constraint(), [plain]) == ()


def test_what_cannot_be_scored_is_counted_and_an_empty_call_is_fine(model: ModelConfig) -> None:
    tokenizer = load_tokenizer(model)
    learner = learner_of(model, tokens=40)
    scorer = PolicyScorer(learner, tokenizer)
    question = question_of(tokenizer, "x", "7")
    long = guidance_of("step " * 60 + "<answer>7</answer>")
    scores = scorer.answer_logprobs([(question, guidance_of("no tag")), (question, long)])
    assert scores == [[], []]
    assert scorer.take_counts() == (0, 2)
    assert scorer.take_counts() == (0, 0)
    assert len(scorer.answer_logprobs([(question, guidance_of("<answer>7</answer>"))])[0]) == 1
    assert scorer.take_counts() == (1, 0)
    assert scorer.answer_logprobs([]) == []
    # a micro-batch holds what just fills it
    before, truth = answer_tokens(tokenizer, CorrectedTrajectory("<answer> 7 </answer>", 9, 10))
    learner.optimizer = learner.optimizer.model_copy(
        update={"tokens_per_microbatch": len(question.prompt_token_ids) + len(before) + len(truth)}
    )
    assert len(scorer.answer_logprobs([(question, guidance_of("<answer>7</answer>"))])[0]) == 1
    learner.close()
