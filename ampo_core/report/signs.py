"""What shows that a run learns nothing: one `Sign` for each way, judged from a step's metrics and the run's config.

All thresholds stand here. `watch.py` counts the steps in which a sign shows, and says it after so many in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ampo_core.config.nodes import value_at

FEW = 5
"""Steps in a row after which most signs are said: one may be bad luck, and five are soon over."""
UNLUCKY = 10
"""… where only the answers are wrong, which hard questions explain for a while."""
GUIDED = 50
"""… where teacher answers are trained on all the same: imitation takes its time."""
LOST = 3
"""… for a policy without entropy: it writes the same again whatever comes, and does not come back."""
EVALUATIONS = 3
"""Evaluations in a row: the first of them is that of the start model, which need not know the format."""
CUT_OFF = 0.95
"""Share of the responses that hit the limit: what one in twenty teaches is how to be short."""
NO_ENTROPY = 0.05
"""Nats a token below which a policy that is never right has collapsed. A sharp one that is right may be as low."""
UNVERIFIED = 0.9
"""Share of the responses without a verdict: what is left is too little to learn from."""
WORSE_BY = 1.0
"""Nats a token that a loss of `sft` lies above the first one: no batch is so much harder than another."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step's metrics, the run's config in JSON types, the run's first loss (NaN before there is one), and whether a
    teacher answer has ever been trained on.

    Of an evaluation `metrics` are those of the set `held_out`, by their short names.
    """

    number: int
    metrics: Mapping[str, float]
    config: Mapping[str, Any]
    first_loss: float = math.nan
    guided: bool = False
    held_out: str | None = None

    def __getitem__(self, metric: str) -> float:
        """A metric's value; NaN, which no comparison holds for, where it was not measured or is not finite."""
        value = self.metrics.get(metric)
        return math.nan if value is None or not math.isfinite(value) else value

    def setting(self, key: str) -> Any:
        """The config's value at a dotted key; None where it is not there."""
        return value_at(self.config, tuple(key.split(".")))

    @property
    def taught(self) -> bool:
        """True if a teacher's tokens are trained on, in a group or by an auxiliary term alone."""
        return self["guidance/replaced"] > 0 or self["tokens/teacher"] > 0

    @property
    def asks_for_format(self) -> bool:
        """True iff the reward pays for the format; a held-out set may have a reward of its own."""
        own = self.held_out and value_at(self.config, ("evaluation", "sets", self.held_out, "reward"))
        weight = (own or self.setting("reward") or {}).get("format_weight")
        return weight is None or weight > 0


@dataclass(frozen=True, slots=True)
class Sign:
    """Something that shows that nothing is learnt: said of `after` steps in a row in which it `holds`.

    `what` says what was seen in these steps, `look` which keys to look at. A step without one of the metrics `needs`
    says nothing. `unless` are signs that explain this one: where one of them shows, it does not.
    """

    kind: str
    after: int
    needs: tuple[str, ...]
    holds: Callable[[Step], bool]
    what: Callable[[Sequence[Step]], str]
    look: str
    unless: frozenset[str] = field(default_factory=frozenset)


def _cut_off(steps: Sequence[Step]) -> str:
    limit = steps[-1].setting("rollout.max_response_tokens")
    return f"{_share(steps, 'response/truncated')} cut off at rollout.max_response_tokens = {limit}"


def _share(steps: Sequence[Step], metric: str) -> str:
    least = min(step[metric] for step in steps)
    return "every response was" if least == 1 else f"{least:.0%} or more of the responses were"


def _no_verdict(step: Step) -> bool:
    rollouts = step["groups/sampled"] * (step.setting("rollout.group_size") or math.nan)
    return step["verifier/timeouts"] + step["verifier/errors"] >= UNVERIFIED * rollouts


def _no_verdicts(steps: Sequence[Step]) -> str:
    timeouts, errors = (sum(step[name] for step in steps) for name in ("verifier/timeouts", "verifier/errors"))
    return f"the verifier gave hardly a verdict: {timeouts:g} timeouts and {errors:g} errors"


def _collapsed(steps: Sequence[Step]) -> str:
    last = steps[-1]
    rate = f", learning rate {last['policy/learning_rate']:g}"
    return f"the policy has collapsed: entropy {last['policy/entropy']:.4f} nats a token, no response is right{rate}"


def _no_guidance(steps: Sequence[Step]) -> str:
    reasons = {
        "guidance/left_out_overlong": "longer than rollout.max_response_tokens",
        "guidance/left_out_incorrect": "not verified as correct",
        "guidance/left_out_ungraded": "without a verdict",
    }
    found = {why: sum(step.metrics.get(name) or 0 for step in steps) for name, why in reasons.items()}
    counted = [f"{count:g} {why}" for why, count in found.items() if count]
    why = f"their teacher answers were left out: {', '.join(counted)}" if counted else "no answer for them is left"
    return f"groups needed guidance and none got any; {why}"


