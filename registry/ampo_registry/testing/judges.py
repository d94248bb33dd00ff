"""Conformance of judges."""

from __future__ import annotations

import math
from typing import cast

from ampo_registry.judges import Judge, JudgeRequest
from ampo_registry.protocols import BuildContext
from ampo_registry.seams import JudgeSpec
from ampo_registry.testing.common import Rules, check_spec_class
from ampo_registry.tokens import LogProbs, TokenIds

REQUESTS = tuple(
    JudgeRequest(TokenIds(range(1, 1 + prompt)), TokenIds(range(3, 3 + tokens)))
    for prompt, tokens in ((1, 1), (4, 2), (2, 9), (7, 5))
)


def check_judge(
    spec: JudgeSpec, context: BuildContext | None = None, tolerance: float = 1e-5, *, spec_only: bool = False
) -> None:
    """A judge gives one log-prob for each token, the same whatever else is asked and in whatever order.

    `context` is what it is built in, an empty one by default: with a model's tokenizer, and what else it needs.
    `tolerance` is in nats: other neighbours in a batch may round otherwise. `spec_only` builds nothing, for a judge
    whose model or server is not there.
    """
    check_spec_class(spec)
    rule = Rules(spec)
    reason = cast(object, spec.refuses(1.0))
    rule(reason is None or (isinstance(reason, str) and bool(reason)), "refuses() must give a reason or None", reason)
    if spec_only:
        return
    context = context or BuildContext()
    spec.check(context)
    judge: Judge = spec.build(context)
    try:
        _check_answers(rule, judge, tolerance)
    finally:
        for name in ("sleep", "close"):
            if (method := getattr(judge, name, None)) is not None:
                method()


def _check_answers(rule: Rules, judge: Judge, tolerance: float) -> None:
    asked = list(REQUESTS)
    found = judge.logprobs(asked, 1.0)
    rule(asked == list(REQUESTS), "requests must be left as they are")
    rule(len(found or ()) == len(asked), "there must be one answer for each request", found)
    for request, log_probs in zip(asked, found, strict=True):
        rule(isinstance(cast(object, log_probs), LogProbs), "an answer must be LogProbs", type(log_probs))
        rule(len(log_probs) == len(request.token_ids), "there must be one log-prob for each token", len(log_probs))
        good = all(math.isfinite(value) and value <= 0.0 for value in log_probs)
        rule(good, "log-probs must be finite and at most 0", log_probs)
    turned = judge.logprobs(asked[::-1], 1.0)[::-1]
    alone = [judge.logprobs([request], 1.0)[0] for request in asked]
    for other, what in ((turned, "the order of the requests"), (alone, "the other requests")):
        gap = max(abs(a - b) for x, y in zip(found, other, strict=True) for a, b in zip(x, y, strict=True))
        rule(gap <= tolerance, f"{what} must not change a log-prob", gap)
