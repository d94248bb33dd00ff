"""Tokens per second of the `transformers` rollout beside `generate()` of the same library, in one run.

    python benchmarks/sampling.py                      # a random model of the quickstart's shape
    python benchmarks/sampling.py --model FOLDER --tokens 256
    python benchmarks/sampling.py --vllm               # the `vllm` rollout beside bare vLLM too, where it is installed
    python benchmarks/sampling.py --drawing --vocabulary 151936 --hidden 608 --tokens 8

Both sample the same prompts at temperature 1 to the full length (nothing stops), once to warm up and then `--repeats`
times; the table shows the best and the median. Only the rollout returns log-probs and keeps a seed for each sample.

With `--drawing` the rollout stands beside itself with the plain rule, a running sum over each whole row of logits, and
the table shows what share of their time both spend drawing tokens, and that the tokens are the same.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ampo_plugins.rollouts.transformers import decoding
from ampo_plugins.rollouts.transformers.spec import TransformersRollout
from ampo_plugins.rollouts.transformers.token_sampling import sample_tokens
from ampo_plugins.rollouts.vllm.spec import VllmRollout
from ampo_registry import BuildContext, Rollout, RolloutEngine, RolloutRequest, SamplingOptions
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from ampo_core.jobs.libraries import settle_libraries


class NumberTokenizer:
    """Shows ids as numbers: a random model has no text."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))


def write_quickstart_shape(folder: Path, head_size: int, vocabulary: int, hidden: int) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)  # type: ignore[no-untyped-call]