def _unscorable(steps: Sequence[Step]) -> str:
    count = sum(step["guidance/unscorable"] for step in steps)
    return f"none of {count:g} candidates could be scored: each has the score 0, and guidance.selector still chooses"


def _no_groups(steps: Sequence[Step]) -> str:
    drop = steps[-1].setting("objective.group_filter.drop")
    why = f"objective.group_filter drops what is {' or '.join(drop)}" if drop else "nothing in them has a verdict"
    return f"no group was trained on: {why}"


def _no_advantage(steps: Sequence[Step]) -> str:
    found = {step["reward/accuracy"] for step in steps}
    level = {0.0: "no response is right", 1.0: "every response is right"}
    which = level[found.pop()] if len(found) == 1 and found <= level.keys() else "right or wrong as a whole"
    nothing = " and nothing was trained" if not any(step["tokens/trained"] for step in steps) else ""
    return f"every advantage was 0{nothing}: within each group the rewards are the same, {which}"


def _no_tokens(steps: Sequence[Step]) -> str:
    last = steps[-1]
    masked = last.setting("objective.on_policy.mask_truncated") and last["response/truncated"] >= CUT_OFF
    why = "mask_truncated leaves out what was cut off" if masked else "no sequence had a gradient"
    return f"every update was empty, 0 tokens were trained: {why}"


def _worse(steps: Sequence[Step]) -> str:
    return f"the loss is {steps[-1]['policy/loss']:.2f} nats a token, above {steps[-1].first_loss:.2f} at the start"


