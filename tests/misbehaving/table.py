"""kind × misbehaviour: what a method does, and what must be said of it.

`METHODS` are the methods of each kind, with a body that is fine; a case replaces one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

STARTED, REFUSED = 1, 2
"""Exit codes: the run had begun, or nothing was started."""


@dataclass(frozen=True)
class Kind:
    """A kind: the base of its specs, the methods with good bodies, and the arguments of `ampo-run` that use it."""

    base: str
    methods: Mapping[str, str]
    use: tuple[str, ...]
    extra: str = ""


@dataclass(frozen=True)
class Case:
    """A `method` of `kind` whose body is `does`. `said` must be in the message, beside component, class and method."""

    kind: str
    method: str
    does: str
    said: tuple[str, ...]
    code: int = STARTED
    quick: bool = False
    asks: tuple[str, ...] = field(default=())
    within: str = ""
    """The method that the message names, if it is another one."""

    @property
    def name(self) -> str:
        """A name for the test's id."""
        does = self.does.removeprefix(ENGINE.partition("{}")[0])
        return f"{self.kind}-{self.method.partition('(')[0]}-{self.within}-{does}".replace("\n", ";").replace(" ", "")[
            :110
        ]


ALL_CORRECT = ("rollout={type: right, group_size: 4, max_response_tokens: 24}",)
AT_ONCE = ("training.max_skipped_steps=1",)
"""The first update that is skipped ends the run."""
ENGINE = "return type('Mine', (Engine,), dict(generate=lambda self, requests, options: {}))()"
KINDS = {
    "trigger": Kind("TriggerSpec", {"fires(self, group, context)": "return True"}, ("guidance.trigger=odd",)),
    "teacher_pool": Kind(
        "TeacherPoolSpec",
        {
            "answers(self, question)": "return question.answers",
            "check_questions(self, questions)": "return None",
        },
        ("guidance.teacher_pool=odd",),
    ),
    "selector": Kind(
        "SelectorSpec",
        {"select(self, requests, context)": "return [[Selection(r.candidates[0])] for r in requests]"},
        ("guidance.selector=odd",),
    ),
    "scoring": Kind(
        "ScoringSelectorSpec",
        {
            "score(self, requests, context)": "return [[0.0 for _ in r.candidates] for r in requests]",
            "rank_key(self, candidate, score)": "return score",
        },
        ("guidance.selector=odd",),
    ),
    "intervention": Kind(
        "InterventionSpec",
        {
            "intervene(self, requests, context)": "return Intervened(tuple(Guided((r.samples,)) for r in requests))",
        },
        ("guidance.intervention=odd",),
    ),
    "advantage": Kind(
        "AdvantageSpec",
        {"advantages(self, rewards, correct, off_policy)": "return rewards - rewards.mean()"},
        ("objective.advantage=odd", "guidance=null"),
    ),
    "credit": Kind(
        "CreditSpec",
        {"credit(self, groups, context)": "return [[0.0 for _ in g.samples] for g in groups]"},
        ("objective.advantage=odd",),
    ),
    "judge": Kind(
        "JudgeSpec",
        {"logprobs(self, requests, temperature)": "return [LogProbs([-1.0] * len(r.token_ids)) for r in requests]"},
        ("judges={mine: odd}", "objective.advantage={type: distill, judge: mine}"),
    ),
    "loss": Kind(
        "LossSpec",
        {"token_losses(self, view)": "return -view.advantages * view.log_probs"},
        ("objective.on_policy.loss=odd",),
    ),
    "aggregator": Kind(
        "AggregatorSpec",
        {
            "token_weights(self, lengths, totals)": "return 1.0 / (lengths.double().clamp(min=1) * len(lengths))",
            "depends_on_count(self)": "return True",
        },
        ("objective.on_policy.aggregator=odd",),
    ),
    "shaping": Kind(
        "ShapingSpec", {"shape(self, log_ratio)": "return log_ratio"}, ("objective.off_policy.loss.shaping=odd",)
    ),
    "schedule": Kind(
        "ScheduleSpec",
        {"value(self, step, steps, metrics)": "return 0.6", "range(self)": "return None"},
        ("objective.off_policy.weight=odd",),
    ),
    "rollout": Kind(
        "RolloutSpec",
        {"build(self, context)": "return Engine()"},
        ("rollout={type: odd, group_size: 4, max_response_tokens: 24}",),
    ),
    "reward": Kind(
        "RewardSpec",
        {
            "grade(self, requests)": "return [self.combine('1' in r.text, True) for r in requests]",
            "check_truth(self, answer)": "return None",
            "canaries(self)": "return ()",
            "earns(self, correct)": "return None",
        },
        ("reward={type: odd, workers: 1, max_error_rate: 0.0}",),
    ),
    "tracker": Kind(
        "TrackerSpec",
        {
            "build(self, context)": "return self",
            "log(self, metrics, step)": "return None",
            "close(self)": "return None",
        },
        ("tracking=[odd]",),
    ),
}
GUARDED = (
    ("raise RuntimeError('it broke')", "RuntimeError: it broke"),
    ("sys.exit(0)", "SystemExit: 0"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("raise StopIteration", "StopIteration"),
    ("raise PluginError('my table is empty')", "my table is empty"),
)
"""What every method may do, and what is said of it."""


def _guarded() -> Iterator[Case]:
    quick = {"trigger"}
    for kind, (method, code) in {
        "trigger": ("fires", STARTED),
        "teacher_pool": ("answers", REFUSED),
        "selector": ("select", STARTED),
        "scoring": ("score", STARTED),
        "intervention": ("intervene", STARTED),
        "advantage": ("advantages", STARTED),
        "credit": ("credit", STARTED),
        "judge": ("logprobs", STARTED),
        "loss": ("token_losses", STARTED),
        "aggregator": ("token_weights", STARTED),
        "shaping": ("shape", STARTED),
        "schedule": ("value", STARTED),
        "rollout": ("build", REFUSED),
        "tracker": ("build", REFUSED),
    }.items():
        for does, said in GUARDED:
            yield Case(kind, method, does, (said,), code, quick=kind in quick and does == "sys.exit(0)")
    for does, said in GUARDED:
        yield Case("reward", "grade", does, (said, "had no verdict"))
        yield Case("reward", "canaries", does, (said, "the reward cannot be started"), REFUSED)
        yield Case("reward", "earns", does, (said,), REFUSED)
        yield Case("teacher_pool", "check_questions", does, (said,), REFUSED)
        yield Case("scoring", "rank_key", does, (said,), within="score")
        yield Case("judge", "check(self, context)", does, (said,), REFUSED)
        yield Case("credit", "check(self, questions, judges, teachers)", does, (said,), REFUSED)


def _built() -> Iterator[Case]:
    wanted = {
        "trigger": "fires()",
        "teacher_pool": "answers() and check_questions()",
        "selector": "select()",
        "intervention": "intervene()",
        "advantage": "credit()",
        "judge": "logprobs()",
        "loss": "token_losses()",
        "aggregator": "token_weights()",
        "shaping": "shape()",
        "schedule": "value()",
        "rollout": "generate() and load_weights() and sleep() and wake() and close()",
        "tracker": "log() and close()",
    }
    for kind, methods in wanted.items():
        expected = f"expected a {kind}, which has {methods}"
        yield Case(kind, "build(self, context)", "return None", ("gave None;", expected), REFUSED)
        yield Case(kind, "build(self, context)", "return object()", ("gave object", expected), REFUSED)


def _of(kind: str, method: str, *cases: tuple[str, str], code: int = STARTED, quick: str = "") -> Iterator[Case]:
    for does, said in cases:
        yield Case(kind, method, does, (said,), code, quick=does == quick)


def _engine(*cases: tuple[str, str]) -> Iterator[Case]:
    for does, said in cases:
        yield Case("rollout", "build(self, context)", ENGINE.format(does), (said,), within="generate")


def _guidance() -> Iterator[Case]:
    yield from _of(
        "trigger",
        "fires",
        ("return None", "gave None; expected True or False"),
        ("return 'no'", "gave 'no'; expected True or False"),
        ("return float('nan')", "gave nan; expected True or False"),
        ("return 1", "gave 1; expected True or False"),
        quick="return None",
    )
    yield from _of(
        "teacher_pool",
        "answers",
        ("return None", "gave None; expected a list of TeacherAnswer"),
        ("return 'text'", "gave 'text'; expected a list of TeacherAnswer"),
        ("return ['text']", "gave 'text'; expected TeacherAnswers"),
        ("return [None]", "gave None; expected TeacherAnswers"),
        ("return [TeacherAnswer('', 'x')]", "expected TeacherAnswers with the names of their teachers"),
        ("return [TeacherAnswer('A', None)]", "expected TeacherAnswers"),
        ("return [TeacherAnswer('A', 'x', quality_score=math.nan)]", "finite scores or None"),
        code=REFUSED,
    )
    yield from _of(
        "selector",
        "select",
        ("return None", "gave None; expected a list with one list of Selections for each request"),
        ("return {}", "gave dict {}; expected a list with one list"),
        ("return []", "gave 0 lists of Selections for 2 requests"),
        ("requests.clear(); return []", "AttributeError: 'tuple' object has no attribute 'clear'"),
        ("return [None for r in requests]", "gave None; expected a list of Selections"),
        ("return [[r.candidates[0]] for r in requests]", "expected a list of Selections"),
        ("return [[Selection(c) for c in r.candidates] for r in requests]", "gave candidates [0, 1]"),
        ("return [[Selection(Guidance('A', 'x', [1], r.candidates[0].grade))] for r in requests]", "candidates [-1]"),
        ("return [[Selection(r.candidates[0], math.nan)] for r in requests]", "gave the score nan"),
        ("return [[Selection(r.candidates[0], 'best')] for r in requests]", "gave the score 'best'"),
        ("requests[0].candidates = (); return []", "FrozenInstanceError"),
    )
    yield from _of(
        "scoring",
        "score",
        ("return None", "score() gave None"),
        ("return []", "score() gave 0 lists of scores for 2 requests"),
        ("return [None for r in requests]", "score() gave None"),
        ("return [[0.0] for r in requests]", "score() gave 1 scores for 2 candidates"),
        ("return [[math.nan for _ in r.candidates] for r in requests]", "is nan; expected a number"),
        ("return [['best' for _ in r.candidates] for r in requests]", "is 'best'; expected a number"),
        ("return [[None for _ in r.candidates] for r in requests]", "is None; expected a number"),
    )
    yield from (
        Case("scoring", "rank_key", does, (said,), within="score")
        for does, said in (
            ("return None", "the rank key of"),
            ("return math.nan", "is nan; expected a number"),
            ("return 'a'", "is 'a'; expected a number"),
        )
    )
    yield from _of(
        "intervention",
        "intervene",
        ("return None", "gave None; expected an Intervened"),
        ("return [Guided((r.samples,)) for r in requests]", "expected an Intervened"),
        ("return Intervened(())", "gave 0 Guided for 2 requests"),
        ("return Intervened((None, None))", "is a Guided for each request; found NoneType"),
        ("return Intervened(tuple(Guided(r.samples) for r in requests))", "a single one is Guided((samples,))"),
        (
            "return Intervened(tuple(Guided(None) for r in requests))",
            "`groups` are groups of samples, none at all is (); found NoneType",
        ),
        ("return Intervened(tuple(Guided((r.group.rollouts,)) for r in requests))", "found Rollout in it"),
        ("return Intervened(tuple(Guided((requests[0].samples,)) for r in requests))", "a sample of question"),
        ("return Intervened(tuple(Guided((), r.samples) for r in requests))", "a sample for the term 'on_policy'"),
        (
            "return Intervened(tuple(Guided((r.samples,)) for r in requests), None)",
            "`extra` is a sequence of samples; found",
        ),
        ("return context.generate(None)", "TypeError: 'NoneType' object is not iterable"),
        ("context.log('reward/mean', 1.0)", "the metric 'reward/mean' needs a name of its own"),
        ("context.log('mine/x', math.nan)", "the metric 'mine/x' is nan"),
        (
            "from dataclasses import replace; return Intervened(tuple(Guided((tuple(replace(s, reward=math.inf) "
            "for s in r.samples),)) for r in requests))",
            "a sample with the reward inf",
        ),
    )


def _tensors() -> Iterator[Case]:
    yield from _of(
        "advantage",
        "advantages",
        ("return None", "gave None; expected a tensor of shape (4,)"),
        ("return [0.0] * len(rewards)", "expected a tensor of shape (4,)"),
        ("return rewards.sum()", "gave shape (); expected (4,)"),
        ("return (rewards - rewards.mean()).unsqueeze(1)", "gave shape (4, 1); expected (4,)"),
        ("return rewards[:-1]", "gave shape (3,); expected (4,)"),
        ("import torch; return torch.cat([rewards, rewards[:1]])", "gave shape (5,); expected (4,)"),
        ("return rewards.float()", "gave torch.float32; expected torch.float64"),
        ("return correct", "gave torch.bool; expected floating-point numbers"),
        ("return rewards * math.nan", "gave nan for rewards"),
        ("return rewards / 0", "for rewards"),
        ("return rewards.zero_()", "gave another rewards than it got, changed in place"),
    )
    yield from _of(
        "credit",
        "credit",
        ("return None", "gave None; expected a list"),
        ("return []", "gave 0 for 2"),
        ("return [[0.0] for g in groups]", "gave 1 for 4"),
        ("groups.clear(); return []", "gave 0 for 2"),
        ("return [[math.nan for _ in g.samples] for g in groups]", "gave nan; expected a finite number"),
        ("return [['much' for _ in g.samples] for g in groups]", "gave 'much'; expected a finite number"),
        ("return [[[0.0] for _ in g.samples] for g in groups]", "gave shape (1,)"),
    )
    yield from _of(
        "judge",
        "logprobs",
        ("return None", "gave None for"),
        ("return []", "gave 0 answers for"),
        ("return [[-1.0] for r in requests]", "gave 1 log-probs for 4 tokens"),
        ("return [[math.nan] * len(r.token_ids) for r in requests]", "gave the log-prob nan"),
        ("return [[0.5] * len(r.token_ids) for r in requests]", "gave the log-prob 0.5"),
        ("return [['a'] for r in requests]", "LogProbs: number 1 of 1 is 'a'"),
    )
    yield Case("advantage", "advantages", "return rewards + 1", ("exactly 0 for equal rewards",), asks=ALL_CORRECT)
    yield from _of(
        "aggregator",
        "token_weights",
        ("return None", "gave None; expected a tensor of shape"),
        ("return 1.0", "gave 1.0; expected a tensor of shape"),
        ("return lengths.double().mean()", "gave shape (); expected"),
        ("return lengths.double()[:-1]", "one weight for each sequence"),
        ("return -lengths.double()", "finite weights above 0"),
        ("return lengths.double() * 0", "gave the weight 0.0 for a sequence of 4 tokens"),
        ("return lengths.double() * math.nan", "gave the weight nan"),
        ("return lengths", "gave torch.int64; expected floating-point numbers"),
        ("return lengths.float()", "gave torch.float32; expected torch.float64"),
        ("lengths.zero_(); return lengths.double() + 1", "gave another lengths than it got, changed in place"),
    )
    yield from _of(
        "loss",
        "token_losses",
        ("return None", "gave None; expected a tensor of shape"),
        ("return 0.0", "gave 0.0; expected a tensor of shape"),
        ("return view.log_probs.sum()", "gave shape (); expected"),
        ("return view.log_probs[:-1]", "one loss for each token"),
        ("return view.log_probs.detach()", "gave values without a gradient"),
        ("view.lengths.zero_(); return view.log_probs", "gave another lengths than it got"),
        ("view.advantages.zero_(); return view.log_probs", "gave another advantages than it got"),
        ("return view.reference", "the loss reads reference, which its `needs` does not name"),
        ("view.measure('loss', view.log_probs); return view.log_probs", "the loss measures 'loss'"),
        quick="return view.log_probs.detach()",
    )
    yield from (
        Case("loss", "token_losses", does, (said,), asks=AT_ONCE)
        for does, said in (
            ("return view.log_probs * math.nan", "gave nan"),
            ("return view.log_probs / 0", "gave -inf"),
            ("return (view.log_probs * 0).sqrt()", "a gradient that is not finite"),
        )
    )
    yield from _of(
        "shaping",
        "shape",
        ("return None", "gave None; expected a tensor of shape"),
        ("return 1.0", "gave 1.0; expected a tensor of shape"),
        ("return log_ratio.sum()", "gave shape (); expected"),
        ("return log_ratio.detach()", "gave values without a gradient"),
        ("return log_ratio[:-1]", "one value for each token"),
    )
    yield Case("shaping", "shape", "return log_ratio * math.nan", ("gave nan",), asks=AT_ONCE, within="loss")
    yield from _of(
        "schedule",
        "value",
        ("return None", "gave None at step 1; expected a finite number"),
        ("return 'much'", "gave 'much' at step 1"),
        ("return math.nan", "gave nan at step 1"),
        ("return math.inf", "gave inf at step 1"),
        ("return True", "gave True at step 1"),
    )


def _sampling() -> Iterator[Case]:
    yield from _engine(
        ("None", "gave None for 2 requests"),
        ("[]", "gave 0 lists for 2 requests; expected a list of rollouts for each"),
        ("[None for r in requests]", "gave None for the 4 seeds of request 0"),
        ("[[] for r in requests]", "gave 0 rollouts for the 4 seeds of request 0"),
        ("[[self.one(s) for s in r.seeds[1:]] for r in requests]", "gave 3 rollouts for the 4 seeds of request 0"),
        ("[['text' for s in r.seeds] for r in requests]", "gave 'text' for request 0; expected a Rollout"),
        ("[[self.one(s, token_ids=[], logprobs=[]) for s in r.seeds] for r in requests]", "a response of 0 tokens"),
        (
            "[[self.one(s, token_ids=[5] * 25, logprobs=[-1.0] * 25) for s in r.seeds] for r in requests]",
            "a response of 25 tokens for request 0; expected 1 to 24",
        ),
        ("[[self.one(s, logprobs=[-1.0]) for s in r.seeds] for r in requests]", "1 log-probs for 4 tokens"),
        ("[[self.one(s, logprobs=[math.nan] * 4) for s in r.seeds] for r in requests]", "a log-prob of nan"),
        ("[[self.one(s, logprobs=[-math.inf] * 4) for s in r.seeds] for r in requests]", "a log-prob of -inf"),
        ("[[self.one(s, logprobs=[0.5] * 4) for s in r.seeds] for r in requests]", "a log-prob of 0.5"),
        ("[[self.one(s, finish_reason='eos') for s in r.seeds] for r in requests]", "the finish reason 'eos'"),
        ("[[self.one(s, finish_reason=None) for s in r.seeds] for r in requests]", "the finish reason None"),
        ("[[self.one(s, policy_version=7) for s in r.seeds] for r in requests]", "gave policy version 7"),
        ("[[self.one(s, policy_version=None) for s in r.seeds] for r in requests]", "gave policy version None"),
        ("[[self.one(s, text=None) for s in r.seeds] for r in requests]", "the text None"),
        ("[[self.one(s, token_ids=['a'] * 4) for s in r.seeds] for r in requests]", "TokenIds: number 1 of 4 is 'a'"),
        ("sys.exit(0)", "SystemExit: 0"),
        ("1 / 0", "ZeroDivisionError"),
        ("requests.clear()", "AttributeError"),
    )
    for method in ("load_weights", "wake", "sleep"):
        does = f"return type('Mine', (Engine,), dict({method}=lambda self, *given, **named: sys.exit(0)))()"
        yield Case("rollout", "build(self, context)", does, ("SystemExit: 0",), within=method)


def _verdicts() -> Iterator[Case]:
    yield from _of(
        "reward",
        "grade",
        ("return None", "gave None; expected a list of one Grade for one request"),
        ("return []", "expected a list of one Grade for one request"),
        ("return [True for r in requests]", "gave True; expected a Grade"),
        ("return [Grade(math.nan, True, True)]", "gave nan; expected a finite number as reward"),
        ("return [Grade('1', True, True)]", "gave '1'; expected a finite number as reward"),
        ("return [Grade(1.0, 1, True)]", "gave 1; expected True or False as correct"),
        ("return [Grade(1.0, True, None)]", "gave None; expected True or False as formatted"),
        ("return [Grade(1.0, True, True, 'late')]", "expected ok, timeout, error and a text"),
        ("return [Grade(1.0, True, True, numbers={'acc': 1.0})]", "the metric 'acc' needs a name of its own"),
        ("return [Grade(1.0, True, True, numbers={'mine/acc': 'much'})]", "expected names and numbers in numbers"),
        ("requests[0].extra['data_source'] = 1; return [requests[0].text.size]", "AttributeError"),
    )
    yield from _of(
        "reward",
        "check_truth",
        ("return 0", "gave 0; expected a reason or None"),
        ("return ' '", "gave ' '; expected a reason or None"),
        code=REFUSED,
    )
    yield from _of(
        "reward",
        "canaries",
        ("return 3", "gave 3; expected a list of (GradeRequest, True or False)"),
        ("return [('1', True)]", "expected a list of (GradeRequest, True or False)"),
        code=REFUSED,
    )
    yield from _of(
        "reward",
        "earns",
        ("return 0.5", "gave 0.5; expected (least, most), two finite numbers"),
        ("return (0.0, math.inf)", "expected (least, most), two finite numbers"),
        code=REFUSED,
    )


CASES = [*_guarded(), *_built(), *_guidance(), *_tensors(), *_sampling(), *_verdicts()]
