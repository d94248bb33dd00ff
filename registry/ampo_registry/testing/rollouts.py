"""Conformance of rollouts: sampling, seeds, stop tokens, weight sync."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ampo_registry.protocols import BuildContext, RolloutEngine
from ampo_registry.specs import RolloutSpec
from ampo_registry.testing.common import Rules, check_spec_class, check_state
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Rollout, RolloutRequest, SamplingOptions

if TYPE_CHECKING:
    import torch

LIMIT = 16


def check_rollout(
    spec: RolloutSpec,
    context: BuildContext,
    prompts: Sequence[Sequence[int]] = ((1, 2, 3), (3, 1, 2, 3, 1, 2, 1), (2,)),
    weights: Iterable[tuple[str, torch.Tensor]] | None = None,
    min_agreement: float = 1.0,
) -> None:
    """An engine samples what the seed says, alone or in a batch, stops where told (at a request's own limit too), and
    follows the weights.

    `context` names a small model and its tokenizer; `prompts` are token ids of its vocabulary; `weights`, the
    model's own by name, are synced and must change nothing but the version. `min_agreement` is the share of
    responses that must be the same alone and in a batch: below 1 only where kernels depend on the batch.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    engine: RolloutEngine = spec.build(context)
    try:
        _check_sampling(rule, engine, prompts, min_agreement)
        if weights is not None:
            before = engine.generate(_requests(prompts), _options())
            engine.load_weights(weights, 7)
            after = engine.generate(_requests(prompts), _options())
            rule(_tokens(after) == _tokens(before), "loading the same weights must not change the samples")
            versions = {rollout.policy_version for group in after for rollout in group}
            rule(versions == {7}, "rollouts must carry the version of the weights they come from", versions)
        check_state(spec, engine)
    finally:
        engine.close()


def _requests(prompts: Sequence[Sequence[int]], seeds: Sequence[int] = (11, 12, 13)) -> list[RolloutRequest]:
    return [
        RolloutRequest(TokenIds(prompt), tuple(100 * i + seed for seed in seeds)) for i, prompt in enumerate(prompts)
    ]


def _options(stop: tuple[int, ...] = (), temperature: float = 1.0) -> SamplingOptions:
    return SamplingOptions(temperature=temperature, top_p=1.0, max_response_tokens=LIMIT, stop_token_ids=stop)


def _tokens(groups: Sequence[Sequence[Rollout]]) -> list[list[TokenIds]]:
    return [[rollout.token_ids for rollout in group] for group in groups]


def _check_sampling(rule: Rules, engine: RolloutEngine, prompts: Sequence[Sequence[int]], min_agreement: float) -> None:
    requests = _requests(prompts)
    rule(engine.generate([], _options()) == [], "no requests must give no rollouts")
    groups = engine.generate(requests, _options())
    shape = [len(group) for group in groups]
    rule(shape == [len(r.seeds) for r in requests], "there must be one rollout for each seed of each request", shape)
    for rollout in (rollout for group in groups for rollout in group):
        _check_rollout(rule, rollout, ())
    rule(_tokens(engine.generate(requests, _options())) == _tokens(groups), "the same seeds must give the same samples")
    distinct = {tokens for group in _tokens(groups) for tokens in group}
    rule(len(distinct) > 1, "different seeds must give different samples")
    _check_stop(rule, engine, requests, groups)
    _check_greedy(rule, engine, requests, min_agreement)
    _check_alone(rule, engine, requests, groups, min_agreement)
    _check_limits(rule, engine, requests, groups, min_agreement)
    engine.sleep()
    engine.wake()
    rule(_tokens(engine.generate(requests, _options())) == _tokens(groups), "sleeping must not change the samples")


def _check_rollout(rule: Rules, rollout: Rollout, stop: tuple[int, ...], limit: int = LIMIT) -> None:
    ids = rollout.token_ids
    rule(1 <= len(ids) <= limit, f"a response has 1 to max_response_tokens = {limit} tokens", len(ids))
    rule(len(rollout.logprobs) == len(ids), "there must be one log-prob for each token", len(rollout.logprobs))
    fine = all(math.isfinite(value) and value <= 1e-6 for value in rollout.logprobs)
    rule(fine, "log-probs must be finite and not above 0", rollout.logprobs)
    rule(not any(token in stop for token in ids[:-1]), "a response must end with its first stop token", ids)
    if ids[-1] in stop:
        rule(rollout.finish_reason == "stop", 'a response that ends with a stop token has finished by "stop"', rollout)
    else:
        rule(rollout.finish_reason == "length", 'a response without a stop token has finished by "length"', rollout)
        rule(len(ids) == limit, "only the length limit may end a response without a stop token", len(ids))


def _check_stop(
    rule: Rules, engine: RolloutEngine, requests: Sequence[RolloutRequest], groups: Sequence[Sequence[Rollout]]
) -> None:
    """A token that a free sample holds in its middle is made the stop token: the same seed must now end there."""
    free = groups[0][0].token_ids
    stop = (free[len(free) // 2],)
    stopped = engine.generate(requests, _options(stop))
    for rollout in (rollout for group in stopped for rollout in group):
        _check_rollout(rule, rollout, stop)
    expected = free[: free.index(stop[0]) + 1]
    rule(
        stopped[0][0].token_ids == expected, "the stop token must end the response and be its last token", stopped[0][0]
    )


def _check_greedy(rule: Rules, engine: RolloutEngine, requests: Sequence[RolloutRequest], min_agreement: float) -> None:
    groups = engine.generate(requests, _options(temperature=0.0))
    same = 0
    for group in groups:
        same += sum(rollout.token_ids == group[0].token_ids for rollout in group)
        for rollout in group:
            _check_rollout(rule, rollout, ())
    total = sum(map(len, groups))
    rule(same >= min_agreement * total, "at temperature 0 the seed must not matter", f"{same} of {total}")


def _check_alone(
    rule: Rules,
    engine: RolloutEngine,
    requests: Sequence[RolloutRequest],
    groups: Sequence[Sequence[Rollout]],
    min_agreement: float,
) -> None:
    same = total = 0
    for request, group in zip(requests, groups, strict=True):
        for seed, rollout in zip(request.seeds, group, strict=True):
            alone = engine.generate([RolloutRequest(request.prompt_token_ids, (seed,))], _options())[0][0]
            total += 1
            same += alone.token_ids == rollout.token_ids
    text = f"at least {min_agreement:.0%} of the samples must be the same alone and in a batch"
    rule(same >= min_agreement * total, text, f"{same} of {total}")


def _check_limits(
    rule: Rules,
    engine: RolloutEngine,
    requests: Sequence[RolloutRequest],
    groups: Sequence[Sequence[Rollout]],
    min_agreement: float,
) -> None:
    """Requests with limits of their own, in one batch: each response is the free one, cut there."""
    limits = [(LIMIT // 4, None, 2 * LIMIT, 1)[i % 4] for i in range(len(requests))]
    cut = engine.generate(
        [replace(request, max_response_tokens=limit) for request, limit in zip(requests, limits, strict=True)],
        _options(),
    )
    same = total = 0
    for limit, group, free in zip(limits, cut, groups, strict=True):
        room = min(LIMIT, limit or LIMIT)
        for rollout, whole in zip(group, free, strict=True):
            _check_rollout(rule, rollout, (), room)
            total += 1
            same += rollout.token_ids == whole.token_ids[:room]
    text = f"a request's own limit must cut its responses and change nothing else, in {min_agreement:.0%} of them"
    rule(same >= min_agreement * total, text, f"{same} of {total}")
