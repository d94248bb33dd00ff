"""Prompts, teacher answers and stop tokens."""

import json
import shutil

import pytest
from ampo_registry import ConfigError, Message

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer

MESSAGES = (Message("system", "put the answer"), Message("user", "x + y"))


@pytest.fixture
def folder(tmp_path, golden_folder):
    return shutil.copytree(golden_folder, tmp_path / "model")


def load(folder, **options) -> PromptTokenizer:
    return load_tokenizer(ModelConfig(path=str(folder), **options))


def test_prompt_is_the_chat_template(folder):
    tokenizer = load(folder)
    ids = tokenizer.prompt_ids(MESSAGES)
    assert all(type(token) is int for token in ids)
    text = "<|im_start|>system\nput the answer<|im_end|>\n<|im_start|>user\nx + y<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.tokenizer.decode(ids) == text


def test_template_file_and_options(folder, tmp_path):
    template = tmp_path / "loud.jinja"
    template.write_text("{{ messages[-1]['content'] }}{% if shout %}!{% endif %}")
    assert load(folder, chat_template=str(template)).prompt_ids(MESSAGES) != []
    quiet = load(folder, chat_template=str(template))
    loud = load(folder, chat_template=str(template), chat_template_options={"shout": True})
    assert quiet.tokenizer.decode(quiet.prompt_ids(MESSAGES)) == "x + y"
    assert loud.tokenizer.decode(loud.prompt_ids(MESSAGES)) == "x + y!"


def test_missing_template_file(folder):
    with pytest.raises(ConfigError, match=r"model\.chat_template: nowhere\.jinja"):
        load(folder, chat_template="nowhere.jinja")


def test_tokenizer_without_template_says_what_to_do(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"no chat template; name a Jinja file"):
        load(folder)


def test_template_that_refuses_a_role(folder, tmp_path):
    template = tmp_path / "strict.jinja"
    template.write_text("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}")
    with pytest.raises(ConfigError, match="roles system, user: no system role"):
        load(folder, chat_template=str(template)).prompt_ids(MESSAGES)


def test_stop_tokens_of_tokenizer_generation_config_and_model(folder):
    tokenizer = load(folder)
    eos = tokenizer.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.stop_token_ids == (eos,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [eos, 0]}))
    start = tokenizer.tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert load(folder, stop=["<|im_start|>"]).stop_token_ids == (eos, 0, start)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0}))
    assert load(folder).stop_token_ids == (eos, 0)


def test_stop_text_must_be_one_token(folder):
    with pytest.raises(ConfigError, match=r"model\.stop: 'wait, what' is \d+ tokens"):
        load(folder, stop=["wait, what"])


def test_no_such_folder_and_no_tokenizer(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no tokenizer could be loaded from the folder"):
        load(tmp_path / "empty")
    with pytest.raises(ConfigError, match="from the Hub"):
        load("no-such-owner/no-such-model-anywhere")


@pytest.mark.parametrize("ending", ["", "<|im_end|>", "<|im_end|><|im_end|>"])
def test_exactly_one_eos(folder, ending):
    tokenizer = load(folder)
    prompt = tokenizer.prompt_ids(MESSAGES)
    ids = tokenizer.answer_ids("so <answer> 7 </answer>" + ending, prompt)
    assert ids.count(tokenizer.end_token_id) == 1
    assert ids[-1] == tokenizer.end_token_id
    assert tokenizer.decode(ids) == "so <answer> 7 </answer>"


def test_eos_text_inside_an_answer_ends_nothing(folder):
    tokenizer = load(folder)
    ids = tokenizer.answer_ids("a<|im_end|>b", tokenizer.prompt_ids(MESSAGES))
    assert ids.count(tokenizer.end_token_id) == 1
    assert tokenizer.decode(ids) == "a<|im_end|>b"


def test_think_is_dropped_only_where_the_prompt_has_it(folder):
    tokenizer = load(folder)
    prompt = tokenizer.prompt_ids(MESSAGES)
    thinking = [*prompt, *tokenizer.tokenizer.encode("<think>\n", add_special_tokens=False)]
    assert tokenizer.decode(tokenizer.answer_ids("<think>\nr</think>", prompt)) == "<think>\nr</think>"
    assert tokenizer.decode(tokenizer.answer_ids("<think>\nr</think>", thinking)) == "r</think>"
    assert tokenizer.decode(tokenizer.answer_ids("r</think>", thinking)) == "r</think>"
