"""Comprehension scoring (Eq. 5): how likely the right answer is to the student after a teacher's reasoning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ampo_registry.selectors import ScoringSelectorSpec
from ampo_registry.specs import RewardSpec, component_name
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Guidance, Question

from ampo_core.config.tree import GuidanceConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.learner.frozen import LogprobLearner
from ampo_core.learner.packing import TokenPair

OPEN, CLOSE = "<answer>", "</answer>"


@dataclass(frozen=True, slots=True)
class CorrectedTrajectory:
    """A teacher's text with the ground truth in place of its answer; `start`:`end` are the truth's characters."""

    text: str
    start: int
    end: int


def scored_answer(question: Question, truth_is_answer: bool) -> str | None:
    """What is scored as the answer to `question`: its own `scored_answer`, else its ground truth if that is one."""
    if question.scored_answer is not None or not truth_is_answer:
        return question.scored_answer
    return question.answer


def scoring_notes(guidance: GuidanceConfig, reward: RewardSpec, questions: Sequence[Question]) -> tuple[str, ...]:
    """A line for a person where the selector may score answers and questions have none, which it cannot then rank."""
    without = sum(scored_answer(question, reward.truth_is_answer) is None for question in questions)
    if not without or not isinstance(guidance.selector, ScoringSelectorSpec):
        return ()
    of = f"none of the {len(questions)}" if without == len(questions) else f"{without} of {len(questions)}"
    have = "has an answer" if without == len(questions) else "have no answer"
    return (
        f"guidance.selector {component_name(type(guidance.selector))}: {of} training questions {have} to score: ground "
        f"truths of reward {component_name(type(reward))} are no answers, and reward_model.scored_answer is missing. "
        "Where a selector scores by the policy, their teacher answers cannot be told apart (guidance/unscorable)",
    )


def corrected_trajectory(text: str, truth: str) -> CorrectedTrajectory | None:
    """`text` with what stands in its answer tags replaced by `truth`, or None without exactly one `<answer>`.

    The whitespace after `<answer>` is kept (a blank where there is none), ` </answer>` follows the truth, and
    the rest is dropped; an unclosed tag is completed so. The EOS is the tokenizer's business.
    """
    if text.count(OPEN) != 1:
        return None
    reasoning, answer = text.split(OPEN)
    blank = re.match(r"\s*", answer)
    prefix = f"{reasoning}{OPEN}{(blank.group() if blank else '') or ' '}"
    return CorrectedTrajectory(f"{prefix}{truth} {CLOSE}", len(prefix), len(prefix) + len(truth))


def answer_tokens(tokenizer: PromptTokenizer, trajectory: CorrectedTrajectory) -> tuple[list[int], list[int]]:
    """Token ids before the truth and those of the truth: every token that overlaps one of its characters.

    What follows the truth cannot change its log-probs and is left out, after the whole text was tokenised.
    """
    ids, offsets = tokenizer.encode(trajectory.text)
    scored = [
        i for i, (start, end) in enumerate(offsets) if start < trajectory.end and end > trajectory.start and end > start
    ]
    if not scored:
        return ids, []
    return ids[: scored[0]], ids[scored[0] : scored[-1] + 1]


class PolicyScorer:
    """Scores with the learner's current policy, all items in token-budget batches, shared out over the ranks.

    Items without exactly one `<answer>`, longer than a micro-batch, or of a question that has no answer to score get an
    empty list and are counted. `truth_is_answer` is that of the reward.
    """

    def __init__(self, learner: LogprobLearner, tokenizer: PromptTokenizer, truth_is_answer: bool = True) -> None:
        self._learner = learner
        self._tokenizer = tokenizer
        self._truth_is_answer = truth_is_answer
        self._scored = self._unscorable = 0

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        """Log-probs of the scored answer's tokens for each (question, guidance): temperature 1, current policy."""
        pairs = [self._pair(question, guidance) for question, guidance in items]
        # Longest first: the ranks' shares, every world_size-th of these, then have about as many tokens.
        known = sorted(((i, pair) for i, pair in enumerate(pairs) if pair is not None), key=lambda item: -len(item[1]))
        self._scored += len(known)
        self._unscorable += len(pairs) - len(known)
        scores = self._learner.ranks.map(self._score, [pair for _, pair in known])
        results: list[list[float]] = [[] for _ in items]
        for (i, _), score in zip(known, scores, strict=True):
            results[i] = score
        return results

    def _score(self, pairs: Sequence[TokenPair]) -> list[list[float]]:
        return [part.tolist() for part in self._learner.logprobs(pairs, temperature=1.0)]

    def take_counts(self) -> tuple[int, int]:
        """Items that were scored, and that could not be, since the last call of this method."""
        counts = self._scored, self._unscorable
        self._scored = self._unscorable = 0
        return counts

    def trajectory(self, question: Question, guidance: Guidance) -> CorrectedTrajectory | None:
        """What is scored of a teacher's answer: its text with the true answer in place; None where nothing can be."""
        answer = scored_answer(question, self._truth_is_answer)
        return None if answer is None else corrected_trajectory(guidance.text, answer)

    def _pair(self, question: Question, guidance: Guidance) -> TokenPair | None:
        trajectory = self.trajectory(question, guidance)
        if trajectory is None:
            return None
        before, truth = answer_tokens(self._tokenizer, trajectory)
        pair = TokenPair(question.prompt_token_ids + before, TokenIds(truth))
        return pair if truth and len(pair) <= self._learner.optimizer.tokens_per_microbatch else None
