"""What is taken from a verified reward: for repeating oneself and for coming near the length limit."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from ampo_registry.specs import NgramPenalty, OverlongPenalty, RewardSpec
from ampo_registry.types import Grade, Rollout

_BETWEEN_WORDS = re.compile(r"[\s_]+")


def penalised(grade: Grade, rollout: Rollout, spec: RewardSpec, max_response_tokens: int) -> Grade:
    """`grade` with the penalties of `spec` added to its reward; the verdict stays.

    The repetition penalty touches only a non-zero reward (as in the released program); the overlong penalty any.
    """
    penalty = 0.0
    if spec.repetition_penalty is not None and grade.reward != 0.0:
        penalty += repetition_penalty(rollout.text, spec.repetition_penalty)
    if spec.overlong_penalty is not None:
        penalty += overlong_penalty(len(rollout.token_ids), max_response_tokens, spec.overlong_penalty)
    return replace(grade, reward=grade.reward + penalty) if penalty else grade


def repetition_penalty(text: str, penalty: NgramPenalty) -> float:
    """`penalty.value` if some `ngram` words in a row occur `limit` times or more in `text`, else 0.

    Words are what stands between blanks and underscores; occurrences may overlap.
    """
    words = [word for word in _BETWEEN_WORDS.split(text) if word]
    ngrams = Counter(zip(*(words[start:] for start in range(penalty.ngram)), strict=False))
    return penalty.value if ngrams and max(ngrams.values()) >= penalty.limit else 0.0


def overlong_penalty(tokens: int, max_response_tokens: int, penalty: OverlongPenalty) -> float:
    """0 up to `buffer` tokens before `max_response_tokens`, then linear to `value` there (DAPO, soft punishment)."""
    share = (tokens - (max_response_tokens - penalty.buffer)) / penalty.buffer
    return penalty.value * min(max(share, 0.0), 1.0)
