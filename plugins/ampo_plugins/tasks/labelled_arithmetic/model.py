"""The student: a decoder of 0.31 M parameters with one token a digit, sign, label and word.

Llama, not Qwen2, which has the same layers: transformers 5 puts Qwen's byte-level pre-tokenizer in place of
whatever tokenizer.json of a `qwen2` model says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ampo_plugins.tasks.labelled_arithmetic.problems import LABELS, SIGNS
from ampo_plugins.tasks.labelled_arithmetic.teachers import FOREIGN_DIGITS, PHRASES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

UNKNOWN, PAD, END, USER, ASSISTANT = "<unk>", "<pad>", "<end>", "<user>", "<assistant>"
ANSWER_TAGS = ("<answer>", "</answer>")
# A word carries the blank before it; a blank before anything else is a token of its own, so text round-trips.
PIECE = r" ?[a-z]+|[\s\S]"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ '<user>' + message['content'] }}"
    "{%- elif message['role'] == 'assistant' -%}{{ '<assistant>' + message['content'] + '<end>' }}"
    "{%- else -%}{{ raise_exception('this model knows the roles user and assistant, not ' + message['role']) }}"
    "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<assistant>' }}{%- endif -%}"
)


def vocabulary() -> list[str]:
    """All tokens in id order."""
    phrases = " ".join(["", *PHRASES.values(), "and now we have"])
    words = list(dict.fromkeys(re.findall(r" [a-z]+", phrases)))
    characters = "0123456789" + SIGNS + "=;:.? " + LABELS + FOREIGN_DIGITS
    return [PAD, END, UNKNOWN, USER, ASSISTANT, *ANSWER_TAGS, *characters, *words]


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer with a chat template; `decode(encode(text)) == text` for all texts of the world."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {token: number for number, token in enumerate(vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in ANSWER_TAGS])
    tokenizer.add_special_tokens([PAD, END, UNKNOWN, USER, ASSISTANT])
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def write_start_model(folder: Path, seed: int, *, head_size: int) -> None:
    """Write tokenizer and freshly initialised weights (float32, safetensors) into `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=head_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        # wider than the usual 0.02, which suits models ten times as wide: arithmetic is learnt in fewer steps
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
