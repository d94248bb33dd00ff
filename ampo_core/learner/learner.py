"""The learner: DeepSpeed around the policy. The same path serves one process on a CPU and many ranks.

Every method but `policy` and `close` is a collective call: DeepSpeed may gather weights for each forward pass, so all
ranks make the same number of them, those that run out of sequences with a dummy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from ampo_registry.errors import RunError
from ampo_registry.tokens import TokenIds
from torch import nn

from ampo_core.config.tree import DeepSpeedConfig, ModelConfig, OptimizerConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import Ranks
from ampo_core.learner.deepspeed_engine import start_deepspeed
from ampo_core.learner.dropout import refuse_other_mode
from ampo_core.learner.packing import TokenPair, microbatches
from ampo_core.learner.policy import Policy, end_with, load_policy

DUMMY = TokenPair(TokenIds([0]), TokenIds([0]))
"""What a rank forwards when others still have a micro-batch and it has none; its loss is multiplied by 0."""
STATE = "state"

Loss = Callable[[list[int], list[torch.Tensor], list[torch.Tensor]], torch.Tensor]
"""(indices of the micro-batch, log-probs and entropies of each sequence) -> its part of the loss, a scalar."""


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """One optimizer step of all ranks together.

    `skipped` means a non-finite gradient: the weights were left alone. An update without sequences (`tokens` 0) has no
    gradient and is no step of the optimizer. `padding` are the tokens of dummies.
    """

    grad_norm: float
    skipped: bool
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
        reference: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """Load the model and start DeepSpeed. `reference` keeps the start model: a frozen copy, or with LoRA the
        weights beneath the adapters."""
        self.ranks = ranks
        self.optimizer = optimizer
        self._sharded = deepspeed.zero_stage == 3
        self._plain = deepspeed.zero_stage == 0 and model.dtype == "float32"
        self.skipped_in_a_row = 0
        policy = load_policy(model, trust_remote_code=trust_remote_code).to(ranks.device)
        refuse_other_mode(policy, partial(_few_logprobs, policy), model.path)  # while each rank has it whole
        self._has_reference = reference
        # With LoRA no copy is needed: without its adapters the policy is the start model. Else the copy is whole on
        # each rank: DeepSpeed shards what an engine trains, and this model is not trained.
        copied = reference and not policy.adapted
        self._frozen = copy.deepcopy(policy).eval().requires_grad_(False) if copied else None
        self._engine = start_deepspeed(policy, optimizer, deepspeed, model.dtype)

    @property
    def policy(self) -> Policy:
        """The policy that is being trained."""
        policy: Policy = self._engine.module
        return policy

    @property
    def has_reference(self) -> bool:
        """True if the start model was kept."""
        return self._has_reference

    def logprobs(
        self, pairs: Sequence[TokenPair], *, temperature: float, reference: bool = False
    ) -> list[torch.Tensor]:
        """Log-probs of the response tokens of each pair under the current policy (or the start model), no gradient.

        Returns one float32 [response tokens] tensor for each pair, in order.
        """
        if not reference:
            return [logprobs for logprobs, _ in self._evaluate(self.policy, pairs, temperature, entropy=False)]
        if not self._has_reference:
            raise RunError("the learner was built without a reference model")
        with self.policy.without_adapters():
            found = self._evaluate(self._frozen or self.policy, pairs, temperature, entropy=False)
        return [logprobs for logprobs, _ in found]

    def logprobs_and_entropies(
        self, pairs: Sequence[TokenPair], *, temperature: float
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Log-probs and entropies under the current policy: two [response tokens] tensors for each pair."""
        return self._evaluate(self.policy, pairs, temperature, entropy=True)

    def _evaluate(
        self, policy: Policy, pairs: Sequence[TokenPair], temperature: float, *, entropy: bool
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        batches = microbatches([len(pair) for pair in pairs], self.optimizer.tokens_per_microbatch)
        rounds = batches + [[]] * (max(self.ranks.each(len(batches))) - len(batches))
        return evaluated(policy, pairs, rounds, temperature, entropy=entropy)

    def update(
        self,
        pairs: Sequence[TokenPair],
        loss: Loss,
        *,
        learning_rate: float,
        temperature: float,
        entropy: bool,
        entropy_gradient: bool = True,
        explain: Callable[[], str] = str,
    ) -> UpdateReport:
        """One optimizer step on the sum of `loss` over the micro-batches of `pairs` (this rank's share).

        With `entropy` the loss gets entropies too, and with `entropy_gradient` it must use them. Its weights are
        global, so DeepSpeed's averages over ranks and accumulation are undone. A non-finite gradient skips the step;
        RunError after `max_skipped_steps` of them in a row, which
        says what `explain` knows of the last one.
        """
        lengths = [len(pair) for pair in pairs]
        batches = microbatches(lengths, self.optimizer.tokens_per_microbatch)
        shares = self.ranks.each((len(batches), sum(lengths)))
        rounds = batches + [[]] * (max(count for count, _ in shares) - len(batches))
        self._engine.train()
        for position, batch in enumerate(rounds, start=1):
            chosen = [pairs[i] for i in batch]
            logprobs, entropies = self._engine(chosen or [DUMMY], temperature, entropy)
            if not entropy_gradient:
                entropies = entropies.detach()
            if chosen:
                part = loss(batch, _split(logprobs, chosen), _split(entropies, chosen) if entropy else [])
            else:
                # The same outputs as in a real loss, or ZeRO 3 would gather fewer weights here than on other ranks.
                part = (logprobs.sum() + entropies.sum()) * 0.0
            self._engine.set_gradient_accumulation_boundary(position == len(rounds))
            self._engine.backward(part * self.ranks.world_size)
        norm = self._step(learning_rate, explain) if rounds else 0.0
        skipped = not math.isfinite(norm)
        dummies = len(shares) * len(rounds) - sum(count for count, _ in shares)
        return UpdateReport(norm, skipped, sum(tokens for _, tokens in shares), dummies * len(DUMMY))

    def _step(self, learning_rate: float, explain: Callable[[], str]) -> float:
        """Clip and apply the gradient of all ranks; returns its norm before clipping, not finite if it was skipped."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        with _representable(learning_rate):
            norm = self._apply()
        self.skipped_in_a_row = 0 if math.isfinite(norm) else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.optimizer.max_skipped_steps:
            known = next(
                filter(None, self.ranks.each(explain())), "the weights have diverged, or the loss is no number"
            )
            raise RunError(
                f"the gradient was not finite in {self.skipped_in_a_row} updates in a row: {known}. Look at the "
                f"learning rate, {learning_rate:g}, and at policy/grad_norm and policy/loss in metrics.jsonl"
            )
        return norm

    def _apply(self) -> float:
        """Let DeepSpeed clip and apply the gradient; its norm before."""
        if self._plain:
            # DeepSpeed's plain fp32 path neither reports a norm nor looks at it.
            gradients = [p.grad for p in self.policy.parameters() if p.grad is not None]
            norm = float(torch.nn.utils.get_total_norm(gradients))
            if math.isfinite(norm):
                self._engine.step()
            else:
                self._engine.zero_grad()
        else:
            self._engine.step()
            norm = math.inf if self._engine.optimizer.overflow else float(self._engine.get_global_grad_norm())
        return norm

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Hugging Face name, tensor) of every parameter, whole, for the rollout's copy; LoRA merged."""
        return self.policy.weights(self._whole)

    def _whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
        """A block in which `parameters` are whole on every rank; with ZeRO 3 each rank holds a part of them."""
        if not self._sharded:
            return nullcontext()
        import deepspeed

        whole: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(list(parameters))
        return whole

    def save_policy(self, folder: Path, tokenizer: PromptTokenizer) -> None:
        """Write model and tokenizer in Hugging Face format, LoRA merged: rank 0 writes, all ranks take part.

        What ends a response in the run does so in generation_config.json, and the chat template is the run's. Raises
        RunError for weights that are not finite.
        """
        first = self.ranks.rank == 0
        plain = self.policy.plain
        distinct = {name.replace(".base_layer.", ".") for name, _ in plain.named_parameters()}  # tied ones once
        kept = {}
        for name, tensor in self.weights():
            if name in distinct:
                _check_finite(name, tensor)
                kept[name] = tensor.cpu() if first else None
        if first:
            end_with(plain.generation_config, tokenizer.stop_token_ids)
            with self.policy.dropout.restored():
                plain.save_pretrained(folder, state_dict=kept)
            tokenizer.save(folder)
        self.ranks.barrier()

    def save_state(self, folder: Path) -> None:
        """Write weights and optimizer into `folder`, the same one on every rank; each writes its part."""
        progress = {"skipped_in_a_row": self.skipped_in_a_row}
        self._engine.save_checkpoint(str(folder), tag=STATE, client_state=progress, save_latest=False)
        self.ranks.barrier()

    def load_state(self, folder: Path) -> None:
        """Take over what `save_state` wrote. Raises RunError if it is not there or does not fit."""
        try:
            found, progress = self._engine.load_checkpoint(str(folder), tag=STATE)
        except (OSError, RuntimeError, AssertionError, KeyError, ValueError, EOFError, UnpicklingError) as error:
            raise RunError(f"cannot load the learner's state from {folder}: {error}") from error
        if found is None:
            raise RunError(f"there is no learner's state in {folder}")
        self.skipped_in_a_row = progress["skipped_in_a_row"]

    def close(self) -> None:
        """Release DeepSpeed's engine, so that another one can start in this process."""
        self._engine.destroy()


def evaluated(
    policy: Policy, pairs: Sequence[TokenPair], rounds: Sequence[Sequence[int]], temperature: float, *, entropy: bool
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Log-probs and, with `entropy`, entropies of each of `pairs`, no gradient: a forward for each of `rounds`, indices
    of pairs that are forwarded together. An empty round forwards a dummy."""
    policy.eval()
    results = [(torch.empty(0), torch.empty(0))] * len(pairs)
    for batch in rounds:
        chosen = [pairs[i] for i in batch]
        with torch.no_grad():
            logprobs, entropies = policy(chosen or [DUMMY], temperature, entropy)
        if not chosen:
            continue
        parts = _split(logprobs, chosen)
        for i, part, other in zip(batch, parts, _split(entropies, chosen) if entropy else parts, strict=True):
            results[i] = (part, other)
    return results


def _few_logprobs(policy: Policy) -> torch.Tensor:
    """Log-probs of a few tokens, without adapters: their dropout is a person's wish."""
    pairs = [TokenPair(TokenIds(range(4)), TokenIds(range(4, 8))), TokenPair(TokenIds([3, 2]), TokenIds([1, 0]))]
    with policy.without_adapters():
        logprobs: torch.Tensor = policy(pairs, 1.0, False)[0]
    return logprobs


@contextmanager
def _representable(learning_rate: float) -> Iterator[None]:
    """Let PyTorch's error for a step that no float32 can hold be a RunError."""
    try:
        yield
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise RunError(
            f"a step at the learning rate {learning_rate:g} is larger than any number of float32: lower "
            "training.learning_rate (usual are 1e-6 to 1e-3)"
        ) from error


def _check_finite(name: str, weight: torch.Tensor) -> None:
    if not bool(torch.isfinite(weight).all()):
        raise RunError(
            f"the weights {name} are not finite: the policy has diverged, so no checkpoint of it is written; lower "
            "training.learning_rate"
        )


def _split(values: torch.Tensor, pairs: Sequence[TokenPair]) -> list[torch.Tensor]:
    return list(torch.split(values, [len(pair.response_token_ids) for pair in pairs]))
