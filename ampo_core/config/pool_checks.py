"""Rules between the keys of a `pool` job, and what it needs of this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec

from ampo_core.config.nodes import Finding, KeyPath, nearest
from ampo_core.config.pool_job import PoolJob, PoolTeacher

SFT = "sft"
SOURCES = ("model", "endpoint", "recorded")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def pool_findings(job: PoolJob) -> Iterator[Finding]:
    """What is wrong with a pool job that is valid field by field, and what it says in vain."""
    names = [teacher.name for teacher in job.teachers]
    for i, teacher in enumerate(job.teachers):
        if teacher.name in names[:i]:
            yield Finding(("teachers", i, "name"), f"{teacher.name!r} is taken by an earlier one")
        yield from _named(teacher.name, ("teachers", i, "name"))
        yield from _teacher(teacher, ("teachers", i), job)
    yield from _compositions(job, names)
    if uses_rollout(job) and (reason := job.rollout.unfit(job.resources.devices * job.resources.nodes)) is not None:
        yield Finding(("rollout",), reason)
    yield from _vain(job)


def pool_missing(job: PoolJob) -> Iterator[tuple[KeyPath, str]]:
    """What endpoints of `job` need and this machine lacks: the key in the environment, the client library."""
    for i, teacher in enumerate(job.teachers):
        if teacher.endpoint is None:
            continue
        path: KeyPath = ("teachers", i, "endpoint")
        key = teacher.endpoint.key_env
        if key is not None and not os.environ.get(key):
            yield (*path, "key_env"), f"the environment has no variable {key}; export {key}=… with the endpoint's key"
        if find_spec("openai") is None:
            yield path, "the package openai is not installed: pip install 'ampo-rl[endpoint]'"


def uses_rollout(job: PoolJob) -> bool:
    """True if a teacher is a model that is sampled here."""
    return any(teacher.model is not None for teacher in job.teachers)


def _teacher(teacher: PoolTeacher, path: KeyPath, job: PoolJob) -> Iterator[Finding]:
    given = [source for source in SOURCES if getattr(teacher, source) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        yield Finding(path, f"a teacher has exactly one of {', '.join(SOURCES)}; found {found}")
    if teacher.endpoint is not None and any(sign in teacher.endpoint.url for sign in "?#"):
        text = "a base URL ends before any '?' or '#'; a key belongs into the variable that key_env names"
        yield Finding((*path, "endpoint", "url"), text)
    ranks = job.resources.devices * job.resources.nodes
    if teacher.endpoint is not None and teacher.endpoint.concurrency < ranks:
        text = f"found {teacher.endpoint.concurrency}, fewer than the {ranks} ranks that ask at once"
        yield Finding((*path, "endpoint", "concurrency"), text)
    if teacher.recorded is not None:
        for option in ("system_prompt", "temperature", "top_p", "max_response_tokens"):
            if option in teacher.model_fields_set:
                yield Finding((*path, option), "the answers are recorded already; nothing reads this", "warning")
    if teacher.endpoint is not None and job.record_logprobs:
        text = "an endpoint's answers are recorded without log-probs: its tokens are not known here"
        yield Finding(("record_logprobs",), f"teacher {teacher.name}: {text}", "warning")


def _compositions(job: PoolJob, names: list[str]) -> Iterator[Finding]:
    for name, members in job.compositions.items():
        path: KeyPath = ("compositions", name)
        yield from _named(name, path)
        if name == SFT or name.startswith(f"{SFT}_"):
            yield Finding(path, f"found the name {name!r}; names of SFT files begin so: choose another")
        if not members:
            yield Finding(path, "names no teacher")
        for i, member in enumerate(members):
            if member not in names:
                yield Finding((*path, i), f"there is no teacher {member!r}{nearest(member, names)}")
            elif member in members[:i]:
                yield Finding((*path, i), f"{member!r} stands twice")
    used = {member for members in job.compositions.values() for member in members}
    for i, name in enumerate(names):
        if job.compositions and name not in used:
            yield Finding(("teachers", i, "name"), f"no composition names {name!r}: it would answer in vain", "warning")


def _vain(job: PoolJob) -> Iterator[Finding]:
    text = "a pool job samples each teacher with the teacher's own options and answers_per_question; nothing reads this"
    for option in ("group_size", "temperature", "max_response_tokens", "ahead"):
        if option in job.rollout.model_fields_set:
            yield Finding(("rollout", option), text, "warning")
    text = "a pool keeps what verifies as correct, whatever its reward; nothing reads this"
    for option in ("format_weight", "repetition_penalty", "overlong_penalty"):
        if option in job.reward.model_fields_set and getattr(job.reward, option) is not None:
            yield Finding(("reward", option), text, "warning")


def _named(name: str, path: KeyPath) -> Iterator[Finding]:
    if not _NAME.fullmatch(name):
        text = f"found the name {name!r}; expected letters, digits, '.', '_' and '-', a letter or digit first"
        yield Finding(path, text)
