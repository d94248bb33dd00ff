"""The built-in selectors, and the golden numbers of the comprehension score."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from ampo_plugins.selectors.comprehension import Comprehension
from ampo_plugins.selectors.length import Length
from ampo_plugins.selectors.random import RandomChoice
from ampo_registry import (
    Grade,
    Guidance,
    PluginError,
    Question,
    RunError,
    ScoringSelectorSpec,
    SelectionContext,
    SelectionRequest,
    SelectorSpec,
)
from ampo_registry.selectors import Decimals, round_to_bfloat16
from pydantic import Field, ValidationError

Golden = Callable[[str], dict[str, Any]]
QUESTION = Question("uid", (), (), "42", "test")


class FakeScorer:
    """Gives recorded log-probs by the guidance's text and counts its calls."""

    def __init__(self, logprobs: dict[str, list[float]]) -> None:
        self.logprobs = logprobs
        self.calls = 0

    def answer_logprobs(self, items: Sequence[tuple[Question, Guidance]]) -> list[list[float]]:
        self.calls += 1
        return [self.logprobs[guidance.text] for _, guidance in items]


def guidance(text: str, length: int = 3, formatted: bool = True) -> Guidance:
    return Guidance("T", text, tuple(range(length)), Grade(1.0, True, formatted))


def request(candidates: Sequence[Guidance], k: int = 2, seed: int = 0) -> SelectionRequest:
    return SelectionRequest(QUESTION, (), tuple(candidates), k, Random(seed))


def texts(chosen: list[Any]) -> list[str]:
    return [selection.guidance.text for selection in chosen]


def score_one(spec: Comprehension, logprobs: list[float]) -> float:
    context = SelectionContext(scorer=FakeScorer({"a": logprobs}), step=1)
    return spec.score([request([guidance("a")])], context)[0][0]


MEANS = {"mean_exp_log_softmax": "arithmetic", "exp_mean_log_softmax": "geometric"}
NO_FEATURE = {
    "mean_log_softmax": "a mean of log-probs ranks like the geometric mean and is not in [0, 1]",
    "exp_sum_log_softmax": "the probability of the whole answer favours short truths; the paper takes a mean",
}


def test_comprehension_means_match_the_released_scores(golden: Golden) -> None:
    bound = different = 0
    for case in golden("prob_scoreB")["cases"]:
        name = case["compute_score_name"]
        if name in NO_FEATURE:
            continue
        scored = [value for value, keep in zip(case["log_probs"], case["mask"], strict=True) if keep]
        spec = Comprehension(mean=MEANS[name], score_rounding="bfloat16")
        found = spec.round_score(score_one(spec, scored))
        if case["gt_tokens_one_more_adjusted"] and scored[-1] > math.log(0.5):
            # There the last token's probability is capped at 0.5 where the truth tokenises differently in its place.
            # Here the span is found by character offsets, so no such guess is needed (algorithm.md, Eq. 5).
            assert found > case["scoreB"]
            different += 1
        else:
            assert found == pytest.approx(case["scoreB"], abs=1e-9), case
            bound += 1
    assert (bound, different) == (34, 14)


def test_no_score_name_of_the_golden_file_is_overlooked(golden: Golden) -> None:
    assert {case["compute_score_name"] for case in golden("prob_scoreB")["cases"]} == MEANS.keys() | NO_FEATURE.keys()


def test_rank_key_matches_the_released_reward(golden: Golden) -> None:
    bound = []
    for case in golden("prob_manager")["cases"]:
        weight = case["format_coefficient"]
        bound.append(weight)
        if weight == -1:
            # There -1 multiplies the score by the format. Here a weight is in [0, 1], and an answer without its
            # tags scores 0 already because the scorer finds no span.
            continue
        spec = Comprehension(mean="arithmetic", score_rounding="bfloat16", rank_format_weight=weight)
        for text, logprobs, tokens, score, formatted, reward in zip(
            case["texts"],
            case["gt_logps"],
            case["gt_mask_rowsum"],
            case["scoreB_out"],
            case["fmt"],
            case["reward"],
            strict=True,
        ):
            candidate = guidance(text, formatted=bool(formatted))
            found = spec.round_score(score_one(spec, logprobs[:tokens]))
            assert found == pytest.approx(score, abs=1e-9)
            assert spec.rank_key(candidate, found) == pytest.approx(reward, abs=1e-7)
    assert bound == [0.1, 0.0, -1]


