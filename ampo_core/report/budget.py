"""What a run spent itself: steps, questions, tokens, teacher answers and time, read from its folder alone.

What the runs before it spent is a matter of spent.py. Steps that a crash took back are not counted: a run that goes on
loses their lines in metrics.jsonl. Neither are the samples of evaluations, nor what it cost to make the teachers'
answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.text import a

from ampo_core.config.metric_names import ANSWERS, TEACHER, by_teacher
from ampo_core.report.lineage import read_metrics
from ampo_core.report.settings import value_of
from ampo_core.run.changes import read_config, read_manifest
from ampo_core.run.folder import METRICS
from ampo_core.run.history import marks_of
from ampo_core.run.progress import duration

TRAINED = ("train", "sft")
GROUP_SIZE = "rollout.group_size"
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run spent, or several together.

    `questions` were sampled in training, each time, with `rollouts` responses and `tokens_generated` in all;
    `tokens_trained` went forward in updates, prompts included. `teacher_answers`: in train those in groups and those
    that auxiliary terms train, each time; in sft the examples of a pool, once each. Those took `teacher_tokens` in all
    passes. `teachers` are those whose answers were used. `conversations` are the examples of an sft run that do not say
    who wrote them. `seconds` are those of steps. None is what the run's release did not record. `runs` are the folders
    counted, and `missing` those that should have been.
    """

    tokens_generated: int = 0
    tokens_trained: int = 0
    steps: int = 0
    teacher_answers: int | None = 0
    teachers: tuple[str, ...] = ()
    teacher_tokens: int | None = 0
    conversations: int | None = 0
    questions: int | None = 0
    rollouts: int | None = 0
    seconds: float | None = 0.0
    runs: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __add__(self, other: Budget) -> Budget:
        """Both together; what one of them does not know, the sum does not know."""
        return Budget(
            self.tokens_generated + other.tokens_generated,
            self.tokens_trained + other.tokens_trained,
            self.steps + other.steps,
            total_of((self.teacher_answers, other.teacher_answers)),
            tuple(sorted({*self.teachers, *other.teachers})),
            total_of((self.teacher_tokens, other.teacher_tokens)),
            total_of((self.conversations, other.conversations)),
            total_of((self.questions, other.questions)),
            total_of((self.rollouts, other.rollouts)),
            None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
            (*self.runs, *other.runs),
            (*self.missing, *other.missing),
        )

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def line(self) -> str:
        """The budget in one line for a person."""
        answers = _shown(self.teacher_answers, "teacher answer", "an unknown number of teacher answers")
        if self.teacher_answers != 0:
            answers += f" ({_shown(self.teacher_tokens, 'token', 'tokens not recorded')})"
        parts = [
            _shown(self.steps, "step"),
            _shown(self.questions, "question") if self.questions else "",
            _shown(self.rollouts, "rollout") if self.rollouts else "",
            f"{_shown(self.tokens_generated, 'token')} generated",
            f"{_shown(self.tokens_trained, 'token')} trained",
            answers + (f" of {', '.join(self.teachers)}" if self.teachers else ""),
            f"{duration(self.seconds)} in steps" if self.seconds else "",
        ]
        unnamed = f"; {_shown(self.conversations, 'conversation', 'conversations')} of unknown authors"
        missing = f"; not counted, for it is not there: {', '.join(self.missing)}" if self.missing else ""
        return ", ".join(filter(None, parts)) + ("" if self.conversations == 0 else unnamed) + missing


def read_budget(run_folder: Path, step: int | None = None) -> Budget:
    """What the train or sft run in `run_folder` spent, up to and including `step` if one is given.

    Raises ConfigError if the folder does not hold such a run, or if one of its files cannot be read.
    """
    manifest, config = read_manifest(run_folder), read_config(run_folder)
    job = manifest.get("job")
    if job not in TRAINED:
        raise ConfigError(f"{run_folder} holds {a(str(job))} job; only train and sft jobs have a budget")
    lines = [line for line in read_metrics(run_folder) if line["step"] > 0 and (step is None or line["step"] <= step)]
    return replace(
        _of_sft(manifest, config, lines) if job == "sft" else _of_train(config, lines, run_folder),
        tokens_trained=_needed(lines, "tokens/trained", run_folder),
        steps=len(lines),
        seconds=_seconds(lines),
        runs=(str(run_folder),),
    )


def replacements(lines: Iterable[Line]) -> dict[str, int | None]:
    """teacher -> how many of its answers the steps in `lines` put in, None where a step does not tell."""
    counts: dict[str, int | None] = {}
    for line in lines:
        for teacher, count in _put_in(line).items():
            counts[teacher] = total_of((counts.get(teacher, 0), count))
    return counts


def _put_in(line: Line) -> dict[str, float | None]:
    """The answers of each teacher that one step put in."""
    if found := by_teacher(line, ANSWERS):
        return found
    # What older releases logged: each teacher's share of the mean over all groups.
    mean, groups = line.get("guidance/replaced"), line.get("groups/sampled")
    total = None if mean is None or groups is None else mean * groups
    return {name: None if total is None else share * total for name, share in by_teacher(line, TEACHER).items()}


def _of_train(config: Line, lines: Sequence[Line], run_folder: Path) -> Budget:
    answers = replacements(lines)
    questions, size = total_of(line.get("groups/sampled") for line in lines), value_of(config, GROUP_SIZE)
    one_size = all(key != GROUP_SIZE for item in marks_of(run_folder) for key, _, _ in item.changes)
    return Budget(
        questions=questions,
        rollouts=questions * size if questions is not None and isinstance(size, int) and one_size else None,
        tokens_generated=_needed(lines, "tokens/generated", run_folder),
        teacher_answers=total_of(answers.values()),
        teachers=tuple(sorted(answers)),
        teacher_tokens=total_of(line.get("tokens/teacher") for line in lines if _put_in(line)),
    )


def _of_sft(manifest: Line, config: Line, lines: Sequence[Line]) -> Budget:
    count, training = (manifest.get("examples") or {}).get("count"), config["training"]
    # How many different ones: passes are shuffled, without repeats.
    seen = None if count is None else min(count, len(lines) * training["batch"] * training["accumulation"])
    teachers = tuple(sorted(manifest.get("teachers") or ()))
    if config["data"]["format"] != "pool":
        return Budget(teachers=teachers, conversations=seen)
    tokens = total_of(line.get("tokens/answers") for line in lines)
    return Budget(teachers=teachers, teacher_answers=seen, teacher_tokens=tokens)


def _needed(lines: Sequence[Line], name: str, run_folder: Path) -> int:
    found = total_of(line.get(name) for line in lines)
    if found is None:
        raise ConfigError(f"{run_folder / METRICS}: not every step has {name}; without it nothing tells what it spent")
    return found


def _seconds(lines: Sequence[Line]) -> float | None:
    found = [line.get("time/step_s") for line in lines]
    known = [seconds for seconds in found if seconds is not None]
    return math.fsum(known) if len(known) == len(found) else None


def total_of(counts: Iterable[float | None]) -> int | None:
    """The sum of counts, None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(round(count) for count in known if count is not None)


def _shown(number: int | None, noun: str, unknown: str = "") -> str:
    if number is None:
        return unknown
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
