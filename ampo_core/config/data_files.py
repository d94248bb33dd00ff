"""Where rows come from: files, data sets of the Hugging Face Hub; and what a job reads of them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ampo_registry.specs import RewardSpec
from pydantic import Field, PositiveFloat, PositiveInt

from ampo_core.config.layouts import ColumnsField, LayoutField, PatternField, SaysLayout
from ampo_core.config.nodes import KeyPath
from ampo_core.config.tree import Block
from ampo_core.config.values import PathText

SYSTEM_PROMPT = "keep, drop, or a text that takes the place of every row's system prompt"


class HubData(Block):
    """Rows of a data set of the Hugging Face Hub, or of a folder laid out like one; the package datasets reads it."""

    hub: PathText = Field(description="name on the Hub, e.g. openai/gsm8k, or a folder laid out like a data set there")
    split: str = Field(min_length=1, description="of the data set: train, test, train[:500], …")
    config: str | None = Field(default=None, description="configuration of the data set; null = its only one")
    revision: str | None = Field(default=None, description="commit, tag or branch; null = the newest")

    def __str__(self) -> str:
        """What reports and errors call it, and what a manifest lists it under."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.hub}{at} ({', '.join(filter(None, (self.config, self.split)))})"


def data_name(said: object) -> str:
    """What `str` calls a data file that stands in a config in JSON types."""
    return str(HubData.model_validate(said)) if isinstance(said, Mapping) else str(said)


DataFile = PathText | HubData
"""What stands in a config where a file of data is named."""
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class DataRead:
    """Rows that a job reads: the key that says so, the file, how its rows are read, and which of them (`where`).

    They are questions, whose answers `reward` judges; or examples, of which nothing is verified; or conversations in
    the column `messages`.
    """

    path: KeyPath
    file: str | HubData
    layout: SaysLayout
    where: Mapping[str, Scalar] = field(default_factory=dict)
    format: Literal["questions", "examples", "messages"] = "questions"
    reward: RewardSpec | None = None


class DataConfig(Block):
    """Training questions."""

    train: list[DataFile] = Field(
        min_length=1,
        description="files of questions (.parquet, .jsonl, .json, .csv), or {hub: NAME, split: train}",
    )
    layout: LayoutField = None
    columns: ColumnsField = None
    answer_pattern: PatternField = None
    max_prompt_tokens: PositiveInt = Field(default=1024, description="longest prompt")
    overlong_prompts: Literal["drop", "cut"] = Field(
        default="drop", description="cut keeps the last max_prompt_tokens tokens"
    )
    system_prompt: str = Field(default="keep", description=SYSTEM_PROMPT)
    shuffle: bool = Field(
        default=True, description="a new order each epoch, from the run's seed; false keeps the order of the files"
    )
    weights: list[PositiveFloat] | None = Field(
        default=None, description="share of each file of `train` in the stream of questions; null = by rows"
    )


def is_here(data: HubData) -> bool:
    """Whether `data` is a folder on this machine, or in the cache of the package datasets."""
    return os.path.isdir(data.hub) or bool(cached_tables(data))


def is_commit(revision: str) -> bool:
    """Whether `revision` is the hash of a commit, whole: the package datasets keeps what it has loaded under it."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def cached_tables(data: HubData) -> list[Path]:
    """The Arrow files of all splits of `data` in the cache of the package datasets, the newest copy's; none where
    there are several configs and `data` names none. A revision that is no commit fits any copy."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    commit = data.revision if data.revision and is_commit(data.revision) else "*"
    copies: dict[Path, list[Path]] = {}
    for table in sorted(cache.glob(f"{_kept_as(data.hub)}/{data.config or '*'}/*/{commit}/*.arrow")):
        copies.setdefault(table.parent, []).append(table)
    if len({copy.parents[1] for copy in copies}) > 1:
        return []
    return copies[max(copies, key=lambda folder: folder.stat().st_mtime)] if copies else []


def _kept_as(hub: str) -> str:
    """The folder that the package datasets keeps a data set in: OpenAI/GSM8K-Hard in OpenAI___gsm8_k-hard
    (`camelcase_to_snakecase` of datasets/naming.py, which is not imported for a name)."""
    owner, slash, name = hub.rpartition("/")
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    name = re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()
    return f"{owner}___{name}" if slash else name
