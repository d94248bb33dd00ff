"""Conversations for the warm-up: the student learns to reason on easy questions and to guess on hard ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from ampo_registry import Message

from ampo_plugins.tasks.labelled_arithmetic.problems import draw_problem
from ampo_plugins.tasks.labelled_arithmetic.teachers import STYLES


def warmup_conversations(
    counts: Mapping[int, int], styles: Callable[[int], Mapping[str, float]], *, rng: Random, held_out: frozenset[str]
) -> tuple[tuple[Message, ...], ...]:
    """(user, assistant) conversations in random order, `counts[level]` of each level, no question in `held_out`.

    `styles(level)` are the shares of answer styles.
    """
    conversations: list[tuple[Message, ...]] = []
    for level, count in counts.items():
        names, weights = zip(*styles(level).items(), strict=True)
        made = 0
        while made < count:
            problem = draw_problem(level, rng)
            if problem.text in held_out:
                continue
            style = rng.choices(names, weights)[0]
            conversations.append((Message("user", problem.text), Message("assistant", STYLES[style](problem))))
            made += 1
    rng.shuffle(conversations)
    return tuple(conversations)
