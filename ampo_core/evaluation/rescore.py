"""An evaluate job that grades the samples of earlier ones anew. It loads no model.

Questions, ground truths and texts are those of the earlier jobs' predictions.jsonl; rewards, sets, samples and pass@k
are this job's. Rewards get a question's row and earlier messages where the set's file still has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.tokens import TokenIds
from ampo_registry.types import Message, Question

from ampo_core.config.held_out import EvaluationSet
from ampo_core.config.jobs import EvaluateJob
from ampo_core.config.models import model_folder
from ampo_core.config.nodes import nearest
from ampo_core.data.report import listed_truths
from ampo_core.data.rows import RowFile, row_file
from ampo_core.evaluation.evaluate import grade_responses, set_graders
from ampo_core.evaluation.found_again import found_again
from ampo_core.evaluation.output import EvaluationOutput
from ampo_core.evaluation.predictions import FILE, Pair, Predictions, answer_of
from ampo_core.evaluation.results import SetResult
from ampo_core.evaluation.resume import begin_evaluation
from ampo_core.grading.grader import Grader
from ampo_core.run.environment import Environment
from ampo_core.run.manifest import build_manifest
from ampo_core.run.progress import say

Records = Mapping[str, Sequence[Mapping[str, Any]]]
"""uid -> its samples."""


def grade_anew(job: EvaluateJob, environment: Environment) -> Path:
    """Grade the texts of `job.predictions` with the job's rewards; returns the run folder.

    Raises DataError where a model, set, question or sample that the job asks for is missing, ConfigError for a run
    that is not finished, before anything is written.
    """
    files = [_file(Path(path)) for path in job.predictions]
    sources = _sources(job, [Predictions.scan(file) for file in files])
    names = list(dict.fromkeys(model for model, _ in sources))
    if job.comparison.baseline is not None and job.comparison.baseline not in names:
        raise ConfigError(
            f"comparison.baseline: no model is named {job.comparison.baseline!r}; found {', '.join(names)}"
        )
    questions = {pair: _questions(pair, job, source) for pair, source in sources.items()}
    questions, read = _with_rows(job, environment, questions)
    with ExitStack() as stack:
        grader = stack.enter_context(Grader(job.reward, partial(say, environment.console)))
        graders = stack.enter_context(set_graders(job.evaluation, grader))
        say(environment.console, *_check_truths(job, graders, questions))
        manifest = build_manifest(
            job="evaluate",
            seed=job.run.seed,
            plugins=environment.plugins.distributions,
            code=environment.code(),
            data=dict.fromkeys([*files, *read]),
        )
        start = begin_evaluation(job, environment, lambda: manifest)
        output = EvaluationOutput.open(job, environment, start, stack, questions=questions, paths=_paths(job))
        for model in names:
            for name, item in job.evaluation.sets.items():
                asked, records = questions[model, name], sources[model, name].grouped((model, name))
                result = _graded(item, name, asked, records, graders[name].beside())
                output.done(model, partial(_read, records), result)
            output.complete(model)
        output.conclude()
    return job.run.folder


def _file(path: Path) -> Path:
    """predictions.jsonl of a finished evaluate job, or the file itself."""
    if path.is_dir():
        if not (path / "done").exists():
            raise ConfigError(f"predictions: {path} holds no finished evaluate job; let it finish, or name its {FILE}")
        path = path / FILE
    if not path.is_file():
        raise ConfigError(f"predictions: there is no {path}")
    return path


def _sources(job: EvaluateJob, files: Sequence[Predictions]) -> dict[Pair, Predictions]:
    """Which file holds each pair that the job asks for: its models, or all there are, on its sets."""
    found: dict[Pair, Predictions] = {}
    for predictions in files:
        for pair in predictions.lines:
            if pair in found:
                raise DataError(
                    f"predictions: {pair[0]}, {pair[1]} stands in {found[pair].path} and in {predictions.path}; a "
                    "model can come from one of them only"
                )
            found[pair] = predictions
    models = list(job.models) or list(dict.fromkeys(model for model, _ in found))
    where = ", ".join(str(predictions.path) for predictions in files)
    chosen = {}
    for model in models:
        sets = [name for other, name in found if other == model]
        if not sets:
            known = list(dict.fromkeys(other for other, _ in found))
            raise DataError(f"models: {where} has no samples of {model!r}{nearest(model, known)}")
        for name in job.evaluation.sets:
            if name not in sets:
                raise DataError(f"evaluation.sets: {where} has no samples of {model} on {name!r}{nearest(name, sets)}")
            chosen[model, name] = found[model, name]
    return chosen


def _questions(pair: Pair, job: EvaluateJob, predictions: Predictions) -> tuple[Question, ...]:
    """The questions of a pair in the order of the file, the first `limit` of them. Raises DataError if one is short of
    samples, or if there are fewer questions than the results beside the file count."""
    item, (model, name) = job.evaluation.sets[pair[1]], pair
    groups = predictions.grouped(pair)
    expected = _counted(predictions.path, pair)
    if expected is not None and len(groups) != expected:
        raise DataError(
            f"{predictions.path}: {model} has samples of {len(groups)} questions of {name}, and results.json beside it "
            f"counts {expected}"
        )
    short = {uid: len(records) for uid, records in groups.items() if len(records) < item.samples}
    if short:
        uid, count = next(iter(short.items()))
        raise DataError(
            f"{predictions.path}: {model}, {name}: {len(short)} of {len(groups)} questions have fewer samples than "
            f"evaluation.sets.{name}.samples = {item.samples}, e.g. {uid[:12]}… has {count}; lower it, or sample anew"
        )
    found = [_question(uid, records[0]) for uid, records in groups.items()]
    return tuple(found[: item.limit])


def _with_rows(
    job: EvaluateJob, environment: Environment, questions: Mapping[Pair, tuple[Question, ...]]
) -> tuple[dict[Pair, tuple[Question, ...]], list[RowFile]]:
    """The questions with their rows where the files of the sets have them, and the files that have some."""
    known, read = dict(questions), []
    for name, item in job.evaluation.sets.items():
        pairs = [pair for pair in questions if pair[1] == name]
        found, lacking = found_again(name, item, job.data, [one for pair in pairs for one in questions[pair]])
        say(environment.console, *filter(None, [lacking]))
        known |= {pair: tuple(found.get(one.uid, one) for one in questions[pair]) for pair in pairs}
        read += [row_file(item.path)] if found else []
    return known, read


def _question(uid: str, record: Mapping[str, Any]) -> Question:
    """The question of a sample; files of older releases do not hold its text."""
    prompt = record.get("prompt")
    messages = () if prompt is None else (Message("user", str(prompt)),)
    return Question(uid, messages, TokenIds(), str(record["answer"]), str(record.get("source", "")))


def _counted(file: Path, pair: Pair) -> int | None:
    """How many questions results.json beside the file counts for a pair, None where nothing says so."""
    path = file.parent / "results.json"
    if not path.is_file():
        return None
    try:
        questions = json.loads(path.read_text(encoding="utf-8"))["models"][pair[0]][pair[1]]["questions"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: does not say how many questions {pair[0]} has on {pair[1]}") from error
    return int(questions)


def _check_truths(
    job: EvaluateJob, graders: Mapping[str, Grader], questions: Mapping[Pair, Sequence[Question]]
) -> list[str]:
    """What is to be said of ground truths that are kept all the same.

    Raises DataError for those that a set's reward refuses: another reward may not know their kind.
    """
    said: list[str] = []
    for name in job.evaluation.sets:
        asked = [question for (_, other), found in questions.items() if other == name for question in found]
        truths = list(dict.fromkeys(question.answer for question in asked))
        checks = graders[name].check_truths(truths)
        refused = [(truth, check.refused) for truth, check in zip(truths, checks, strict=True) if check.refused]
        if refused:
            truth, reason = refused[0]
            raise DataError(
                f"evaluation.sets.{name}: its reward refuses {len(refused)} of {len(truths)} ground truths, e.g. "
                f"{truth!r}: {reason}"
            )
        said += [f"evaluation.sets.{name}: {line}" for line in listed_truths(dict(zip(truths, checks, strict=True)))]
    return said


def _graded(
    item: EvaluationSet, name: str, questions: Sequence[Question], records: Records, grader: Grader
) -> SetResult:
    chosen = [records[question.uid][: item.samples] for question in questions]
    responses = [[(str(record["text"]), record["finish_reason"]) for record in group] for group in chosen]
    grades = grade_responses(grader, questions, responses)
    answers = tuple(
        tuple(answer_of(record, grade) for record, grade in zip(group, found, strict=True))
        for group, found in zip(chosen, grades, strict=True)
    )
    return SetResult(name, tuple(questions), answers, item.tries())


def _read(records: Records, question: Question) -> str | None:
    """What the model read of `question`; files of older releases do not say it."""
    read = records[question.uid][0].get("read")
    return None if read is None else str(read)


def _paths(job: EvaluateJob) -> dict[str, str]:
    """The folders of the models that are still there, for what their training took."""
    found = {}
    for name, model in job.models.items():
        try:
            found[name] = model_folder(model.path)
        except ConfigError:
            continue  # a run that has gone on or away since: only its budget is not shown
    return found
