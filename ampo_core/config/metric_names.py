"""The metrics that a job can log, as far as its config decides: what `checkpoint.best` may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from ampo_registry.specs import RewardSpec
from ampo_registry.step import CORE

from ampo_core.config.held_out import HeldOutConfig

T = TypeVar("T")
ANSWERS, TEACHER = "guidance/answers/NAME", "guidance/teacher/NAME"
"""Any teacher's name may stand for NAME."""
TERM_LOSS = "policy/loss/NAME"
"""Any term's name may stand for NAME."""
MACRO = "eval/macro/avg"
MEASURED = "measured by losses"
_UPDATES = (
    "policy/loss",
    "policy/grad_norm",
    "policy/learning_rate",
    "policy/skipped_updates",
    "tokens/trained",
    "tokens/padding",
    "time/step_s",
)
SFT = (*_UPDATES, "tokens/answers")
TRAIN = (
    *_UPDATES,
    "reward/mean",
    "reward/max",
    "reward/accuracy",
    "reward/format",
    "response/length_mean",
    "response/truncated",
    "response/unknown_tokens",
    "groups/sampled",
    "groups/trained",
    "groups/with_signal",
    "policy/empty_updates",
    "policy/loss_on",
    "policy/loss_off",
    "policy/entropy",
    "policy/clip_fraction",
    "policy/rollout_logprob_gap",
    "policy/probe_logprob_gap",
    "policy/importance_weight",
    "rollout/staleness",
    "verifier/timeouts",
    "verifier/errors",
    "tokens/generated",
    "time/rollout_s",
    "time/reward_s",
    "time/guidance_s",
    "time/credit_s",
    "time/update_s",
    "time/sync_s",
)
GUIDANCE = (
    "guidance/triggered",
    "guidance/replaced",
    "guidance/score_mean",
    "guidance/left_out_incorrect",
    "guidance/left_out_overlong",
    "guidance/left_out_ungraded",
    "guidance/scored",
    "guidance/unscorable",
    "guidance/format",
    "guidance/generated",
    "tokens/teacher",
    ANSWERS,
    TEACHER,
)
_OF_A_SET = ("length_mean", "truncated", "format", "timeouts", "errors")


def by_teacher(metrics: Mapping[str, T], name: str) -> dict[str, T]:
    """teacher -> what `metrics` hold for it under `name`, which is ANSWERS or TEACHER."""
    start = name.removesuffix("NAME")
    return {metric.removeprefix(start): value for metric, value in metrics.items() if metric.startswith(start)}


def group_of_plugin(metric: str) -> str | None:
    """The heading under which a report shows a metric of a plugin; None for one of the core's own.

    That is the first part of a name that a hook logged or a reward gave (`mine` of mine/share), what a loss measures
    (policy/NAME and policy/NAME/TERM), and of a reward's number in an evaluation (eval/SET/NAME) the set.
    """
    first, _, rest = metric.partition("/")
    if not metric.startswith(CORE):
        return first
    if first == "policy" and metric not in TRAIN and not metric.startswith(TERM_LOSS.removesuffix("NAME")):
        return MEASURED
    name, _, short = rest.partition("/")
    if (
        first == "eval"
        and short
        and not short.startswith(("avg@", "pass@"))
        and short not in ("avg", "entropy", *_OF_A_SET)
    ):
        return f"held-out {name}"
    return None


def evaluation_metrics(evaluation: HeldOutConfig | None, reward: RewardSpec | None = None) -> list[str]:
    """The names of an evaluation's metrics, `eval/macro/avg` first; none without an evaluation. `reward` grades the
    sets that have none of their own."""
    if evaluation is None:
        return []
    names = [MACRO, *(f"eval/{name}/avg" for name in evaluation.groups)]
    entropy = ["entropy"] if evaluation.temperature > 0 else []
    for name, item in evaluation.sets.items():
        own = [f"avg@{item.samples}", *(f"pass@{k}" for k in item.tries()), *_OF_A_SET, *entropy]
        own += () if (verifier := item.reward or reward) is None else verifier.logs
        names += [f"eval/{name}/{short}" for short in own]
    return names
