"""The `evaluate` job: several models on the same held-out questions, sampled here or graded anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ampo_registry.types import Question

from ampo_core.checked.build import build
from ampo_core.config.jobs import EvaluateJob
from ampo_core.config.models import with_model_folder
from ampo_core.config.positions import positions_of
from ampo_core.config.tree import SampledModel
from ampo_core.data.prompts import prompt_notes
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.evaluation.evaluate import (
    HeldOutSet,
    evaluate_sets,
    load_sets,
    require_room_for,
    sampling_options,
    set_graders,
)
from ampo_core.evaluation.output import EvaluationOutput
from ampo_core.evaluation.predictions import Pair
from ampo_core.evaluation.rescore import grade_anew
from ampo_core.evaluation.results import SetResult
from ampo_core.evaluation.resume import begin_evaluation
from ampo_core.grading.grader import Grader
from ampo_core.report.curves import check_runs
from ampo_core.run.environment import Environment
from ampo_core.run.folder import begun
from ampo_core.run.manifest import as_warnings, build_manifest
from ampo_core.run.progress import Reading, say

if TYPE_CHECKING:
    from ampo_core.distributed.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of an evaluate job, with the sets in its own tokens."""

    name: str
    model: SampledModel
    tokenizer: PromptTokenizer
    sets: list[HeldOutSet]
    notes: tuple[str, ...]

    def read(self, question: Question) -> str:
        """The whole of what the model reads of a question, special tokens and all."""
        return self.tokenizer.shown(question.prompt_token_ids)


def run(job: EvaluateJob, environment: Environment) -> Path:
    """Evaluate every model on every set and compare them; returns the run folder.

    It gets predictions.jsonl (a line a sample), metrics.jsonl (a line a model, named MODEL/eval/...), results.json,
    results.md and pictures. A job that was interrupted goes on: a model's set whose samples are all there is not
    sampled again. Raises ConfigError and DataError before anything is written.
    """
    check_runs(job.comparison.curves)
    if job.predictions:
        return grade_anew(job, environment)
    from ampo_core.distributed.ranks import join_ranks

    ranks = join_ranks(job.resources.threads)
    job = with_model_folders(job)
    with ExitStack() as stack:
        candidates, graders = read_candidates(job, environment, ranks, stack)
        output, done = _open(job, environment, candidates, ranks, stack)
        stack.enter_context(begun())
        for candidate in candidates:
            pending = [item for item in candidate.sets if (candidate.name, item.name) not in done]
            if pending:
                told = None if output is None else partial(output.done, candidate.name, candidate.read)
                sample_sets(candidate, pending, job, environment, graders, ranks, told)
            if output is not None:
                output.complete(candidate.name)
        if output is not None:
            output.conclude()
    return job.run.folder


def with_model_folders(job: EvaluateJob) -> EvaluateJob:
    """`job` with the folder of each model that is named by a run."""
    return job.model_copy(update={"models": {name: with_model_folder(model) for name, model in job.models.items()}})


def read_candidates(
    job: EvaluateJob, environment: Environment, ranks: Ranks, stack: ExitStack
) -> tuple[list[Candidate], dict[str, Grader]]:
    """The models of `job` with their sets, and the grader of each set, which `stack` closes. Raises ConfigError and
    DataError for what cannot be evaluated."""
    grader = stack.enter_context(Grader(job.reward, partial(say, environment.console)))
    graders = stack.enter_context(set_graders(job.evaluation, grader))
    candidates, reading = [], stack.enter_context(Reading(environment.console))
    for name, model in job.models.items():
        tokenizer = load_tokenizer(model, environment.trust_remote_code)
        sets = load_sets(job.evaluation, job.data, tokenizer, graders, ranks, reading)
        notes = list(tokenizer.notes)
        for item in sets:
            notes += prompt_notes(item.place, item.questions, tokenizer, item.config.reward or job.reward)
        candidates.append(Candidate(name, model, tokenizer, sets, tuple(notes)))
    for candidate in candidates:
        require_room_for(job.evaluation, job.rollout, candidate.sets, positions_of(candidate.model.path))
    return candidates, graders


def what_was_read(candidates: Sequence[Candidate]) -> list[str]:
    """Lines for a person on each model's tokens and on each set; models that read one differently are named."""
    lines = [[f"{item.name}: {line}" for item in one.sets for line in item.report.lines()] for one in candidates]
    return [*as_warnings(_notes(candidates)), *_said_of(candidates, lines)]


def _notes(candidates: Sequence[Candidate]) -> list[str]:
    return _said_of(candidates, [candidate.notes for candidate in candidates])


def _said_of(candidates: Sequence[Candidate], said: Sequence[Sequence[str]]) -> list[str]:
    """What is `said` of each, once: with the names of those that it is said of where these are not all."""
    names: dict[str, list[str]] = {}
    for candidate, lines in zip(candidates, said, strict=True):
        for line in lines:
            names.setdefault(line, []).append(candidate.name)
    return [line if len(of) == len(candidates) else f"{', '.join(of)}, {line}" for line, of in names.items()]


def _open(
    job: EvaluateJob, environment: Environment, candidates: Sequence[Candidate], ranks: Ranks, stack: ExitStack
) -> tuple[EvaluationOutput | None, frozenset[Pair]]:
    """The output, on rank 0, and the pairs that need not be sampled, on every rank."""
    from ampo_core.distributed.together import by_first

    opened: list[EvaluationOutput] = []
    questions = {(candidate.name, item.name): item.questions for candidate in candidates for item in candidate.sets}
    paths = {name: model.path for name, model in job.models.items()}

    def open_output() -> frozenset[Pair]:
        start = begin_evaluation(
            job,
            environment,
            lambda: build_manifest(
                job="evaluate",
                seed=job.run.seed,
                plugins=environment.plugins.distributions,
                code=environment.code(),
                data=dict.fromkeys(item.path for item in job.evaluation.sets.values()),
                models=list(dict.fromkeys(paths.values())),
                notes=_notes(candidates),
            ),
        )
        output = EvaluationOutput.open(job, environment, start, stack, questions=questions, paths=paths)
        output.say(*what_was_read(candidates))
        opened.append(output)
        return frozenset(output.results)

    done = by_first(ranks, open_output)
    return (opened[0] if opened else None), done


def sample_sets(
    candidate: Candidate,
    pending: Sequence[HeldOutSet],
    job: EvaluateJob,
    environment: Environment,
    graders: Mapping[str, Grader],
    ranks: Ranks,
    done: Callable[[SetResult], None] | None,
) -> None:
    """Sample and grade the sets of a model that are left; `done` is told each of them, with its texts."""
    context = environment.build_context(
        model_path=candidate.model.path,
        dtype=candidate.model.dtype,
        tokenizer=candidate.tokenizer.tokenizer,
        rank=ranks.rank,
        world_size=ranks.world_size,
    )
    options = sampling_options(job.evaluation, job.rollout, candidate.tokenizer)
    with closing(build(job.rollout, context)) as engine:
        evaluate_sets(
            pending,
            engine,
            graders,
            options,
            run_seed=job.run.seed,
            step=0,
            ranks=ranks,
            done=done,
        )
