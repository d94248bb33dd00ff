"""Comprehension scoring of one step: processed tokens and time, beside padded rows and a bare packed forward.

    python benchmarks/scoring.py                        # 64 questions x 4 teachers, up to 2k tokens, on the CPU
    python benchmarks/scoring.py --limit 8192 --width 1536 --layers 28 --heads 12 --dtype bfloat16    # on a GPU

Rows: (a) a loop over questions that pads every row to the limit, (b) one that pads to the question's longest, (c) the
packed forward of the model's body over the same tokens, ready-made, without tokenizer, LM head or results, and the
scorer itself, from texts to log-probs. All see the same random-weight model and lengths: log-normal, cut at the
limit. (a) and (b) take only the answer's positions to the LM head, as the scorer does. (a) is timed on the first
`--padded-questions` questions and scaled up to all.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ampo_registry import Grade, Guidance, Message, Question
from rich.console import Console
from rich.table import Table

from ampo_core.config.tree import DeepSpeedConfig, ModelConfig, OptimizerConfig
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.distributed.ranks import join_ranks
from ampo_core.jobs.libraries import settle_libraries
from ampo_core.learner.attention import Sequences
from ampo_core.learner.learner import Learner
from ampo_core.learner.packing import TokenPair, microbatches
from ampo_core.loop.scoring import PolicyScorer, answer_tokens, corrected_trajectory

Item = tuple[Question, Guidance]
WORDS = 1000


def make_tokenizer() -> Any:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<eos>", "<answer>", "</answer>", *(f"w{i}" for i in range(WORDS))]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<eos>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<eos>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    return tokenizer


def write_model(folder: Path, options: argparse.Namespace) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.width,
        intermediate_size=options.width * 4,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=max(1, options.heads // 4),
        max_position_embeddings=options.limit,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def make_items(tokenizer: PromptTokenizer, options: argparse.Namespace) -> list[list[Item]]:
    """The teachers' answers of each question, of skewed lengths."""
    dice = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"w{dice.randrange(WORDS)}" for _ in range(count))

    groups = []
    for number in range(options.questions):
        messages = (Message("user", words(dice.randint(20, 100))),)
        question = Question(f"q{number}", messages, tuple(tokenizer.prompt_ids(messages)), words(2), "")
        room = options.limit - len(question.prompt_token_ids) - 8
        lengths = [min(room, max(32, round(dice.lognormvariate(0, 0.8) * options.median))) for _ in range(4)]
        texts = [f"{words(length)} <answer> {words(2)} </answer>" for length in lengths]
        groups.append([(question, Guidance("t", text, (1,), Grade(1.0, True, True))) for text in texts])
    return groups


def pair_of(tokenizer: PromptTokenizer, item: Item) -> TokenPair:
    question, guidance = item
    trajectory = corrected_trajectory(guidance.text, question.answer)
    assert trajectory is not None
    before, truth = answer_tokens(tokenizer, trajectory)
    return TokenPair((*question.prompt_token_ids, *before), tuple(truth))


def padded_run(model: Any, groups: Sequence[Sequence[TokenPair]], limit: int | None) -> list[list[float]]:
    """A loop over questions; rows are padded to `limit`, or to the question's longest without it."""
    scores = []
    for group in groups:
        longest = limit or max(len(pair) for pair in group)
        ids = torch.zeros(len(group), longest, dtype=torch.long, device=model.device)
        for row, pair in enumerate(group):
            ids[row, : len(pair)] = torch.tensor(pair.prompt_token_ids + pair.response_token_ids)
        with torch.no_grad():
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
            for row, pair in enumerate(group):
                logits = model.lm_head(hidden[row, len(pair.prompt_token_ids) - 1 : len(pair) - 1])
                targets = torch.tensor(pair.response_token_ids, device=model.device)
                scores.append(logits.float().log_softmax(-1).gather(1, targets[:, None])[:, 0].tolist())
    return scores


