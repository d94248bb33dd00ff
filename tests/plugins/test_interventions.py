"""Interventions: what `prefix` and `hint` ask the student for, and what a group holds afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from ampo_plugins.interventions.hint import Hint, first_sentences
from ampo_plugins.interventions.prefix import Prefix
from ampo_plugins.interventions.replace import Replace
from ampo_plugins.schedules.linear import Linear
from ampo_registry import (
    BuildContext,
    InterventionRequest,
    InterventionSpec,
    LogProbs,
    Message,
    RunError,
    Sample,
    ScheduleSpec,
    Selection,
    TokenIds,
)
from ampo_registry.testing import FakeServices, example_group, example_guidance, example_step
from ampo_registry.testing.examples import EOS
from pydantic import ValidationError

REWARDS = (0.0, 1.0, 0.1, 0.0)


def request(tokens: Sequence[int] = (9,), rewards: Sequence[float] = REWARDS, **fields: Any) -> InterventionRequest:
    """A group, and a selected answer of each length of `tokens`, its end token counted."""
    answers = tuple(example_guidance(f"teacher-{i}", count) for i, count in enumerate(tokens))
    selections = tuple(Selection(answer, 0.5) for answer in answers)
    group = example_group(rewards)
    return replace(InterventionRequest(group, selections, answers, 3, Random(7)), **fields)


def guided(
    spec: InterventionSpec, *requests: InterventionRequest, step: int = 1, services: FakeServices | None = None
) -> tuple[list[tuple[Sample, ...]], FakeServices]:
    """The group of each request, and the services with what they were asked."""
    services = services or FakeServices()
    component = BuildContext().build(spec)
    found = component.intervene(requests, example_step(step, services=services))
    return [one.groups[0] for one in found.guided], services


def fresh(group: Sequence[Sample], given: InterventionRequest) -> list[Sample]:
    """What is not as it was sampled; the rest of the group is where it was, and all that was lost was wrong."""
    assert len(group) == len(given.samples)
    changed = [i for i, (new, old) in enumerate(zip(group, given.samples, strict=True)) if new != old]
    assert set(changed) <= set(given.group.wrong)
    return [group[i] for i in changed]


def test_the_student_goes_on_from_the_first_share_of_an_answer() -> None:
    given = request((9,))
    answer = given.selections[0].guidance
    [group], services = guided(Prefix(share=0.5), given)
    [sample] = fresh(group, given)
    [[asked]] = services.asked
    assert asked.prompt_token_ids == (*given.question.prompt_token_ids, *answer.token_ids[:4])
    assert (asked.position, asked.samples, asked.max_response_tokens) == (3, 1, 64 - 4)
    assert sample.rollout is not None
    own = sample.rollout
    assert sample.token_ids == (*answer.token_ids[:4], *own.token_ids)
    assert sample.segments == (("off_policy", 4), ("on_policy", len(own.token_ids)))
    assert sample.prompt_token_ids == given.question.prompt_token_ids
    assert sample.logprobs == (*[0.0] * 4, *own.logprobs)
    assert (sample.selection, sample.off_policy) == (given.selections[0], True)
    [(question, whole)] = services.graded
    assert (question, whole.token_ids, whole.finish_reason) == (given.question, sample.token_ids, own.finish_reason)
    assert sample.text == whole.text == services.text(sample.token_ids)
    assert sample.reward == sample.grade.reward
    assert services.logged == {"prefix/share": [0.5], "prefix/correct": [float(sample.grade.correct)]}


@pytest.mark.parametrize(("recorded", "kept"), [(9, True), (8, True), (7, False), (10, False), (None, False)])
def test_log_probs_that_the_data_recorded_are_those_of_the_prefix(recorded: int | None, kept: bool) -> None:
    given = request((9,))
    logprobs = None if recorded is None else LogProbs([-0.125 * i for i in range(recorded)])
    answer = replace(given.candidates[0], logprobs=logprobs)
    given = replace(given, selections=(Selection(answer),))
    [group], _ = guided(Prefix(share=0.5), given)
    [sample] = fresh(group, given)
    assert sample.logprobs is not None
    assert sample.rollout is not None
    assert sample.logprobs[:4] == ([-0.125 * i for i in range(4)] if kept else [0.0] * 4)
    assert sample.logprobs[4:] == sample.rollout.logprobs


def test_a_prefix_may_be_context() -> None:
    given = request((9,))
    [group], _ = guided(Prefix(share=0.25, train="context"), given)
    [sample] = fresh(group, given)
    assert sample.segments[0] == (None, 2)
    assert not sample.off_policy
    assert sample.spans("on_policy") == ((2, len(sample.token_ids)),)


def test_a_share_of_1_is_replace_and_asks_for_nothing() -> None:
    [group], services = guided(Prefix(share=1.0), request((9, 5), teacher_reward=0.7))
    assert [group] == guided(Replace(), request((9, 5), teacher_reward=0.7))[0]
    assert services.asked == [[]]
    assert services.graded == []
    [group], _ = guided(Prefix(share=0.9), request((5,)))  # 3.6 of 4 tokens: rounded, nothing is left to write
    assert [group] == guided(Replace(), request((5,)))[0]


def test_a_whole_answer_that_is_context_trains_nothing() -> None:
    given = request((9,))
    [group], _ = guided(Prefix(share=1.0, train="context"), given)
    [sample] = fresh(group, given)
    assert sample.segments == ((None, 9),)
    assert sample.token_ids == given.candidates[0].token_ids


def test_a_share_of_0_is_a_fresh_rollout() -> None:
    given = request((9,))
    [group], services = guided(Prefix(share=0.0), given)
    [sample] = fresh(group, given)
    [(_, whole)] = services.graded
    assert sample == Sample.sampled(given.question, sample.rollout or whole, sample.grade)
    assert services.asked[0][0].max_response_tokens == 64


def test_all_answers_of_all_requests_are_continued_in_one_call() -> None:
    given = [request((9, 13)), request(()), request((1, 9), rewards=(0.0, 0.0), position=5)]
    groups, services = guided(Prefix(share=0.5), *given)
    assert [one.position for one in services.asked[0]] == [3, 3, 5]
    assert len(services.asked) == 1
    assert [len(fresh(group, one)) for group, one in zip(groups, given, strict=True)] == [2, 0, 2]
    ended = [sample for sample in groups[2] if sample.rollout is None]  # an answer that is its end token alone
    assert [sample.token_ids for sample in ended] == [TokenIds([EOS])]


def test_the_share_may_fall_over_the_run_and_stays_a_share() -> None:
    falling = Prefix(share=Linear(start=1.0, end=0.0))
    found = [guided(falling, request((11,)), step=step)[1].logged["prefix/share"] for step in (1, 10)]
    assert found == [[1.0], [0.0]]

    class Unbounded(ScheduleSpec):
        """Says nothing of its range."""

        def value(self, step: int, steps: int, metrics: Mapping[str, float]) -> float:
            return 1.5

    with pytest.raises(RunError, match=r"step 4: the schedule of prefix's share came to 1\.5; it must be 0 to 1"):
        guided(Prefix.model_construct(share=Unbounded(), train="context"), request(), step=4)
    with pytest.raises(ValidationError, match="expected a finite number >= 0 and <= 1"):
        Prefix(share=1.01)
    with pytest.raises(ValidationError, match=r"values from 0 to 2; expected values >= 0 and <= 1"):
        Prefix(share=Linear(start=0.0, end=2.0))


def test_the_question_is_asked_again_with_the_answers_first_sentences() -> None:
    given = request((9,))
    answer = replace(given.candidates[0], text="First we add. Then we take away. It is 42. <answer>42</answer>")
    messages = (Message("user", "once"), Message("assistant", "no"), Message("user", "what is {hint}?"))
    question = replace(given.question, messages=messages)
    given = replace(
        given, group=replace(given.group, question=question), selections=(Selection(answer),), candidates=(answer,)
    )
    spec = Hint(template=r"{question} Begin so: {hint} Put it into \boxed{x}.", sentences=2)
    [group], services = guided(spec, given)
    [sample] = fresh(group, given)
    asked = r"what is {hint}? Begin so: First we add. Then we take away. Put it into \boxed{x}."
    prompt = services.prompt([*messages[:2], Message("user", asked)])
    assert [one.prompt_token_ids for one in services.asked[0]] == [prompt]
    assert sample.prompt_token_ids == prompt
    assert sample.rollout is not None
    assert sample.logprobs == sample.rollout.logprobs
    assert sample.segments == (("on_policy", len(sample.token_ids)),)
    assert sample.question == given.question
    assert services.graded == [(given.question, sample.rollout)]
    assert services.logged == {"hint/no_sentence": [0.0], "hint/no_room": [0.0]}


def test_a_hinted_response_may_be_trained_under_the_question_itself() -> None:
    given = request((9,))
    [group], _ = guided(Hint(train="original"), given)
    [sample] = fresh(group, given)
    assert sample.prompt_token_ids == given.question.prompt_token_ids
    assert sample.logprobs is None
    assert sample.rollout is not None
    assert sample.selection == given.selections[0]


def test_without_room_or_sentence_the_wrong_rollout_stays_and_is_counted() -> None:
    given = request((9, 9))
    bare = replace(given.candidates[1], text="<think>\n</think> <answer>42</answer>")
    given = replace(given, selections=(given.selections[0], Selection(bare)))
    [group], services = guided(Hint(), given)
    assert len(fresh(group, given)) == 1
    assert services.logged == {"hint/no_sentence": [0.0, 1.0], "hint/no_room": [0.0]}
    [group], services = guided(Hint(), given, services=FakeServices(max_tokens=20))
    assert group == given.samples
    assert services.asked == [[]]
    assert services.logged == {"hint/no_sentence": [0.0, 1.0], "hint/no_room": [1.0]}


def test_a_hinted_response_is_as_long_as_there_is_room() -> None:
    given = request((9,))
    _, services = guided(Hint(), given)
    [[asked]] = services.asked
    tight = FakeServices(max_tokens=len(asked.prompt_token_ids) + 1)
    [group], _ = guided(Hint(), given, services=tight)
    [sample] = fresh(group, given)
    assert (len(sample.token_ids), sample.truncated) == (1, True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Solve it.", "it needs a {question}"),
        ("{question}", "it needs a {hint}"),
        ("{question} {hints}", "it needs a {hint}; did you mean that by {hints}?"),
        ("{Question} {hint}", "it needs a {question}; did you mean that by {Question}?"),
    ],
)
def test_a_template_without_its_places_is_refused(template: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Hint(template=template)
    [error] = caught.value.errors()
    assert error["loc"] == ("template",)
    assert error["msg"] == f"Value error, {message}"


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("One. Two. Three.", 2, "One. Two."),
        ("We pay 3.50 in all! Then? Yes.", 1, "We pay 3.50 in all!"),
        ("<think>\nFirst line\nsecond line</think> end", 1, "First line"),
        ("first line\n\n\nsecond line\nthird", 2, "first line\n\n\nsecond line"),
        ("A+5=42;B-3=39;<answer> 39 </answer>", 1, "A+5=42;"),
        ("A: now we have 42.B: done.<answer>1</answer>", 1, "A: now we have 42."),
        ("No end <answer>1</answer> more.", 5, "No end"),
        ("<answer>1</answer>", 3, ""),
        ("", 1, ""),
    ],
)
def test_first_sentences(text: str, count: int, expected: str) -> None:
    assert first_sentences(text, count) == expected
