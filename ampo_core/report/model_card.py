"""The model card beside a policy: README.md, from what the run's own files say and nothing else.

What they do not say is called unknown. The text stands in model_card.jinja, what fills it in card_facts.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from ampo_registry.errors import AmpoError

from ampo_core.config.yaml_source import dump_yaml
from ampo_core.report.card_facts import CardRun, generate_options, messages, sampling_defaults, serve_options
from ampo_core.report.markdown import cell
from ampo_core.report.marks import patches
from ampo_core.report.settings import auxiliary, in_words, intervention
from ampo_core.report.spent import read_spent

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

CARD = "README.md"
TEMPLATE = Path(__file__).with_name("model_card.jinja")
LICENCE = ("license", "license_name", "license_link")


def write_card(run_folder: Path, say: Callable[[str], None], step: int, policy: Path) -> None:
    """Write README.md into `policy`, which holds the model of the run in `run_folder` after `step`.

    Where that fails, it says so: a run goes on without the card.
    """
    try:
        model_card(run_folder, step, policy).save(policy / CARD)
    except Exception as error:
        reason = str(error) if isinstance(error, AmpoError) else repr(error)
        say(f"the model card of step {step} could not be written: {reason}")


def model_card(run_folder: Path, step: int, policy: Path) -> ModelCard:
    """The card of the train or sft run in `run_folder` after `step`, whose model lies in `policy`.

    Raises ConfigError if a file of the run cannot be read.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from jinja2 import Environment, StrictUndefined

    run = CardRun.read(run_folder, step)
    licence = base_licence(run)
    environment = Environment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)
    environment.filters |= {"cell": cell, "code": code, "number": number, "repr": repr, "words": in_words}
    config = dump_yaml(run.config).rstrip()
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        value=run.value,
        intervention=intervention(run.config),
        terms=auxiliary(run.config),
        messages=messages(run),
        generate_options=generate_options(run),
        serve_options=serve_options(run),
        inherited=sampling_defaults(policy),
        config=config,
        fence="`" * max(3, longest_fence(config) + 1),
        licence=licence.get("license_name") or licence.get("license"),
        spent=read_spent(run_folder, step).without_time(),
        patches=patches(run_folder, step),
    )
    data = ModelCardData(
        base_model=run.base_on_hub,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["ampo", "sft"] if run.job == "sft" else ["ampo", "grpo", "rlvr"],
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{text}")


def base_licence(run: CardRun) -> dict[str, str]:
    """The licence of the base model by the Hub's keys, if its own card lies on this machine and names one."""
    from huggingface_hub import ModelCard, try_to_load_from_cache

    name = run.base_on_hub
    card = str(Path(run.line.base) / CARD) if name is None else try_to_load_from_cache(name, CARD)
    if not isinstance(card, str) or not Path(card).is_file():
        return {}
    try:
        data = ModelCard.load(Path(card), ignore_metadata_errors=True).data.to_dict()
    except (OSError, ValueError, yaml.YAMLError):  # a card that cannot be read names no licence
        return {}
    return {key: str(data[key]) for key in LICENCE if data.get(key)}


def number(value: float | None) -> str:
    """A metric to read; a line of metrics has null for what is not finite."""
    return "not finite" if value is None else f"{value:.4g}"


def code(value: object) -> str:
    """`value` as code in the cell of a Markdown table."""
    text = cell(value)
    fence = "`" * (longest_fence(text) + 1)
    return f"{fence}{text}{fence}" if "`" not in text else f"{fence} {text} {fence}"


def longest_fence(text: str) -> int:
    """The length of the longest run of backticks in `text`."""
    return max((len(run) for run in re.findall("`+", text)), default=0)
