from typing import Any

import transformers
from ampo_core.testing import run_steps, tiny_world
from ampo_registry import BuildContext
from ampo_registry.testing import check_rollout

from ampo_my_rollout import MyRollout


def test_it_keeps_the_contract_of_a_rollout() -> None:
    path = str(tiny_world().model)
    tokenizers: Any = transformers.AutoTokenizer
    models: Any = transformers.AutoModelForCausalLM
    context = BuildContext(model_path=path, tokenizer=tokenizers.from_pretrained(path))
    check_rollout(MyRollout(), context, weights=models.from_pretrained(path).named_parameters())


def test_the_learner_finds_the_same_log_probs() -> None:
    rollout = {"type": "my_rollout", "group_size": 4, "max_response_tokens": 16}
    done = run_steps({"rollout": rollout}, plugins=[MyRollout])
    assert all(line["policy/rollout_logprob_gap"] < 1e-4 for line in done.metrics)
