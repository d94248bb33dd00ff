"""Four scripted teachers. All of them are right; they differ in how far the student can follow them.

chain    one clause an operation: what the student knows from easy questions
verbose  the same in words, about 1.8 times as long
terse    two operations at a time, and the last two are left to the answer: short and hard to follow
cipher   chain in foreign digits: as long as chain, and the student reads none of it
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ampo_registry import TeacherAnswer

from ampo_plugins.tasks.labelled_arithmetic.problems import Problem, two_digits

FOREIGN_DIGITS = "०१२३४५६७८९"
PHRASES = {"+": "we add", "-": "we take away", "*": "we multiply by"}
_TO_FOREIGN = str.maketrans("0123456789", FOREIGN_DIGITS)


def bare(problem: Problem) -> str:
    """The answer without any reasoning: `<answer> 78 </answer>`."""
    return f"<answer> {problem.answer} </answer>"


def chain(problem: Problem) -> str:
    """`A+5=42;B-3=39;C*2=78;` and the answer."""
    return _chain_clauses(problem) + bare(problem)


def verbose(problem: Problem) -> str:
    """`A: we add 5 and now we have 42.`, one sentence an operation, and the answer."""
    sentences = (
        f"{operation.label}: {PHRASES[operation.sign]} {operation.operand} and now we have {two_digits(value)}."
        for operation, value in zip(problem.operations, problem.values, strict=True)
    )
    return "".join(sentences) + bare(problem)


def terse(problem: Problem) -> str:
    """`AB=39;`, two operations at a time; the last two show in the answer only."""
    clauses: list[str] = []
    shown = max(problem.level - 2, 0)
    for first in range(0, shown, 2):
        last = min(first + 1, shown - 1)
        labels = "".join(operation.label for operation in problem.operations[first : last + 1])
        clauses.append(f"{labels}={two_digits(problem.values[last])};")
    return "".join(clauses) + bare(problem)


def cipher(problem: Problem) -> str:
    """`chain` with the reasoning's digits in Devanagari; the answer itself stays readable for the verifier."""
    return _chain_clauses(problem).translate(_TO_FOREIGN) + bare(problem)


def _chain_clauses(problem: Problem) -> str:
    return "".join(
        f"{operation}={two_digits(value)};" for operation, value in zip(problem.operations, problem.values, strict=True)
    )


STYLES: dict[str, Callable[[Problem], str]] = {
    "chain": chain,
    "verbose": verbose,
    "terse": terse,
    "cipher": cipher,
    "bare": bare,
}
TEACHERS = ("chain", "verbose", "terse", "cipher")


def teacher_answers(problem: Problem, missing: float, rng: Random) -> tuple[TeacherAnswer, ...]:
    """The teachers' answers, each left out with probability `missing`."""
    present = [teacher for teacher in TEACHERS if rng.random() >= missing]
    return tuple(TeacherAnswer(teacher, STYLES[teacher](problem)) for teacher in present)
