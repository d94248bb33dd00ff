"""GRPO in TRL, taking turns. Runs in TRL's own virtual environment: `python trl_worker.py CASE.json`.

The hops are measured around TRL's own methods; nothing of it is changed. The reward is AMPO's: where it takes time
(Math-Verify) through AMPO's worker processes, which also remember equal answers, and where it is cheap directly.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_registry import GradeRequest
from ampo_turns import VowelShare
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from turns import Turns

from ampo_core.grading.grader import Grader


class Hops(TrainerCallback):
    """Seconds of the hops of a TRL step; takes turns at the ends of its steps."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: defaultdict[str, float] = defaultdict(float)
        self._optimizer_started = 0.0

    def attach(self, trainer: GRPOTrainer) -> None:
        """Measure `trainer`'s methods."""
        trainer.add_callback(self)
        for hop, name in {"rollout": "_generate", "reward": "_calculate_rewards", "whole": "training_step"}.items():
            setattr(trainer, name, self._timed(hop, getattr(trainer, name)))
        trainer._prepare_inputs = self._timed("prepare", trainer._prepare_inputs)
        trainer.accelerator.clip_grad_norm_ = self._timed("update", trainer.accelerator.clip_grad_norm_)
        trainer.compute_loss = self._counted(trainer.compute_loss)

    def _timed(self, hop: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.seconds[hop] += time.perf_counter() - started

        return timed

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(model: Any, inputs: dict[str, torch.Tensor], *arguments: Any, **options: Any) -> Any:
            real = int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
            self.counts["trained"] += real
            self.counts["padding"] += inputs["prompt_mask"].numel() + inputs["completion_mask"].numel() - real
            self.counts["generated"] += int(inputs["completion_mask"].sum())
            return method(model, inputs, *arguments, **options)

        return counted

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.wait()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._optimizer_started = time.perf_counter()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.seconds["update"] += time.perf_counter() - self._optimizer_started

    def on_step_end(self, *_: Any, **__: Any) -> None:
        seconds = self.seconds
        self.turns.report(
            {
                "rollout": seconds["rollout"],
                "reward": seconds["reward"],
                "update": seconds["update"] + seconds["whole"] - seconds["prepare"],
            },
            length=self.counts["generated"] / self.counts.pop("completions"),
            reward=self.counts.pop("reward"),
            **self.counts,
        )
        self.seconds.clear()
        self.counts.clear()
        self.turns.wait()


def reward_function(case: dict[str, Any], counts: dict[str, float], stack: ExitStack) -> Callable[..., list[float]]:
    """The case's reward as TRL calls it; its workers, if any, end with `stack`."""
    if case["reward"] == "math_verify":
        grade = stack.enter_context(Grader(MathVerify(workers=case["workers"]))).grade
    else:
        grade = VowelShare().grade

    def rewards(completions: list[str], answer: list[str], **_: Any) -> list[float]:
        requests = [GradeRequest(text, truth, "") for text, truth in zip(completions, answer, strict=True)]
        found = [grade.reward for grade in grade(requests)]
        counts["completions"] += len(found)
        counts["reward"] += sum(found) / len(found)
        return found

    return rewards


def configuration(case: dict[str, Any]) -> GRPOConfig:
    """One optimizer step a batch of 16 × 8 completions; nothing on that costs time and is not asked for."""
    micro = case["trl_microbatch"]
    completions = case["questions"] * case["group"]
    return GRPOConfig(
        output_dir=case["out"],
        max_steps=case["steps"],
        num_generations=case["group"],
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=completions // micro,
        steps_per_generation=completions // micro,
        num_iterations=1,
        max_completion_length=case["max_response_tokens"],
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        epsilon=0.2,
        loss_type="dapo",
        scale_rewards="group",
        learning_rate=case["learning_rate"],
        lr_scheduler_type="constant",
        warmup_steps=0,
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=1.0,
        shuffle_dataset=False,
        disable_dropout=True,
        gradient_checkpointing=False,
        pad_to_multiple_of=None,
        use_vllm=False,
        bf16=False,
        use_cpu=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
    )


def main() -> None:
    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(case["threads"])
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    rows = [json.loads(line) for line in Path(case["questions_file"]).read_text(encoding="utf-8").splitlines()]
    # The templated text, not the conversation: TRL then has least to do, and no template of its own to choose.
    prompts = [tokenizer.apply_chat_template(r["prompt"], tokenize=False, add_generation_prompt=True) for r in rows]
    answers = [row["reward_model"]["ground_truth"] for row in rows]
    hops = Hops(Turns())
    with ExitStack() as stack:
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(case["model"], dtype=torch.float32),
            reward_funcs=reward_function(case, hops.counts, stack),
            args=configuration(case),
            train_dataset=Dataset.from_dict({"prompt": prompts, "answer": answers}),
            processing_class=tokenizer,
        )
        hops.attach(trainer)
        trainer.train()


if __name__ == "__main__":
    main()
