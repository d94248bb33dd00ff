"""Where a turn begins and ends, read from the template: real tokenizers, and what a user may have changed of them."""

import json
import os
from pathlib import Path

import pytest
from ampo_registry import ConfigError, Message

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer

SHARED = Path(os.environ.get("AMPO_SHARED", Path(__file__).parents[2] / ".." / "shared")) / "tokenizers"
QUESTION = (Message("user", "What is 3 + 4?"),)
# folder -> what ends a turn, and the ids that ended a response and began a prompt before templates were looked at
REAL = {
    "qwen2_5": ("<|im_end|>", (151645,), [151644, 8948, 198]),
    "qwen3": ("<|im_end|>", (151645,), [151644, 872, 198]),
    "llama3_2": ("<|eot_id|>", (128009,), [128000, 128006, 9125]),
}
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "newline": (CHATML, "<|im_end|>"),
    "stripped": (CHATML.replace("m['content']", "m['content'] | trim"), "<|im_end|>"),
    "blank before": (CHATML.replace("<|im_end|>\n", " \n<|im_end|>"), "<|im_end|>"),
    "generation": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] }}{% generation %}{{ m['content'] + '<|im_end|>' }}"
        "{% endgeneration %}{% endfor %}",
        "<|im_end|>",
    ),
    "eos": ("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}", "<|endoftext|>"),
    "two ends": (CHATML + "{% if not add_generation_prompt %}<|endoftext|>{% endif %}", "<|im_end|>"),
}
WITHOUT_END = {
    "nothing": ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "closes an assistant's turn with no token"),
    "newline": ("{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}", "with no token"),
    "words": (CHATML.replace("<|im_end|>", "</turn>"), "with '</turn>', which begins with no control token"),
    "refused": ("{{ raise_exception('no') if messages[-1]['role'] != 'user' }}{{ messages[0]['content'] }}", "refuses"),
    "left out": ("{{ messages[0]['content'] }}", "leaves an assistant's turn out"),
}


