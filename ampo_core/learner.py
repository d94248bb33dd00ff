"""The learner: DeepSpeed around the policy. The same path serves one process on a CPU and many ranks."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ampo_registry.errors import RunError

from ampo_core.config.tree import DeepSpeedConfig, ModelConfig, OptimizerConfig
from ampo_core.packing import TokenPair, microbatches, padding_tokens
from ampo_core.policy import Policy, load_policy
from ampo_core.ranks import Ranks
from ampo_core.schedule import learning_rate_at

Loss = Callable[[list[int], list[torch.Tensor], list[torch.Tensor]], torch.Tensor]
"""(indices of the micro-batch, log-probs and entropies of each sequence) -> its part of the loss, a scalar."""


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """One optimizer step. `skipped` means a non-finite gradient: the weights were left alone. An update without
    sequences (`tokens` 0) has no gradient; it still counts as a step of the learning-rate schedule."""

    grad_norm: float
    skipped: bool
    learning_rate: float
    tokens: int
    padding: int


class Learner:
    """Holds the policy, its optimizer and, for a KL term, the frozen start model."""

    def __init__(
        self,
        model: ModelConfig,
        optimizer: OptimizerConfig,
        deepspeed: DeepSpeedConfig,
        ranks: Ranks,
        *,
        total_steps: int,
        warmup_steps: int,
        reference: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """Load the model and start DeepSpeed. `total_steps` and `warmup_steps` count optimizer steps;
        `reference` keeps a frozen copy of the start model."""
        self.ranks = ranks
        self.optimizer = optimizer
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self.steps = 0
        self.skipped_in_a_row = 0
        policy = load_policy(model, trust_remote_code=trust_remote_code).to(ranks.device)
        self._reference = copy.deepcopy(policy).eval().requires_grad_(False) if reference else None
        self._engine = _start_deepspeed(policy, optimizer, deepspeed)

    @property
    def policy(self) -> Policy:
        """The policy that is being trained."""
        policy: Policy = self._engine.module
        return policy

    def logprobs(
        self, pairs: Sequence[TokenPair], *, temperature: float, reference: bool = False
    ) -> list[torch.Tensor]:
        """Log-probs of the response tokens of each pair under the current policy (or the start model), no gradient.

        Returns one float32 [response tokens] tensor for each pair, in order.
        """
        policy = self._reference if reference else self.policy
        if policy is None:
            raise RunError("the learner was built without a reference model")
        return [logprobs for logprobs, _ in self._evaluate(policy, pairs, temperature, entropy=False)]

    def logprobs_and_entropies(
        self, pairs: Sequence[TokenPair], *, temperature: float
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Log-probs and entropies under the current policy: two [response tokens] tensors for each pair."""
        return self._evaluate(self.policy, pairs, temperature, entropy=True)

    def _evaluate(
        self, policy: Policy, pairs: Sequence[TokenPair], temperature: float, *, entropy: bool
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        policy.eval()
        results = [(torch.empty(0), torch.empty(0))] * len(pairs)
        for batch in microbatches([len(pair) for pair in pairs], self.optimizer.tokens_per_microbatch):
            chosen = [pairs[i] for i in batch]
            with torch.no_grad():
                logprobs, entropies = policy(chosen, temperature, entropy)
            parts = _split(logprobs, chosen)
            for i, part, other in zip(batch, parts, _split(entropies, chosen) if entropy else parts, strict=True):
                results[i] = (part, other)
        return results

    def update(self, pairs: Sequence[TokenPair], loss: Loss, *, temperature: float, entropy: bool) -> UpdateReport:
        """One optimizer step on the sum of `loss` over the micro-batches of `pairs` (this rank's share).

        The weights of `loss` are global, so DeepSpeed's averages over ranks and accumulation are undone. A
        non-finite gradient skips the step; RunError after `max_skipped_steps` of them in a row.
        """
        lengths = [len(pair) for pair in pairs]
        batches = microbatches(lengths, self.optimizer.tokens_per_microbatch)
        self._engine.train()
        for position, batch in enumerate(batches):
            chosen = [pairs[i] for i in batch]
            logprobs, entropies = self._engine(chosen, temperature, entropy)
            part = loss(batch, _split(logprobs, chosen), _split(entropies, chosen) if entropy else [])
            self._engine.set_gradient_accumulation_boundary(position == len(batches) - 1)
            self._engine.backward(part * self.ranks.world_size)
        rate = learning_rate_at(
            self.steps, self.optimizer, total_steps=self.total_steps, warmup_steps=self.warmup_steps
        )
        norm = self._step(rate) if batches else 0.0
        self.steps += 1
        skipped = not math.isfinite(norm)
        return UpdateReport(norm, skipped, rate, sum(lengths), padding_tokens(lengths, batches))

    def _step(self, learning_rate: float) -> float:
        """Clip and apply the gradient; returns its norm before clipping."""
        gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            for group in self._engine.optimizer.param_groups:
                group["lr"] = learning_rate
            self._engine.step()
            self.skipped_in_a_row = 0
        else:
            self._engine.zero_grad()
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= self.optimizer.max_skipped_steps:
                raise RunError(f"the gradient was not finite in {self.skipped_in_a_row} updates in a row")
        return norm

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, tensor) of every parameter, for the rollout's copy; LoRA merged."""
        return self.policy.weights()

    def save_policy(self, folder: Path, tokenizer: Any) -> None:
        """Write model and tokenizer in Hugging Face format."""
        self.policy.save(folder)
        tokenizer.save_pretrained(folder)

    def close(self) -> None:
        """Release DeepSpeed's engine, so that another one can start in this process."""
        self._engine.destroy()


def _split(values: torch.Tensor, pairs: Sequence[TokenPair]) -> list[torch.Tensor]:
    return list(torch.split(values, [len(pair.response_token_ids) for pair in pairs]))


def _start_deepspeed(policy: Policy, optimizer: OptimizerConfig, config: DeepSpeedConfig) -> Any:
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Compiling the shared-memory collectives takes a minute and a compiler; gloo's own serve as well here.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=policy,
        model_parameters=trained,
        optimizer=torch.optim.AdamW(
            trained, lr=optimizer.learning_rate, betas=optimizer.betas, weight_decay=optimizer.weight_decay
        ),
        config={
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": optimizer.grad_clip,
            "zero_optimization": {"stage": config.zero_stage},
            "steps_per_print": 2**62,
        },
    )
    return engine