NO_RESPONSE = frozenset({"cut_off", "empty", "no_format", "no_verdict", "collapsed", "no_reward"})
"""What explains that no response is right."""
_SAMPLES = "and at texts in samples.jsonl"
TRAINING = (
    Sign(
        "collapsed", LOST, ("policy/entropy", "reward/accuracy"),
        lambda step: step["policy/entropy"] < NO_ENTROPY and step["reward/accuracy"] == 0, _collapsed,
        "training.learning_rate, training.grad_clip; start again from an earlier checkpoint",
    ),
    Sign(
        "cut_off", FEW, ("response/truncated",), lambda step: step["response/truncated"] >= CUT_OFF, _cut_off,
        f"rollout.max_response_tokens, model.stop, model.chat_template, {_SAMPLES}: does a response come to an end?",
    ),
    Sign(
        "empty", FEW, ("response/length_mean",), lambda step: step["response/length_mean"] <= 1,
        lambda _: "every response was empty: its first token ended it",
        "model.path, model.chat_template, training.learning_rate", frozenset({"cut_off"}),
    ),
    Sign(
        "no_verdict", FEW, ("groups/sampled", "verifier/timeouts", "verifier/errors"), _no_verdict, _no_verdicts,
        "what the screen says of the first response without a verdict, reward.timeout_s, reward.max_error_rate",
    ),
    Sign(
        "no_format", FEW, ("reward/format",), lambda step: step["reward/format"] == 0 and step.asks_for_format,
        lambda _: "no response was in the asked format",
        f"what was said of prompts at the start, data.train, data.system_prompt, reward.format_weight, {_SAMPLES}",
        frozenset({"cut_off", "empty", "collapsed"}),
    ),
    Sign(
        "no_reward", FEW, ("reward/max",), lambda step: step["reward/max"] <= 0 and not step.taught,
        lambda _: "no response earned more than 0",
        f"reward (can it read these responses and ground truths?), data.train, {_SAMPLES}",
        NO_RESPONSE - {"no_reward"},
    ),
    Sign(
        "no_guidance", FEW, ("guidance/triggered", "guidance/replaced"),
        lambda step: step["guidance/triggered"] > 0 and not step.guided, _no_guidance,
        "rollout.max_response_tokens, guidance.teacher_pool, and whether reward accepts the answers in data.train",
    ),
    Sign(
        "unscorable", FEW, ("guidance/scored", "guidance/unscorable"),
        lambda step: step["guidance/unscorable"] > 0 and step["guidance/scored"] == 0, _unscorable,
        "the teacher answers (exactly one <answer>; a pool job's unify writes it), training.tokens_per_microbatch",
    ),
    Sign(
        "teacher_format", FEW, ("guidance/format",), lambda step: step["guidance/format"] == 0 and step.asks_for_format,
        lambda _: "no teacher answer that was put in is in the asked format",
        "the teacher answers (<answer>…</answer>; a pool job's unify writes it), reward.format_weight",
        frozenset({"unscorable"}),
    ),
    Sign(
        "not_triggered", FEW, ("guidance/triggered", "reward/accuracy"),
        lambda step: step["guidance/triggered"] == 0 and step["reward/accuracy"] == 0,
        lambda _: "no response is right, and yet no group got guidance",
        "guidance.trigger, guidance.threshold",
    ),
    Sign(
        "never_triggered", GUIDED, ("guidance/triggered", "reward/accuracy"),
        lambda step: step["guidance/triggered"] == 0 and step["reward/accuracy"] > 0,
        lambda _: "no group needed guidance, so that none of it was ever used",
        "guidance.trigger, guidance.threshold, data.train (too easy?)",
    ),
    Sign(
        "all_triggered", UNLUCKY, ("guidance/triggered", "reward/accuracy"),
        lambda step: step["guidance/triggered"] == 1 and step["reward/accuracy"] == 0 and step.taught,
        lambda _: "every group needed guidance: no response is right",
        f"data.train (too hard?), model.path, reward, {_SAMPLES}", NO_RESPONSE | {"no_guidance"},
    ),
    Sign(
        "right_is_wrong", FEW, ("guidance/triggered", "reward/accuracy"),
        lambda step: step["guidance/triggered"] == 1 and step["reward/accuracy"] > 0 and
        step.setting("guidance.trigger.type") == "adaptive",
        lambda _: "every group got guidance although responses are right: penalties take their reward below τ",
        "guidance.threshold, reward.overlong_penalty, reward.repetition_penalty",
    ),
    Sign(
        "no_groups", FEW, ("groups/trained",), lambda step: step["groups/trained"] == 0 and not step.taught, _no_groups,
        "objective.group_filter, reward/accuracy in the report: are the questions too hard, or too easy?",
        frozenset({"no_verdict"}),
    ),
    Sign(
        "no_advantage", FEW, ("groups/with_signal", "groups/trained", "reward/accuracy"),
        lambda step: step["groups/with_signal"] == 0 and step["groups/trained"] > 0, _no_advantage,
        "data.train (too hard, or too easy?), rollout.group_size, rollout.temperature, guidance",
        NO_RESPONSE | {"not_triggered"},
    ),
    Sign(
        "no_tokens", FEW, ("tokens/trained", "groups/trained"),
        lambda step: step["tokens/trained"] == 0 and step["groups/trained"] > 0, _no_tokens,
        "objective.on_policy.mask_truncated, rollout.max_response_tokens, reward", frozenset({"no_advantage"}),
    ),
    Sign(
        "never_right", UNLUCKY, ("reward/accuracy",),
        lambda step: step["reward/accuracy"] == 0 and not step.taught,
        lambda _: "no response was right",
        f"data.train (too hard?), reward, guidance, {_SAMPLES}",
        NO_RESPONSE | {"not_triggered", "no_guidance", "no_advantage"},
    ),
    Sign(
        "not_taught", GUIDED, ("reward/accuracy",),
        lambda step: step["reward/accuracy"] == 0 and step.taught,
        lambda _: "no response was right, although teacher answers are trained on",
        f"training.learning_rate, objective.off_policy, {_SAMPLES}", NO_RESPONSE | {"all_triggered"},
    ),
)  # fmt: skip
UPDATES = (
    Sign(
        "skipped", FEW, ("policy/skipped_updates",),
        lambda step: step["policy/skipped_updates"] > 0 and math.isnan(step["policy/grad_norm"]),
        lambda _: "every update was left out: its gradient was not finite", "training.learning_rate, model.dtype",
    ),
    Sign(
        "no_gradient", FEW, ("policy/grad_norm", "tokens/trained"),
        lambda step: step["policy/grad_norm"] == 0 and step["tokens/trained"] > 0,
        lambda _: "the gradient was 0, and no weight was changed", "objective, model.lora",
    ),
)  # fmt: skip
SUPERVISED = (
    Sign(
        "worse", FEW, ("policy/loss",), lambda step: step["policy/loss"] > step.first_loss + WORSE_BY, _worse,
        "training.learning_rate, training.warmup_ratio, training.grad_clip",
    ),
)  # fmt: skip
HELD_OUT = (
    Sign(
        "cut_off", EVALUATIONS, ("truncated",), lambda step: step["truncated"] >= CUT_OFF,
        lambda steps: f"{_share(steps, 'truncated')} cut off",
        "evaluation.max_response_tokens, rollout.max_response_tokens, the models' stop and chat_template",
    ),
    Sign(
        "empty", EVALUATIONS, ("length_mean",), lambda step: step["length_mean"] <= 1,
        lambda _: "every response was empty", "the models' path and chat_template", frozenset({"cut_off"}),
    ),
    Sign(
        "no_format", EVALUATIONS, ("format",), lambda step: step["format"] == 0 and step.asks_for_format,
        lambda _: "no response was in the asked format",
        "data.system_prompt, the models' chat_template, reward", frozenset({"cut_off", "empty"}),
    ),
)  # fmt: skip
SIGNS = {"train": (*TRAINING, *UPDATES), "sft": (*UPDATES, *SUPERVISED)}
"""job -> the signs of its steps, what explains others first."""
