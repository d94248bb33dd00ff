"""From requests to vLLM's, and from its outputs to rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ampo_registry import LogProbs, Rollout, RolloutRequest, RunError, SamplingOptions, TokenIds


@dataclass(frozen=True, slots=True)
class Sampled:
    """What vLLM sampled for one seed."""

    token_ids: TokenIds
    logprobs: LogProbs


def sampling_params(vllm: Any, options: SamplingOptions, request: RolloutRequest, seed: int) -> Any:
    """vLLM's SamplingParams: one sample of `request` with `seed`, ended by the stop tokens of `options` alone."""
    flat = {"flat_logprobs": True} if hasattr(vllm.SamplingParams, "flat_logprobs") else {}
    return vllm.SamplingParams(
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.limit_of(request),
        seed=seed,
        stop_token_ids=list(options.stop_token_ids),
        # the model's own end-of-sequence token counts only where `options` names it
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        **flat,
    )


def sampled(output: Any) -> Sampled:
    """The only completion of a vLLM request output. Raises RunError if vLLM gave it up."""
    completion = output.outputs[0]
    ids = TokenIds(completion.token_ids)
    if completion.finish_reason not in ("stop", "length") or not ids:
        raise RunError(f"rollout vllm: a request ended by {completion.finish_reason!r} after {len(ids)} tokens")
    return Sampled(ids, logprobs_of(completion.logprobs, ids))


def logprobs_of(found: Any, token_ids: Sequence[int]) -> LogProbs:
    """Log-probs of the sampled tokens out of either of vLLM's containers."""
    if hasattr(found, "start_indices"):
        alone = len(found.logprobs) == len(found.start_indices)
        return LogProbs(found.logprobs if alone else [found.logprobs[start] for start in found.start_indices])
    return LogProbs([position[token].logprob for position, token in zip(found, token_ids, strict=True)])


def as_rollout(found: Sampled, options: SamplingOptions, tokenizer: Any, policy_version: int) -> Rollout:
    """`found` as a rollout; the text is the tokenizer's, without special tokens and without the stop token."""
    stopped = found.token_ids[-1] in options.stop_token_ids
    shown = found.token_ids[:-1] if stopped else found.token_ids
    return Rollout(
        token_ids=found.token_ids,
        logprobs=found.logprobs,
        text=tokenizer.decode(list(shown), skip_special_tokens=True, clean_up_tokenization_spaces=False),
        finish_reason="stop" if stopped else "length",
        policy_version=policy_version,
    )


def check_lengths(requests: Sequence[RolloutRequest], options: SamplingOptions, max_model_len: int) -> None:
    """Raise RunError if a response could be cut before its limit: vLLM would do that without a word."""
    sizes = ((len(request.prompt_token_ids), options.limit_of(request)) for request in requests)
    prompt, response = max(sizes, key=sum, default=(0, 0))
    if prompt + response > max_model_len:
        raise RunError(
            f"rollout vllm: a prompt of {prompt} tokens and {response} for the response need more "
            f"than the engine's {max_model_len}; set rollout.max_model_len, or lower data.max_prompt_tokens"
        )
