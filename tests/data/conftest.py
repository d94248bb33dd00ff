"""Fixtures of the data tests."""

from pathlib import Path

import pytest

from ampo_core.config.tree import ModelConfig
from ampo_core.data.tokens import PromptTokenizer, load_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    return GOLDEN / "tokenizer"


@pytest.fixture(scope="session")
def prompt_tokenizer(golden_folder) -> PromptTokenizer:
    return load_tokenizer(ModelConfig(path=str(golden_folder)))
