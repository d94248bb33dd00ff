"""What a step does in Python but the model: with sequences over bytes, and with tuples of numbers beside it.

    python benchmarks/loop_overhead.py                                  # 1,024 responses of 2,048 tokens
    python benchmarks/loop_overhead.py --tokens 512 2048 8192 --repeats 3

Two ranks, a process each, take a batch from the questions to samples.jsonl: requests, gathering what each has sampled,
verdicts, sequences, the rows that the learner forwards, metrics, reports. Only the sampler, the verifier and the model
are left out; their answers are made up before. The functions are the product's; those of the way with tuples stand
below. Seconds are the CPU time of both ranks together, so the time on one core; MiB are what token ids and log-probs of
the batch take on a rank.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ampo_registry import (
    BuildContext,
    Grade,
    GradeRequest,
    Message,
    Question,
    Rollout,
    RolloutGroup,
    RolloutRequest,
    SamplingOptions,
    StepContext,
    TokenIds,
)
from ampo_registry.discovery import discover
from rich.console import Console
from rich.table import Table

from ampo_core.config.objective import ObjectiveConfig
from ampo_core.distributed.ranks import Ranks, join_ranks
from ampo_core.learner.packing import microbatches
from ampo_core.learner.policy import Row
from ampo_core.loop.ahead import SampleAhead
from ampo_core.loop.credit import with_advantages
from ampo_core.loop.groups import GuidedBatch, unguided
from ampo_core.loop.metrics import group_metrics, group_report, rollout_metrics
from ampo_core.loop.objective import ObjectiveParts
from ampo_core.loop.old_policy import old_policy_metrics, plan_forwards
from ampo_core.loop.sampling import Sampler
from ampo_core.loop.sequences import minibatches, train_sequences
from ampo_core.run.folder import RunFolder

MIB, GROUP, STEP, VOCABULARY, PROMPT, MINIBATCH, MICROBATCH = 2**20, 8, 2, 151_936, 256, 64, 18_432
HOPS = ("requests and gathering", "verdicts", "sequences", "rows", "metrics", "reports")
Clock = Callable[[str], Any]
PlainPair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """`responses` of `tokens` each, as "compact" sequences or as "tuples"."""

    way: str
    responses: int
    tokens: int
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class PlainRollout:
    """A rollout with tuples."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: str
    policy_version: int


class MadeUp:
    """In the place of sampler and verifier: has every answer ready."""

    def __init__(self, case: Case, requests: Sequence[RolloutRequest]) -> None:
        kind: Any = Rollout if case.way == "compact" else PlainRollout
        generator = torch.Generator().manual_seed(0)
        self.rollouts: dict[int, Any] = {}
        for seed in (seed for request in requests for seed in request.seeds):
            ids = torch.randint(VOCABULARY, (case.tokens,), generator=generator).tolist()
            logprobs = (-torch.rand(case.tokens, generator=generator)).tolist()
            text = f"{seed} " + "abc " * case.tokens
            self.rollouts[seed] = kind(tuple(ids), tuple(logprobs), text, "length", STEP - 1)

    def generate(self, requests: Sequence[RolloutRequest], options: SamplingOptions) -> list[list[Any]]:
        return [[self.rollouts[seed] for seed in request.seeds] for request in requests]

    def grade(self, requests: Sequence[GradeRequest]) -> list[Grade]:
        return [Grade(float(i % 3 == 0), i % 3 == 0, True) for i in range(len(requests))]

    def wake(self) -> None: ...

    def sleep(self) -> None: ...


