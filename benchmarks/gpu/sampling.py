"""Tokens per second: the rollout plugin, and vLLM itself on the same prompts with the same options."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from ampo_registry.types import RolloutRequest, SamplingOptions

from ampo_core.data.questions import load_questions
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.jobs.libraries import settle_libraries
from gpu import device
from gpu.learning import load_job
from gpu.rows import Rows, Setting

REPEATS = 2


def plugin_speeds(setting: Setting, rows: Rows) -> None:
    """Rows of the rollout plugin as the train job builds it, with no learner beside it."""
    settle_libraries()
    job, environment = load_job(setting, "rollout")
    join_ranks(job.resources.threads)
    tokenizer = load_tokenizer(job.model)
    context = environment.build_context(
        model_path=job.model.path, tokenizer=tokenizer.tokenizer, run_dir=setting.folder
    )
    engine = job.rollout.build(context)
    options = SamplingOptions(1.0, 1.0, setting.scale.sampled_tokens, tokenizer.stop_token_ids)
    prompts, seeds = _prompts(setting, tokenizer), count()

    def run() -> int:
        requests = [RolloutRequest(p, tuple(next(seeds) for _ in range(setting.scale.group))) for p in prompts]
        return sum(len(rollout.token_ids) for group in engine.generate(requests, options) for rollout in group)

    engine.wake()
    rows.add(f"rollout {setting.rollout} alone, {_size(setting)}: tokens/s", _rates(run))
    engine.close()


def bare_speeds(setting: Setting, rows: Rows) -> None:
    """Rows of vLLM without the plugin: once with the plugin's options, once with vLLM's own defaults."""
    if setting.rollout != "vllm":
        rows.add("bare vLLM", f"not measured with rollout {setting.rollout}")
        return
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm
    from ampo_plugins.rollouts.vllm.samples import sampling_params

    scale = setting.scale
    job, _ = load_job(setting, "bare")
    prompts = _prompts(setting, load_tokenizer(job.model))
    llm = vllm.LLM(
        model=job.model.path,
        dtype=job.model.dtype,
        enforce_eager=True,
        max_model_len=scale.prompt_tokens + scale.response_tokens,
        gpu_memory_utilization=scale.memory_share,
        max_num_seqs=256,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        skip_tokenizer_init=True,
    )
    seeds = count()
    options = SamplingOptions(1.0, 1.0, scale.sampled_tokens, ())

    def same_options() -> int:
        params = [sampling_params(vllm, options, next(seeds)) for _ in range(len(prompts) * scale.group)]
        return generated([prompt for prompt in prompts for _ in range(scale.group)], params)

    def defaults() -> int:
        limits = {"max_tokens": scale.sampled_tokens, "ignore_eos": True, "detokenize": False}
        return generated(prompts, vllm.SamplingParams(temperature=1.0, n=scale.group, **limits))

    def generated(inputs: Sequence[tuple[int, ...]], params: Any) -> int:
        found = llm.generate([{"prompt_token_ids": list(ids)} for ids in inputs], params, use_tqdm=False)
        return sum(len(output.token_ids) for request in found for output in request.outputs)

    rows.add("bare vLLM, a seed and log-probs for each sample: tokens/s", _rates(same_options))
    rows.add("bare vLLM, n samples a prompt, no seeds, no log-probs: tokens/s", _rates(defaults))


def _prompts(setting: Setting, tokenizer: PromptTokenizer) -> list[tuple[int, ...]]:
    loaded = load_questions(
        [str(setting.folder / "questions.jsonl")],
        tokenizer,
        max_prompt_tokens=setting.scale.prompt_tokens,
        overlong_prompts="drop",
        system_prompt="keep",
        check_truths=None,
    )
    return [question.prompt_token_ids for question in loaded.questions[: setting.scale.questions]]


def _size(setting: Setting) -> str:
    scale = setting.scale
    return f"{scale.questions} × {scale.group} × {scale.sampled_tokens} tokens"


def _rates(run: Callable[[], int]) -> str:
    run()
    rates = []
    for _ in range(REPEATS):
        device.settle()
        started = time.perf_counter()
        tokens = run()
        device.settle()
        rates.append(tokens / (time.perf_counter() - started))
    return f"{max(rates):,.0f} (runs: {', '.join(f'{rate:,.0f}' for rate in rates)})"
