"""Conversations for the warm-up: the student learns to reason on easy questions and to guess on hard ones."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ampo_registry import Message

from ampo_plugins.tasks.labelled_arithmetic.problems import draw_problem, split_by_share
from ampo_plugins.tasks.labelled_arithmetic.teachers import STYLES

HARD_STYLES = ("bare", "terse")


def warmup_conversations(
    count: int,
    levels: Mapping[int, float],
    styles: Mapping[str, float],
    step_by_step_up_to: int,
    rng: Random,
    held_out: frozenset[str],
) -> tuple[tuple[Message, ...], ...]:
    """`count` (user, assistant) conversations, none about a question in `held_out`.

    `levels` are shares; `styles` are the shares of answer styles up to the level `step_by_step_up_to`. Above it only
    the short styles are used, in their proportion to each other.
    """
    hard = {style: share for style, share in styles.items() if style in HARD_STYLES}
    conversations: list[tuple[Message, ...]] = []
    for level, number in split_by_share(count, levels).items():
        shares = styles if level <= step_by_step_up_to else hard
        names, weights = list(shares), list(shares.values())
        made = 0
        while made < number:
            problem = draw_problem(level, rng)
            if problem.text in held_out:
                continue
            style = rng.choices(names, weights)[0]
            conversations.append((Message("user", problem.text), Message("assistant", STYLES[style](problem))))
            made += 1
    rng.shuffle(conversations)
    return tuple(conversations)
