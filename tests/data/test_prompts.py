"""What is said of prompts at the start, and how they are shown."""

from __future__ import annotations

import pytest
from ampo_plugins.rewards.exact import Exact
from ampo_plugins.rewards.math_verify import MathVerify
from ampo_plugins.rewards.regex import Regex
from ampo_plugins.rewards.sum import Sum
from ampo_plugins.tasks.labelled_arithmetic.model import make_tokenizer
from ampo_registry import Message, Question, TokenIds
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from ampo_core.config.tree import ModelConfig
from ampo_core.data.prompts import prompt_notes
from ampo_core.data.tokens import PromptTokenizer
from ampo_core.jobs.sample.document import Text, asked

TURNS = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<end>{% endif %}{% endfor %}"
ASKED = "End with <answer> </answer>."


@pytest.fixture(scope="module")
def small() -> PromptTokenizer:
    """One token a digit, sign, label and word; everything else is unknown."""
    return PromptTokenizer(make_tokenizer(), ModelConfig(path="none"))


@pytest.fixture
def large(golden_tokenizer, golden_folder) -> PromptTokenizer:
    return PromptTokenizer(golden_tokenizer, ModelConfig(path=str(golden_folder)))


def question(tokenizer: PromptTokenizer, *texts: str) -> Question:
    roles = ("system", "user")[-len(texts) :]
    messages = tuple(Message(role, text) for role, text in zip(roles, texts, strict=True))
    return Question(texts[-1], messages, TokenIds(tokenizer.prompt_ids(messages)), "1", "test")


def test_unknown_tokens_are_said_with_what_stands_there(small):
    questions = [question(small, text) for text in ("12A+3?", "½A+3?", "½A+€?")]
    (note,) = prompt_notes("data.train", questions, small, MathVerify())
    assert note == (
        "data.train: 13.64% of the tokens of prompts, in 2 of 3 prompts, are unknown to the tokenizer of model.path: "
        "where '½', '€' stand, the model reads <unk>"
    )
    assert prompt_notes("data.train", questions[:1], small, MathVerify()) == ()


def test_a_prompt_is_shown_as_it_is_with_what_is_not_read(small):
    it = question(small, "½A+€?")
    pieces = small.pieces(it.messages, it.prompt_token_ids)
    assert "".join(text for text, _ in pieces) == "<user>½A+€?<assistant>"
    assert [text for text, read in pieces if read == "unknown"] == ["½", "€"]
    cut = it.prompt_token_ids[2:]
    assert small.pieces(it.messages, cut) == [("A+<unk>?<assistant>", "read")]


def test_characters_of_several_tokens_are_shown_once(large):
    it = question(large, "½ is 半 of 𝟙")
    pieces = large.pieces(it.messages, it.prompt_token_ids)
    assert "".join(text for text, _ in pieces) == large.prompt_text(it.messages)
    assert all(read == "read" for _, read in pieces)


def test_a_format_that_nothing_asks_for_is_said(large, small):
    told, silent = question(large, ASKED, "1+1?"), question(large, "1+1?")
    (note,) = prompt_notes("data.train", [told, silent, silent], large, MathVerify())
    assert note.startswith(
        "data.train: reward math_verify pays for <answer>…</answer> (format_weight 0.1), and in 2 of 3 prompts neither"
    )
    assert prompt_notes("data.train", [told], large, MathVerify()) == ()
    assert prompt_notes("data.train", [silent], large, MathVerify(format_weight=0.0)) == ()
    # its format is another one, and this tokenizer has the tag as a token of its own
    assert prompt_notes("data.train", [silent], large, Regex(pattern="#### (.*)")) == ()
    assert prompt_notes("data.train", [question(small, "1+1?")], small, MathVerify()) == ()
    parts = Sum.model_validate({"parts": [{"reward": MathVerify(), "weight": 0.8}, {"reward": Regex(pattern="#")}]})
    (note,) = prompt_notes("data.train", [silent], large, parts)
    assert "reward math_verify pays for <answer>…</answer> (format_weight 0.1), and in 1 of 1 prompts" in note
    strict = MathVerify(format_weight=0.0, untagged="wrong")
    (note,) = prompt_notes("data.train", [silent], large, strict)
    assert (
        "reward math_verify finds no answer without <answer>…</answer> (untagged: wrong), and in 1 of 1 prompts" in note
    )
    boxed = question(large, "Answer in \\boxed{}.", "1+1?")
    assert prompt_notes("data.train", [boxed], large, strict)
    assert prompt_notes("data.train", [boxed], large, Exact(format_weight=0.0, untagged="wrong")) == ()
    assert prompt_notes("data.train", [told], large, strict) == prompt_notes("data.train", [told], large, parts) == ()


def test_characters_that_get_no_token_at_all_are_said():
    bpe = Tokenizer(BPE({token: i for i, token in enumerate(["<end>", "1", "+", "?"])}, []))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", chat_template=TURNS)
    dropping = PromptTokenizer(fast, ModelConfig(path="none"))
    questions = [question(dropping, text) for text in ("1+1?", "1=1=?")]
    (note,) = prompt_notes("data.train", questions, dropping, Regex(pattern="1"))
    assert note == (
        "data.train: 2 characters in 1 of 2 prompts that were looked at have no token in the tokenizer of model.path: "
        "where '=' stands, the model reads nothing"
    )
    said, shown = asked(questions[1], dropping)
    assert said.endswith("The model reads 3 tokens (of 2 ⟦…⟧, which have no token, it reads nothing):")
    assert shown == Text("1⟦=⟧1⟦=⟧?")


def test_what_is_read_for_an_unknown_token_is_said(small):
    said, _ = asked(question(small, "½A+3?"), small)
    assert said.endswith("tokens (for 1 ⟦…⟧ it reads `<unk>`):")