def test_shapings_of_the_score_are_no_feature(golden: Golden) -> None:
    """Only `identity` is the score as it is ranked; the others never occur in the paper's method."""
    not_bound = {
        "threshold_0",
        "threshold_0.5",
        "sigmoid_0",
        "comp_threshold_0.3_sigmoid_6",
        "comp_threshold_0.3_sigmoidv2fixed_6",
        "comp_threshold_0.05_tanh_6",
        "map_to_bins_2",
        "map_to_bins_10",
    }
    cases = {case["shaping"]: case for case in golden("prob_shaping")["cases"]}
    assert cases.keys() == not_bound | {"identity"}
    identity = cases["identity"]
    assert [Comprehension().rank_key(guidance("a"), x) for x in identity["x"]] == identity["y"]


def test_geometric_mean_is_clipped_and_empty_scores_zero() -> None:
    spec = Comprehension()
    assert score_one(spec, [1e-7, 1e-7]) == 1.0
    assert score_one(spec, []) == 0.0
    assert score_one(spec, [-math.inf, 0.0]) == 0.0
    assert score_one(spec, [0.5, 0.5]) == 1.0
    assert score_one(Comprehension(mean="arithmetic"), [0.0, 0.5, math.log(0.4)]) == pytest.approx(2.4 / 3)
    assert score_one(spec, [math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert score_one(Comprehension(mean="arithmetic"), [math.log(0.5), math.log(0.125)]) == pytest.approx(0.3125)


def test_a_nan_log_prob_stops_instead_of_ranking() -> None:
    with pytest.raises(RunError, match="NaN"):
        score_one(Comprehension(), [-0.1, math.nan])


def test_comprehension_asks_the_model_once_for_all_requests() -> None:
    scorer = FakeScorer({"a": [-3.0], "b": [-1.0], "c": [-2.0], "d": []})
    requests = [
        request([guidance("a"), guidance("b"), guidance("c")]),
        request([]),
        request([guidance("d"), guidance("c")], k=1),
    ]
    chosen = Comprehension().select(requests, SelectionContext(scorer=scorer, step=1))
    assert [texts(one) for one in chosen] == [["b", "c"], [], ["c"]]
    assert chosen[0][0].score == pytest.approx(math.exp(-1.0))
    assert scorer.calls == 1


def test_format_weight_changes_the_order_but_not_the_reported_score() -> None:
    candidates = [guidance("a", formatted=False), guidance("b")]
    context = SelectionContext(scorer=FakeScorer({"a": [math.log(0.55)], "b": [math.log(0.5)]}), step=1)
    assert texts(Comprehension().select([request(candidates, 1)], context)[0]) == ["a"]
    weighted = Comprehension(rank_format_weight=0.1).select([request(candidates, 1)], context)[0]
    assert texts(weighted) == ["b"]
    assert weighted[0].score == pytest.approx(0.5)


def test_ties_go_to_the_shorter_answer_or_keep_the_dataset_order() -> None:
    candidates = [guidance("a", length=9), guidance("b", length=4)]
    context = SelectionContext(scorer=FakeScorer({"a": [-0.5], "b": [-0.5001]}), step=1)
    rounded = {"score_rounding": {"decimals": 2}}
    assert texts(Comprehension(**rounded).select([request(candidates, 1)], context)[0]) == ["b"]
    assert texts(Comprehension(**rounded, ties="dataset").select([request(candidates, 1)], context)[0]) == ["a"]
    assert texts(Comprehension().select([request(candidates, 1)], context)[0]) == ["a"]


@pytest.mark.parametrize(("prefer", "expected"), [("short", ["b", "d"]), ("long", ["a", "c"])])
def test_length_takes_one_end_and_keeps_the_order_of_equals(prefer: Any, expected: list[str]) -> None:
    candidates = [guidance("a", 7), guidance("b", 2), guidance("c", 7), guidance("d", 2)]
    chosen = Length(prefer=prefer).select([request(candidates)], SelectionContext(scorer=FakeScorer({}), step=1))[0]
    assert texts(chosen) == expected
    assert [selection.score for selection in chosen] == [None, None]


def test_random_draws_without_replacement_and_only_from_the_requests_rng() -> None:
    candidates = [guidance(name) for name in "abcde"]
    context = SelectionContext(scorer=FakeScorer({}), step=1)

    def draw(seed: int, k: int = 2) -> list[str]:
        return texts(RandomChoice().select([request(candidates, k, seed)], context)[0])

    assert draw(3) == draw(3)
    assert sorted(draw(3, k=9)) == list("abcde")
    firsts = [draw(seed, k=1)[0] for seed in range(500)]
    assert all(70 <= firsts.count(name) <= 130 for name in "abcde")


def test_bfloat16_rounding_is_torchs() -> None:
    """Halfway between two of them it goes to the one that is even: 1 + 1/256 down, 1 + 3/256 up."""
    torch = pytest.importorskip("torch")
    rng = Random(0)
    halfway = [1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 256 - 2**-23, 1 + 1 / 256 + 2**-23, -1 - 1 / 256, -1 - 3 / 256]
    for value in [rng.random() for _ in range(200)] + [0.0, 1.0, 0.99999, 3.9e-12, *halfway]:
        assert round_to_bfloat16(value) == torch.tensor(value, dtype=torch.float32).bfloat16().item()


@pytest.mark.parametrize("weight", [-0.1, 1.1])
def test_a_format_weight_is_a_share(weight: float) -> None:
    assert Comprehension(rank_format_weight=1.0).rank_key(guidance("a", formatted=False), 0.7) == 0.0
    with pytest.raises(ValidationError, match="rank_format_weight"):
        Comprehension(rank_format_weight=weight)


class Given(ScoringSelectorSpec):
    """Scores and rank keys that a test gives."""

    type: str = "given"
    scores: list[list[float]] = Field(default_factory=list)
    keys: dict[str, float] = Field(default_factory=dict)

    def score(self, requests: Sequence[SelectionRequest], context: SelectionContext) -> list[list[float]]:
        return self.scores

    def rank_key(self, candidate: Guidance, score: float) -> float:
        return self.keys.get(candidate.text, score)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scores": []}, r"selector Given: score\(\) gave 0 lists of scores for 1 requests"),
        ({"scores": [[1.0], [1.0]]}, r"score\(\) gave 2 lists of scores for 1 requests"),
        ({"scores": [[1.0]]}, r"score\(\) gave 1 scores for 2 candidates"),
        ({"scores": [[1.0, math.nan]]}, "the score of T's answer to question uid is nan"),
        ({"scores": [[1.0, 2.0]], "keys": {"b": math.nan}}, "the rank key of T's answer to question uid is nan"),
    ],
)
def test_what_cannot_be_ranked_names_selector_and_answer(given: dict[str, Any], said: str) -> None:
    context = SelectionContext(scorer=FakeScorer({}), step=1)
    with pytest.raises(PluginError, match=said):
        Given(**given).select([request([guidance("a"), guidance("b")])], context)