def make_prompts(count: int, length: int, vocabulary: int) -> list[tuple[int, ...]]:
    """Prompts of `length` down to three quarters of it, as in a batch of similar questions."""
    generator = torch.Generator().manual_seed(1)
    lengths = [length - i % (length // 4 + 1) for i in range(count)]
    return [tuple(torch.randint(1, vocabulary, (n,), generator=generator).tolist()) for n in lengths]


def rollout_groups(
    engine: RolloutEngine, prompts: Sequence[tuple[int, ...]], group: int, tokens: int
) -> list[list[Rollout]]:
    requests = [RolloutRequest(prompt, tuple(i * group + s for s in range(group))) for i, prompt in enumerate(prompts)]
    return engine.generate(requests, SamplingOptions(1.0, 1.0, tokens, ()))


def rollout_run(engine: RolloutEngine, prompts: Sequence[tuple[int, ...]], group: int, tokens: int) -> int:
    groups = rollout_groups(engine, prompts, group, tokens)
    return sum(len(rollout.token_ids) for rollouts in groups for rollout in rollouts)


def bare_vllm_run(llm: Any, prompts: Sequence[tuple[int, ...]], group: int, tokens: int) -> int:
    """One request a prompt with n = group, no log-probs and one seed for all: the least that vLLM can be asked for."""
    from vllm import SamplingParams

    params = SamplingParams(n=group, max_tokens=tokens, ignore_eos=True, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": list(prompt)} for prompt in prompts], params, use_tqdm=False)
    return sum(len(completion.token_ids) for output in outputs for completion in output.outputs)


def generate_run(model: Any, prompts: Sequence[tuple[int, ...]], group: int, tokens: int) -> int:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        num_return_sequences=group,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=0,
    )
    with torch.inference_mode():
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return int(found.shape[0] * (found.shape[1] - width))


def draw_by_whole_row(logits: Tensor, uniform: Tensor, temperature: float, _: float) -> tuple[Tensor, Tensor]:
    """The plain rule: what `sample_tokens` does at top_p 1, with one running sum over the vocabulary."""
    logprobs = (logits.float() / temperature).log_softmax(dim=-1)
    cdf = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
    total = cdf[:, -1]
    if not bool(torch.isfinite(total).all()):
        raise RuntimeError("logits are not finite")
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cdf, point.unsqueeze(-1), right=True)
    return tokens.squeeze(-1), logprobs.gather(-1, tokens).squeeze(-1)


class Drawing:
    """The rollout with one rule of drawing: how long drawing and all of it took, run by run, and the last tokens."""

    def __init__(self, rule: Callable[..., tuple[Tensor, Tensor]]) -> None:
        self.rule = rule
        self.seconds = 0.0
        self.shares: list[float] = []
        self.tokens: list[tuple[int, ...]] = []

    def draw(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        settle()
        started = time.perf_counter()
        drawn = self.rule(*arguments)
        settle()
        self.seconds += time.perf_counter() - started
        return drawn

    def run(self, engine: RolloutEngine, prompts: Sequence[tuple[int, ...]], group: int, tokens: int) -> int:
        decoding.sample_tokens = self.draw
        self.seconds, started = 0.0, time.perf_counter()
        groups = rollout_groups(engine, prompts, group, tokens)
        self.shares.append(self.seconds / (time.perf_counter() - started))
        self.tokens = [tuple(rollout.token_ids) for rollouts in groups for rollout in rollouts]
        return sum(map(len, self.tokens))


def settle() -> None:
    """Wait for the GPU, if there is one: its work is asynchronous."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def speeds(runs: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Tokens per second of each run, `repeats` times after one that does not count.

    The runs take turns, so that whatever else the machine does meets all of them alike.
    """
    for run in runs.values():
        run()
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            tokens = run()
            settle()
            measured[name].append(tokens / (time.perf_counter() - started))
    return measured


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; default: a random one of the quickstart's shape")
    parser.add_argument("--vocabulary", type=int, default=64, help="of the random model")
    parser.add_argument("--hidden", type=int, default=96, help="width of the random model")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--drawing", action="store_true", help="the share of time that drawing tokens takes, instead")
    parser.add_argument("--vllm", action="store_true", help="vLLM too; the random model then has heads of 32, not 24")
    return parser.parse_args()


def samplers_table(arguments: argparse.Namespace, path: str, context: BuildContext, engine: Any) -> Table:
    vllm: Any = VllmRollout().build(context) if arguments.vllm else None
    model = AutoModelForCausalLM.from_pretrained(path, dtype=engine.model.dtype).to(engine.model.device).eval()
    prompts = make_prompts(arguments.prompts, arguments.prompt_tokens, engine.model.config.vocab_size)
    shape = (prompts, arguments.group, arguments.tokens)
    runs: dict[str, Callable[[], int]] = {
        "rollout transformers": lambda: rollout_run(engine, *shape),
        "generate()": lambda: generate_run(model, *shape),
    }
    if vllm is not None:
        runs["rollout vllm"] = lambda: rollout_run(vllm, *shape)
        runs["bare vLLM"] = lambda: bare_vllm_run(vllm.llm, *shape)
    table = Table("sampler", "best tokens/s", "median tokens/s")
    for name, rates in speeds(runs, arguments.repeats).items():
        table.add_row(name, f"{max(rates):,.0f}", f"{statistics.median(rates):,.0f}")
    return table


def drawing_table(arguments: argparse.Namespace, engine: Any) -> Table:
    prompts = make_prompts(arguments.prompts, arguments.prompt_tokens, engine.model.config.vocab_size)
    shape = (prompts, arguments.group, arguments.tokens)
    rules = {"whole row": Drawing(draw_by_whole_row), "rollout transformers": Drawing(sample_tokens)}
    runs: dict[str, Callable[[], int]] = {name: partial(rule.run, engine, *shape) for name, rule in rules.items()}
    table = Table("drawing", "share of time", "median tokens/s", "tokens that differ")
    reference = rules["whole row"]
    for name, rates in speeds(runs, arguments.repeats).items():
        rule = rules[name]
        differ = sum(
            a != b for x, y in zip(rule.tokens, reference.tokens, strict=True) for a, b in zip(x, y, strict=True)
        )
        share = statistics.median(rule.shares[1:])
        table.add_row(name, f"{share:.1%}", f"{statistics.median(rates):,.0f}", str(differ))
    return table


def main() -> None:
    arguments = parse_arguments()
    settle_libraries()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        if arguments.model is None:
            head_size = 32 if arguments.vllm else 24
            write_quickstart_shape(Path(folder), head_size, arguments.vocabulary, arguments.hidden)
        path = str(arguments.model or folder)
        context = BuildContext(model_path=path, tokenizer=NumberTokenizer())
        engine: Any = TransformersRollout().build(context)
        table = (
            drawing_table(arguments, engine) if arguments.drawing else samplers_table(arguments, path, context, engine)
        )
    millions = sum(parameter.numel() for parameter in engine.model.parameters()) / 1e6
    title = (
        f"{millions:.2f} M parameters, {arguments.prompts} prompts × {arguments.group} × {arguments.tokens} tokens, "
        f"{engine.model.device}, {str(engine.model.dtype).removeprefix('torch.')}, {arguments.threads} threads"
    )
    console = Console()
    console.print(title, highlight=False, soft_wrap=True)
    console.print(table)


if __name__ == "__main__":
    main()
