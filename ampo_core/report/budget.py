"""What a run spent: tokens, steps and teacher answers, read from its folder alone.

Steps that a crash took back are not counted: a run that goes on loses their lines in metrics.jsonl. Neither are the
samples of evaluations, nor what it cost to make the teachers' answers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError
from ampo_registry.text import a

from ampo_core.config.metric_names import ANSWERS, TEACHER, by_teacher
from ampo_core.report.lineage import lineage, read_metrics, run_of_policy
from ampo_core.run.changes import read_config, read_manifest
from ampo_core.run.folder import METRICS

TRAINED = ("train", "sft")
Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Budget:
    """What one run spent, or several that started from each other.

    `tokens_generated` were sampled in training; `tokens_trained` went forward in updates, prompts included.
    `teacher_answers`: in train those in groups and those that auxiliary terms train, each time; in sft the examples of
    a pool, once each. Those took `teacher_tokens` in all passes. `teachers` are those whose answers were used.
    `conversations` are the examples of an sft run that do not say who wrote them. None is what the run's release did
    not record. `runs` are the folders counted, and `missing` those that should have been.
    """

    tokens_generated: int = 0
    tokens_trained: int = 0
    steps: int = 0
    teacher_answers: int | None = 0
    teachers: tuple[str, ...] = ()
    teacher_tokens: int | None = 0
    conversations: int | None = 0
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
        named = f" of {', '.join(self.teachers)}" if self.teachers else ""
        parts = [
            _shown(self.steps, "step"),
            f"{_shown(self.tokens_generated, 'token')} generated",
            f"{_shown(self.tokens_trained, 'token')} trained",
            answers + named,
        ]
        unnamed = f"; {_shown(self.conversations, 'conversation', 'conversations')} of unknown authors"
        others = "" if self.conversations == 0 else unnamed
        others += f"; {len(self.runs)} runs together" if len(self.runs) > 1 else ""
        missing = f"; not counted, for it is not there: {', '.join(self.missing)}" if self.missing else ""
        return ", ".join(parts) + others + missing


def read_budget(run_folder: Path, step: int | None = None) -> Budget:
    """What the train or sft run in `run_folder` spent itself, up to and including `step` if one is given.

    Raises ConfigError if the folder does not hold such a run, or if one of its files cannot be read.
    """
    manifest, config = read_manifest(run_folder), read_config(run_folder)
    job = manifest.get("job")
    if job not in TRAINED:
        raise ConfigError(f"{run_folder} holds {a(str(job))} job; only train and sft jobs have a budget")
    lines = [line for line in read_metrics(run_folder) if line["step"] > 0 and (step is None or line["step"] <= step)]
    return replace(
        _of_sft(manifest, config, lines) if job == "sft" else _of_train(lines, run_folder),
        tokens_trained=_needed(lines, "tokens/trained", run_folder),
        steps=len(lines),
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


def _of_train(lines: Sequence[Line], run_folder: Path) -> Budget:
    answers = replacements(lines)
    return Budget(
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


def total_budget(run_folder: Path, step: int | None = None, *, without: Collection[Path] = ()) -> Budget:
    """`read_budget` of the run, and of the runs whose checkpoints it started from, each up to that checkpoint.

    The runs in the folders `without` are left out: what all that are compared have in common.
    A pipeline's is that of its last stage that trained. A start checkpoint whose run is gone or cannot be read stands
    in `missing`. Raises ConfigError as `read_budget` does, for the run itself.
    """
    run_folder = _trained(run_folder)
    line = lineage(run_folder, step)
    total = read_budget(run_folder, step)
    shared = {folder.resolve() for folder in without}
    for folder, last in line.runs[1:]:
        if folder.resolve() in shared:
            continue
        try:
            total += read_budget(folder, last)
        except ConfigError as error:
            total = replace(total, missing=(*total.missing, str(error)))
    return total if line.complete else replace(total, missing=(*total.missing, line.base))


def policy_budget(model: Path) -> Budget | None:
    """`total_budget` of the run that wrote the policy folder `model`, up to its checkpoint; None for other models."""
    origin = run_of_policy(model)
    return None if origin is None else total_budget(*origin)


def _trained(run_folder: Path) -> Path:
    """The run folder itself, or that of a pipeline's last stage that is a train or sft job."""
    if read_manifest(run_folder).get("job") != "pipeline":
        return run_folder
    stages = [run_folder / str(stage["name"]) for stage in read_config(run_folder).get("stages") or ()]
    trained = [stage for stage in stages if stage.is_dir() and read_manifest(stage).get("job") in TRAINED]
    if not trained:
        raise ConfigError(f"{run_folder}: no stage of this pipeline has trained a model, so it has no budget")
    return trained[-1]


def _needed(lines: Sequence[Line], name: str, run_folder: Path) -> int:
    found = total_of(line.get(name) for line in lines)
    if found is None:
        raise ConfigError(f"{run_folder / METRICS}: not every step has {name}; without it nothing tells what it spent")
    return found


def total_of(counts: Iterable[float | None]) -> int | None:
    """The sum of counts, None if one of them is not known."""
    known = list(counts)
    return None if None in known else sum(round(count) for count in known if count is not None)


def _shown(number: int | None, noun: str, unknown: str = "") -> str:
    if number is None:
        return unknown
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
