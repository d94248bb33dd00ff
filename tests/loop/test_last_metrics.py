"""What the next step's schedules may read of the one before."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import torch

from ampo_core.distributed.ranks import Ranks
from ampo_core.loop.judges import Judges
from ampo_core.loop.services import Services

NO_JUDGES = Judges(None, {}, declared=(), temperature=1.0, most=99)  # type: ignore[arg-type]


def services() -> Services:
    sampler: Any = SimpleNamespace(ranks=Ranks(0, 1, torch.device("cpu")))
    tokenizer: Any = None
    return Services(sampler, tokenizer, NO_JUDGES, steps=4, max_tokens=8)


def test_a_step_sees_the_last_one_s_metrics_without_times_and_what_is_not_finite() -> None:
    found = services()
    found.finish({"reward/mean": 0.5, "time/step_s": 2.0, "policy/grad_norm": math.nan, "policy/loss": math.inf})
    assert found.begin(2).metrics == {"reward/mean": 0.5}
    again = services()
    again.load_state_dict(json.loads(json.dumps(found.state_dict(), allow_nan=False)))
    assert again.begin(2).metrics == {"reward/mean": 0.5}
