"""docs/trouble.md names keys, values and metrics that are there."""

from __future__ import annotations

import re
from pathlib import Path

from ampo_core.config.jobs import JOBS
from ampo_core.config.load import load_config
from tests.docs.keys import PLUGINS, is_key
from tests.docs.test_loop_page import FAMILIES, documented

ROOT = Path(__file__).parents[2]
SPANS = re.findall(r"`([^`]+)`", ROOT.joinpath("docs/trouble.md").read_text("utf-8"))
BLOCKS = "|".join(JOBS["train"].model_fields)


def test_keys_and_their_values(tmp_path):
    config = tmp_path / "base.yaml"
    config.write_text("job: train\nmodel: {path: student}\ndata: {train: [train.parquet]}\n", encoding="utf-8")
    named = [span for span in SPANS if re.match(rf"(?:{BLOCKS})\.[a-z_.]+(?:$|: )", span)]
    assert len(named) > 40
    for span in named:
        key, _, value = span.partition(": ")
        assert is_key(key.split(".")), span
        if value and "rollout" not in key:
            load_config(config, [f"{key}={value}"], PLUGINS)


def test_metrics():
    named = {span for span in SPANS if re.fullmatch(rf"(?:{FAMILIES})/\w[\w/]*", span)}
    assert len(named) > 15
    assert named <= documented()
