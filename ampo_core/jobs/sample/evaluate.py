"""The first questions of each set of an evaluate job, as each of its models reads and answers them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

from ampo_core.config.jobs import EvaluateJob
from ampo_core.distributed.ranks import join_ranks
from ampo_core.evaluation.job import Candidate, read_candidates, sample_sets, what_was_read, with_model_folders
from ampo_core.evaluation.results import Evaluation, SetResult
from ampo_core.jobs.sample.document import SIGNS, Part, answered, asked, code, listed, plain
from ampo_core.report.watch import Watch
from ampo_core.run.environment import Environment


def parts_of(job: EvaluateJob, environment: Environment, count: int) -> Iterator[Part]:
    """The first `count` questions of each set, for one model after the other."""
    ranks = join_ranks(job.resources.threads)
    job, watch, shown = with_model_folders(job), Watch("evaluate", environment.config), list[Part]()
    with ExitStack() as stack:
        candidates, graders = read_candidates(job, environment, ranks, stack)
        for candidate in candidates:
            results: list[SetResult] = []
            first = [replace(item, questions=item.questions[:count]) for item in candidate.sets]
            sample_sets(candidate, first, job, environment, graders, ranks, results.append)
            found = Evaluation(tuple(results)).metrics()
            watch.see(0, {f"{candidate.name}/{name}": value for name, value in found.items()})
            for result in results:
                shown += _set(candidate, result, count)
        said = what_was_read(candidates)
    yield f"# The first {count} questions of each set" if count > 1 else "# The first question of each set"
    temperature, limit = job.evaluation.temperature, job.evaluation.longest_response(job.rollout)[0]
    yield f"At temperature {temperature:g}, at most {limit} tokens; the job's own samples (run.seed {job.run.seed})."
    yield from listed(SIGNS, (f"{w.what}; look at {w.look}" for w in watch.warnings(finished=True)))
    yield from listed("Said of data and tokens", said)
    yield from shown


def _set(candidate: Candidate, result: SetResult, count: int) -> Iterator[Part]:
    yield f"## {plain(candidate.name)} on {plain(result.name)}"
    if len(result.questions) < count:
        yield f"--sample {count}: the set has no more than these {len(result.questions)}."
    stops = " or ".join(code(candidate.tokenizer.shown([token])) for token in candidate.tokenizer.stop_token_ids)
    yield f"{code(candidate.model.path)}, whose responses are ended by {stops}"
    pairs = zip(result.questions, result.answers, strict=True)
    for number, (question, answers) in enumerate(pairs, start=1):
        yield f"### Question {number}"
        yield from asked(question, candidate.tokenizer)
        yield from answered([(one.grade, one.tokens, one.finish_reason, one.text) for one in answers])