def test_of_equals_the_first_stays_first_whatever_its_length_where_the_dataset_decides() -> None:
    candidates = [guidance(text, length) for text, length in (("a", 3), ("b", 2), ("c", 2), ("d", 1))]
    context = SelectionContext(scorer=FakeScorer({}), step=1)
    spec = Given(scores=[[0.5] * 4])
    assert texts(spec.select([request(candidates, 4)], context)[0]) == ["d", "b", "c", "a"]
    assert texts(spec.model_copy(update={"ties": "dataset"}).select([request(candidates, 4)], context)[0]) == list(
        "abcd"
    )


def test_a_selector_without_its_method_says_which() -> None:
    context = SelectionContext(scorer=FakeScorer({}), step=1)
    with pytest.raises(PluginError, match=r"selector Comprehension defines neither select\(\)"):
        SelectorSpec.select(Comprehension(), [], context)
    with pytest.raises(PluginError, match=r"selector Comprehension defines neither score\(\)"):
        ScoringSelectorSpec.score(Comprehension(), [], context)


def test_rounding_to_decimals_takes_nothing_else() -> None:
    with pytest.raises(ValidationError, match="digits"):
        Comprehension(score_rounding={"decimals": 2, "digits": 3})
    with pytest.raises(ValidationError, match="frozen"):
        Decimals(decimals=2).decimals = 3
