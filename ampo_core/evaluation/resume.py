"""How an evaluate job begins: anew, or with what an earlier start of it has sampled already.

What a pair of model and set was sampled with is its model, its set and all that holds for the whole job. Changes that
`--allow-changes` lets pass take only those pairs with them that they touch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ampo_registry.errors import ConfigError, DataError
from ampo_registry.types import Question

from ampo_core.config.jobs import EvaluateJob
from ampo_core.evaluation.predictions import FILE, Pair, Predictions, answer_of
from ampo_core.evaluation.results import SetResult
from ampo_core.run.changes import Change, config_changes, manifest_changes, of_older_release
from ampo_core.run.environment import Environment
from ampo_core.run.resume import Beginning, allowed, look, refusal

UNTOUCHED = ("comparison", "resources", "tracking", "evaluation.groups")
"""Keys that change no sample."""


@dataclass(frozen=True, slots=True)
class EvaluationStart:
    """How the job begins. `keeps` are the pairs whose samples may be kept."""

    beginning: Beginning
    keeps: frozenset[Pair] = frozenset()


def begin_evaluation(
    job: EvaluateJob, environment: Environment, manifest: Callable[[], Mapping[str, Any]]
) -> EvaluationStart:
    """Decided before any model is loaded; writes nothing.

    Raises ConfigError if what is in the job's folder cannot become this run.
    """
    path = job.run.folder
    if look(job, environment) == "new":
        return EvaluationStart(Beginning(path, manifest()))
    now = manifest()
    config, rest = config_changes(path, environment.config), manifest_changes(path, now)
    if (config or rest) and not environment.allow_changes:
        raise ConfigError(refusal(f"{path} holds an unfinished run", [*config, *rest]))
    # graded texts are not kept: to grade them again costs less than to know that nothing about them has changed
    models = () if job.predictions else job.models
    pairs = {(model, name) for model in models for name in job.evaluation.sets}
    keeps = frozenset(pair for pair in pairs if not _touched(pair, job, config, rest))
    notes = (*of_older_release(path, now), *allowed([*config, *rest]))
    return EvaluationStart(Beginning(path, now, 0, notes=notes), keeps)


def kept_results(
    path: Path, job: EvaluateJob, questions: Mapping[Pair, Sequence[Question]]
) -> tuple[Predictions | None, dict[Pair, SetResult]]:
    """The file of samples in the folder `path`, if there is one, and those of the pairs that are there whole.

    `questions` are those of each pair that may be kept.
    """
    file = path / FILE
    if not file.is_file():
        return None, {}
    predictions = Predictions.scan(file)
    found = {}
    for pair, asked in questions.items():
        result = _whole(predictions, pair, job, asked) if pair in predictions.lines else None
        if result is not None:
            found[pair] = result
    return predictions, found


def _whole(predictions: Predictions, pair: Pair, job: EvaluateJob, questions: Sequence[Question]) -> SetResult | None:
    """The result of a pair, None unless every sample of every question is there."""
    item = job.evaluation.sets[pair[1]]
    try:
        groups = predictions.grouped(pair)
        answers = tuple(tuple(answer_of(record) for record in records) for records in groups.values())
    except (DataError, KeyError):  # of an older release, or edited: it is sampled again
        return None
    if list(groups) != [question.uid for question in questions]:
        return None
    if any(len(group) != item.samples for group in answers):
        return None
    return SetResult(pair[1], tuple(questions), answers, item.tries())


def _touched(pair: Pair, job: EvaluateJob, config: Sequence[Change], rest: Sequence[Change]) -> bool:
    """Whether a change of config or of what it ran with (`rest`) is about `pair`."""
    model, name = pair
    others = [f"models.{other}" for other in job.models if other != model]
    others += [f"evaluation.sets.{other}" for other in job.evaluation.sets if other != name]
    own = [f"models.{model}", f"evaluation.sets.{name}"]
    for key, _, after in config:
        removed = after is None and key.startswith(("models.", "evaluation.sets."))
        if _inside(key, own) and not key.endswith(".pass_at"):
            return True
        if not (_inside(key, own) or _inside(key, others) or removed or key.startswith(UNTOUCHED)):
            return True
    paths = [f"data.{job.evaluation.sets[name].path}", f"models.{job.models[model].path}"]
    return any(_inside(key, paths) or not key.startswith(("data.", "models.")) for key, _, _ in rest)


def _inside(key: str, blocks: Sequence[str]) -> bool:
    return any(key == block or key.startswith(f"{block}.") for block in blocks)
