"""What the core lends to hooks: seeds by place, limits of a request, room, and a metric's own name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import (
    GenerationRequest,
    Grade,
    GradeRequest,
    LogProbs,
    Message,
    OverlongPenalty,
    PluginError,
    Rollout,
    RolloutRequest,
    RunError,
    Sample,
    SamplingOptions,
    StepContext,
    TokenIds,
)
from ampo_registry.protocols import Constant
from ampo_registry.testing import example_question, example_rollout

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.loop import services as services_module
from ampo_core.loop.ahead import SampleAhead
from ampo_core.loop.judges import Judges
from ampo_core.loop.sampling import Sampler
from ampo_core.loop.services import Services, longest_sample

PROMPT = TokenIds([1, 2, 3])


class Engine:
    """Writes down what it is asked for; a response is as long as it may be."""

    def __init__(self) -> None:
        self.asked: list[RolloutRequest] = []
        self.options: list[SamplingOptions] = []

    def wake(self) -> None: ...

    def sleep(self) -> None: ...

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Rollout]]:
        self.asked += requests
        self.options.append(options)
        return [[self._written(request, options, seed) for seed in request.seeds] for request in requests]

    def _written(self, request: RolloutRequest, options: SamplingOptions, seed: int) -> Rollout:
        length = options.limit_of(request)
        return Rollout(TokenIds([seed % 50] * length), LogProbs([-1.0] * length), str(seed), "length", 4)


class Graders:
    """Calls everything right."""

    def grade(self, requests: Sequence[GradeRequest], tries: int = 1) -> list[Grade]:
        return [Grade(1.0, True, True, detail=request.text) for request in requests]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def services(engine: Engine, golden_tokenizer: Any) -> Services:
    tokenizer = PromptTokenizer(golden_tokenizer, ModelConfig(path="tests/golden/tokenizer"))
    ranks = join_ranks()
    sampler = Sampler(
        engine=engine,  # type: ignore[arg-type]
        options=SamplingOptions(1.0, 1.0, 8, tokenizer.stop_token_ids),
        known_ids=tokenizer.known_ids,
        grader=Graders(),  # type: ignore[arg-type]
        reward=MathVerify(overlong_penalty=OverlongPenalty(buffer=4)),
        ranks=ranks,
        ahead=SampleAhead(ranks),
        group_size=2,
        threshold=Constant(0.6),
        seed=3,
    )
    return Services(sampler, tokenizer, NO_JUDGES, steps=9, max_tokens=12)


NO_JUDGES = Judges(None, {}, declared=(), temperature=1.0, most=99)  # type: ignore[arg-type]


def request(position: int = 0, **fields: Any) -> GenerationRequest:
    return GenerationRequest(PROMPT, position, **fields)


def test_a_seed_is_a_function_of_step_position_round_and_sample(services: Services, engine: Engine) -> None:
    def seeds(context: StepContext, *requests: GenerationRequest) -> list[tuple[int, ...]]:
        engine.asked.clear()
        context.generate(requests)
        return [asked.seeds for asked in engine.asked]

    context = services.begin(1)
    first = seeds(context, request(0, samples=2), request(5), request(0))
    second = seeds(context, request(0, samples=2), request(5), request(0))
    later = seeds(services.begin(2), request(0, samples=2), request(5), request(0))
    assert [len(one) for one in first] == [2, 1, 1]
    drawn = list(itertools.chain(*first, *second, *later))
    assert len(set(drawn)) == len(drawn) == 12
    assert seeds(services.begin(1), request(0, samples=2), request(5), request(0)) == first
    services.begin(1)
    assert seeds(context, request(5), request(0, samples=3)) == [first[1], (*first[0], *first[2])]
    assert seeds(context, request(5)) == [second[1]]


def test_judges_sleep_before_a_second_generation(services: Services, engine: Engine) -> None:
    events: list[str] = []

    class Judge:
        def sleep(self) -> None:
            events.append(f"asleep before {len(engine.asked)}")

    judges = Judges(None, {"other": Judge()}, declared=["other"], temperature=1.0, most=99)  # type: ignore[arg-type, dict-item]
    lent = Services(services._sampler, services._tokenizer, judges, steps=9, max_tokens=12)
    lent.begin(1).generate([request()])
    lent.begin(2).generate([])
    assert events == ["asleep before 0"]


def test_a_request_has_a_limit_of_its_own_and_no_more_than_there_is_room(services: Services, engine: Engine) -> None:
    long = GenerationRequest(TokenIds([1] * 9), 2)
    found = services.begin(1).generate([request(), request(max_response_tokens=5), long])
    assert [len(rollout.token_ids) for (rollout,) in found] == [8, 5, 3]
    assert services.generated == 16
    services.begin(2).generate([request()], SamplingOptions(0.0, 1.0, 6, ()))
    assert engine.options[-1].temperature == 0.0
    assert services.generated == 6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (GenerationRequest(TokenIds(), 7), "position 7 asks for 1 samples of at most 8 tokens after a prompt of 0"),
        (GenerationRequest(TokenIds([1] * 12), 7), r"after a prompt of 12; .* has room for 0: .* 12 with its prompt$"),
        (request(7, max_response_tokens=9), r"at most 9 tokens .* at most 8 in a response \(rollout\.max_response"),
        (request(7, max_response_tokens=0), "of at most 0 tokens"),
        (request(7, samples=0), "asks for 0 samples"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_words(
    wrong: GenerationRequest, message: str, services: Services, engine: Engine
) -> None:
    with pytest.raises(PluginError, match=f"^generate: the request at {message}|^generate: .*{message}"):
        services.begin(1).generate([request(), wrong])
    assert engine.asked == []


def test_nothing_asked_for_wakes_no_engine(services: Services, engine: Engine) -> None:
    assert services.begin(1).generate([]) == []
    assert engine.options == []
    assert services.begin(1).grade([]) == []


def test_grades_have_the_penalties_of_the_whole_response(services: Services) -> None:
    question = example_question()
    short, full = services.begin(1).grade([(question, example_rollout(4)), (question, example_rollout(8))])
    assert (short.reward, full.reward) == (1.0, 0.0)


def test_prompts_and_texts_are_the_models(services: Services, golden_tokenizer: Any) -> None:
    context = services.begin(1)
    prompt = context.prompt([Message("user", "1 + 1")])
    assert isinstance(prompt, TokenIds)
    turns = [{"role": "user", "content": "1 + 1"}]
    assert golden_tokenizer.decode(list(prompt)) == golden_tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True
    )
    ids = [*golden_tokenizer("so 2", add_special_tokens=False)["input_ids"], services.options.stop_token_ids[0]]
    assert context.text(TokenIds(ids)) == "so 2"


def test_metrics_are_averaged_by_name_and_forgotten_after_the_step(services: Services) -> None:
    context = services.begin(1)
    context.log("mine/share", 1.0)
    context.log("mine/share", 0.5)
    assert services.logged() == {"mine/share": 0.75}
    context.generate([request(max_response_tokens=2)])
    assert services.logged() == {"mine/share": 0.75, "guidance/generated": 2.0}
    for name in ("mine", "guidance/mine"):
        with pytest.raises(PluginError, match=f"log: the metric '{name}' needs a name of its own, such as mine/mine"):
            context.log(name, 1.0)
    services.begin(2)
    assert services.logged() == {}


@pytest.mark.parametrize(
    ("room", "positions", "microbatch", "expected"),
    [
        (None, 512, 4096, 104),
        (None, 80, 4096, 80),
        (None, None, 4096, 104),
        (("max_model_len", 300), 512, 4096, 300),
        (("max_model_len", 300), 200, 4096, 200),
        (("max_model_len", 300), None, 256, 256),
    ],
)
def test_a_sample_is_no_longer_than_config_engine_micro_batch_and_model_allow(
    room: Any, positions: int | None, microbatch: int, expected: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(services_module, "positions_of", {"m": positions}.get)
    job: Any = SimpleNamespace(
        rollout=SimpleNamespace(room=lambda: room, max_response_tokens=40),
        data=SimpleNamespace(max_prompt_tokens=64),
        training=SimpleNamespace(tokens_per_microbatch=microbatch),
        model=SimpleNamespace(path="m"),
    )
    assert longest_sample(job) == expected


def test_log_probs_of_another_temperature_are_not_taken_as_the_trainers(services: Services) -> None:
    context = services.begin(1)
    request, question = GenerationRequest(PROMPT, 0), example_question()
    (own,), (warmer,) = (
        context.generate([request], options)[0] for options in (None, replace(context.options, temperature=0.5))
    )
    assert Sample.sampled(question, own, Grade(0.0, False, False)).logprobs == own.logprobs
    assert all(map(math.isnan, warmer.logprobs))
    assert Sample.sampled(question, warmer, Grade(0.0, False, False)).logprobs is None


@pytest.mark.parametrize(("threshold", "fits"), [(0.93, True), (0.94, False), (0.07, False)])
def test_a_threshold_that_a_schedule_takes_out_of_bounds_stops_the_step(
    services: Services, threshold: float, fits: bool
) -> None:
    class Moving:
        def value(self, step: int, steps: int, metrics: Any) -> float:
            return threshold

    reward = MathVerify(format_weight=0.07)
    sampler = replace(services._sampler, threshold=Moving(), reward=reward)
    if fits:
        assert sampler._threshold(StepContext(2)) == threshold
        return
    with pytest.raises(RunError, match=r"step 2: the schedule of guidance\.threshold came to .* at most 0\.93"):
        sampler._threshold(StepContext(2))


def test_the_bounds_of_a_schedule_are_those_of_the_reward(services: Services) -> None:
    class Halved(MathVerify):
        """Pays half."""

        def earns(self, correct: bool) -> tuple[float, float] | None:
            return (0.45, 0.5) if correct else (0.0, 0.05)

    class Unknown(MathVerify):
        """Does not say."""

        def earns(self, correct: bool) -> tuple[float, float] | None:
            return None

    class Moving:
        def value(self, step: int, steps: int, metrics: Any) -> float:
            return 0.6

    with pytest.raises(RunError, match=r"came to 0\.6; .* more than 0\.05, at most 0\.45"):
        replace(services._sampler, threshold=Moving(), reward=Halved())._threshold(StepContext(2))
    assert replace(services._sampler, threshold=Moving(), reward=Unknown())._threshold(StepContext(2)) == 0.6