@pytest.fixture(scope="module")
def base_folder(golden_folder, tmp_path_factory) -> Path:
    """A base model's tokenizer: its EOS ends documents, its template turns."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(golden_folder)
    tokenizer.eos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def load(tmp_path, base_folder):
    def run(template: str | None = None, **options) -> PromptTokenizer:
        if template is not None:
            options["chat_template"] = str(tmp_path / "template.jinja")
            (tmp_path / "template.jinja").write_text(template, encoding="utf-8")
        return load_tokenizer(ModelConfig(path=str(base_folder), **options))

    return run


def id_of(tokenizer: PromptTokenizer, text: str) -> int:
    return int(tokenizer.tokenizer.convert_tokens_to_ids(text))


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_are_as_they_were(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no tokenizer at {SHARED / name}; set AMPO_SHARED to the folder above tokenizers/")
    end, stops, begins = REAL[name]
    tokenizer = load_tokenizer(ModelConfig(path=str(SHARED / name)))
    assert (tokenizer.end_token_id, tokenizer.stop_token_ids) == (id_of(tokenizer, end), stops)
    assert tokenizer.notes == ()
    prompt = tokenizer.prompt_ids(QUESTION)
    assert prompt[:3] == begins
    assert prompt == tokenizer.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 4?"}], add_generation_prompt=True, return_dict=False
    )
    text = "<think>\nso 3 + 4 = 7\n</think>\n<answer> 7 </answer>"
    plain = tokenizer.tokenizer(text, add_special_tokens=False)["input_ids"]
    for ending in ("", end, end + "\n", f"\n{end} \n", end + end):
        kept = text + "\n" if ending.startswith("\n") else text
        assert tokenizer.decode(tokenizer.answer_ids(text + ending, prompt)) == kept
    assert tokenizer.answer_ids(text, prompt) == [*plain, stops[0]]


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_a_real_base_model_ends_turns_as_its_template_does(name, tmp_path):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no tokenizer at {SHARED / name}; set AMPO_SHARED to the folder above tokenizers/")
    from transformers import AutoTokenizer

    changed = AutoTokenizer.from_pretrained(SHARED / name)
    changed.eos_token = "<|endoftext|>"
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 151643}))
    tokenizer = PromptTokenizer(changed, ModelConfig(path=str(tmp_path)))
    assert (tokenizer.end_token_id, set(tokenizer.stop_token_ids)) == (151645, {151643, 151645})
    assert tokenizer.answer_ids("7<|im_end|>\n", tokenizer.prompt_ids(QUESTION)) == [22, 151645]
    (note,) = tokenizer.notes
    assert "closes an assistant's turn with <|im_end|>, but the tokenizer's EOS is <|endoftext|>" in note
    assert "generation_config.json ends a response with <|endoftext|>" in note


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_turn_ends_as_the_template_ends_it(name, load):
    template, end = TEMPLATES[name]
    tokenizer = load(template)
    assert tokenizer.end_token_id == id_of(tokenizer, end)
    assert set(tokenizer.stop_token_ids) == {id_of(tokenizer, end), id_of(tokenizer, "<|endoftext|>")}
    prompt = tokenizer.prompt_ids(QUESTION)
    for ending in ("", end, end + "\n", "<|endoftext|>", end + "\n<|endoftext|>\n"):
        ids = tokenizer.answer_ids("7" + ending, prompt)
        assert ids == tokenizer.answer_ids("7", prompt)
        assert [token in tokenizer.stop_token_ids for token in ids] == [False] * (len(ids) - 1) + [True]
    assert [end in note for note in tokenizer.notes] == ([True] if end != "<|endoftext|>" else [])


@pytest.mark.parametrize("name", WITHOUT_END)
def test_without_a_turn_end_the_eos_is_taken_and_that_is_said(name, load):
    template, message = WITHOUT_END[name]
    tokenizer = load(template)
    assert tokenizer.end_token_id == id_of(tokenizer, "<|endoftext|>")
    assert tokenizer.stop_token_ids == (tokenizer.end_token_id,)
    (note,) = tokenizer.notes
    assert message in note
    assert note.endswith("teacher and SFT answers end with the tokenizer's EOS <|endoftext|>")


def test_model_stop_overrules_the_template(load):
    tokenizer = load(stop="<|im_start|>")
    assert tokenizer.end_token_id == id_of(tokenizer, "<|im_start|>")
    assert set(tokenizer.stop_token_ids) == {id_of(tokenizer, "<|im_start|>"), id_of(tokenizer, "<|endoftext|>")}
    assert "model.stop names <|im_start|>, but the tokenizer's EOS is <|endoftext|>" in tokenizer.notes[0]
    assert "closes an assistant's turn with <|im_end|>, which is no stop token" in tokenizer.notes[1]
    assert tokenizer.notes[1].endswith("writes on behind it, up to <|endoftext|> or <|im_start|>")
    both = load(stop=["<|endoftext|>", "<|im_end|>"])
    assert both.end_token_id == id_of(both, "<|endoftext|>")
    assert set(both.stop_token_ids) == {id_of(both, "<|endoftext|>"), id_of(both, "<|im_end|>")}
    assert both.notes == ()
    with pytest.raises(ConfigError, match=r"model\.stop: '' is 0 tokens"):
        load(stop="")


def test_a_generation_config_that_names_the_turn_end_is_no_conflict(base_folder, tmp_path):
    from transformers import AutoTokenizer

    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    tokenizer = PromptTokenizer(AutoTokenizer.from_pretrained(base_folder), ModelConfig(path=str(tmp_path)))
    assert (tokenizer.end_token_id, tokenizer.stop_token_ids, tokenizer.notes) == (2, (0, 2), ())


def test_control_tokens_inside_an_answer_are_characters_and_counted(load):
    tokenizer = load(CHATML)
    text = "a<|im_end|>\n<|im_start|>user b<|endoftext|>c"
    ids = tokenizer.answer_ids(text + "<|im_end|>\n", tokenizer.prompt_ids(QUESTION))
    assert tokenizer.decode(ids) == text
    assert not {0, 1, 2} & set(ids[:-1])
    assert set(tokenizer.controls_in(text + "<|im_end|>\n")) == {"<|im_end|>", "<|im_start|>", "<|endoftext|>"}
    assert tokenizer.controls_in("so < 7 |<|im_end|>") == ()


BOS = "<|endoftext|>"


@pytest.mark.parametrize(("start", "found"), [("", "no BOS"), (BOS, None), (BOS * 2, "2 BOS tokens")])
def test_a_bos_too_few_or_too_many_is_said(start, found, load, tmp_path):
    tokenizer = with_bos(load(start + CHATML), tmp_path)
    notes = [note for note in tokenizer.notes if "BOS" in note and "begins a prompt" in note]
    assert len(notes) == (found is not None)
    if found is not None:
        assert f"begins a prompt with {found}, where the tokenizer puts one {BOS}" in notes[0]


def test_cutting_a_prompt_keeps_the_bos(load, tmp_path):
    ids = list(range(10, 30))
    tokenizer = with_bos(load(BOS + CHATML), tmp_path)
    assert tokenizer.cut_prompt([0, *ids], 5) == (0, 26, 27, 28, 29)
    assert tokenizer.cut_prompt([0, *ids], 1) == (0,)
    assert tokenizer.cut_prompt([0, 0, *ids], 5) == (0, 0, 27, 28, 29)
    assert tokenizer.cut_prompt(ids, 5) == (25, 26, 27, 28, 29)
    assert tokenizer.cut_prompt([0, 5, 0, *ids], 5) == (25, 26, 27, 28, 29), "it opens turns: no BOS"
    assert load(CHATML).cut_prompt([0, *ids], 5) == (25, 26, 27, 28, 29), "this tokenizer has none"


def with_bos(tokenizer: PromptTokenizer, folder: Path) -> PromptTokenizer:
    """The same with a BOS that the tokenizer itself puts before a text."""
    from tokenizers.processors import TemplateProcessing

    raw = tokenizer.tokenizer
    raw.bos_token = BOS
    raw.backend_tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PromptTokenizer(raw, ModelConfig(path=str(folder), chat_template=str(folder / "template.jinja")))
