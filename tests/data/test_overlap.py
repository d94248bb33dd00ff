"""What is said of a run's questions before it starts."""

from ampo_registry import Message, Question

from ampo_core.data.overlap import question_notes


def question(text: str, answer: str = "7", system: str | None = None) -> Question:
    messages = (*([] if system is None else [Message("system", system)]), Message("user", text))
    return Question(f"{messages}{answer}", messages, (1,), answer, "toy")


def test_fewer_questions_than_a_batch_are_said():
    assert question_notes([question("a"), question("b")] * 4, 2, {}) == ()
    (note,) = question_notes([question("a")] * 8, 8, {})
    assert note.startswith("data.train: 1 different question, fewer than training.questions_per_batch 8")


def test_held_out_questions_that_occur_in_training_are_said():
    training = [question("a"), question("b"), question("c", system="Box it.")]
    sets = {
        "known": [question("a"), question("b", "8"), question("c", system="Use tags."), question("d")],
        "new": [question("e"), question("f")],
    }
    assert question_notes(training, 3, sets) == (
        "evaluation.sets.known: 3 of 4 questions occur in data.train, 1 of them with another ground truth",
    )