def bare_run(learner: Learner, pairs: Sequence[TokenPair]) -> Callable[[], None]:
    """The packed forward of the model's body over `pairs`, with its inputs made beforehand."""
    device = learner.ranks.device
    inputs = []
    for batch in microbatches([len(pair) for pair in pairs], learner.optimizer.tokens_per_microbatch):
        chosen = sorted((pairs[i] for i in batch), key=len, reverse=True)
        ids = [token for pair in chosen for token in pair.prompt_token_ids + pair.response_token_ids]
        positions = torch.cat([torch.arange(len(pair), device=device) for pair in chosen])
        inputs.append(
            {
                "input_ids": torch.tensor([ids], device=device),
                "position_ids": positions[None],
                **Sequences.of([len(pair) for pair in chosen], device).arguments(),
            }
        )

    def run() -> None:
        with torch.no_grad():
            for arguments in inputs:
                learner.policy.plain.base_model(use_cache=False, **arguments)

    return run


def seconds(run: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(options: argparse.Namespace, folder: Path) -> Table:
    from transformers import AutoModelForCausalLM

    write_model(folder, options)
    model = ModelConfig(path=str(folder), dtype=options.dtype, gradient_checkpointing=False)
    ranks = join_ranks(options.threads)
    tokenizer = PromptTokenizer(make_tokenizer(), model)
    optimizer = OptimizerConfig(tokens_per_microbatch=options.budget)
    with closing(Learner(model, optimizer, DeepSpeedConfig(zero_stage=0), ranks)) as own:
        groups = make_items(tokenizer, options)
        items = [item for group in groups for item in group]
        pairs = [[pair_of(tokenizer, item) for item in group] for group in groups]
        flat = [pair for group in pairs for pair in group]
        padded = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, options.dtype)).to(ranks.device)
        scorer = PolicyScorer(own, tokenizer)
        few = pairs[: options.padded_questions]
        runs: dict[str, Callable[[], object]] = {
            "a": lambda: padded_run(padded, few, options.limit),
            "b": lambda: padded_run(padded, pairs, None),
            "c": bare_run(own, flat),
            "scorer": lambda: scorer.answer_logprobs(items),
        }
        check(scorer.answer_logprobs(items[:16]), padded_run(padded, pairs[:4], None), options.dtype)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(options.repeats):
            for name, run in runs.items():
                times[name].append(seconds(run, ranks.device))
    tokens = {
        "a": len(flat) * options.limit,
        "b": sum(len(group) * max(map(len, group)) for group in pairs),
        "c": sum(map(len, flat)),
        "scorer": sum(map(len, flat)),
    }
    return as_table(options, tokens, {name: statistics.median(values) for name, values in times.items()}, len(few))


def check(found: Sequence[Sequence[float]], wanted: Sequence[Sequence[float]], dtype: str) -> None:
    """Stop if the scorer and the padded loop do not compute the same."""
    gap = max(abs(x - y) for own, other in zip(found, wanted, strict=True) for x, y in zip(own, other, strict=True))
    if gap > (1e-4 if dtype == "float32" else 0.2):
        raise SystemExit(f"scores differ by {gap} from those of padded rows")


def as_table(options: argparse.Namespace, tokens: dict[str, int], times: dict[str, float], few: int) -> Table:
    times["a"] *= options.questions / few
    names = {
        "a": f"(a) padded to {options.limit:,} (timed on {few} questions)",
        "b": "(b) padded to the question's longest",
        "c": "(c) bare packed forward",
        "scorer": "the scorer",
    }
    title = (
        f"{options.questions} questions x 4 teachers, {options.layers} layers of width {options.width}, "
        f"{options.dtype}, {options.budget:,} tokens a micro-batch, {options.threads} threads"
    )
    table = Table("", "tokens", "to the scorer's", "seconds", "to the scorer's", title=title)
    for key, name in names.items():
        shares = f"{tokens[key] / tokens['scorer']:.2f}", f"{times[key] / times['scorer']:.2f}"
        table.add_row(name, f"{tokens[key]:,}", shares[0], f"{times[key]:.2f}", shares[1])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--limit", type=int, default=2048, help="longest prompt and answer together, in tokens")
    parser.add_argument("--median", type=int, default=300, help="median length of the teachers' answers, in tokens")
    parser.add_argument("--budget", type=int, default=8192, help="tokens_per_microbatch")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--padded-questions", type=int, default=4)
    options = parser.parse_args()
    settle_libraries()
    with TemporaryDirectory() as folder:
        Console().print(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
