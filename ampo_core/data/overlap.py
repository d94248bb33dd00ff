"""What a person should know of a run's questions before it starts: too few of them, held-out ones among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ampo_registry.types import Message, Question

Asked = tuple[Message, ...]


def question_notes(
    training: Sequence[Question], batch: int, held_out: Mapping[str, Sequence[Question]]
) -> tuple[str, ...]:
    """Lines for a person: fewer different questions than a batch has, and what `held_out` sets (by name) share with
    `training`: the same question, its system prompt aside."""
    distinct = len({question.uid for question in training})
    notes = []
    if distinct < batch:
        notes.append(
            f"data.train: {distinct} different question{'s' if distinct > 1 else ''}, fewer than "
            f"training.questions_per_batch {batch}: every batch asks some of them more than once"
        )
    trained: dict[Asked, set[str]] = {}
    for question in training if held_out else ():
        trained.setdefault(_asked(question), set()).add(question.answer)
    for name, questions in held_out.items():
        known = [question for question in questions if _asked(question) in trained]
        other = sum(question.answer not in trained[_asked(question)] for question in known)
        if known:
            notes.append(
                f"evaluation.sets.{name}: {len(known)} of {len(questions)} questions occur in data.train"
                + (f", {other} of them with another ground truth" if other else "")
            )
    return tuple(notes)


def _asked(question: Question) -> Asked:
    return tuple(message for message in question.messages if message.role != "system")