class World:
    """The questions and parts of a run, as `ampo-run` would build them, but for sampler and verifier."""

    def __init__(self, case: Case, ranks: Ranks, folder: Path) -> None:
        random, self.case, self.ranks, self.folder = Random(0), case, ranks, RunFolder(folder)
        prompts = [
            TokenIds(random.randrange(VOCABULARY) for _ in range(PROMPT)) for _ in range(case.responses // GROUP)
        ]
        self.questions = [
            Question(f"q{i}", (Message("user", f"{i}?"),), prompt, "7", "") for i, prompt in enumerate(prompts)
        ]
        catalog = discover().catalog
        options = {"on_policy": {"importance_cap": 2.0}}
        config = ObjectiveConfig.model_validate(options, context={"catalog": catalog})
        self.context = StepContext(STEP)
        self.objective = ObjectiveParts(config, BuildContext(), case.tokens).at(self.context)
        self.advantage = config.advantage.build(BuildContext())
        sampler = Sampler(
            engine=None,  # type: ignore[arg-type]
            options=SamplingOptions(1.0, 1.0, case.tokens, ()),
            known_ids=VOCABULARY,
            grader=None,  # type: ignore[arg-type]
            reward=catalog.resolve("reward", "math_verify"),
            ranks=ranks,
            ahead=SampleAhead(ranks),
            group_size=GROUP,
            threshold=BuildContext().build(0.6, "threshold"),
            seed=0,
        )
        made_up: Any = MadeUp(case, sampler.requests(self.questions, STEP, 0))
        self.sampler = replace(sampler, engine=made_up, grader=made_up)
        # what the model would give back for the longest response
        self.forwarded = (torch.full((case.tokens,), -0.5), torch.ones(case.tokens))


def step(world: World, clock: Clock) -> list[RolloutGroup]:
    """One step of `world`, hop by hop; returns its groups."""
    with clock("requests and gathering"):
        batch = world.sampler.sample(world.questions, STEP, 0)
    with clock("verdicts"):
        groups = world.sampler.grade(world.questions, batch, world.context)
    (compact if world.case.way == "compact" else tuples)(world, groups, clock)
    return groups


def compact(world: World, groups: Sequence[RolloutGroup], clock: Clock) -> None:
    """From groups to samples.jsonl, with the product's functions."""
    with clock("sequences"):
        questions = [unguided(group) for group in groups]
        guided = GuidedBatch(tuple(with_advantages(questions, world.advantage, world.context)))
        sequences = train_sequences(guided, STEP, world.objective.config, world.objective.needs)
        plan = plan_forwards(sequences, minibatches(sequences, MINIBATCH), world.objective, STEP, world.ranks)
    with clock("rows"):
        for mine in (plan.before, *plan.updates):
            pairs = [sequences[i].pair for i in mine]
            for chosen in microbatches([len(pair) for pair in pairs], budget(world.case)):
                Row.of([pairs[i] for i in chosen], world.ranks.device)
    with clock("metrics"):
        forwarded = dict.fromkeys(plan.counts, world.forwarded)
        metrics = {
            **rollout_metrics(groups, policy_version=STEP - 1, known_ids=VOCABULARY),
            **old_policy_metrics(sequences, plan.counts, forwarded, world.ranks),
            **group_metrics(len(groups), guided),
        }
    with clock("reports"):
        world.folder.log_metrics(STEP, metrics)
        world.folder.log_samples(
            STEP, [group_report(question) for question in guided.questions], GROUP, lambda ids: "a prompt"
        )


def tuples(world: World, groups: Sequence[RolloutGroup], clock: Clock) -> None:
    """The same with tuples: what touches tokens stands here, the rest is the product's."""
    rollouts: list[Any] = [rollout for group in groups for rollout in group.rollouts]
    prompts = [tuple(group.question.prompt_token_ids) for group in groups for _ in group.rollouts]
    with clock("sequences"):
        known = [torch.tensor(rollout.logprobs) for rollout in rollouts]
        pairs = [(prompt, rollout.token_ids) for prompt, rollout in zip(prompts, rollouts, strict=True)]
        lengths = [len(prompt) + len(response) for prompt, response in pairs]
        mine = world.ranks.balance(lengths)
    with clock("rows"):
        half = len(mine) // 2
        for part in (mine[:half], mine[half:], mine[half:]):
            for chosen in microbatches([lengths[i] for i in part], budget(world.case)):
                plain_row([pairs[part[i]] for i in chosen], world.ranks.device)
    with clock("metrics"):
        unknown = sum(sum(i >= VOCABULARY for i in r.token_ids) for r in rollouts if max(r.token_ids) >= VOCABULARY)
        gaps = [float((world.forwarded[0] - torch.tensor(rollouts[i].logprobs)).abs().sum()) for i in mine]
    with clock("reports"):
        world.folder.log_metrics(STEP, {"unknown": float(unknown), "gap": sum(gaps), "known": float(len(known))})


def plain_row(pairs: Sequence[PlainPair], device: torch.device) -> tuple[torch.Tensor, ...]:
    """The tensors of a row out of tuples."""
    lengths = [len(prompt) + len(response) for prompt, response in pairs]
    ends = list(accumulate(lengths))
    responses = [(end - len(response), end) for end, (_, response) in zip(ends, pairs, strict=True)]
    return (
        torch.tensor([[token for prompt, response in pairs for token in (*prompt, *response)]], device=device),
        torch.cat([torch.arange(length, device=device) for length in lengths])[None],
        torch.cat([torch.arange(start - 1, end - 1, device=device) for start, end in responses]),
        torch.tensor([token for _, response in pairs for token in response], device=device),
    )


def budget(case: Case) -> int:
    """Tokens of a micro-batch: the paper's, or one response."""
    return max(MICROBATCH, PROMPT + case.tokens)


def measure(case: Case, ranks: Ranks) -> dict[str, Any]:
    """CPU seconds of each hop on this rank, the least of some runs, and MiB of the batch's token ids and log-probs."""
    runs = []
    with TemporaryDirectory() as folder:
        world = World(case, ranks, Path(folder))
        for _ in range(case.repeats):
            seconds = dict.fromkeys(HOPS, 0.0)

            @contextmanager
            def clock(hop: str, seconds: dict[str, float] = seconds) -> Iterator[None]:
                started = time.process_time()
                yield
                seconds[hop] += time.process_time() - started

            groups = step(world, clock)
            runs.append(seconds)
        data = pickle.dumps([(r.token_ids, r.logprobs) for group in groups for r in group.rollouts])
        del groups
    tracemalloc.start()
    held = pickle.loads(data)  # noqa: S301
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(held) == case.responses
    return {"seconds": {hop: min(run[hop] for run in runs) for hop in HOPS}, "mib": size / MIB}


def measured_apart(case: Case, count: int) -> dict[str, Any]:
    """`measure` on `count` ranks, a process each: seconds of all together, MiB of one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(case))]
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, **place, "RANK": f"{i}", "LOCAL_RANK": "0"}
        )
        for i in range(count)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a rank has failed; what it said stands above")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    return {"seconds": {hop: sum(one["seconds"][hop] for one in found) for hop in HOPS}, "mib": found[0]["mib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=1024)
    parser.add_argument("--tokens", type=int, nargs="+", default=[2048])
    parser.add_argument("--ways", nargs="+", choices=("compact", "tuples"), default=["compact", "tuples"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Case(**json.loads(arguments.measure)), join_ranks(1))))
        return
    table = Table("tokens", "", *HOPS, "all, s", "MiB")
    for tokens in arguments.tokens:
        for way in arguments.ways:
            found = measured_apart(Case(way, arguments.responses, tokens, arguments.repeats), arguments.ranks)
            seconds = found["seconds"]
            cells = [f"{seconds[hop]:.3f}" for hop in HOPS]
            table.add_row(f"{tokens:,}", way, *cells, f"{sum(seconds.values()):.2f}", f"{found['mib']:.1f}")
    console = Console(width=130)
    console.print(f"{arguments.responses:,} responses, {arguments.ranks} ranks, CPU seconds", highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
